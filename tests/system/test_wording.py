"""Counts and sizes in words."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from attack_counts import Attacks
from canaries import PLACES, canary, leaks

import donod_fast
from donod_fast.system.wording import byte_size, plural, shortened


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


@pytest.mark.attack
def test_a_secret_is_hidden_before_a_message_is_cut(attacks: Attacks) -> None:
    number, found = attacks.number(300, 6_000), []
    for seed in range(number):
        draw, secret = random.Random(seed), canary(seed)
        url = draw.choice(list(PLACES.values())).format(scheme="https", secret=secret, host="h", path="x.jsonl")
        error = OSError("a" * draw.randrange(150) + f" cannot read {url}: refused")
        for longest in range(1, len(str(error)), 7):
            said = shortened(error, longest)
            assert len(said) <= longest and "\n" not in said
            found += [said] * bool(leaks([secret[:12]], [said]))
    attacks.count("secrets", "a URL in a message that is cut", tried=number, got_through=len(found))
    assert not found


def test_no_message_of_a_library_is_cut_in_another_way() -> None:
    cut = re.compile(r"str\((?:error|failure|answer|caught)\).*\[:[\w.]+\]")
    place = Path(donod_fast.__file__).parent
    files = [file for file in place.rglob("*.py") if "evaluation" not in file.parts]  # programs there know no secret
    assert len(files) > 200
    assert not [f"{file}: {line}" for file in files for line in file.read_text().splitlines() if cut.search(line)]
