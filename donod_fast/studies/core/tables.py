"""Read the rows of a corpus; write Markdown tables, CSV, JSON and text files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from donod_fast.errors import CorpusError, InputError
from donod_fast.system.files import atomic_writer, storage_error

Rows = Sequence[Mapping[str, Any]]
Data = Rows | str | Path | Sequence[str | Path]


def read_rows(data: Data, *, skip: int = 0, count: int | None = None) -> list[dict[str, Any]]:
    """Records of a corpus, as plain dicts.

    Args:
        data: records, or paths of files (in their order one sequence of rows).
        skip: rows to skip at the start, such as those that the model was trained on.
        count: number of rows after these; None for all.

    Raises:
        CorpusError: an input cannot be read, holds a row that cannot be parsed, or has no rows after ``skip``.
        InputError: ``skip`` or ``count`` is negative.
    """
    if skip < 0 or (count is not None and count < 1):
        raise InputError(f"skip must be at least 0 and count at least 1, got {skip} and {count}")
    from donod_fast.scoring.scorer import as_corpus

    corpus = as_corpus(data)
    rows = []
    for record in corpus.records(skip, None if count is None else skip + count):
        if record.data is None:
            raise CorpusError(f"{record.file}, {record.place}: {record.problem}; a study needs rows that can be read")
        rows.append(dict(record.data))
    if not rows:
        raise CorpusError(f"no row is left after the first {skip} of {corpus.rows}; skip fewer")
    return rows


def need(package: str, extra: str) -> None:
    """Refuse a missing package before any work is done.

    Raises:
        InputError: the package is not installed; the message names the extra that has it.
    """
    if find_spec(package) is None:
        raise InputError(f"this study needs the package {package}: pip install 'donod-fast[{extra}]'")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the first column aligned to the left and the others to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)) + "\n"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV with the union of their columns, in order of appearance; six digits, NaN and infinity empty.

    Raises:
        StoreError: the file cannot be written.
    """
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in _finite(row).items()} for row in rows)
    write_text(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON; NaN and infinity, which JSON does not have, become null.

    Raises:
        StoreError: the file cannot be written.
    """
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically.

    Raises:
        StoreError: the file cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; its folder is created if needed.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    with atomic_writer(path) as file:
        file.write(content)


def _plain(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
