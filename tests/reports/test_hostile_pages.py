"""Text from data in every place of every page: it adds no element and no attribute, and a reader sees all of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import HOSTILE, PAGES, Read

from donod_fast.system.escaping import is_hidden, readable

TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from([*HOSTILE, *"<>&\"'/=`*", "x"]), max_size=4).map("".join),
    st.text(st.characters(codec=None), max_size=30),
)
OURS = {"K", "S", "C", "N", "F", "B", "D"}
"""Classes of a coloured program."""

ALL = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


@ALL
@given(text=TEXTS.filter(lambda text: text.strip() != ""))
@settings(max_examples=40, deadline=None)
def test_no_text_of_data_adds_an_element_or_an_attribute(page: Callable[[str], str], text: str) -> None:
    read, plain = Read(page(text)), Read(page("x"))
    assert not read.open
    assert _without_colours(read) == _without_colours(plain)
    assert read.classes - OURS == plain.classes - OURS


@ALL
@given(text=TEXTS)
@settings(max_examples=40, deadline=None)
def test_all_text_of_data_is_seen_and_none_is_hidden(page: Callable[[str], str], text: str) -> None:
    written = page(text)
    assert not [one for one in written if is_hidden(one) and one not in "\n\t"]
    written.encode("utf-8")
    read = Read(written)
    # Markup of our own sentences takes its marks; rows show ends of lines and odd spaces by name; ends are stripped.
    letters = re.findall(r"[^\W_]{2,}|[<>&\"'/={}\[\]\\;:()!-]+", readable(text))
    assert all(part in read.text for part in letters), [part for part in letters if part not in read.text]


def _without_colours(read: Read) -> list[tuple[str, tuple[str, ...]]]:
    """Elements; of emphasis and coloured pieces of a program only that they have no attribute of data."""
    ours = {("span", ("class",)), ("strong", ()), ("code", ())}
    return [one for one in read.elements if one not in ours]
