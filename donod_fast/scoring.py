"""Batches → rows of scores: trunk, head mathematics, and what becomes of a sample that fails there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing

import torch
from torch import Tensor

from donod_fast.batching import Batch, collate, group_by_length
from donod_fast.errors import InputError
from donod_fast.head import Head
from donod_fast.kernels import don_nod
from donod_fast.kernels.arguments import MIB
from donod_fast.kernels.scores import precise_dtype
from donod_fast.rows import SCORE_COLUMNS, ScoreRow
from donod_fast.samples import Status, TokenizedSample
from donod_fast.settings import UpdateSettings
from donod_fast.trunk import Trunk
from donod_fast.workers import in_order, worker_count

Progress = Callable[[int, int], None]
"""Called with (rows, tokens) as they are done."""


class SampleScorer:
    """Scores tokenised samples with one model. Holds no state of a run.

    Args:
        trunk: the decoder without its head.
        head: the proved output layer.
        weight_norm: ‖W‖_F of it.
        settings: the update.
        token_budget: padded tokens of a batch.
        workspace_bytes: workspace of the head mathematics.
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
    ) -> None:
        self.trunk, self.head, self.weight_norm = trunk, head, weight_norm
        self.settings = settings
        self.token_budget = token_budget
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

    def score(self, samples: Sequence[TokenizedSample], progress: Progress | None = None) -> list[ScoreRow]:
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
        groups = group_by_length(waiting, self.token_budget)
        workers = min(worker_count(self.head.weight.device), max(1, len(groups)))
        while groups:
            done = 0
            with closing(in_order(lambda group: self._try_group(waiting, group, workers), groups, workers)) as results:
                for group, found in results:
                    if found is None:
                        break
                    done += 1
                    for member, row in zip(group, found, strict=True):
                        rows[ready[member]] = row
                    if progress is not None:
                        progress(len(group), sum(len(waiting[i].input_ids) for i in group))
            left = [i for group in groups[done:] for i in group]
            if left:
                smaller = group_by_length([waiting[i] for i in left], _padded_size(waiting, groups[done]) // 2)
                groups = [tuple(left[i] for i in some) for some in smaller]
            else:
                groups = []
        return [row for row in rows if row is not None]

    def _try_group(
        self, samples: Sequence[TokenizedSample], group: tuple[int, ...], workers: int
    ) -> list[ScoreRow] | None:
        """The rows of a group; None where it does not fit in memory but a smaller one may."""
        try:
            columns = self.forward(collate(samples, group), workers).tolist()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return [_row(samples[i], values) for i, values in zip(group, columns, strict=True)]
        # Out of the except clause: the exception would keep the failed batch's tensors alive.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(group) > 1:
            return None
        sample = samples[group[0]]
        detail = f"{len(sample.input_ids)} tokens do not fit in memory, even alone; lower --max-length"
        return [ScoreRow.unscored(sample, Status.OUT_OF_MEMORY, detail)]

    @torch.inference_mode()
    def forward(self, batch: Batch, workers: int = 1) -> Tensor:
        """(samples, 6) scores of a batch on the host, in the order of ``SCORE_COLUMNS``.

        ``workers`` batches are under way at a time; each gets its share of the workspace.
        """
        hidden = self.trunk(batch.input_ids)
        flat = hidden.reshape(-1, hidden.shape[-1])[batch.predictors.to(hidden.device)]
        flat = flat.to(self.head.weight.device)
        del hidden
        scores = don_nod(
            flat,
            self.head.weight,
            batch.labels.to(flat.device),
            batch.cu_seqlens,
            workspace_bytes=max(MIB, self._workspace_bytes // workers),
            **self._arguments,
        )
        columns = [getattr(scores, name) for name in SCORE_COLUMNS]
        return torch.stack([column.to(precise_dtype(column.device)) for column in columns], 1).cpu()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")
"""What the allocators of PyTorch (CUDA, MPS, CPU on Linux and Windows) and CUDA's libraries say."""


def _padded_size(samples: Sequence[TokenizedSample], group: tuple[int, ...]) -> int:
    return len(group) * max(len(samples[i].input_ids) for i in group)


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
    )
