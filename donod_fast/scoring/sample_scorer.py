"""Tokenised samples → rows of scores: batches, the forward pass, and samples that fail there."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from donod_fast.criteria.base import Value
from donod_fast.criteria.running import NO_SIGNALS, SignalSet
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.models.batching import Batch, batch_slots, collate, make_batches
from donod_fast.scores.rows import SCORE_COLUMNS, ScoreRow
from donod_fast.scoring.forward import Forward, Launched
from donod_fast.scoring.row_work import Found, RowRun, Work
from donod_fast.system.memory import is_out_of_memory
from donod_fast.system.profiling import NO_STAGES, Stages
from donod_fast.system.threads import in_order, launched_ahead, worker_count

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_T = TypeVar("_T")
Progress = Callable[[int, int], None]
"""Called with the numbers of rows and tokens that were done since the last call."""


class SampleScorer:
    """Scores tokenised samples with one model. Nothing of it changes but ``fitting_budget``.

    Attributes:
        forward: trunk and head of the model.
        token_budget: slots of a batch, padding included.
        signals: further criteria that rows are scored by.
        even_threads: whether every batch gets the same number of torch's threads, even a single batch. Compiled code is
            made for one number of threads.
        fitting_budget: the size that batches were cut to, if memory ran out in any call so far; else None.

    Args:
        forward: see above.
        token_budget: see above.
        signals: see above.
        even_threads: see above.
    """

    def __init__(
        self, forward: Forward, *, token_budget: int, signals: SignalSet = NO_SIGNALS, even_threads: bool = False
    ) -> None:
        self.forward, self.token_budget, self.signals = forward, token_budget, signals
        self.even_threads = even_threads
        self.fitting_budget: int | None = None

    @property
    def device(self) -> torch.device:
        """The device of the head, where the scores are computed."""
        return self.forward.device

    def resuming(self, *, weight_norm: float, token_budget: int) -> SampleScorer:
        """A scorer with ‖W‖ and the token budget of a folder that was begun before.

        The last digit of ‖W‖ depends on the number of threads. Returns this scorer if both are the same.
        """
        call = self.forward.call
        if (weight_norm, token_budget) == (call.weight_norm, self.token_budget):
            return self
        forward = replace(self.forward, call=replace(call, weight_norm=weight_norm))
        return SampleScorer(forward, token_budget=token_budget, signals=self.signals, even_threads=self.even_threads)

    def on(self, forward: Forward) -> SampleScorer:
        """The same scorer with another trunk and head, or another step."""
        return SampleScorer(
            forward, token_budget=self.token_budget, signals=self.signals, even_threads=self.even_threads
        )

    def with_signals(self, signals: SignalSet) -> SampleScorer:
        """A scorer with other further criteria."""
        return SampleScorer(
            self.forward, token_budget=self.token_budget, signals=signals, even_threads=self.even_threads
        )

    def score(
        self,
        samples: Sequence[TokenizedSample],
        progress: Progress | None = None,
        *,
        stages: Stages = NO_STAGES,
        token_losses: bool = False,
    ) -> list[ScoreRow]:
        """One row per sample, in the order given, with ``signals``. Samples that are not ready keep their status.

        With ``token_losses`` scored rows have the loss of each scored token; all else is the same.

        If memory runs out, the rest is batched again with half the size that failed. The next call starts with the full
        budget again, because the batches of a part must not depend on earlier parts.
        """
        ready = [sample for sample in samples if sample.status is Status.SCORED]
        work = Work.scoring(ready, self.signals, token_losses=token_losses)
        found = iter(self._run(work, len(samples), progress, stages))
        rows = []
        with stages.stage("rows"):
            for sample in samples:
                if sample.status is not Status.SCORED:
                    rows.append(ScoreRow.unscored(sample, signals=self.signals.nothing()))
                    continue
                row, values = score_row(sample, (run := next(found)).own), self.signals.nothing()
                if row.status == Status.SCORED:
                    if self.signals:
                        values = self._values(self.signals, sample, row.loss, run)
                    if token_losses:
                        row = replace(row, token_losses=run.token_losses)
                rows.append(replace(row, signals=values) if values else row)
        return rows

    def token_losses(
        self, samples: Sequence[TokenizedSample], progress: Progress | None = None, *, stages: Stages = NO_STAGES
    ) -> list[npt.NDArray[np.float32] | None]:
        """The losses of the tokens of rows that have their scores, in the order given.

        Args:
            samples: the rows, all with scored tokens.
            progress: called with (rows, tokens) as they are done.
            stages: records where the time goes.

        Returns:
            for each row (scored tokens,) losses in nats; None if the row alone does not fit in memory.
        """
        return [run.token_losses for run in self._run(Work.losses(samples), len(samples), progress, stages)]

    def add(
        self,
        samples: Sequence[TokenizedSample],
        losses: Sequence[float],
        signals: SignalSet,
        progress: Progress | None = None,
        *,
        stages: Stages = NO_STAGES,
    ) -> list[tuple[Value, ...]]:
        """Values of further criteria for rows that have their scores, in the order given.

        Args:
            samples: the rows, as they were scored.
            losses: their losses, as in the scores; a row with NaN gets no values.
            signals: what to compute; rows are run again only if one of these needs it.
            progress: called with (rows, tokens) as they are done.
            stages: records where the time goes.
        """
        ready = [sample.status is Status.SCORED and loss == loss for sample, loss in zip(samples, losses, strict=True)]
        chosen = [sample for sample, is_ready in zip(samples, ready, strict=True) if is_ready]
        work = Work.adding(chosen, signals)
        found = iter(self._run(work, len(samples), progress, stages))
        return [
            self._values(signals, sample, loss, next(found)) if is_ready else signals.nothing()
            for sample, loss, is_ready in zip(samples, losses, ready, strict=True)
        ]

    def _values(self, signals: SignalSet, sample: TokenizedSample, loss: float, run: RowRun) -> tuple[Value, ...]:
        return signals.of_row(sample, loss, self.forward.call.settings.reduction, run.numbers, run.second)

    def _run(self, work: Work, rows: int, progress: Progress | None, stages: Stages) -> list[RowRun]:
        """Results of every row of the work. Of ``rows`` rows in all, the others need no run."""
        if progress is not None:
            idle = work.idle_rows()
            progress(rows - len(work.rows) + len(idle), sum(len(row.input_ids) for row in idle))
        with stages.run(self.device, worker_count(self.device)):
            for group, found in self._scored_groups(work, stages):
                done = [row for item, values in zip(group, found, strict=True) if (row := work.take(item, values))]
                if progress is not None and done:
                    progress(len(done), sum(len(row.input_ids) for row in done))
        return work.results()

    def _scored_groups(self, work: Work, stages: Stages) -> Iterator[tuple[tuple[int, ...], list[Found | None]]]:
        """Groups of the work's samples with their results, until every sample has been in a group."""
        samples, packs, rope = work.samples, self.forward.trunk.packs, self.forward.trunk.rope
        groups = self._groups(work, range(len(samples)), self.token_budget)
        while groups:
            done = 0
            with closing(self._tried_groups(work, groups, stages)) as results:
                while True:
                    with stages.stage("results"):  # waiting for the device; other steps have their own stages
                        item = next(results, None)
                    if item is None or item[1] is None:
                        break
                    done += 1
                    yield item[0], item[1]
            if done == len(groups):
                return
            left = [i for group in groups[done:] for i in group]
            budget = batch_slots(samples, groups[done], packs, rope) // 2
            self.fitting_budget = min(budget, self.fitting_budget or budget)
            groups = self._groups(work, left, budget)

    def _groups(self, work: Work, items: Sequence[int], budget: int) -> list[tuple[int, ...]]:
        """Batches of some of the work's samples; in each, the rows' own samples come first."""
        groups = make_batches(
            [work.samples[i] for i in items], budget, self.forward.trunk.packs, self.forward.trunk.rope
        )
        named = [tuple(items[i] for i in group) for group in groups]
        if not work.signals:
            return named
        return [tuple(sorted(group, key=lambda item: not work.is_own(item))) for group in named]

    def _tried_groups(
        self, work: Work, groups: Sequence[tuple[int, ...]], stages: Stages
    ) -> Generator[tuple[tuple[int, ...], list[Found | None] | None], None, None]:
        """Each group with its results, in order; None for a group that does not fit in memory but can be split.

        On CUDA batches are launched ahead: nothing is read back between them.
        """
        samples = work.samples
        packs, rope, ahead = self.forward.trunk.packs, self.forward.trunk.rope, launches_ahead(self.device)
        workers = 1 if ahead else worker_count(self.device)
        if not self.even_threads:
            workers = min(workers, max(1, len(groups)))

        def made(group: tuple[int, ...]) -> Batch | None:
            with stages.stage("collate"):
                batch = self._unless_short(lambda: collate(samples, group, packed=packs, pin=ahead, rope=rope))
            if batch is not None and stages is not NO_STAGES:
                tokens = sum(len(samples[i].input_ids) for i in group)
                stages.batch(len(group), tokens, batch_slots(samples, group, True, rope), batch.tokens)
            return batch

        def unfit(group: tuple[int, ...]) -> list[Found | None] | None:
            return None if len(group) > 1 else [None]

        def found(batch: Batch, scores: Tensor, losses: Tensor | None) -> list[Found | None]:
            with stages.stage("rows"):
                if losses is None and not work.signals:
                    return [Found(values) for values in scores.tolist()]
                base, rest = scores[:, : len(SCORE_COLUMNS)].tolist(), scores[:, len(SCORE_COLUMNS) :]
                apart = [None] * len(base) if losses is None else _of_samples(losses, batch)
                return [Found(*item) for item in zip(base, rest, apart, strict=True)]

        def on_device(group: tuple[int, ...], batch: Batch) -> Launched:
            return self.forward.launch(batch, work.request(group), workers, stages)

        def copied(results: Launched) -> Callable[[], tuple[Tensor, Tensor | None]]:
            numbers = to_host(results.numbers)
            losses = None if results.token_losses is None else to_host(results.token_losses)
            return lambda: (numbers(), None if losses is None else losses())

        def tried(group: tuple[int, ...]) -> list[Found | None] | None:
            batch = made(group)
            results = None if batch is None else self._unless_short(lambda: copied(on_device(group, batch))())
            return unfit(group) if batch is None or results is None else found(batch, *results)

        def launched(group: tuple[int, ...], batch: Batch | None) -> Callable[[], list[Found | None]] | None:
            with stages.stage("launch"):
                results = None if batch is None else self._unless_short(lambda: copied(on_device(group, batch)))
            if batch is not None and results is not None:
                return lambda: found(batch, *results())
            rows = unfit(group)
            return None if rows is None else lambda: rows

        if ahead:
            return launched_ahead(made, launched, groups, start=lambda: torch.cuda.set_device(self.device))
        return in_order(tried, groups, workers)

    def _unless_short(self, compute: Callable[[], _T]) -> _T | None:
        """The result of ``compute``; None if memory runs out."""
        try:
            return compute()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except clause: the exception would keep the tensors of the failed batch alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _of_samples(losses: Tensor, batch: Batch) -> list[npt.NDArray[np.float32] | None]:
    """The losses of each sample's tokens; None for samples of the second pass, which come last and have none."""
    ends = batch.cu_seqlens.tolist()
    values = losses.numpy()
    return [
        # A copy: a row that is kept must not keep those of the batch.
        values[start:stop].copy() if stop <= len(values) else None
        for start, stop in pairwise(ends)
    ]


def launches_ahead(device: torch.device) -> bool:
    """Whether batches are launched on a device before the results of earlier batches are read."""
    return device.type == "cuda"


def to_host(scores: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor from a CUDA device to the host. The returned function waits for the copy.

    From any other device the tensor is copied at once.
    """
    if scores.device.type != "cuda":
        found = scores.cpu()
        return lambda: found
    with torch.cuda.device(scores.device):
        host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
        host.copy_(scores, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait


def _too_large(sample: TokenizedSample) -> ScoreRow:
    detail = f"{len(sample.input_ids)} tokens do not fit in memory, even alone; lower --max-length"
    return ScoreRow.unscored(sample, Status.OUT_OF_MEMORY, detail)


def score_row(sample: TokenizedSample, values: list[float] | None) -> ScoreRow:
    """The row of a sample with these numbers, in the order of ``SCORE_COLUMNS``; None if it did not fit in memory."""
    if values is None:
        return _too_large(sample)
    if not all(map(math.isfinite, values)):
        detail = "the model gave NaN or infinity on this row; try --dtype float32"
        return ScoreRow.unscored(sample, Status.NON_FINITE, detail)
    scores: dict[str, Any] = dict(zip(SCORE_COLUMNS, values, strict=True))
    return ScoreRow(
        sample.row,
        sample.id,
        str(Status.SCORED),
        sample.detail,
        sample.tokens,
        sample.scored_tokens,
        sample.truncated,
        **scores,
        carried=sample.carried,
        hash=sample.hash,
    )
