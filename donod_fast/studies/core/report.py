"""A report as a value, written as Markdown and as one self-contained HTML file.

A report consists of sections with paragraphs, lists, tables and pictures. The Markdown links to picture files in the
same folder. In HTML pictures are inline SVG in the colours of the reader's light or dark theme.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from donod_fast.errors import InputError
from donod_fast.studies.core.tables import write_bytes

MARKDOWN, PAGE = "report.md", "report.html"
PICTURES = "pictures"


class Number(NamedTuple):
    """A cell of a table that sorts by a number and shows a text."""

    value: float
    text: str


Value = str | Number


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. The only supported markup is ``**bold**`` and `` `code` ``."""

    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list of such paragraphs."""

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


Block = Text | Items | Table | Picture | Code


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its content; in HTML a ``folded`` section is collapsed until the reader opens it."""

    heading: str
    blocks: tuple[Block, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A title, a paragraph, key facts (name → value), and sections."""

    title: str
    summary: str
    facts: Mapping[str, str]
    sections: tuple[Section, ...]


def write_report(report: Report, out: Path) -> tuple[Path, Path]:
    """Write ``report.md`` with its pictures, and ``report.html``; returns both paths.

    Raises:
        InputError: Jinja is not installed.
        StoreError: a file cannot be written.
    """
    page = as_html(report)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                write_bytes(out / PICTURES / f"{block.name}.png", block.png)
    write_bytes(out / MARKDOWN, as_markdown(report).encode())
    write_bytes(out / PAGE, page.encode())
    return out / MARKDOWN, out / PAGE


def as_markdown(report: Report) -> str:
    """The report in GitHub's Markdown."""
    parts = [f"# {report.title}", report.summary]
    if report.facts:
        parts.append("\n".join(f"- {name}: {value}" for name, value in report.facts.items()))
    for section in report.sections:
        parts.append(f"## {section.heading}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_html(report: Report) -> str:
    """The report as one HTML page without external scripts, styles, fonts or pictures.

    Raises:
        InputError: Jinja is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise InputError("an HTML report needs Jinja: pip install 'donod-fast[study]'") from error
    environment = Environment(
        loader=PackageLoader("donod_fast.studies.core"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda text: Markup(_inline_html(text))
    environment.filters["svg"] = lambda text: Markup(text)
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["number"] = lambda value: isinstance(value, Number)
    environment.filters["sort_key"] = lambda value: repr(float(value)) if math.isfinite(value) else ""
    return environment.get_template("report.html.j2").render(report=report)


def _markdown_block(block: Block) -> str:
    match block:
        case Text(text):
            return text
        case Items(items):
            return "\n".join(f"- {item}" for item in items)
        case Code(text):
            return f"```\n{text}\n```"
        case Picture():
            return f"![{block.alt}]({PICTURES}/{block.name}.png)\n\n{block.caption}"
        case Table():
            return _markdown_table(block)


def _markdown_table(table: Table) -> str:
    rows = [
        [f"**{shown}**" if at in table.emphasis and shown else shown for shown in map(_shown, row)]
        for at, row in enumerate(table.rows)
    ]
    align: Callable[[int], str] = lambda at: "---:" if _numeric(table, at) else "---"  # noqa: E731
    head = [name.replace("|", "\\|") for name in table.columns]
    lines = [head, [align(at) for at in range(len(head))], *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{table.caption}" if table.caption else text


def _numeric(table: Table, column: int) -> bool:
    return any(isinstance(row[column], Number) for row in table.rows)


def _shown(value: Value) -> str:
    text = value.text if isinstance(value, Number) else value
    return text.replace("|", "\\|")


def _inline_html(text: str) -> str:
    from markupsafe import escape

    escaped = str(escape(text))
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)


__all__ = [
    "MARKDOWN", "PAGE", "PICTURES", "Block", "Code", "Items", "Number", "Picture", "Report", "Section", "Table", "Text",
    "Value", "as_html", "as_markdown", "write_report",
]  # fmt: skip
