"""Counts and sizes in words."""

from __future__ import annotations

import pytest

from donod_fast.system.wording import byte_size, plural


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (2000, ("row",), "2,000 rows"),
        (1, ("batch", "batches"), "1 batch"),
        (3, ("batch", "batches"), "3 batches"),
    ],
)
def test_a_count_has_the_right_form_of_its_noun(count: int, nouns: tuple[str, ...], text: str) -> None:
    assert plural(count, *nouns) == text


@pytest.mark.parametrize(
    ("number", "text"), [(31_000, "30 KiB"), (458_227_712, "437 MiB"), (13_529_146_982, "12.6 GiB")]
)
def test_bytes_are_shown_in_a_unit_that_suits_them(number: int, text: str) -> None:
    assert byte_size(number) == text
