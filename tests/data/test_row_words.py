"""What is said of a row: the terminal and the pages have as many shades, and mark every kind of hidden text."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from donod_fast.cli import shown_text
from donod_fast.data.row_words import SHADE_NATS, STEPS, shade_of
from donod_fast.system.escaping import CLOSE, NEW_LINE, OPEN, is_hidden, one_line, visible


def test_a_terminal_has_a_colour_for_each_shade() -> None:
    assert len(shown_text._SHADES) == STEPS
    assert [shade_of([SHADE_NATS * (step + 0.5)]) for step in range(STEPS + 2)] == [*range(STEPS), STEPS - 1, STEPS - 1]
    assert shade_of([]) == 0
    assert shade_of([float("nan")]) == shade_of([float("inf")]) == STEPS - 1


@given(st.text(st.characters(codec=None), max_size=60))
def test_visible_text_hides_nothing_and_loses_nothing(text: str) -> None:
    seen = visible(text)
    assert not any(is_hidden(one) and one != "\n" for one in seen)
    assert seen.count(NEW_LINE) == text.count("\n") == seen.count("\n")
    assert OPEN not in seen and CLOSE not in seen
    assert visible(text) == "".join(map(visible, text))  # no character depends on its neighbours
    assert one_line(text) == seen.replace("\n", "")
    assert all(one in seen for one in text if unicodedata.category(one)[0] in "LN" and not is_hidden(one))
