"""Input of the trainer: rows with the masks of scoring, in an order that the seed determines, padded on the right.

A label is the token where scoring has a target and −100 elsewhere, so the loss of training and the loss of scoring
cover the same tokens. Which rows share an optimizer step depends only on the seed, not on the number of processes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from donod_fast.data.grouping import grouped
from donod_fast.data.masking import Masker
from donod_fast.data.reading import Corpus
from donod_fast.data.types import IGNORE_INDEX, Record, Status, TokenizedSample
from donod_fast.errors import CorpusError
from donod_fast.training.dynamic_pack import DynamicPackCollator, Variant

_CHUNK = 1024


@dataclass(frozen=True)
class TrainingRows:
    """The rows to train on, in a few arrays, and counts of the rows that were left out.

    Attributes:
        ids: (tokens,) int32, the token ids of all rows one after the other.
        scored: (tokens,) bool, True where a token is a target.
        starts: (rows + 1,) int64, the bounds of the rows in these.
        rows: (rows,) int64, their positions in the corpus.
        skipped: rows that cannot be trained on, by status.
        first_skipped: the reason for the first of them, "" if there is none.
        truncated: rows that the length limit cut.
        templated: whether a chat template wrote any row.
    """

    ids: npt.NDArray[np.int32] = field(repr=False)
    scored: npt.NDArray[np.bool_] = field(repr=False)
    starts: npt.NDArray[np.int64] = field(repr=False)
    rows: npt.NDArray[np.int64] = field(repr=False)
    skipped: Counter[str]
    first_skipped: str = ""
    truncated: int = 0
    templated: bool = False

    @staticmethod
    def of(samples: Iterable[TokenizedSample]) -> TrainingRows:
        """Keep the samples that are ready, count the others.

        Raises:
            CorpusError: none is ready; names the first one's reason.
        """
        ids: list[npt.NDArray[np.int32]] = []
        scored: list[npt.NDArray[np.bool_]] = []
        rows: list[int] = []
        skipped: Counter[str] = Counter()
        first, truncated, templated = "", 0, False
        for sample in samples:
            if sample.status is not Status.SCORED:
                skipped[str(sample.status)] += 1
                first = first or f"{sample.status}: {sample.detail}"
                continue
            ids.append(np.asarray(sample.input_ids, dtype=np.int32))
            scored.append(np.asarray(sample.scored, dtype=np.bool_))
            rows.append(sample.row)
            truncated += sample.truncated
            templated |= sample.mask in ("generation", "prefix") and sample.format != "prompt_completion"
        if not rows:
            raise CorpusError(f"no row can be trained on{f'; the first one: {first}' if first else ''}")
        starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        return TrainingRows(
            np.concatenate(ids),
            np.concatenate(scored),
            starts,
            np.asarray(rows, dtype=np.int64),
            skipped,
            first,
            truncated,
            templated,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,) tokens of each row."""
        return np.diff(self.starts)

    @property
    def scored_lengths(self) -> npt.NDArray[np.int64]:
        """(rows,) targets of each row."""
        return np.add.reduceat(self.scored, self.starts[:-1], dtype=np.int64)

    def row(self, at: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Ids and labels of one row; a row past the last is padding: one token without a label."""
        if at >= len(self):
            return np.zeros(1, dtype=np.int32), np.full(1, IGNORE_INDEX, dtype=np.int64)
        part = slice(int(self.starts[at]), int(self.starts[at + 1]))
        ids = self.ids[part]
        return ids, np.where(self.scored[part], ids, IGNORE_INDEX).astype(np.int64)

    def digest(self) -> str:
        """SHA-256 (hex) of which corpus rows these are."""
        return hashlib.sha256(self.rows.tobytes()).hexdigest()


def prepare_rows(corpus: Corpus | Sequence[Record], masker: Masker, rows: Sequence[int] | None = None) -> TrainingRows:
    """Tokenise and mask the rows of a corpus, all or those named, in the corpus's order.

    Raises:
        CorpusError: a row is named that the corpus does not have, or none can be trained on.
    """
    wanted = None if rows is None else set(map(int, rows))
    if wanted is not None:
        check_rows(wanted, corpus.rows if isinstance(corpus, Corpus) else len(corpus))
    records = corpus.records() if isinstance(corpus, Corpus) else iter(corpus)
    return TrainingRows.of(_tokenised((r for r in records if wanted is None or r.row in wanted), masker))


def check_rows(rows: Collection[int], total: int) -> None:
    """Refuse rows that a corpus of ``total`` rows does not have, and no rows at all.

    Raises:
        CorpusError: names the first such row.
    """
    wrong = [row for row in rows if not 0 <= row < total]
    if wrong or not rows:
        which = f"row {wrong[0]}" if wrong else "no row"
        raise CorpusError(f"{which} is to be trained on, and the corpus has rows 0 to {total - 1}; name some of these")


def _tokenised(records: Iterable[Record], masker: Masker) -> Iterator[TokenizedSample]:
    for group in grouped(records, _CHUNK):
        yield from masker.tokenize_many(group)


class StepOrder(torch.utils.data.Sampler[int]):
    """The order of rows: a new permutation for each epoch, cut into optimizer steps.

    Each time it is iterated is the next epoch. Within a step, rows stand by length, so that little is padded; their
    order there does not matter to the sum of gradients. Where processes would come out uneven, rows past the last
    (padding, see :meth:`TrainingRows.row`) fill up.

    Attributes:
        epoch: the epoch that the next iteration yields.
    """

    def __init__(self, rows: TrainingRows, seed: int, global_batch: int, share: int, epoch: int = 0) -> None:
        """The length is a multiple of ``share``: micro-batch × processes, or 1 for one process."""
        self._lengths, self._seed, self._global_batch, self._share = rows.lengths, seed, global_batch, share
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._share) * self._share

    def __iter__(self) -> Iterator[int]:
        steps = self.steps(self.epoch)
        self.epoch += 1
        for step in steps:
            yield from step
        yield from range(len(self._lengths), len(self))

    def steps(self, epoch: int) -> list[list[int]]:
        """The rows of each optimizer step of an epoch, without padding."""
        count = len(self._lengths)
        order = np.random.default_rng((self._seed, epoch)).permutation(count)
        cuts = [order[at : at + self._global_batch] for at in range(0, count, self._global_batch)]
        return [cut[np.argsort(self._lengths[cut], kind="stable")].tolist() for cut in cuts]

    def tokens(self, rows: TrainingRows, steps: int) -> tuple[int, int, int]:
        """Rows, tokens and targets that so many steps from the beginning train on, counted exactly."""
        per_epoch = -(-len(self._lengths) // self._global_batch)
        whole, rest = divmod(steps, per_epoch)
        lengths, scored = rows.lengths, rows.scored_lengths
        partial = [at for step in self.steps(whole)[:rest] for at in step]
        return (
            whole * len(lengths) + len(partial),
            int(whole * lengths.sum() + lengths[partial].sum()),
            int(whole * scored.sum() + scored[partial].sum()),
        )


@dataclass(frozen=True)
class Collator:
    """Batches of rows named by number: padded to the right, padding without label and attention; or packed.

    Attributes:
        rows: what is named.
        pad_id: fills the rows of a batch.
        pack: makes a batch of samples in its own way (:mod:`donod_fast.training.dynamic_pack`); None pads.
    """

    rows: TrainingRows
    pad_id: int
    pack: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]] | None = None

    def __call__(self, items: Sequence[dict[str, int]]) -> dict[str, Any]:
        """``input_ids``, ``labels`` and ``attention_mask``, each (rows, longest row) int64, or what ``pack`` gives."""
        pairs = [self.rows.row(item["row"]) for item in items]
        if self.pack is not None:
            return self.pack([{"input_ids": ids, "labels": labels} for ids, labels in pairs])
        shape = len(pairs), max(len(ids) for ids, _ in pairs)
        batch = {
            "input_ids": torch.full(shape, self.pad_id),
            "labels": torch.full(shape, IGNORE_INDEX),
            "attention_mask": torch.zeros(shape, dtype=torch.int64),
        }
        for at, (ids, labels) in enumerate(pairs):
            batch["input_ids"][at, : len(ids)] = torch.from_numpy(ids)
            batch["labels"][at, : len(ids)] = torch.from_numpy(labels)
            batch["attention_mask"][at, : len(ids)] = 1
        return batch

    def packing(
        self, model: Any, variant: Variant, limit: int | None, context: Callable[[], AbstractContextManager[Any]]
    ) -> Collator:
        """The same for packed rows, once it is proved that this model can be packed so.

        The rows are cut already and none is cut further: one that is longer than ``limit`` is the limit.

        Args:
            model: as it will be trained.
            variant: ``"paper"`` or ``"isolated"``.
            limit: most tokens of a packed row; None for the longest row.
            context: entered around the forwards of the proof.

        Raises:
            InputError: positions would run past the model's limit (``"paper"``).
            ModelError: its samples cannot be isolated; says why.
        """
        longest = max(2, int(self.rows.lengths.max()))
        most = max(longest, limit or longest)
        pack = DynamicPackCollator.for_model(model, most, self.pad_id, variant, context=context)
        return Collator(self.rows, self.pad_id, pack)


__all__ = ["Collator", "StepOrder", "TrainingRows", "check_rows", "prepare_rows"]
