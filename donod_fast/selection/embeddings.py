"""Embeddings of the rows of a scores folder: its column ``embedding``, or of the questions by another model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

COPIES = 3
"""Copies of the embeddings that a method may hold: as read, as unit vectors, and that of K-Means."""
_CHUNK = 1024  # records whose questions are embedded in one call

Floats = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]


def check_embeddings(folder: ScoresFolder, model: str | None, method: str) -> None:
    """Refuse a folder without embeddings if no model is given. Raises InputError, which says how to add them."""
    if model is None and all(column.name != "embedding" for column in folder.signal_columns()):
        raise InputError(
            f"{method} needs embeddings of the questions: give a model, for example --embedding-model "
            "sentence-transformers/all-mpnet-base-v2, or add the scored model's own embeddings with "
            "`donod-fast score … --signals embedding --out DIR`"
        )


def read_embeddings(
    folder: ScoresFolder,
    rows: Rows,
    wanted: npt.NDArray[np.bool_],
    method: str,
    model: str | None = None,
    *,
    memory: int | None = None,
) -> Floats:
    """Embeddings of some rows, (n, d) float32; NaN if a row has none.

    Args:
        folder: a finished folder.
        rows: (n,) row numbers, rising.
        wanted: (n,) which of them need one; a model embeds only these.
        method: the method, for messages.
        model: sentence-transformers model; None for the column ``embedding``.
        memory: memory limit of the embeddings in bytes; None for no limit.

    Raises:
        InputError: there is no such column (the message says how to add it), the memory limit is too small, or a
            package is not installed.
        CorpusError: the records can no longer be read.
        ModelError: the model cannot be loaded.
        StoreError: the folder is unfinished or damaged.
    """
    embeddings: Floats | None = None
    if model is None:  # refuses before the parts are read
        _refuse_large(len(rows), vector_size(folder, method), method, memory)
    is_wanted = np.zeros(folder.rows, bool)
    is_wanted[rows] = wanted if model is not None else True
    for found, vectors in stream_embeddings(folder, method, model, is_wanted):
        if embeddings is None:
            _refuse_large(len(rows), vectors.shape[1], method, memory)
            embeddings = np.full((len(rows), vectors.shape[1]), np.nan, np.float32)
        embeddings[np.searchsorted(rows, found)] = vectors
    if embeddings is None:
        size = 1 if model is not None else vector_size(folder, method)
        embeddings = np.full((len(rows), size), np.nan, np.float32)
    return embeddings


def vector_size(folder: ScoresFolder, method: str) -> int:
    """Numbers of a vector of the column ``embedding``. Raises InputError: there is none."""
    check_embeddings(folder, None, method)
    return next(column.size for column in folder.signal_columns() if column.name == "embedding")


def stream_embeddings(
    folder: ScoresFolder, method: str, model: str | None, wanted: npt.NDArray[np.bool_]
) -> Iterator[tuple[Rows, Floats]]:
    """Yield (rows, vectors) in input order, without rows that have no embedding.

    Args:
        folder: a finished folder.
        method: the method, for messages.
        model: sentence-transformers model of the questions; None for the column ``embedding``.
        wanted: (rows of the folder,) which rows.

    Raises:
        InputError: there is no such column, or a package is not installed.
        CorpusError: the records can no longer be read.
        ModelError: the model cannot be loaded.
        StoreError: the folder is unfinished or damaged.
    """
    check_embeddings(folder, model, method)
    if model is not None:
        yield from _of_records(folder, wanted, model)
        return
    for rows, vectors in _of_folder(folder):
        there = wanted[rows]
        yield rows[there], vectors[there]


def _of_folder(folder: ScoresFolder) -> Iterator[tuple[Rows, Floats]]:
    """The row numbers and vectors of each part, rows without a vector excluded."""
    from donod_fast.selection.out_of_core.loading import read_columns

    for part in range(folder.parts):
        table = read_columns(folder, part, ["row", "embedding"])
        column = table.column("embedding").combine_chunks()
        there = column.is_valid().to_numpy(zero_copy_only=False)
        yield (
            table.column("row").to_numpy()[there],
            column.drop_null().flatten().to_numpy().reshape(int(there.sum()), column.type.list_size),
        )


def _of_records(folder: ScoresFolder, wanted: npt.NDArray[np.bool_], model: str) -> Iterator[tuple[Rows, Floats]]:
    """Embeddings of the questions of some rows; records without a question have none."""
    from donod_fast.data.formats import to_sample
    from donod_fast.data.read_rules import ReadRules
    from donod_fast.data.types import SampleError
    from donod_fast.models.sentence_embeddings import embed_texts, load_embedder, question_text

    rules = ReadRules.from_json(folder.manifest["masks"])
    corpus = folder.reopened()
    embedder = load_embedder(model)
    held: list[tuple[int, str]] = []

    def embedded() -> tuple[Rows, Floats]:
        vectors = embed_texts([text for _, text in held], embedder)
        rows = np.array([row for row, _ in held], np.int64)
        held.clear()
        return rows, vectors

    for record in corpus.records() if wanted.any() else ():
        if not wanted[record.row]:
            continue
        try:
            text = question_text(to_sample(record, rules=rules)[0])
        except SampleError:
            continue
        if text.strip():
            held.append((record.row, text))
        if len(held) >= _CHUNK:
            yield embedded()
    yield embedded()  # without rows, too: it tells the size of the vectors


def _refuse_large(rows: int, size: int, method: str, memory: int | None) -> None:
    needed = COPIES * 4 * rows * size
    if memory is not None and needed > memory:
        raise InputError(
            f"{method} holds all embeddings in memory: {rows:,} of {size} numbers take about {needed / 2**30:.2g} "
            "GiB; raise --memory, or use a method that ranks by a column"
        )


__all__ = ["COPIES", "check_embeddings", "read_embeddings", "stream_embeddings", "vector_size"]
