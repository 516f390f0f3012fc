"""How objects show themselves: as text in a terminal, and as escaped HTML in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from donod_fast.system.escaping import escaped


def as_pre(text: str) -> str:
    """Text in a block of fixed width. Markup and characters that nobody sees are shown as text."""
    return f"<pre>{html.escape(escaped(text))}</pre>"


def as_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A small table in HTML, everything escaped."""
    head = "".join(f"<th>{_cell(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(value: object) -> str:
    """A value of a column in a table: six digits of a number, the beginning of a long text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(value).split()) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def counts(by_status: dict[str, int]) -> str:
    """``7,470 scored, 3 too_long``: scored first, then by number."""
    order = sorted(by_status, key=lambda name: (name != "scored", -by_status[name], name))
    return ", ".join(f"{by_status[name]:,} {name}" for name in order)


class Text(str):
    """A text that a terminal and a notebook show as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return as_pre(self)


def _cell(value: object) -> str:
    return html.escape(escaped(number(value)))


__all__ = ["Text", "as_pre", "as_table", "counts", "number"]
