"""The size of gradient entries against AdamW's eps, measured with a scorer on the first rows of a corpus."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.kernels.gradient_entries import gradient_entries
from donod_fast.models.batching import collate
from donod_fast.scores.gradient_size import GradientSize
from donod_fast.scoring.forward import Forward
from donod_fast.system.memory import is_out_of_memory

ROWS = 8
"""Rows whose gradients are looked at."""

VOCABULARY = 256
"""Rows of the vocabulary that are looked at."""

_LONGEST = 4096
"""Longer samples are passed over: this must fit beside the batches."""


@torch.inference_mode()
def gradient_size(forward: Forward, samples: Sequence[TokenizedSample]) -> GradientSize | None:
    """Measure it on the first samples that can be scored; each is a batch of its own, so that others do not matter.

    Returns:
        None if the update is not AdamW from fresh state, no sample can be scored, or memory does not suffice.
    """
    call, settings = forward.call, forward.call.settings
    if settings.update != "adamw":
        return None
    ready = [at for at, one in enumerate(samples) if one.status is Status.SCORED and len(one.input_ids) <= _LONGEST]
    vocab = call.head.weight.shape[0]
    drawn = torch.randperm(vocab, generator=torch.Generator().manual_seed(0))[:VOCABULARY].sort().values
    parts = []
    try:
        for at in ready[:ROWS]:
            batch = collate(samples, [at], rope=forward.trunk.rope)
            hidden = forward.trunk.scored_states(batch).to(forward.device)
            entries = gradient_entries(
                hidden,
                call.head.weight,
                batch.labels.to(forward.device),
                batch.cu_seqlens,
                drawn.to(forward.device),
                reduction=settings.reduction,
                bias=call.head.bias,
                logit_scale=call.head.logit_scale,
                softcap=call.head.softcap,
                workspace_bytes=forward.workspace_bytes,
            )
            parts.append(entries.abs().flatten().cpu())
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    if not parts:
        return None
    median = float(torch.cat(parts).median()) / settings.eps
    # Three digits: the last ones of a sum depend on the number of threads, and equal rows give equal parts.
    return GradientSize(float(f"{median:.3g}"), len(parts), len(drawn)) if median < float("inf") else None


__all__ = ["ROWS", "VOCABULARY", "gradient_size"]
