"""Task vectors of pruned layers, sparsified and merged into kept ones (DaMoC, arXiv 2509.01221; our reading).

A removed layer takes with it what it learned in fine-tuning. Its task vector (Ilharco et al., arXiv 2212.04089)

    τ = θ_tuned − θ_base

is trimmed as in TIES (Yadav et al., arXiv 2306.01708): each tensor keeps only its entries of largest magnitude,
unchanged. Unlike in DARE, no entry is dropped at random and none is scaled up. The trimmed vector is added to the
nearest kept layer k with the same tensors,

    θ_k ← θ_k + α · Σ trim(τ),

where the sum is over all pruned layers whose nearest kept layer is k. Signs are not elected as in TIES: the vectors
come from different layers of one model, not from one layer of several models, so they need not agree. The paper does
not specify the kept layer, the sparsification or the scale; these three choices are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from donod_fast.errors import InputError, ModelError

TaskVector = dict[str, Tensor]
"""By parameter name, float32, of the layer's shapes."""


def task_vector(tuned: nn.Module, base: nn.Module) -> TaskVector:
    """Tuned minus pre-trained parameters of one layer, in float32 on the tuned layer's devices.

    Raises:
        ModelError: the two layers differ in their parameters or shapes.
    """
    own, other = dict(tuned.named_parameters()), dict(base.named_parameters())
    if _shapes(tuned) != _shapes(base):
        wrong = next(n for n in sorted(own.keys() | other.keys()) if n not in own or n not in other
                     or own[n].shape != other[n].shape)  # fmt: skip
        raise ModelError(f"the pre-trained weights are of another model: {wrong} is absent or of another shape there")
    with torch.no_grad():
        return {name: own[name].float() - other[name].to(own[name].device).float() for name in own}


def trim(vector: Mapping[str, Tensor], density: float) -> TaskVector:
    """Keep the ``density`` share of each tensor's entries that is largest in magnitude (at least one); others are 0.

    Raises:
        InputError: the density is not above 0 and at most 1.
    """
    if not 0 < density <= 1:
        raise InputError(f"density is a share above 0 and at most 1, got {density}")
    trimmed = {}
    for name, tensor in vector.items():
        flat = tensor.flatten()
        count = max(1, round(density * flat.numel()))
        places = flat.abs().topk(count).indices
        trimmed[name] = torch.zeros_like(flat).index_copy_(0, places, flat[places]).view_as(tensor)
    return trimmed


def nearest_kept(dropped: int, kept: Sequence[int], layers: Sequence[nn.Module]) -> int | None:
    """The nearest kept layer with the same parameters as a dropped one, the earlier of two; None if there is none."""
    fitting = [at for at in kept if _shapes(layers[at]) == _shapes(layers[dropped])]
    return min(fitting, key=lambda at: (abs(at - dropped), at), default=None)


def merge_dropped(
    layers: Sequence[nn.Module],
    base: Mapping[int, nn.Module],
    dropped: Sequence[int],
    *,
    density: float = 0.2,
    scale: float = 1.0,
) -> dict[int, int]:
    """Merge the trimmed task vectors of dropped layers into kept ones, in place; the sum is in float32.

    Args:
        layers: all layers of the tuned model.
        base: the pre-trained layers, at least the dropped ones, by number.
        dropped: numbers of the layers that will be removed; they are not changed.
        density: share of each task vector that is kept.
        scale: α.

    Returns:
        The kept layer for each merged dropped layer. A dropped layer without a matching kept layer is absent.

    Raises:
        InputError: the density is not a share.
        ModelError: the pre-trained layers belong to another model.
    """
    kept = [at for at in range(len(layers)) if at not in set(dropped)]
    into: dict[int, int] = {}
    sums: dict[int, TaskVector] = {}
    for at in sorted(dropped):
        target = nearest_kept(at, kept, layers)
        if target is None:
            continue
        into[at] = target
        vector = trim(task_vector(layers[at], base[at]), density)
        total = sums.setdefault(target, {})
        for name, tensor in vector.items():
            total[name] = total[name] + tensor if name in total else tensor
    with torch.no_grad():
        for target, total in sums.items():
            for name, parameter in layers[target].named_parameters():
                step = scale * total[name].to(parameter.device)
                parameter.copy_((parameter.float() + step).to(parameter.dtype))
    return into


def _shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}


__all__ = ["TaskVector", "merge_dropped", "nearest_kept", "task_vector", "trim"]
