"""Pages to test: each written from one text in every place where data can stand, and how a page is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html.parser import HTMLParser

import numpy as np

from donod_fast.data.viewing import Piece, RowView
from donod_fast.evaluation.browser import Entry
from donod_fast.reports.compare_page import comparison_page
from donod_fast.reports.document import (
    Code,
    Document,
    Items,
    Linked,
    Map,
    Number,
    Picture,
    Section,
    Table,
    Text,
    Warned,
    document_page,
)
from donod_fast.reports.programs_page import programs_page
from donod_fast.reports.row_page import row_page
from donod_fast.selection.comparison import Comparison
from donod_fast.selection.comparison.yardstick import Drawn, Spread, Yardstick

HOSTILE = (
    "<script>document.title='taken'</script>",
    "</script><!--<script>",
    "</style><style>*{display:none}</style>",
    "<img src=x onerror=\"document.title='taken'\">",
    '" onmouseover="document.title=\'taken\'" x="',
    "' autofocus onfocus='document.title=1",
    "</pre></details></section></title><h1>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "**bold** `code` <b>",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m\r\b",
    "\u202eabc\u2066\u200b\u200e",
    "a\x00b\ud800\udfff",
    "]]>&lt;&#60;&amp;",
    "# comment\n'''text\n\"\"\"",
    "\n\n  indented\t\n",
)
"""Texts that markup, scripts, terminals and readers could take for something else than data."""

VOID = ("meta", "br", "img", "input", "link")


class Read(HTMLParser):
    """Elements with the names of their attributes in order, all text, and all values of attributes."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.classes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.values: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.open += [] if tag in VOID else [tag]
        self.values += [value or "" for _, value in attrs]
        self.classes |= {name for attribute, value in attrs if attribute == "class" for name in (value or "").split()}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a page has no comments, and this one has {data!r}")


def rows(text: str) -> str:
    """Rows of which one has a mask and losses, one only a text, one a record, and one a broken line."""
    pieces = (
        Piece(text, (1,), (text,), True, False, (0.5,)),
        Piece(text, (2, 3), (text, text), False, True),
        Piece("", (4,), (text,), True, False, (math.inf,)),
    )
    about = (text, text, text, text, text, text, text, text, text)
    rest = (7, 2, True, (text, text), (text,), 1)
    views = [
        RowView(0, *about[1:], *rest, pieces, scores={text: 0.5, "status": text}),
        RowView(1, *about[1:], *rest, (), text=text),
        RowView(2, *about[1:], *rest, (), record={text: [text]}),
        RowView(3, *about[1:], *rest, (), raw=text),
    ]
    return "".join(row_page(text, views))


def comparison(text: str) -> str:
    """Criteria whose names are columns of the data."""
    spread = Spread(0.3, 0.1, 0.5)
    drawn = {kind: Drawn(spread, spread, spread, spread) for kind in ("rows", "tokens", "lengths")}
    matrix = np.array([[1.0, 0.999, -0.999], [0.999, 1.0, math.nan], [-0.999, math.nan, 1.0]])
    names = (text, f"{text}.", f"{text}-")
    yardsticks = tuple(Yardstick(name, 20, 5.0, 1.0, drawn, 0.9) for name in names[:2])
    found = Comparison(
        names, ("high", "low", "as is"), (50, 50, 50), (20, 20, 0), matrix, abs(matrix), "spearman", 0.4, 50, 90,
        "range", yardsticks,
    )  # fmt: skip
    return document_page(comparison_page(found, text))


def programs(text: str) -> str:
    """Programs of a model, in one that is coloured and one that is not."""
    entries = [
        Entry(text, 0, text, text, False, True, text, f"def f():\n    return {text!r}\n{text}"),
        Entry(text, 1, "passed", "", True, None, text, text),
    ]
    return "".join(programs_page(entries, text, of=3))


def document(text: str) -> str:
    """Every kind of block."""
    cells = ((text, Number(1.0, text)), (Linked(text, "rows.html#row=1"), Number(math.nan, text)))
    table = Table((text, "n"), cells, text)
    blocks = (
        Text(text), Warned(text), Items((text, text)), table, Code(text),
        Map(text, (text, text), ((1.0, -0.5), (math.nan, 1.0)), text),
        Picture("name", text, text, "<svg></svg>", b""),
    )  # fmt: skip
    return document_page(Document(text, text, {text: text}, (Section(text, blocks), Section(text, (), folded=True))))


PAGES: Mapping[str, Callable[[str], str]] = {
    "rows": rows,
    "comparison": comparison,
    "programs": programs,
    "document": document,
}
