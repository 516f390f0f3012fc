"""Scoring and selecting in datatrove's pipelines: two steps for two pipelines, the second one with ``depends=``.

``DonodScore`` gives every document its scores, and writes the scores of each rank to a file. ``DonodRank`` reads these
files in the second pipeline, where all ranks have finished, and so ranks by TOPSIS over the whole corpus::

    score = LocalPipelineExecutor([
        JsonlReader("data", adapter=read_record),
        DonodScore("M", scores="out/scores"),
        JsonlWriter("out/scored", adapter=write_record),
    ], tasks=4)
    select = LocalPipelineExecutor([
        JsonlReader("out/scored", adapter=read_record),
        DonodRank("out/scores", keep=0.3),
        JsonlWriter("out/kept", adapter=write_record),
    ], tasks=4, depends=score)
    select.run()
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from donod_fast.adapters.batch_ranking import batch_scorer, rank_rows
from donod_fast.adapters.columns import DON, NOD, PREFIX, STATUS, TOPSIS
from donod_fast.adapters.extras import host_module
from donod_fast.adapters.lazy_scorer import device_of_rank
from donod_fast.adapters.rank_files import RankFiles
from donod_fast.errors import InputError
from donod_fast.selection.frozen_constants import TopsisConstants, load_constants, topsis_constants
from donod_fast.selection.keeping import checked_share

_EXTRA = "datatrove"
_PipelineStep: Any = host_module("datatrove.pipeline.base", _EXTRA).PipelineStep
_BaseFilter: Any = host_module("datatrove.pipeline.filters.base_filter", _EXTRA).BaseFilter

RECORD = "record"
"""Entry of a document's metadata that holds the whole row of the corpus."""

_BATCH = 512


def read_record(_reader: Any, data: dict[str, Any], path: str, id_in_file: int | str) -> dict[str, Any]:
    """The ``adapter`` of a reader: the whole row becomes the document's metadata ``record``.

    datatrove's own adapter takes ``text`` out of the row, and its readers skip a row whose ``text`` is empty. Here the
    text is the row as JSON, which is never empty, so that no row is lost.
    """
    text = json.dumps(data, ensure_ascii=False, default=str)
    return {"text": text, "id": f"{path}/{id_in_file}", "metadata": {RECORD: data}}


def write_record(_writer: Any, document: Any) -> dict[str, Any]:
    """The ``adapter`` of a writer: the row that :func:`read_record` read, with the columns of the scores."""
    metadata = document.metadata
    if RECORD not in metadata:
        raise InputError(f"document {document.id} has no {RECORD}: read it with adapter=read_record")
    return {**metadata[RECORD], **{name: value for name, value in metadata.items() if name.startswith(PREFIX)}}


class DonodScore(_PipelineStep):  # type: ignore[misc]
    """Gives each document its scores, as metadata ``donod_…``; every document stays, in its place.

    The model is loaded once per process, at the first document.

    Args:
        model: folder or hub id of a causal language model.
        scores: folder (or URL) for the scores of each rank, for :class:`DonodRank`; None to write none.
        constants: constants of TOPSIS or their file, to rank in this pipeline; ``donod_topsis`` is then there.
        text_key: name of the column that a document's text is, for documents that were read without
            :func:`read_record`; their other columns are the metadata.
        batch_size: documents that are scored together.
        device: where to score; None for the devices in turn, by rank.
        options: further options of ``donod-fast score``, by their names.

    Raises:
        InputError: an unknown option, or a wrong value.
        StoreError: the file of the constants cannot be read.
    """

    name = "🍩 DON and NOD"
    type = "📊 - SCORES"

    def __init__(
        self,
        model: str,
        *,
        scores: str | Path | None = None,
        constants: TopsisConstants | str | Path | None = None,
        text_key: str = "text",
        batch_size: int = _BATCH,
        device: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.scorer = batch_scorer(model, {**options, "device": device}, constants)
        self.files = None if scores is None else RankFiles(str(scores))
        self.text_key = text_key
        self.batch_size = batch_size
        self.device = device

    def run(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Score the documents of a rank."""
        documents = iter(data or ())
        don: list[float | None] = []
        nod: list[float | None] = []
        device = self.device or device_of_rank(rank)
        while batch := list(islice(documents, self.batch_size)):
            with self.track_time("batch"):
                rows = [self._row(document) for document in batch]
                found = self.scorer.columns(rows, first=len(don), device=device)
            for document, columns in zip(batch, found, strict=True):
                document.metadata.update(columns)
                self.stat_update(PREFIX + columns[STATUS])
                don.append(columns[DON])
                nod.append(columns[NOD])
                yield document
        if self.files is not None:
            settings = self.scorer.lazy.scorer(device).describe() if don else None
            self.files.write(rank, world_size, don, nod, settings)

    def _row(self, document: Any) -> Mapping[str, Any]:
        if RECORD in document.metadata:
            row: dict[str, Any] = document.metadata[RECORD]
        else:
            row = {**document.metadata, self.text_key: document.text}
        return {name: value for name, value in row.items() if not name.startswith(PREFIX)}


class DonodRank(_BaseFilter):  # type: ignore[misc]
    """Gives each scored document its closeness ``donod_topsis`` in the whole corpus, and drops all but the best.

    Args:
        scores: the folder that :class:`DonodScore` wrote; or give ``constants``.
        constants: constants of TOPSIS, or their file.
        keep: share of the scored documents to keep: a fraction (0.3) or a count (300); those that are tied with the
            last one are kept, too. None to keep all documents.
        weights: weights of DON and NOD, with ``scores``.
        normalise: what TOPSIS divides the columns by, with ``scores``.
        exclusion_writer: a writer for the documents that are dropped.
        batch_size: documents that are ranked together.

    Raises:
        InputError: not exactly one of ``scores`` and ``constants`` is given, or another argument has a wrong value.
        StoreError: the file of the constants cannot be read.
    """

    name = "🍩 TOPSIS"

    def __init__(
        self,
        scores: str | Path | None = None,
        *,
        constants: TopsisConstants | str | Path | None = None,
        keep: float | int | str | None = None,
        weights: tuple[float, float] = (0.5, 0.5),
        normalise: str = "vector",
        exclusion_writer: Any = None,
        batch_size: int = _BATCH,
    ) -> None:
        super().__init__(exclusion_writer, batch_size)
        if (scores is None) == (constants is None):
            raise InputError("DonodRank takes scores (a folder that DonodScore wrote) or constants, one of the two")
        self.files = None if scores is None else RankFiles(str(scores))
        self.constants = (
            constants if constants is None or isinstance(constants, TopsisConstants) else load_constants(constants)
        )
        self.keep = None if keep is None else checked_share(keep)
        if self.constants is not None and self.keep is not None:
            self.constants.cut(self.keep)
        topsis_constants({"don": [1.0], "nod": [1.0]}, weights=weights, normalise=normalise)
        self.weights = weights
        self.normalise = normalise

    def run(self, data: Iterable[Any], rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Rank the documents of a rank.

        Raises:
            InputError: a document has no scores, or no document of the corpus is scored.
            StoreError: the scores of a rank are missing, damaged, or were made with other settings.
        """
        if self.files is not None:
            don, nod, settings = self.files.read()
            self.constants = topsis_constants(
                {DON: don, NOD: nod},
                weights=self.weights,
                normalise=self.normalise,
                keep=() if self.keep is None else (self.keep,),
                settings=settings,
            )
        yield from super().run(data, rank, world_size)

    def filter_batch(self, batch: Sequence[Any]) -> list[bool | tuple[bool, str]]:
        """Whether to keep each document; the reasons for which one is dropped are ``not_scored`` and ``topsis``."""
        assert self.constants is not None
        rows = []
        for document in batch:
            found = {**document.metadata.get(RECORD, {}), **document.metadata}
            if DON not in found or NOD not in found:
                raise InputError(f"document {document.id} has no {DON} and {NOD}: rank documents that DonodScore wrote")
            rows.append({DON: found[DON], NOD: found[NOD]})
        outside = self.constants.outside([row[DON] for row in rows], [row[NOD] for row in rows], per_lr=True)
        if outside:
            self.stat_update("beyond_the_constants", value=outside)
        rank_rows(rows, self.constants)
        kept: list[bool | tuple[bool, str]] = []
        for document, row in zip(batch, rows, strict=True):
            document.metadata[TOPSIS] = row[TOPSIS]
            if self.keep is None:
                kept.append(True)
            elif row[TOPSIS] is None:
                kept.append((False, "not_scored"))
            else:
                kept.append(row[TOPSIS] >= self.constants.cut(self.keep) or (False, "topsis"))
        return kept

    def filter(self, document: Any) -> bool | tuple[bool, str]:
        """Whether to keep a document; see :meth:`filter_batch`."""
        return self.filter_batch([document])[0]


__all__ = ["RECORD", "DonodRank", "DonodScore", "read_record", "write_record"]
