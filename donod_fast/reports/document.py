"""A page of sections as a value: paragraphs, lists, tables, maps and pictures, written as one HTML file.

Pictures are inline SVG in the colours of the reader's light or dark theme. Texts of cells, names and titles may come
from data. The markup of :class:`Text` is read in our own sentences only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from donod_fast.reports.shell import SORT, page_pieces, script


class Number(NamedTuple):
    """A cell of a table that sorts by a number and shows a text."""

    value: float
    text: str

    @property
    def sort_key(self) -> str:
        """What the page sorts by; ``""`` for what is not a finite number."""
        return repr(float(self.value)) if math.isfinite(self.value) else ""


class Linked(NamedTuple):
    """A cell of a table that leads to another file of the same folder, or to a place in it.

    ``address`` is written by us: a text of data in it must be quoted (``urllib.parse.quote``).
    """

    text: str
    address: str


Value = str | Number | Linked


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. The only supported markup is ``**bold**`` and `` `code` ``."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """A sentence that a reader must not miss."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list of paragraphs, with their markup."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        columns: headings of the columns.
        rows: rows of cells, one per column.
        caption: one sentence below the table.
        emphasis: numbers of the highlighted rows (references).
        sortable: whether readers of the HTML can sort it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    caption: str = ""
    emphasis: frozenset[int] = frozenset()
    sortable: bool = True

    def is_numeric(self, column: int) -> bool:
        """Whether a column has a number."""
        return any(isinstance(row[column], Number) for row in self.rows)


class MapCell(NamedTuple):
    """A cell of a map: its class in the style, how strong its colour is in percent, and its text."""

    kind: str
    strength: int
    text: str


@dataclass(frozen=True, slots=True)
class Map:
    """A square table of numbers from −1 to 1, coloured by sign and size.

    Attributes:
        name: what the numbers are, for readers who cannot see the table.
        labels: names of the rows and columns.
        values: a row of numbers per label; NaN for none.
        caption: one sentence below.
    """

    name: str
    labels: tuple[str, ...]
    values: Sequence[Sequence[float]]
    caption: str = ""

    def cells(self) -> Iterator[tuple[str, list[MapCell]]]:
        """A label and its cells per row."""
        for label, row in zip(self.labels, self.values, strict=True):
            yield label, [_map_cell(value) for value in row]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture.

    Attributes:
        name: name of the picture's file.
        alt: description for readers who cannot see it.
        caption: one sentence below the picture.
        svg: the picture in ``currentColor``, for a page.
        png: the same on white, for a file.
    """

    name: str
    alt: str
    caption: str
    svg: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Code:
    """Commands or settings, shown verbatim."""

    text: str


Block = Text | Warned | Items | Table | Map | Picture | Code


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its content; in HTML a ``folded`` section is collapsed until the reader opens it."""

    heading: str
    blocks: tuple[Block, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A title, a paragraph, key facts (name → value), and sections."""

    title: str
    summary: str
    facts: Mapping[str, str]
    sections: tuple[Section, ...]


def document_pieces(document: Document) -> Iterator[str]:
    """The page in pieces; nothing in it is fetched from elsewhere."""
    return page_pieces("document.html.j2", title=document.title, scripts=(script(SORT),), document=document)


def document_page(document: Document) -> str:
    """The whole page."""
    return "".join(document_pieces(document))


def _map_cell(value: float) -> MapCell:
    if not math.isfinite(value):
        return MapCell("none", 0, "n/a")
    text = f"{value:.2f}".replace("-0.00", "0.00")
    return MapCell("minus" if value < 0 else "plus", min(100, round(100 * abs(value))), text.replace("-", "−"))


__all__ = [
    "Block",
    "Code",
    "Document",
    "Items",
    "Linked",
    "Map",
    "MapCell",
    "Number",
    "Picture",
    "Section",
    "Table",
    "Text",
    "Value",
    "Warned",
    "document_page",
    "document_pieces",
]
