"""Score the tokens of a trainer's own dataset in a folder that resumes, and choose the rows to train on.

The folder holds ``tokens.parquet``, the ids and labels in the order of the dataset, and ``scores``, a scores folder
made of that file. A row of the scores therefore is a row of the dataset, in whatever order the trainer has shuffled it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from donod_fast.errors import InputError, StoreError, suggest
from donod_fast.selection.keeping import parse_keep
from donod_fast.selection.settings import RankOptions
from donod_fast.system.files import atomic_writer, storage_error
from donod_fast.system.options import build, options_of

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.engines.choosing import ScoreRequest

_T = TypeVar("_T")

TOKENS = "tokens.parquet"
SCORES = "scores"
LOCK = ".lock"

_NOT_FOR_TOKENS = ("data", "model", "split", "data_revision", "token_dtype", "document_end", "document_begin", "format",
                   "template", "train_on", "max_length", "columns", "dataset_info", "dataset", "preference",
                   "text_only", "reference", "carry")  # fmt: skip
"""Options of ``donod-fast score`` about records and words, or files of them; here rows are tokens."""

_ROWS = 1000

fcntl: Any = import_module("fcntl") if os.name == "posix" else None


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows to train on.

    Attributes:
        kept: row numbers of the dataset, ascending; None for all.
        rows: rows of the dataset.
        counts: rows by status.
        scores: the scores folder.
    """

    kept: list[int] | None
    rows: int
    counts: Mapping[str, int]
    scores: str


def score_request(model: str, tokens: Path, options: Mapping[str, Any]) -> ScoreRequest:
    """The run that scores a file of tokens.

    Args:
        model: folder or hub id.
        tokens: the file.
        options: further options of ``donod-fast score`` by their names.

    Raises:
        InputError: an unknown option, one that does not apply to tokens, or a wrong value.
    """
    from donod_fast.engines.choosing import ScoreRequest

    known = [one.name for one in options_of(ScoreRequest)]
    for name in options:
        if name in _NOT_FOR_TOKENS:
            raise InputError(f"donod_options: {name} does not apply to rows that are tokens already; remove it")
        if name not in known:
            raise InputError(f"donod_options: unknown option {name!r}{suggest(name, known)}")
    typed = {name: value for name, value in options.items() if value is not None}
    return _built("donod_options", ScoreRequest, {**typed, "data": [str(tokens)], "model": model})


def rank_options(method: str, options: Mapping[str, Any]) -> RankOptions:
    """How the rows are ranked.

    Args:
        method: as for ``donod-fast select --method``.
        options: further options of ``donod-fast select`` about ranking and choosing.

    Raises:
        InputError: an unknown option, or a wrong value.
    """
    known = [one.name for one in options_of(RankOptions) if one.name not in ("method", "by", "embedding_model")]
    for name in options:
        if name not in known:
            raise InputError(f"donod_select: unknown option {name!r}{suggest(name, known)}")
    return _built("donod_select", RankOptions, {**options, "method": method})


def parsed_keep(value: float | int | str | None) -> float | int | None:
    """How many rows to keep, as ``donod-fast select --keep`` reads it; None for all. Raises InputError."""
    if value is None:
        return None
    try:
        return parse_keep(str(value))
    except InputError as error:
        raise InputError(f"donod_keep: {error}") from error


def choose_rows(
    dataset: Any, out: Path, request: ScoreRequest, keep: float | int | None, options: RankOptions
) -> Choice:
    """Score the rows of a dataset, or take the scores that an earlier or another process made of them, and rank them.

    Processes of one host that share the folder take turns: the first scores, the others read.

    Args:
        dataset: a ``datasets.Dataset`` with ``input_ids``, ``labels`` and perhaps ``attention_mask``.
        out: the folder.
        request: see :func:`score_request`; its file is ``out``/``tokens.parquet``.
        keep: how many to keep, None for all.
        options: see :func:`rank_options`.

    Raises:
        InputError: the dataset has no such columns, or no row was scored.
        StoreError: the folder holds scores of other rows or with other settings.
        ModelError: the model cannot be loaded or scored with.
    """
    from donod_fast.engines.choosing import ScoreRun, TargetSettings
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.rankers import ranked

    missing = [name for name in ("input_ids", "labels") if name not in dataset.column_names]
    if missing:
        raise InputError(f"the dataset has no column {missing[0]}, but {', '.join(dataset.column_names)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    with _alone(out):
        _keep_tokens(dataset, out / TOKENS)
        run = ScoreRun(request, TargetSettings(str(out / SCORES)))
        outcome = run.score(lambda rows: nullcontext(None), lambda: None).outcome
    folder = ScoresFolder.open(str(out / SCORES))
    if not outcome.counts.get("scored", 0):
        raise InputError(
            f"none of {folder.rows:,} rows could be scored: "
            + ", ".join(f"{count:,} {status}" for status, count in outcome.counts.items())
        )
    kept = None
    if keep is not None:
        with ranked(folder, options) as ranking:
            rows = ranking.keep(keep, None, None, False).rows
            kept = sorted(map(int, rows.tolist() if hasattr(rows, "tolist") else rows))
    return Choice(kept, folder.rows, dict(outcome.counts), folder.name)


def _built(where: str, kind: type[_T], typed: Mapping[str, Any]) -> _T:
    try:
        return build(kind, typed)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:  # a value of a type that an option does not compare with
        raise InputError(f"{where}: a wrong type among {dict(typed)}: {error}") from error


def _keep_tokens(dataset: Any, file: Path) -> None:
    """Write the tokens, or compare them with those that are there."""
    import pyarrow.parquet as pq

    new = hashlib.sha256()
    if not file.exists():
        with atomic_writer(file) as target, pq.ParquetWriter(target, _schema(dataset)) as writer:
            for table in _tables(dataset):
                writer.write_table(table)
        return
    for table in _tables(dataset):
        _add(new, table)
    old = hashlib.sha256()
    try:
        with pq.ParquetFile(file) as stored:
            for batch in stored.iter_batches(_ROWS):
                _add(old, batch)
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be read ({error}); remove its folder to score again") from error
    if new.digest() != old.digest():
        raise StoreError(
            f"{file.parent} holds scores of other rows: dataset, tokenizer, template or seed have changed; remove the "
            "folder, or name another with donod_out"
        )


def _add(digest: Any, batch: Any) -> None:
    """Add the rows of a table or a batch to a hash that does not depend on how they are stored."""
    for row in batch.to_pylist():
        digest.update(repr(sorted(row.items())).encode())


def _schema(dataset: Any) -> pa.Schema:
    import pyarrow as pa

    kinds = {"input_ids": pa.int32(), "attention_mask": pa.int8(), "labels": pa.int32()}
    return pa.schema([(name, pa.list_(kind)) for name, kind in kinds.items() if name in dataset.column_names])


def _tables(dataset: Any) -> Iterator[pa.Table]:
    schema = _schema(dataset)
    for table in dataset.select_columns(schema.names).with_format("arrow").iter(_ROWS):
        yield table.select(schema.names).cast(schema)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process of this host at a time; the others wait."""
    if fcntl is None:
        yield
        return
    try:
        file = (out / LOCK).open("a")
    except OSError as error:
        raise storage_error(out / LOCK, error) from error
    with file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


__all__ = ["SCORES", "TOKENS", "Choice", "choose_rows", "parsed_keep", "rank_options", "score_request"]
