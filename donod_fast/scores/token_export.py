"""Export the tokens and labels that were scored, as a saved dataset that trainers read without tokenising it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from donod_fast.data.grouping import grouped
from donod_fast.data.masking import Masker
from donod_fast.data.reading import Corpus
from donod_fast.data.types import IGNORE_INDEX, Record, Status, TokenizedSample
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.scores.exporting import is_file_name, refuse_other_folder, save_dataset
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.held import place_of
from donod_fast.system.places import refuse_url

SCHEMA = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32())),
        pa.field("attention_mask", pa.list_(pa.int8())),
        pa.field("labels", pa.list_(pa.int32())),
    ]
)
"""Columns of the dataset: the three that LLaMA-Factory and Axolotl read. They would give others to the model."""

_CHUNK = 256
_SEEN = ["row", "status", "tokens", "scored_tokens", "truncated"]


@dataclass(frozen=True, slots=True)
class TokenExport:
    """What was written.

    Attributes:
        rows: number of rows.
        tokens: tokens of these rows, after truncation.
        scored_tokens: those of them that have a label.
    """

    rows: int
    tokens: int
    scored_tokens: int


def refuse_token_target(out: Path, *, overwrite: bool) -> None:
    """Refuse a target that no dataset can be saved as.

    Raises:
        InputError: it is a URL, or has the name of a file.
        StoreError: it exists, or it is not a saved dataset and would be deleted.
    """
    refuse_url(out, "a dataset of tokens")
    if is_file_name(out):
        raise InputError(f"{out}: a dataset of tokens is a folder that datasets.load_from_disk reads; omit the suffix")
    if out.exists() and not overwrite:
        raise StoreError(f"{out} exists already; give another name, or add --overwrite")
    refuse_other_folder(out)


def export_tokens(
    folder: ScoresFolder,
    corpus: Corpus,
    masker: Masker,
    out: Path,
    *,
    rows: Iterable[int] | None = None,
    overwrite: bool = False,
) -> TokenExport:
    """Save the ids and labels of scored rows as a dataset, in input order.

    A label is the id at its position, or -100 where the token was not scored. Truncated rows are truncated. Memory
    stays flat: the corpus is streamed once.

    Args:
        folder: a finished scores folder.
        corpus: its records.
        masker: makes tokens and labels as the run did; see ``scoring.recorded_masks``.
        out: the folder of the dataset.
        rows: which rows, ascending; None for all that were scored.
        overwrite: replace a saved dataset.

    Raises:
        InputError: no row was scored, or the target is no folder.
        CorpusError: an input has changed, or a row has other tokens now than when it was scored.
        StoreError: the folder is unfinished or damaged, or the target cannot be written.
    """
    refuse_token_target(out, overwrite=overwrite)
    folder.part_files()  # all are there
    counted = [0, 0, 0]

    def write(file: BinaryIO) -> tuple[str, ...]:
        with pq.ParquetWriter(file, SCHEMA) as writer:
            for samples in _scored(folder, corpus, masker, rows):
                writer.write_batch(_batch(samples))
                counted[0] += len(samples)
                counted[1] += sum(len(sample.input_ids) for sample in samples)
                counted[2] += sum(sample.scored_tokens for sample in samples)
        if not counted[0]:
            raise InputError(f"{folder.name}: no row was scored, so there are no tokens to export")
        return ()

    save_dataset(write, out)
    return TokenExport(*counted)


def _scored(
    folder: ScoresFolder, corpus: Corpus, masker: Masker, rows: Iterable[int] | None
) -> Iterator[list[TokenizedSample]]:
    wanted = None if rows is None else iter(rows)
    row = -1 if wanted is None else next(wanted, -1)
    for part in range(folder.parts):
        start, stop = folder.part_range(part)
        if wanted is None:
            chosen: set[int] | None = None
        else:
            chosen = set()
            while start <= row < stop:
                chosen.add(row)
                row = next(wanted, -1)
            if not chosen:
                continue
        table = folder.read_part(part)
        if table is None:
            raise StoreError(f"{folder.storage.url(folder.part_name(part))} is gone; run `donod-fast score` again")
        seen = {
            found["row"]: found
            for found in table.select(_SEEN).to_pylist()
            if found["status"] == Status.SCORED and (chosen is None or found["row"] in chosen)
        }
        if not seen:
            continue
        records: Iterator[Record] = (
            record for record in corpus.records(min(seen), max(seen) + 1) if record.row in seen
        )
        for group in grouped(records, _CHUNK):
            samples = masker.tokenize_many(group)
            for sample in samples:
                _refuse_other(folder, sample, seen[sample.row])
            yield samples


def _refuse_other(folder: ScoresFolder, sample: TokenizedSample, seen: dict[str, Any]) -> None:
    found = (str(sample.status), sample.tokens, sample.scored_tokens, sample.truncated)
    before = (seen["status"], seen["tokens"], seen["scored_tokens"], seen["truncated"])
    if found != before:
        raise CorpusError(
            f"{place_of(folder.manifest, sample.row)}: row {sample.row} has {sample.scored_tokens} scored tokens of "
            f"{sample.tokens} now ({sample.status}), and had {seen['scored_tokens']} of {seen['tokens']} when it was "
            "scored: tokenizer, template or this package have changed; score it into another folder"
        )


def _batch(samples: list[TokenizedSample]) -> pa.RecordBatch:
    ids = [list(sample.input_ids) for sample in samples]
    labels = [
        [token if scored else IGNORE_INDEX for token, scored in zip(sample.input_ids, sample.scored, strict=True)]
        for sample in samples
    ]
    return pa.RecordBatch.from_pydict(
        {"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids], "labels": labels}, schema=SCHEMA
    )


__all__ = ["SCHEMA", "TokenExport", "export_tokens", "refuse_token_target"]
