"""Rows as the model sees them, as one page: ``donod-fast show --html``.

A row is made, written and forgotten before the next one is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from donod_fast.data.row_words import STEPS, facts, shade_of, text_of_piece, unmasked_text
from donod_fast.data.viewing import Piece, RowView
from donod_fast.reports.shell import page_pieces
from donod_fast.system.escaping import one_line, visible

_HUES = tuple(round(130 - 130 * step / (STEPS - 1)) for step in range(STEPS))  # green to red

SHADES = "\n".join(
    f".l{step} {{ background: hsl({hue} 65% var(--light)); box-shadow: inset 0 -2px hsl({hue} 65% 45%); }}"
    for step, hue in enumerate(_HUES)
)
"""Style of the shades of loss, from green to red."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a conversation.

    Attributes:
        kind: classes of the page's style, ``""`` for none; never text from data.
        about: what a reader sees who points at it.
        text: visible text.
    """

    kind: str
    about: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row for the macro ``row``.

    Attributes:
        row: its number.
        heading: where it is.
        lines: facts about it.
        spans: its tokens; empty for a row without a mask.
        text: what is shown of a row without a mask.
    """

    row: int
    heading: str
    lines: list[str]
    spans: list[Span]
    text: str

    @staticmethod
    def of(view: RowView) -> ShownRow:
        """From a view."""
        heading, *lines = (one_line(line) for line in facts(view))
        starts = accumulate((len(piece.ids) for piece in view.pieces), initial=0)
        spans = [span(piece, start) for piece, start in zip(view.pieces, starts, strict=False)]
        text = "" if spans else visible(unmasked_text(view)[1])
        return ShownRow(view.row, heading, [line.strip() for line in lines], spans, text)


def span(piece: Piece, start: int) -> Span:
    """A piece of a conversation whose first token is the ``start``-th of the row."""
    kind = f"s l{shade_of(piece.losses)}" if piece.losses else "s" if piece.scored else "x" if piece.special else ""
    about = f"token {start}, id {'+'.join(map(str, piece.ids))}, {one_line(' '.join(piece.names))}"
    if piece.losses:
        about += f", loss {math.fsum(piece.losses):.4f}"
    return Span(kind, about, text_of_piece(piece))


def row_page(title: str, views: Iterable[RowView]) -> Iterator[str]:
    """The page in pieces; views are read one by one."""
    return page_pieces("rows.html.j2", title=one_line(title), styles=(SHADES,), rows=map(ShownRow.of, views))


__all__ = ["SHADES", "ShownRow", "Span", "row_page", "span"]
