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
def gradient_size(
    forward: Forward, samples: Sequence[TokenizedSample], token_budget: int = _LONGEST
) -> GradientSize | None:
    """Measure it on the first samples that can be scored, in one batch of the kind that scoring makes.

    Args:
        forward: trunk and head, with the update.
        samples: tokenised samples, in order.
        token_budget: slots of the batch; it has fewer rows than :data:`ROWS` if they would not fit.

    Returns:
        None if the update is not AdamW from fresh state, no sample can be scored, or memory does not suffice.
    """
    call, settings, trunk = forward.call, forward.call.settings, forward.trunk
    if settings.update != "adamw":
        return None
    lengths = [len(one.input_ids) for one in samples]
    ready = [at for at, one in enumerate(samples) if one.status is Status.SCORED and lengths[at] <= _LONGEST][:ROWS]
    while len(ready) > 1 and len(ready) * max(lengths[at] for at in ready) > token_budget:
        ready.pop()
    if not ready:
        return None
    vocab = call.head.weight.shape[0]
    drawn = torch.randperm(vocab, generator=torch.Generator().manual_seed(0))[:VOCABULARY].sort().values
    try:
        batch = collate(samples, ready, packed=trunk.packs, rope=trunk.rope)
        entries = gradient_entries(
            trunk.scored_states(batch).to(forward.device),
            call.head.weight,
            batch.labels.to(forward.device),
            batch.cu_seqlens,
            drawn.to(forward.device),
            reduction=settings.reduction,
            bias=call.head.bias,
            logit_scale=call.head.logit_scale,
            softcap=call.head.softcap,
            workspace_bytes=forward.workspace_bytes,
        ).abs()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    median = float(entries.flatten().median()) / settings.eps
    # Three digits: the last ones of a sum depend on the number of threads, and equal rows give equal parts.
    return GradientSize(float(f"{median:.3g}"), len(ready), len(drawn)) if median < float("inf") else None


__all__ = ["ROWS", "VOCABULARY", "gradient_size"]
