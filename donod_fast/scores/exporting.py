"""Export the records of a scores folder with their scores: a Parquet, CSV or JSON Lines file, or a dataset folder."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from donod_fast.data.reading import Corpus
from donod_fast.data.record_files import CSV, JSON_LINES, PARQUET, compressing, json_line, write_csv, write_parquet
from donod_fast.data.types import Record
from donod_fast.errors import InputError, StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.system.files import atomic_writer, storage_error

PREFIX = "donod."
"""Prefix of the names of scores among the columns of a record."""

RECORD = "record"
"""The column that holds a whole record as JSON."""

DATASET_INFO = "dataset_info.json"
"""File that ``datasets`` writes into the folder of a saved dataset."""

_FILES = (PARQUET, CSV, *JSON_LINES)


def export(
    folder: ScoresFolder, corpus: Corpus, out: Path, *, records: str = "columns", overwrite: bool = False
) -> int:
    """Write every row of a finished folder with its record, in input order, and return how many there are.

    The scores are the columns ``donod.row``, ``donod.status``, ``donod.don`` and so on; they are null where the row
    has none. Memory stays flat: the corpus is streamed twice, once to find the types of its columns.

    Args:
        folder: the scores.
        corpus: the scored records.
        out: a name that ends in ``.parquet``, ``.csv``, ``.jsonl``, ``.jsonl.gz`` or ``.jsonl.zst``; or, without a
            suffix, the folder of a dataset (``datasets.load_from_disk`` reads it). In CSV, lists and objects are
            JSON text.
        records: ``"columns"`` for the record's own columns, ``"json"`` for one column ``record`` of JSON text, which
            also holds records whose values cannot form columns (text in one row and a number in another).
        overwrite: replace an existing target.

    Raises:
        InputError: a column's values cannot form one column (named), a column has the name of a score, or ``out`` has
            a suffix of another kind of file.
        CorpusError: an input cannot be read, or has changed since it was scored.
        StoreError: the folder is unfinished, or the target exists or cannot be written, or it is a folder that holds
            something other than a saved dataset.
    """
    if records not in ("columns", "json"):
        raise InputError(f"records must be columns or json, got {records!r}")
    refuse_export_name(out)
    folder.part_files()  # all are there
    if out.exists() and not overwrite:
        raise StoreError(f"{out} exists already; give another name, or add --overwrite")
    is_file = out.name.lower().endswith(_FILES)
    if not is_file:
        _refuse_other_folder(out)

    def rows() -> Iterator[Record]:
        return _joined(folder, corpus, as_json=records == "json")

    if not is_file:
        _save_dataset(rows, out)
        return folder.rows
    if out.is_dir():
        raise StoreError(f"{out} is a folder; give the name of a file")
    name = out.name.lower()
    with atomic_writer(out) as file:
        if name.endswith(PARQUET):
            write_parquet(rows, file)
        elif name.endswith(CSV):
            write_csv(rows, file)
        else:
            with compressing(file, name) as stream:
                for record in rows():
                    stream.write(json_line(record))
    return folder.rows


def refuse_export_name(out: Path) -> None:
    """Refuse the name of a file of an unsupported kind, which would otherwise become a folder.

    Raises:
        InputError: names the supported kinds.
    """
    if re.fullmatch(r"\.[A-Za-z]\w*", out.suffix) and not out.name.lower().endswith(_FILES):
        raise InputError(
            f"{out}: cannot write {out.suffix} files; end the name in {', '.join(_FILES)}, "
            "or give a name without a suffix for a folder that datasets.load_from_disk reads"
        )


def _refuse_other_folder(out: Path) -> None:
    """Refuse to replace what is not a saved dataset: the whole folder would be deleted."""
    if out.exists() and not (out / DATASET_INFO).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise StoreError(f"{out} is not a saved dataset, and --overwrite would delete it; give another name")


def _joined(folder: ScoresFolder, corpus: Corpus, *, as_json: bool) -> Iterator[Record]:
    """Records whose data contain their own columns and their scores."""
    known = {column.name for entry in folder.signals for column in entry.columns}
    left_out = known - {column.name for column in folder.signal_columns()}
    for part in range(folder.parts):
        table = folder.read_part(part)
        if table is None:
            raise StoreError(f"{folder.storage.url(folder.part_name(part))} is gone; run `donod-fast score` again")
        scores = table.select(
            [name for name in table.column_names if not name.startswith("record.") and name not in left_out]
        ).to_pylist()
        for record, row in zip(corpus.records(*folder.part_range(part)), scores, strict=True):
            own: dict[str, Any] = _as_json(record) if as_json else dict(record.data or {})
            taken = [name for name in own if name.startswith(PREFIX)]
            if taken:
                raise InputError(
                    f"{record.file}, {record.place}: column {taken[0]!r} has the name of a score; use --records json"
                )
            yield replace(
                record, raw=None, data={**own, **{PREFIX + name: _known(value) for name, value in row.items()}}
            )


def _as_json(record: Record) -> dict[str, Any]:
    if record.raw is not None:
        return {RECORD: record.raw.decode("utf-8", errors="replace")}
    if record.data is None:
        return {}
    return {RECORD: json.dumps(record.data, ensure_ascii=False, default=str)}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _save_dataset(rows: Any, out: Path) -> None:
    import datasets

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent) as place:
            table, saved = Path(place) / "rows.parquet", Path(place) / "saved"
            with table.open("wb") as file:
                write_parquet(rows, file)
            with _no_bars():
                dataset: Any = datasets.Dataset.from_parquet(str(table), cache_dir=str(Path(place) / "cache"))
                dataset.save_to_disk(str(saved))
            if out.is_dir():
                shutil.rmtree(out)
            saved.rename(out)
    except OSError as error:
        raise storage_error(out, error) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Progress bars of ``datasets`` hidden: they go to standard error, terminal or not."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


__all__ = ["export", "refuse_export_name"]
