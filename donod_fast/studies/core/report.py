"""A study's report, written as Markdown and as one self-contained HTML file.

The Markdown links to picture files in the same folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from donod_fast.reports.document import (
    Block,
    Code,
    Document,
    Items,
    Linked,
    Map,
    Number,
    Picture,
    Table,
    Text,
    Value,
    Warned,
    document_page,
)
from donod_fast.studies.core.tables import write_bytes

MARKDOWN, PAGE = "report.md", "report.html"
PICTURES = "pictures"


def write_report(report: Document, out: Path) -> tuple[Path, Path]:
    """Write ``report.md`` with its pictures, and ``report.html``; returns both paths.

    Raises:
        StoreError: a file cannot be written.
    """
    page = document_page(report)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                write_bytes(out / PICTURES / f"{block.name}.png", block.png)
    write_bytes(out / MARKDOWN, as_markdown(report).encode())
    write_bytes(out / PAGE, page.encode())
    return out / MARKDOWN, out / PAGE


def as_markdown(report: Document) -> str:
    """The report in GitHub's Markdown."""
    parts = [f"# {report.title}", report.summary]
    if report.facts:
        parts.append("\n".join(f"- {name}: {value}" for name, value in report.facts.items()))
    for section in report.sections:
        parts.append(f"## {section.heading}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Text(text):
            return text
        case Warned(text):
            return f"**{text}**"
        case Items(items):
            return "\n".join(f"- {item}" for item in items)
        case Code(text):
            return f"```\n{text}\n```"
        case Picture():
            return f"![{block.alt}]({PICTURES}/{block.name}.png)\n\n{block.caption}"
        case Table():
            return _markdown_table(block)
        case Map():
            return _markdown_table(_table_of(block))


def _markdown_table(table: Table) -> str:
    rows = [
        [f"**{shown}**" if at in table.emphasis and shown else shown for shown in map(_shown, row)]
        for at, row in enumerate(table.rows)
    ]
    align: Callable[[int], str] = lambda at: "---:" if table.is_numeric(at) else "---"  # noqa: E731
    head = [name.replace("|", "\\|") for name in table.columns]
    lines = [head, [align(at) for at in range(len(head))], *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{table.caption}" if table.caption else text


def _table_of(block: Map) -> Table:
    rows: list[tuple[Value, ...]] = [
        (label, *(Number(0.0, cell.text) for cell in cells)) for label, cells in block.cells()
    ]
    return Table(("", *block.labels), tuple(rows), block.caption)


def _shown(value: Value) -> str:
    text = (value if isinstance(value, str) else value.text).replace("|", "\\|")
    return f"[{text}]({value.address})" if isinstance(value, Linked) else text


__all__ = ["MARKDOWN", "PAGE", "PICTURES", "as_markdown", "write_report"]
