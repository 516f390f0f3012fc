"""The rows that a trainer trains: its own token ids and labels, taken from its data set through its own collator.

A row of a batch is found again by the content of its tokens and labels, not by its place. So it does not matter who
shuffles, groups by length, loads in other processes or skips batches, and a row that the trainer changes on its way is
noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from donod_fast.data.types import IGNORE_INDEX
from donod_fast.errors import InputError
from donod_fast.system.wording import plural

_CHUNK = 1024

_TOKENS = ("input_ids", "labels", "attention_mask")


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A row of a batch without its padding.

    Attributes:
        batch_row: its row in the batch.
        start: slot of its first token in that row.
        ids: (n,) int64 token ids.
        labels: (n,) int64, aligned with ``ids``; None if the batch has none.
    """

    batch_row: int
    start: int
    ids: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any] | None

    def targets(self) -> np.ndarray[Any, Any]:
        """Positions of the tokens that are trained; the first token never is, since nothing predicts it."""
        assert self.labels is not None
        found: np.ndarray[Any, Any] = np.flatnonzero(self.labels[1:] != IGNORE_INDEX) + 1
        return found


def batch_rows(batch: Mapping[str, Any]) -> list[BatchRow]:
    """The rows of a collated batch: padded on either side, or joined in one row with positions that begin at 0.

    Args:
        batch: what a collator returns, on the host: ``input_ids`` (B, T), and where the batch has them ``labels`` and
            ``attention_mask`` (B, T), ``position_ids`` (1, T).

    Raises:
        InputError: it has no token ids in this form.
    """
    ids = _array(batch, "input_ids")
    if ids is None or ids.ndim != 2:
        raise InputError(
            "the trainer's batches have no input_ids of shape (rows, tokens); DonodCallback scores text of causal "
            f"language models (the batch has {', '.join(map(str, batch)) or 'nothing'})"
        )
    labels, attended, positions = (_array(batch, name) for name in ("labels", "attention_mask", "position_ids"))
    bounds: list[tuple[int, int, int]] = []
    if attended is None and positions is not None and len(ids) == 1:
        starts = np.flatnonzero(positions[0] == 0)
        bounds = [(0, int(a), int(b)) for a, b in zip(starts, [*starts[1:], ids.shape[1]], strict=True)]
    else:
        for row in range(len(ids)):
            real = np.arange(ids.shape[1]) if attended is None else np.flatnonzero(attended[row])
            if len(real):
                bounds.append((row, int(real[0]), int(real[-1]) + 1))
    return [
        BatchRow(row, start, ids[row, start:stop], None if labels is None else labels[row, start:stop])
        for row, start, stop in bounds
    ]


def _array(batch: Mapping[str, Any], name: str) -> np.ndarray[Any, Any] | None:
    value = batch.get(name)
    if not isinstance(value, Tensor) or value.dim() != 2:
        return None
    found: np.ndarray[Any, Any] = value.detach().cpu().numpy()
    return found


class TrainedRows:
    """The rows of a trainer's data set, in its order, as its collator makes them.

    Attributes:
        longest: tokens of the longest row that was written.

    Args:
        dataset: the data set of the trainer's loader, with a length.
        collate: the loader's collator.

    Raises:
        InputError: rows cannot be told apart in training: the data set streams, or the trainer packs several rows into
            one; or the collator gives no labels.
    """

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Mapping[str, Any]]) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise InputError(
                "the trainer's data set streams, so its rows have no numbers; give the trainer a data set with a length"
            )
        if "seq_lengths" in (getattr(dataset, "column_names", None) or ()):
            raise InputError(
                "the trainer packs several rows into one (packing=True), so a row of it is no row of your data; set "
                "packing=False (padding_free=True, max_length=None also trains without padding)"
            )
        self._dataset, self._collate = dataset, collate
        self._by_ids: dict[bytes, list[tuple[int, bytes]]] = {}
        self.longest = 0

    def __len__(self) -> int:
        return len(self._dataset)

    def row(self, number: int) -> BatchRow:
        """One row as the collator makes it, alone.

        Raises:
            InputError: the collator makes no row or several, or gives it no labels.
        """
        return self._collated(self._dataset[number], number)

    def _collated(self, example: Any, number: int) -> BatchRow:
        found = batch_rows(self._collate([example]))
        if len(found) != 1:
            raise InputError(f"the trainer's collator makes {len(found)} rows of row {number} of its data set, not one")
        if found[0].labels is None:
            raise InputError(
                "the trainer's collator gives no labels; use one that does, for example "
                "DataCollatorForLanguageModeling(tokenizer, mlm=False)"
            )
        return found[0]

    def write(self, path: Path, dataset: Any = None) -> None:
        """Write the rows as Parquet, and remember them for :meth:`find`.

        Args:
            path: the file; replaced only once it is complete.
            dataset: a ``datasets.Dataset`` with the same rows, whose other columns are written too.

        Raises:
            InputError: ``dataset`` is of another kind, or has another number of rows.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if dataset is not None and not callable(getattr(dataset, "with_format", None)):
            raise InputError(f"dataset= must be a datasets.Dataset, got a {type(dataset).__name__}; or leave it out")
        if dataset is not None and len(dataset) != len(self):
            raise InputError(
                f"dataset= has {plural(len(dataset), 'row')}, the trainer's data set {len(self):,}; give the trainer's "
                "own: trainer.train_dataset"
            )
        others = None if dataset is None else dataset.with_format("arrow")
        self._by_ids.clear()
        draft = path.with_name(f"{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        writer: Any = None
        try:
            for start, rows in self._chunks():
                tokens = {"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]}
                table = pa.table({name: pa.array(values, pa.list_(pa.int32())) for name, values in tokens.items()})
                more: Any = None if others is None else others[start : start + len(rows)]
                for name in () if more is None else more.column_names:
                    if name not in _TOKENS:
                        table = table.append_column(more.schema.field(name), more.column(name))
                if writer is None:
                    writer = pq.ParquetWriter(draft, table.schema, compression="zstd", write_page_checksum=True)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise InputError("the trainer's data set has no rows")
        draft.replace(path)

    def _chunks(self) -> Iterator[tuple[int, list[BatchRow]]]:
        many = getattr(self._dataset, "__getitems__", None)
        for start in range(0, len(self), _CHUNK):
            numbers = list(range(start, min(start + _CHUNK, len(self))))
            examples = many(numbers) if callable(many) else [self._dataset[number] for number in numbers]
            rows = [self._collated(example, number) for example, number in zip(examples, numbers, strict=True)]
            self.longest = max(self.longest, *(len(row.ids) for row in rows))
            for number, row in zip(numbers, rows, strict=True):
                self._by_ids.setdefault(_digest(row.ids), []).append((number, _labels_digest(row)))
            yield start, rows

    def find(self, row: BatchRow) -> Sequence[int]:
        """Numbers of the rows with these tokens and labels, in rising order; several if the data set repeats a row.

        If the batch has no labels, rows are found by their tokens, provided that their labels are alike.

        Raises:
            InputError: there is no such row, or the labels of rows with these tokens differ and the batch has none.
        """
        known = self._by_ids.get(_digest(row.ids), [])
        if row.labels is not None:
            labels = _labels_digest(row)
            found = [number for number, one in known if one == labels]
        else:
            found = [number for number, _ in known]
            if len({one for _, one in known}) > 1:
                raise InputError(
                    f"rows {found[0]} and {found[1]} of the trainer's data set have the same tokens and other labels, "
                    "and the trainer takes the labels out of the batch (label_smoothing_factor, compute_loss_func)"
                )
        if not found:
            what = "tokens" if not known else "labels"
            raise InputError(
                f"the trainer trains on a row of {plural(len(row.ids), 'token')} whose {what} are not in its data set: "
                "its collator makes other ones each time, or depends on the rest of the batch, and its rows cannot be "
                "named; or an earlier training was interrupted: then call DonodCallback.detach() of its callback"
            )
        return found


def _digest(values: np.ndarray[Any, Any]) -> bytes:
    return hashlib.blake2b(values.astype(np.int64).tobytes(), digest_size=16).digest()


def _labels_digest(row: BatchRow) -> bytes:
    """Hash of the labels that count: the first token's does not."""
    assert row.labels is not None
    return _digest(row.labels[1:])


__all__ = ["BatchRow", "TrainedRows", "batch_rows"]
