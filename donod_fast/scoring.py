"""Batches → rows of scores: trunk, head mathematics, and what becomes of a sample that fails there."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

import torch
from torch import Tensor

from donod_fast.batching import Batch, batch_slots, collate, make_batches
from donod_fast.errors import InputError
from donod_fast.head import Head
from donod_fast.kernels import don_nod
from donod_fast.kernels.arguments import MIB
from donod_fast.kernels.scores import precise_dtype
from donod_fast.profiling import NO_STAGES, Stages
from donod_fast.rows import SCORE_COLUMNS, ScoreRow
from donod_fast.samples import Status, TokenizedSample
from donod_fast.settings import UpdateSettings
from donod_fast.trunk import Trunk
from donod_fast.workers import in_order, launched_ahead, worker_count

_T = TypeVar("_T")
Progress = Callable[[int, int], None]
"""Called with (rows, tokens) as they are done."""


class SampleScorer:
    """Scores tokenised samples with one model.

    Attributes:
        token_budget: slots of a batch; may be set between two calls of ``score``.
        fitting_budget: where memory ran out in any call so far, the size that batches were cut to; else None.

    Args:
        trunk: the decoder without its head.
        head: the proved output layer.
        weight_norm: ‖W‖_F of it.
        settings: the update.
        token_budget: slots of a batch, padding included.
        workspace_bytes: workspace of the head mathematics.
        backend: of the head.
        even_threads: every batch gets the same number of torch's threads, a single one too: compiled code is for one
            number of them.
    """

    def __init__(
        self,
        trunk: Trunk,
        head: Head,
        weight_norm: float,
        settings: UpdateSettings,
        *,
        token_budget: int,
        workspace_bytes: int,
        backend: str = "auto",
        even_threads: bool = False,
    ) -> None:
        self.trunk, self.head, self.weight_norm = trunk, head, weight_norm
        self.settings = settings
        self.token_budget = token_budget
        self.fitting_budget: int | None = None
        self.even_threads = even_threads
        if workspace_bytes < MIB:  # each worker gets at least this much of it
            raise InputError(f"workspace must be at least 1 MiB ({MIB} bytes), got {workspace_bytes} bytes")
        self._workspace_bytes = workspace_bytes
        self._arguments = {
            **settings.kernel_arguments(),
            "bias": head.bias,
            "logit_scale": head.logit_scale,
            "softcap": head.softcap,
            "weight_norm": weight_norm,
            "backend": backend,
        }

    def score(
        self, samples: Sequence[TokenizedSample], progress: Progress | None = None, *, stages: Stages = NO_STAGES
    ) -> list[ScoreRow]:
        """One row per sample, in the order given. Samples that are not ready keep their status.

        Where memory runs out, the rest is batched anew with half of what failed. The next call starts with
        the full budget again: what a part's batches are must not depend on the parts before it.
        """
        rows: list[ScoreRow | None] = [None] * len(samples)
        ready = []
        for i, sample in enumerate(samples):
            if sample.status is Status.SCORED:
                ready.append(i)
            else:
                rows[i] = ScoreRow.unscored(sample)
        if progress is not None:
            progress(len(samples) - len(ready), 0)
        waiting = [samples[i] for i in ready]
        with stages.run(self.device, worker_count(self.device)):
            for group, found in self._scored_groups(waiting, stages):
                for member, row in zip(group, found, strict=True):
                    rows[ready[member]] = row
                if progress is not None:
                    progress(len(group), sum(len(waiting[i].input_ids) for i in group))
        return [row for row in rows if row is not None]

    def settle(self, weight_norm: float) -> None:
        """Take ‖W‖ as another process found it: its last digit depends on the number of threads."""
        self.weight_norm = weight_norm
        self._arguments["weight_norm"] = weight_norm

    @property
    def device(self) -> torch.device:
        """Where the head is, and the scores are made."""
        return self.head.weight.device

    def _scored_groups(
        self, samples: Sequence[TokenizedSample], stages: Stages
    ) -> Iterator[tuple[tuple[int, ...], list[ScoreRow]]]:
        """Groups of the samples, each with its rows, until every sample has been in one."""
        packs, rope = self.trunk.packs, self.trunk.rope
        groups = make_batches(samples, self.token_budget, packs, rope)
        while groups:
            done = 0
            with closing(self._tried_groups(samples, groups, stages)) as results:
                while True:
                    with stages.stage("results"):  # beside what has a stage of its own: waiting for the device
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
            smaller = make_batches([samples[i] for i in left], budget, packs, rope)
            groups = [tuple(left[i] for i in some) for some in smaller]

    def _tried_groups(
        self, samples: Sequence[TokenizedSample], groups: Sequence[tuple[int, ...]], stages: Stages
    ) -> Generator[tuple[tuple[int, ...], list[ScoreRow] | None], None, None]:
        """Each group with its rows, in order; None for one that does not fit in memory but a smaller one may.

        On CUDA batches are launched ahead: nothing is read back between them.
        """
        packs, rope, ahead = self.trunk.packs, self.trunk.rope, launches_ahead(self.device)
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

        def unfit(group: tuple[int, ...]) -> list[ScoreRow] | None:
            return None if len(group) > 1 else [_too_large(samples[group[0]])]

        def rows_of(group: tuple[int, ...], scores: Tensor) -> list[ScoreRow]:
            with stages.stage("rows"):
                return [_row(samples[i], values) for i, values in zip(group, scores.tolist(), strict=True)]

        def tried(group: tuple[int, ...]) -> list[ScoreRow] | None:
            batch = made(group)
            scores = None if batch is None else self._unless_short(lambda: self.forward(batch, workers, stages))
            return unfit(group) if scores is None else rows_of(group, scores)

        def launched(group: tuple[int, ...], batch: Batch | None) -> Callable[[], list[ScoreRow]] | None:
            with stages.stage("launch"):
                scores = None if batch is None else self._unless_short(lambda: to_host(self.launch(batch, 1, stages)))
            if scores is not None:
                return lambda: rows_of(group, scores())
            rows = unfit(group)
            return None if rows is None else lambda: rows

        if ahead:
            return launched_ahead(made, launched, groups, start=lambda: torch.cuda.set_device(self.device))
        return in_order(tried, groups, workers)

    def _unless_short(self, compute: Callable[[], _T]) -> _T | None:
        """What ``compute`` gives; None where memory runs out."""
        try:
            return compute()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the except clause: the exception would keep the failed batch's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def forward(self, batch: Batch, workers: int = 1, stages: Stages = NO_STAGES) -> Tensor:
        """(samples, 6) scores of a batch on the host, in the order of ``SCORE_COLUMNS``.

        ``workers`` batches are under way at a time; each gets its share of the workspace.
        """
        return self.launch(batch, workers, stages).cpu()

    @torch.inference_mode()
    def launch(self, batch: Batch, workers: int = 1, stages: Stages = NO_STAGES) -> Tensor:
        """(samples, 6) scores on the head's device, which may not have computed them yet; as :meth:`forward`."""
        with stages.on_device("trunk"):
            flat = self.trunk.scored_states(batch).to(self.device, non_blocking=True)
        with stages.on_device("head"):
            scores = don_nod(
                flat,
                self.head.weight,
                batch.labels.to(self.device, non_blocking=True),
                batch.cu_seqlens,
                workspace_bytes=max(MIB, self._workspace_bytes // workers),
                **self._arguments,
            )
            columns = [getattr(scores, name) for name in SCORE_COLUMNS]
            return torch.stack([column.to(precise_dtype(column.device)) for column in columns], 1)


def launches_ahead(device: torch.device) -> bool:
    """Whether batches are launched on a device before the results of earlier ones are looked at."""
    return device.type == "cuda"


def to_host(scores: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor of a CUDA device to the host; the function given back waits for it.

    From another device it is copied at once.
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")
"""What the allocators of PyTorch (CUDA, MPS, CPU on Linux and Windows) and CUDA's libraries say."""


def _too_large(sample: TokenizedSample) -> ScoreRow:
    detail = f"{len(sample.input_ids)} tokens do not fit in memory, even alone; lower --max-length"
    return ScoreRow.unscored(sample, Status.OUT_OF_MEMORY, detail)


def _row(sample: TokenizedSample, values: list[float]) -> ScoreRow:
    if not all(map(math.isfinite, values)):
        detail = "the model gave NaN or infinity on this row; try --dtype float32"
        return ScoreRow.unscored(sample, Status.NON_FINITE, detail)
    scores = dict(zip(SCORE_COLUMNS, values, strict=True))
    return ScoreRow(
        sample.row,
        sample.id,
        str(Status.SCORED),
        "",
        sample.tokens,
        sample.scored_tokens,
        sample.truncated,
        **scores,
        carried=sample.carried,
    )
