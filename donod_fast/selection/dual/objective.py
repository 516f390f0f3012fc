"""The validation objective: the mean loss over all scored tokens of a reference set, and its gradient.

The mean is over tokens, as in a global training batch and as held-out losses are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.kernels import DEFAULT_WORKSPACE
from donod_fast.models.batching import make_batches
from donod_fast.selection.dual.backward import run_backward
from donod_fast.selection.dual.layers import Chosen


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss L of a reference set with the current weights.

    Attributes:
        loss: L in nats.
        tokens: N, the number of scored tokens.
        samples: the scored reference rows.
        groups: positions of the rows of each batch.
        gradient: v in the weight's shape, by parameter name.
        hidden: (N, d) final hidden states, in the order of ``groups``.
        labels: (N,) int64.
        bounds: (rows + 1,) int32 bounds of the rows within the tokens.
        shares: (rows,) float64, each row's number of scored tokens divided by N.
    """

    loss: float
    tokens: int
    samples: Sequence[TokenizedSample] = field(repr=False)
    groups: Sequence[tuple[int, ...]] = field(repr=False)
    gradient: dict[str, Tensor] = field(repr=False)
    hidden: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    bounds: Tensor = field(repr=False)
    shares: Tensor = field(repr=False)


def reference_objective(
    chosen: Chosen,
    samples: Sequence[TokenizedSample],
    *,
    token_budget: int = 2048,
    workspace_bytes: int = DEFAULT_WORKSPACE,
    source: str = "the reference set",
) -> Objective:
    """Compute loss and gradient of the reference set.

    Args:
        chosen: model and parameters.
        samples: its tokenised rows; rows that cannot be scored are left out.
        token_budget: number of token slots of a batch.
        workspace_bytes: memory limit of the output layer's computation, in bytes.
        source: name of the reference set in messages.

    Raises:
        InputError: none of its rows has a scored token; names the source, the first row's reason and the remedy.
        ModelError: the model gives NaN or infinity on one of its rows.
    """
    ready = [sample for sample in samples if sample.status is Status.SCORED and sample.scored_tokens]
    if not ready:
        first = next((f": {s.detail or s.status}" for s in samples), ": it has no rows")
        raise InputError(
            f"{source}: the reference set has no scored token{first}; give rows with an answer that fits "
            "--format, --template and --max-length"
        )
    total = sum(sample.scored_tokens for sample in ready)
    groups = make_batches(ready, token_budget, packs=False)
    gradient = chosen.zeros()
    hidden, labels, lengths, loss = [], [], [], 0.0
    with chosen.differentiable():
        for group in groups:
            done = run_backward(chosen, ready, group, total_tokens=total, workspace_bytes=workspace_bytes)
            for member, mean in zip(group, done.losses(), strict=True):
                if not torch.isfinite(torch.tensor(mean)):
                    raise ModelError(
                        f"{source}, row {ready[member].row}: the model gives NaN or infinity; remove the row from "
                        "the reference set, or use --dtype float32"
                    )
            loss += float(done.signals.loss.sum())
            for layer in chosen.inner:
                gradient[layer.parameter] += layer.gradient(done.inputs[layer.parameter], done.deltas[layer.parameter])
            if chosen.output is not None:
                for columns, signals in done.signals.tiles():
                    gradient[chosen.output][columns] += signals.t() @ done.signals.hidden
            hidden.append(done.signals.hidden)
            labels.append(done.labels)
            lengths += [ready[member].scored_tokens for member in group]
    for name, value in gradient.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{source}: the gradient of {name} is not finite; use --dtype float32")
    counts = torch.tensor(lengths)
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).to(torch.int32)
    return Objective(
        loss / total,
        total,
        ready,
        groups,
        gradient,
        torch.cat(hidden),
        torch.cat(labels),
        bounds,
        counts.double() / total,
    )


__all__ = ["Objective", "reference_objective"]
