"""A batch of rows and their second pass → scores and the numbers of the criteria, in one trunk pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from donod_fast.criteria.base import BatchView
from donod_fast.criteria.running import SignalSet
from donod_fast.data.types import TokenizedSample
from donod_fast.kernels import DonNod, don_nod, token_statistics
from donod_fast.kernels.scores import precise_dtype
from donod_fast.models.batching import Batch
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.system.profiling import Stages

if TYPE_CHECKING:
    from donod_fast.models.head import Head
    from donod_fast.models.trunk import Trunk


@torch.inference_mode()
def launch_signals(
    batch: Batch,
    samples: Sequence[TokenizedSample],
    own: int,
    *,
    trunk: Trunk,
    head: Head,
    signals: SignalSet,
    scores: bool,
    arguments: Mapping[str, Any],
    workspace_bytes: int,
    stages: Stages,
) -> Tensor:
    """Run a batch whose first ``own`` samples are rows themselves, the others those of a second pass.

    Args:
        batch: of ``samples``, in that order.
        samples: what it was made of.
        own: how many are rows.
        trunk: the decoder.
        head: the output layer.
        signals: the criteria.
        scores: whether the rows get DON and NOD.
        arguments: of ``don_nod``, as the rows are scored.
        workspace_bytes: for the head mathematics.
        stages: records where the time goes.

    Returns:
        (samples, 6 + width) on the head's device: of rows the scores in the order of ``SCORE_COLUMNS`` (NaN unless
        ``scores``), then the criteria's numbers; of others the sum of the token losses in nats comes first.
    """
    device = head.weight.device
    with stages.on_device("trunk"):
        states = trunk.states(batch) if signals.needs_states else None
        if states is None:
            flat = trunk.scored_states(batch)
        else:
            flat = states[batch.predictors.to(states.device, non_blocking=True)]
        flat = flat.to(device, non_blocking=True)
    with stages.on_device("head"):
        labels = batch.labels.to(device, non_blocking=True)
        cut = int(batch.cu_seqlens[own])
        numbers = torch.full((len(samples), len(SCORE_COLUMNS) + signals.width), torch.nan, dtype=precise_dtype(device))
        out = numbers.to(device)
        if own:
            found = _scores(
                flat[:cut], labels[:cut], batch.cu_seqlens[: own + 1], head, signals, scores, arguments, workspace_bytes
            )
            if scores:
                out[:own, : len(SCORE_COLUMNS)] = torch.stack([getattr(found, name) for name in SCORE_COLUMNS], 1)
            view = BatchView(
                samples[:own],
                flat[:cut],
                labels[:cut],
                batch.cu_seqlens[: own + 1],
                head,
                str(arguments["reduction"]),
                workspace_bytes,
                found.error_norm,
                found.gradient_norm,
                states,
                _first_slots(batch, own),
            )
            if signals.width:
                out[:own, len(SCORE_COLUMNS) :] = signals.of_batch(view)
        if own < len(samples):
            losses = token_statistics(
                flat[cut:],
                head.weight,
                labels[cut:],
                bias=head.bias,
                logit_scale=head.logit_scale,
                softcap=head.softcap,
                workspace_bytes=workspace_bytes,
            ).loss
            lengths = batch.cu_seqlens[own:].diff().tolist()
            out[own:, 0] = torch.stack([part.sum() for part in torch.split(losses, lengths)])
    return out


def _scores(
    hidden: Tensor,
    labels: Tensor,
    bounds: Tensor,
    head: Head,
    signals: SignalSet,
    scores: bool,
    arguments: Mapping[str, Any],
    workspace_bytes: int,
) -> DonNod:
    """DON, NOD and what the criteria want of the head; where no scores are wanted, by the cheapest update."""
    if not scores and not signals.extras:
        nothing = torch.empty(0)
        return DonNod(*[nothing] * 7)
    asked = dict(arguments) if scores else {**arguments, "update": "sgd", "weight_decay": 0.0, "storage_dtype": None}
    return don_nod(hidden, head.weight, labels, bounds, workspace_bytes=workspace_bytes, extras=signals.extras, **asked)


def _first_slots(batch: Batch, count: int) -> list[int]:
    if batch.sample_bounds is not None:
        return [int(slot) for slot in batch.sample_bounds[:count].tolist()]
    return [number * batch.longest for number in range(count)]


__all__ = ["launch_signals"]
