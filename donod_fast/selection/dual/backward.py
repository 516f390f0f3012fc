"""Forward and backward pass of one batch: inputs and error signals of the chosen layers.

The trunk runs forward once. The output layer's error signals give the gradient at the final hidden states, and
autograd propagates it back to the outputs of the chosen layers. Samples are rows of a padded batch and do not attend to
each other, so each row of a layer's (rows, tokens, …) inputs and error signals depends on one sample only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import ModelError
from donod_fast.kernels.scores import precise_dtype
from donod_fast.models.batching import Batch, collate
from donod_fast.models.trunk import probe_tokens
from donod_fast.selection.dual.error_signals import HeadSignals
from donod_fast.selection.dual.layers import Chosen

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}
"""Largest relative error, by dtype, of a layer's gradient from inputs and error signals against autograd's."""


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """Result of one batch.

    Attributes:
        bounds: samples + 1 bounds of the samples within the scored tokens.
        labels: (tokens,) int64 labels of the scored tokens.
        signals: error signals of the output layer.
        inputs: (samples, T, in) inputs of the chosen inner layers, by parameter name.
        deltas: (samples, T, out) gradients at their outputs, by parameter name.
    """

    bounds: list[int]
    labels: Tensor
    signals: HeadSignals
    inputs: dict[str, Tensor]
    deltas: dict[str, Tensor]

    def losses(self) -> list[float]:
        """Mean loss of each sample."""
        return [float(self.signals.loss[a:b].mean()) for a, b in pairwise(self.bounds)]


def run_backward(
    chosen: Chosen,
    samples: Sequence[TokenizedSample],
    members: Sequence[int],
    *,
    total_tokens: int | None = None,
    workspace_bytes: int,
) -> Backward:
    """Run one batch forward and backward; call it within :meth:`Chosen.differentiable`.

    Args:
        chosen: model and layers.
        samples: tokenised samples.
        members: positions of the batch's samples.
        total_tokens: the objective is the sum of token losses over this number; None for the mean of each sample.
        workspace_bytes: memory limit of the output layer's computation, in bytes.
    """
    batch = collate(samples, members)
    lengths = batch.cu_seqlens.diff()
    with torch.set_grad_enabled(bool(chosen.inner)), captured(chosen) as seen:
        hidden = final_states(chosen, batch)
    device = hidden.device
    over = lengths.double() if total_tokens is None else torch.full_like(lengths, total_tokens, dtype=torch.float64)
    weights = (1.0 / over).to(precise_dtype(device)).repeat_interleave(lengths)
    labels = batch.labels.to(device)
    states = hidden.detach().to(chosen.compute)
    signals = HeadSignals.of(states, labels, weights.to(device), chosen.head, workspace_bytes)
    inputs: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    if chosen.inner:
        for layer in chosen.inner:
            _check_calls(chosen, layer.name, seen.get(layer.name, []), len(members))
        outputs = [seen[layer.name][0][1] for layer in chosen.inner]
        back = torch.autograd.grad(
            hidden, outputs, signals.hidden_gradient().to(hidden.dtype), allow_unused=True, materialize_grads=True
        )
        for layer, delta in zip(chosen.inner, back, strict=True):
            inputs[layer.parameter] = seen[layer.name][0][0].detach().to(chosen.compute)
            deltas[layer.parameter] = delta.to(chosen.compute)
    return Backward(batch.cu_seqlens.tolist(), labels, signals, inputs, deltas)


def final_states(chosen: Chosen, batch: Batch) -> Tensor:
    """(scored, d) final hidden states that predict a scored token, with autograd's graph if gradients are enabled."""
    output = chosen.decoder(input_ids=batch.input_ids.to(chosen.loaded.device), use_cache=False)
    hidden = getattr(output, "last_hidden_state", None)
    hidden = output[0] if hidden is None else hidden
    found: Tensor = hidden.flatten(0, 1)[batch.predictors.to(hidden.device)].to(chosen.head.weight.device)
    return found


@contextmanager
def captured(chosen: Chosen) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Record input and output of every call of a chosen inner layer within the block, by layer name."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def hook_of(name: str) -> Any:
        def hook(module: Any, given: tuple[Any, ...], output: Any) -> None:
            seen.setdefault(name, []).append((given[0] if given else output, output))

        return hook

    handles = [layer.module.register_forward_hook(hook_of(layer.name)) for layer in chosen.inner]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def prove_layers(chosen: Chosen, *, workspace_bytes: int) -> None:
    """Check on a probe that inputs and error signals of each inner layer give autograd's gradient of its weight.

    This fails for a layer that is called twice, on some tokens only, or that uses its weight in another way.

    Raises:
        ModelError: names the layer and the difference.
    """
    if not chosen.inner:
        return
    rows = probe_tokens(chosen.loaded, rows=2, length=12).tolist()
    samples = [TokenizedSample(i, "", Status.SCORED, input_ids=tuple(r), scored=(False, *(True,) * 11), tokens=12)
               for i, r in enumerate(rows)]  # fmt: skip
    with chosen.differentiable():
        ours = run_backward(chosen, samples, (0, 1), workspace_bytes=workspace_bytes)
        with torch.enable_grad():
            hidden = final_states(chosen, collate(samples, (0, 1)))
        truth = torch.autograd.grad(
            hidden,
            [layer.weight for layer in chosen.inner],
            ours.signals.hidden_gradient().to(hidden.dtype),
            allow_unused=True,
            materialize_grads=True,
        )
    for layer, wanted in zip(chosen.inner, truth, strict=True):
        found = layer.gradient(ours.inputs[layer.parameter], ours.deltas[layer.parameter])
        error = float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))
        if not error <= TOLERANCE[layer.weight.dtype]:
            raise ModelError(
                f"{chosen.loaded.name}: the gradient of {layer.parameter} is not the product of its inputs and "
                f"error signals (difference {error:.1e}), so it is not a plain linear layer; remove it from --layers"
            )


def _check_calls(chosen: Chosen, name: str, calls: list[tuple[Tensor, Tensor]], rows: int) -> None:
    if len(calls) != 1:
        raise ModelError(
            f"{chosen.loaded.name}: {name} is called {len(calls)} times in a forward, and one gradient a call is "
            "served; leave it out of --layers"
        )
    given, output = calls[0]
    if (
        not isinstance(output, Tensor)
        or output.dim() != 3
        or len(output) != rows
        or given.shape[:2] != output.shape[:2]
    ):
        raise ModelError(
            f"{chosen.loaded.name}: {name} does not work on (samples, tokens, dim) (an expert that sees some tokens "
            "only, or heads side by side), so samples' gradients cannot be told apart; leave it out of --layers"
        )


__all__ = ["Backward", "captured", "final_states", "prove_layers", "run_backward"]
