"""Kinds of files and folders that hold chosen rows of inputs of the same kind, each with its own writer.

``TARGETS`` is the table. JSON, CSV and Parquet, which hold rows of other kinds too, are written by
``selection/subset.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from donod_fast.data.arrow_writing import ARROW_SUFFIXES, ArrowWriter
from donod_fast.data.lance_writing import lance_sources, refuse_lance, write_lance
from donod_fast.data.reading.lance_datasets import SUFFIX
from donod_fast.data.reading.source import Source
from donod_fast.data.reading.token_opening import SUFFIX as TOKEN_SUFFIX
from donod_fast.data.record_files import new_file
from donod_fast.data.source_tables import (
    ArrowSource,
    BatchCheck,
    arrow_sources,
    chosen_batches,
    common_schema,
    in_order,
    write_batches,
)
from donod_fast.data.token_writing import refuse_tokens, token_sources, write_tokens
from donod_fast.data.tree_writing import is_tree, refuse_tree, write_tree
from donod_fast.data.types import Record
from donod_fast.data.webdataset_writing import TAR, refuse_tar, shards, write_tar
from donod_fast.errors import CorpusError, InputError


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows to write.

    Attributes:
        sources: the inputs of the corpus.
        count: how many rows.
        rising: returns their numbers in the corpus, ascending; each call begins again.
        last: the highest of them.
        order: their numbers in the order wanted; None for that of the inputs.
        records: returns the records in the order wanted; each call reads again.
        check: the check of rows as Arrow batches; None if there is none.
    """

    sources: Sequence[Source]
    count: int
    rising: Callable[[], Iterable[int]]
    last: int
    order: Sequence[int] | None
    records: Callable[[], Iterator[Record]]
    check: BatchCheck | None = None

    def batches(self, sources: Sequence[ArrowSource]) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow batches, in the order wanted. With an order, all of them are in memory.

        Raises:
            CorpusError: a source cannot be read, or has changed.
        """
        found = chosen_batches(sources, self.rising(), self.last, self.check)
        return found if self.order is None else in_order(found, sorted(self.order), self.order)

    def refuse_missing(self, written: int) -> None:
        """Refuse a corpus that gave fewer rows than were chosen. Raises CorpusError."""
        if written != self.count:
            raise CorpusError("rows are missing from the corpus; it has changed since it was scored")


@dataclass(frozen=True, slots=True)
class OwnTarget:
    """A kind of file or folder.

    Attributes:
        suffixes: of its names, in lower case.
        takes: whether it can hold the rows of these inputs.
        refuse: raises InputError with the reason if it cannot; called before any work.
        write: writes the rows; whether an existing target may be replaced. What it writes is complete or absent.
        folder: whether it is a folder.
        beside: whether further files are written beside it.
    """

    suffixes: tuple[str, ...]
    takes: Callable[[Sequence[Source]], bool]
    refuse: Callable[[Path, Sequence[Source]], None]
    write: Callable[[Chosen, Path, bool], None]
    folder: bool = False
    beside: bool = False


def _refuse_arrow(out: Path, sources: Sequence[Source]) -> None:
    arrow = arrow_sources(sources)
    if arrow is None:
        raise InputError(
            f"{out}: only rows of tables (Arrow, Parquet, datasets) go into an Arrow file unchanged; end the name in "
            ".jsonl, .json or .parquet"
        )
    common_schema(arrow, target="Arrow")


def _write_arrow(chosen: Chosen, out: Path, overwrite: bool) -> None:
    arrow = arrow_sources(chosen.sources) or []
    schema = common_schema(arrow, target="Arrow")
    with new_file(out, overwrite) as file, ArrowWriter(file, schema, out.suffix.lower()) as writer:
        chosen.refuse_missing(write_batches(schema, chosen.batches(arrow), writer))


def _write_lance(chosen: Chosen, out: Path, overwrite: bool) -> None:
    lance = lance_sources(chosen.sources)
    chosen.refuse_missing(write_lance(lance, chosen.batches(list(lance)), out, overwrite))


def _write_tar(chosen: Chosen, out: Path, overwrite: bool) -> None:
    # Reading the records checks that they are those which were scored.
    rows = (record.row for record in chosen.records())
    write_tar(shards(chosen.sources), rows, out, overwrite)


def _write_tokens(chosen: Chosen, out: Path, overwrite: bool) -> None:
    chosen.refuse_missing(write_tokens(token_sources(chosen.sources), chosen.records(), out, overwrite))


TARGETS = (
    OwnTarget(ARROW_SUFFIXES, lambda sources: arrow_sources(sources) is not None, _refuse_arrow, _write_arrow),
    OwnTarget((SUFFIX,), lambda sources: bool(lance_sources(sources)), refuse_lance, _write_lance, folder=True),
    OwnTarget((TOKEN_SUFFIX,), lambda sources: bool(token_sources(sources)), refuse_tokens, _write_tokens, beside=True),
    OwnTarget(TAR, lambda sources: bool(shards(sources)), refuse_tar, _write_tar),
)
"""All such kinds."""

TREE = OwnTarget((), is_tree, refuse_tree, write_tree, folder=True)
"""A folder, named without a suffix, for rows of a tree of Parquet files."""


def own_target(out: Path, sources: Sequence[Source] = ()) -> OwnTarget | None:
    """The kind of a target by its name; None if it is none of these.

    Args:
        out: the target.
        sources: the inputs of the corpus: a name without a suffix is a folder only for rows of a tree.
    """
    name = out.name.lower()
    if not out.suffix and is_tree(sources):
        return TREE
    return next((target for target in TARGETS if name.endswith(target.suffixes)), None)


__all__ = ["TARGETS", "TREE", "Chosen", "OwnTarget", "own_target"]
