"""Write rows of a tree of Parquet files as the same tree: each row in a file of its folder.

The rows of one folder are joined into as few files as ``FILE_BYTES`` allows, in the order of the inputs. A folder that
no row was chosen from is not made.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from donod_fast.data.reading.source import Source
from donod_fast.data.reading.streams import FileFacts
from donod_fast.data.source_tables import (
    ArrowSource,
    BatchCheck,
    arrow_sources,
    chosen_batches,
    common_schema,
    in_order,
    write_batches,
)
from donod_fast.errors import InputError, StoreError
from donod_fast.system.files import storage_error
from donod_fast.system.scratch import scratch_folder

FILE_BYTES = 512 << 20
"""Bytes of values in a file, about, before the next one begins."""


class ChosenRows(Protocol):
    """What is used here of ``own_targets.Chosen``."""

    @property
    def sources(self) -> Sequence[Source]:
        """The inputs of the corpus."""

    @property
    def order(self) -> Sequence[int] | None:
        """Row numbers in the order wanted; None for that of the inputs."""

    @property
    def check(self) -> BatchCheck | None:
        """The check of rows."""

    def rising(self) -> Iterable[int]:
        """Row numbers, ascending."""

    def refuse_missing(self, written: int) -> None:
        """Refuse fewer rows than were chosen."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of the tree: its path within, its inputs, and the rows of the corpus that they have."""

    path: str
    sources: tuple[ArrowSource, ...]
    first: int
    stop: int


def is_tree(sources: Sequence[Source]) -> bool:
    """Whether all inputs are tables of one tree."""
    places = [_tree(source) for source in sources]
    return (
        arrow_sources(sources) is not None
        and all(place is not None for place in places)
        and len({place.root for place in places if place is not None}) == 1
    )


def refuse_tree(out: Path, sources: Sequence[Source]) -> None:
    """Refuse inputs that are no tree, or have different columns within a folder. Raises InputError."""
    if not is_tree(sources):
        raise InputError(
            f"{out}: only rows of one tree of Parquet files go into a folder; end the name in .jsonl, .json or .parquet"
        )
    for folder in _folders(sources):
        common_schema(folder.sources)


def write_tree(chosen: ChosenRows, out: Path, overwrite: bool) -> None:
    """Write the rows to a new folder, which is complete or absent.

    Raises:
        StoreError: the folder exists and may not be replaced, holds something other than Parquet files, or cannot be
            written.
        CorpusError: an input cannot be read, or has changed.
    """
    _refuse_existing(out, overwrite)
    refuse_tree(out, chosen.sources)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(out.parent, ".donod-fast-tree-") as place:
            chosen.refuse_missing(_write_all(chosen, place / "tree"))
            _refuse_existing(out, overwrite)
            if out.exists():
                shutil.rmtree(out)
            (place / "tree").rename(out)
    except OSError as error:
        raise storage_error(out, error) from error


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise StoreError(f"{out} exists already; give another name, or add --overwrite")
    if not out.is_dir() or out.is_symlink():
        raise StoreError(f"{out} is not a folder; give another name")
    other = next((path for path in out.rglob("*") if path.is_symlink() or not _is_parquet_or_folder(path)), None)
    if other is not None:
        raise StoreError(f"{out} holds {other.name}, and --overwrite would delete it; give another name")


def _is_parquet_or_folder(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == ".parquet"


def _write_all(chosen: ChosenRows, root: Path) -> int:
    folders = _folders(chosen.sources)
    all_sources = arrow_sources(chosen.sources) or []
    stops = [folder.stop for folder in folders]
    written = at = 0

    def number(row: int) -> int:
        nonlocal at
        while row >= stops[at]:
            at += 1
        return at

    for which, rows in groupby(chosen.rising(), key=number):
        folder = folders[which]
        batches = chosen_batches(all_sources, rows, folder.stop - 1, chosen.check)
        if chosen.order is not None:
            order = [row for row in chosen.order if folder.first <= row < folder.stop]
            batches = in_order(batches, sorted(order), order)
        with _Files(root / folder.path, common_schema(folder.sources)) as files:
            written += write_batches(files.schema, batches, files)
    return written


class _Files:
    """Writes tables to ``part-00000.parquet`` and so on; it implements ``source_tables.TableWriter``."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._folder = folder
        self._writer: Any = None
        self._count = self._bytes = 0

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._folder / f"part-{self._count:05}.parquet", self.schema)
            self._count, self._bytes = self._count + 1, 0
        self._writer.write_table(table, row_group_size=row_group_size)
        self._bytes += table.nbytes
        if self._bytes >= FILE_BYTES:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _folders(sources: Sequence[Source]) -> list[_Folder]:
    """The folders of a tree in the order of the inputs, which is that of the folders."""
    stops = list(accumulate(source.rows for source in sources))
    found = []
    numbered = list(enumerate(arrow_sources(sources) or []))
    for path, members in groupby(numbered, key=lambda one: _path(one[1])):
        those = list(members)
        first, last = those[0][0], those[-1][0]
        begin = stops[first] - sources[first].rows
        found.append(_Folder(path, tuple(source for _, source in those), begin, stops[last]))
    return found


def _path(source: Source) -> str:
    place = _tree(source)
    return "" if place is None else place.folder


def _tree(source: Source) -> Any:
    facts: FileFacts | None = getattr(source, "facts", None)
    return None if facts is None else facts.tree


__all__ = ["FILE_BYTES", "is_tree", "refuse_tree", "write_tree"]
