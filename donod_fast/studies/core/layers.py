"""DON and NOD (DONOD, arXiv 2504.14810, eq. 1–2) of *every* parameter of a model, by a slow reference path.

Scoring uses only the output layer. To show what that leaves out, this module runs each sample alone through the whole
model with autograd and steps a real optimizer on every parameter. The closed form of ``kernels/scores.py`` turns the
sums into scores for a parameter, a decoder layer, or the model as one long vector. Three details are as in
``kernels/reference.py``: the loss is softplus(lse_{v≠y} z − z_y), which is exact for confident tokens; the optimizer
steps zeros that carry the gradient, so that no step is rounded onto a weight; and sums are float64.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.kernels import don_and_nod
from donod_fast.kernels.scores import with_weight_decay
from donod_fast.models.loading import LoadedModel
from donod_fast.scoring.settings import UpdateSettings

WHOLE = "whole model"
"""The name of all parameters taken together as one vector."""


@dataclass(frozen=True)
class LayerScores:
    """The sums from which DON and NOD are computed, for each sample and parameter. All float64.

    Attributes:
        names: (parameters,) the model's own names of the parameters.
        shapes: shape of each.
        output: name of the output layer's weight.
        weight_norm_sq: (parameters,) ‖W‖².
        weight_dot_update: (samples, parameters) ⟨W, U⟩.
        update_norm_sq: (samples, parameters) ‖U‖².
        loss: (samples,) nats.
        lr: learning rate of the step.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    output: str
    weight_norm_sq: Tensor
    weight_dot_update: Tensor
    update_norm_sq: Tensor
    loss: Tensor
    lr: float

    def of(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(samples,) DON and NOD of some parameters taken together as one vector.

        Raises:
            InputError: no name is given, or a name is not a parameter.
        """
        try:
            at = torch.tensor([self.names.index(name) for name in names], dtype=torch.int64)
        except ValueError as error:
            raise InputError(f"no such parameter ({error}); known are {', '.join(self.names)}") from error
        if not len(at):
            raise InputError("the scores of no parameter at all are not defined")
        return don_and_nod(
            self.weight_dot_update[:, at].sum(1),
            self.update_norm_sq[:, at].sum(1).sqrt(),
            float(self.weight_norm_sq[at].sum().sqrt()),
            self.lr,
        )

    def matrices(self) -> list[str]:
        """The names of the parameters that are matrices (or more), in the model's order."""
        return [name for name, shape in zip(self.names, self.shapes, strict=True) if len(shape) >= 2]

    def groups(self) -> dict[str, list[str]]:
        """Parameters by decoder layer; each parameter outside the layers has its own group."""
        return layer_groups(self.names)


def layer_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """``model.layers.3.mlp.up_proj.weight`` is in ``layers.3``, ``lm_head.weight`` in ``lm_head``."""
    found: dict[str, list[str]] = {}
    for name in names:
        layer = re.search(r"([^.]+\.\d+)\.", name)
        found.setdefault(layer[1] if layer else short_name(name), []).append(name)
    return found


def short_name(name: str) -> str:
    """The name without the prefix ``model.`` and the suffix ``.weight``."""
    return re.sub(r"^(model\.|transformer\.)+", "", name).removesuffix(".weight")


def layer_scores(loaded: LoadedModel, samples: Sequence[TokenizedSample], update: UpdateSettings) -> LayerScores:
    """Score every parameter on each sample with one forward pass, one backward pass and one optimizer step.

    This costs a training step of the whole model per sample, and three times its memory. Tied embeddings are separated
    (in a copy), so that the output layer's scores refer only to its use as the output layer.

    Args:
        loaded: the model, in float32 or float64, on one device.
        samples: samples that can be scored.
        update: the optimizer step, without a storage dtype.

    Raises:
        InputError: a sample is not ready to be scored, or the update has a storage dtype.
        ModelError: the model is in half precision, where gradients are rounded too much.
    """
    if update.storage_dtype is not None:
        raise InputError("the scores of all layers do not support a storage dtype; leave it out")
    if loaded.dtype not in (torch.float32, torch.float64) or loaded.quantised:
        raise ModelError(f"{loaded.name}: the scores of all layers need float32 weights, not {loaded.precision}")
    unready = next((sample for sample in samples if sample.status is not Status.SCORED), None)
    if unready is not None:
        raise InputError(f"row {unready.row} cannot be scored: {unready.detail}")
    model = _untied(loaded.model)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    head = model.get_output_embeddings().weight
    output = next(name for name, parameter in named.items() if parameter is head)
    norms = torch.stack([parameter.detach().double().square().sum() for parameter in named.values()]).cpu()
    stepper = _Stepper(named, update)
    rows = [stepper.sums(sample_loss(model, sample, update.reduction)) for sample in samples]
    dots, squares, losses = (torch.stack(column) for column in zip(*rows, strict=True))
    dots, squares = _decayed(dots, squares, norms, update.weight_decay)
    return LayerScores(
        names=tuple(named),
        shapes=tuple(tuple(parameter.shape) for parameter in named.values()),
        output=output,
        weight_norm_sq=norms,
        weight_dot_update=dots,
        update_norm_sq=squares,
        loss=losses,
        lr=update.lr,
    )


def sample_loss(model: Any, sample: TokenizedSample, reduction: str) -> Tensor:
    """A sample's loss with its graph, a float64 scalar in nats: the mean or the sum over scored tokens."""
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([sample.input_ids], device=device)
    at = torch.tensor(sample.scored, device=device).nonzero().squeeze(1)
    with torch.enable_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0].index_select(0, at - 1).double()
        labels = ids[0, at].unsqueeze(1).to(logits.device)
        others = logits.scatter(1, labels, -torch.inf)
        losses = F.softplus(others.logsumexp(1) - logits.gather(1, labels).squeeze(1), threshold=60.0)
        return losses.mean() if reduction == "mean" else losses.sum()


class _Stepper:
    """Steps a zero copy of every parameter with its gradient; the copy then holds −lr · U."""

    def __init__(self, named: Mapping[str, nn.Parameter], update: UpdateSettings) -> None:
        self._parameters = list(named.values())
        self._weights = [parameter.detach().double() for parameter in self._parameters]
        self._twins = [nn.Parameter(torch.zeros_like(parameter)) for parameter in self._parameters]
        self._update = update
        self._optimizer: torch.optim.Optimizer
        if update.update == "adamw":  # decay is added to the sums by hand: it would decay the zeros here
            self._optimizer = torch.optim.AdamW(self._twins, lr=update.lr, eps=update.eps, weight_decay=0.0)
        else:  # torch.optim has no sign descent; SGD on the signs is the same
            self._optimizer = torch.optim.SGD(self._twins, lr=update.lr)

    def sums(self, loss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(parameters,) ⟨W, U⟩ and ‖U‖² of the step on this loss, and the loss."""
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        self._optimizer.state.clear()
        with torch.no_grad():
            for twin, gradient in zip(self._twins, gradients, strict=True):
                twin.zero_()
                twin.grad = torch.zeros_like(twin) if gradient is None else gradient
                if self._update.update == "sign":
                    twin.grad = twin.grad.sign()
            self._optimizer.step()
            updates = [twin.detach().double() / -self._update.lr for twin in self._twins]
            dots = [(weight * step).sum() for weight, step in zip(self._weights, updates, strict=True)]
            squares = [step.square().sum() for step in updates]
        return torch.stack(dots).cpu(), torch.stack(squares).cpu(), loss.detach().double().cpu()


def _decayed(dots: Tensor, squares: Tensor, norms: Tensor, weight_decay: float) -> tuple[Tensor, Tensor]:
    columns = [
        with_weight_decay(dots[:, i], squares[:, i], float(norms[i].sqrt()), weight_decay) for i in range(len(norms))
    ]
    return torch.stack([dot for dot, _ in columns], 1), torch.stack([square for _, square in columns], 1)


def _untied(model: Any) -> Any:
    """A copy in eval mode whose parameters need gradients, with a separate output layer."""
    copied = copy.deepcopy(model).eval()
    head = copied.get_output_embeddings()
    if head is None or getattr(head, "weight", None) is None:
        raise ModelError(f"a {type(model).__name__} has no output layer with a weight")
    if head.weight is copied.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
    copied.requires_grad_(True)
    return copied


__all__ = ["WHOLE", "LayerScores", "layer_groups", "layer_scores", "sample_loss", "short_name"]
