"""The parameters of the gradient interaction matrix: weights of linear layers, including the output layer.

For a linear layer z = A a the gradient of one sample is Σ_t δ_t a_tᵀ, where δ is the gradient at its output. So the
inputs and error signals of a layer are enough; :func:`choose_layers` refuses layers for which this does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from donod_fast.errors import InputError, ModelError
from donod_fast.models.head import Head, prove_head, read_head
from donod_fast.models.loading import LoadedModel
from donod_fast.models.precision import weight_kind
from donod_fast.models.trunk import Trunk

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class InnerLayer:
    """A linear layer of the trunk; its bias is not in the matrix.

    Attributes:
        name: name of the module in the model.
        module: the module.
        transposed: True for a weight of shape (in, out), as in GPT-2; else (out, in).
    """

    name: str
    module: Any = field(repr=False)
    transposed: bool = False

    @property
    def parameter(self) -> str:
        """The weight's name in the model."""
        return f"{self.name}.weight"

    @property
    def weight(self) -> Tensor:
        """The weight."""
        weight: Tensor = self.module.weight
        return weight

    def gradient(self, inputs: Tensor, signals: Tensor) -> Tensor:
        """Σ δ aᵀ over (…, in) inputs a and (…, out) error signals δ, in the weight's shape."""
        a, delta = inputs.flatten(0, -2), signals.flatten(0, -2)
        return a.t() @ delta if self.transposed else delta.t() @ a

    def dot(self, matrix: Tensor, inputs: Tensor, signals: Tensor) -> Tensor:
        """⟨V, Σ_t δ_t a_tᵀ⟩ of each sample with a matrix V of the weight's shape: (samples,) of (samples, T, …)."""
        through = inputs @ (matrix if self.transposed else matrix.t())
        tokens: Tensor = torch.linalg.vecdot(through, signals)
        return tokens.double().sum(1)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A model and its chosen parameters.

    Attributes:
        loaded: the model.
        decoder: the model without its output layer.
        head: the verified output layer.
        inner: the chosen layers of the trunk, in the model's order.
        output: name of the output layer's weight if it is chosen, else None.
        compute: dtype of the sums: float64 for a float64 model, else float32.
    """

    loaded: LoadedModel
    decoder: Any = field(repr=False)
    head: Head = field(repr=False)
    inner: tuple[InnerLayer, ...]
    output: str | None
    compute: torch.dtype

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Parameter names with shapes, in the order in which ties are broken."""
        shapes = {layer.parameter: layer.weight.shape for layer in self.inner}
        return shapes if self.output is None else {**shapes, self.output: self.head.weight.shape}

    def zeros(self) -> dict[str, Tensor]:
        """One zero matrix per parameter."""
        device = self.head.weight.device
        return {name: torch.zeros(shape, dtype=self.compute, device=device) for name, shape in self.shapes.items()}

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Enable gradients of the chosen inner weights, and of no other parameter, within the block."""
        before = [(parameter, parameter.requires_grad) for parameter in self.loaded.model.parameters()]
        try:
            self.loaded.model.requires_grad_(False)
            for layer in self.inner:
                layer.weight.requires_grad_(True)
            yield
        finally:
            for parameter, needed in before:
                parameter.requires_grad_(needed)


def choose_layers(loaded: LoadedModel, patterns: Sequence[str] = ()) -> Chosen:
    """Find the named linear layers, verify the output layer, and refuse layers that are not supported.

    Args:
        loaded: the model.
        patterns: names of modules as in ``model.named_modules()``, or globs (``model.layers.3.*``, ``*down_proj``,
            ``lm_head``). None: the last decoder layer's linear layers, and the output layer unless it is tied.

    Raises:
        InputError: no linear layer matches a pattern, or a layer is tied, quantised or otherwise not plain; names the
            layer and the reason.
        ModelError: the model's trunk or output layer is not supported (as in scoring), or the model is offloaded.
    """
    if loaded.offloaded:
        raise ModelError(
            f"{loaded.name}: parts of the model are offloaded; gradients need the whole model on one device"
        )
    trunk = Trunk(loaded, packing="off")
    if trunk.rope is not None:
        raise ModelError(
            f"{loaded.name}: its position frequencies depend on the longest sample of a batch, so gradients of a "
            "sample would depend on other samples; DualSFT does not support such models"
        )
    head = read_head(loaded.model)
    prove_head(loaded, trunk, head)
    modules = dict(loaded.model.named_modules())
    output_module = loaded.model.get_output_embeddings()
    output_name = next((name for name, module in modules.items() if module is output_module), "lm_head")
    names = _matching(loaded.name, modules, patterns, output_name) if patterns else None
    if names is None:
        names = _default_names(loaded, trunk.decoder, modules)
        if not head.tied:
            names.append(output_name)
    inner = []
    for name in names:
        if name == output_name:
            if head.tied:
                raise InputError(
                    f"{name}: the output layer is tied to the input embedding, whose part of the gradient is not "
                    "counted; choose inner layers with --layers"
                )
            continue
        inner.append(_plain_layer(loaded.model, name, modules[name]))
    compute = torch.float64 if head.weight.dtype == torch.float64 else torch.float32
    return Chosen(
        loaded, trunk.decoder, head, tuple(inner), f"{output_name}.weight" if output_name in names else None, compute
    )


def _matching(model: str, modules: dict[str, Any], patterns: Sequence[str], output_name: str) -> list[str]:
    """Names of the linear layers that match a pattern, in the model's order."""
    wanted = set()
    for pattern in patterns:
        if pattern in modules and pattern != output_name and not _is_linear(modules[pattern]):
            kind = type(modules[pattern]).__name__
            raise InputError(
                f"--layers {pattern}: a {kind} is not a linear layer; name the layers within it ({pattern}.*)"
            )
        found = {
            name
            for name, module in modules.items()
            if fnmatchcase(name, pattern) and (name == output_name or _is_linear(module))
        }
        if not found:
            some = [name for name, module in modules.items() if name == output_name or _is_linear(module)]
            raise InputError(
                f"--layers {pattern}: {model} has no linear layer of that name; it has {', '.join(some[-6:])}"
                + (f" and {len(some) - 6} more" if len(some) > 6 else "")
            )
        wanted |= found
    return [name for name in modules if name in wanted]


def _default_names(loaded: LoadedModel, decoder: Any, modules: dict[str, Any]) -> list[str]:
    """The linear layers of the decoder's last layer."""
    stacks = [module for module in decoder.children() if isinstance(module, nn.ModuleList) and len(module)]
    if not stacks:
        raise InputError(f"{loaded.name}: its last decoder layer was not found; choose with --layers")
    within = set(map(id, stacks[-1][-1].modules()))
    names = [name for name, module in modules.items() if id(module) in within and _is_linear(module)]
    if not names:
        raise InputError(f"{loaded.name}: its last decoder layer has no linear layer; choose with --layers")
    return names


def _is_linear(module: Any) -> bool:
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _plain_layer(model: Any, name: str, module: Any) -> InnerLayer:
    weight = module.weight
    kind = weight_kind(weight)
    if kind is not None or weight.dtype not in _FLOATS:
        raise InputError(f"{name}: its weight is quantised ({kind or weight.dtype}) and has no gradient")
    if weight.is_meta or hasattr(weight, "full_tensor"):
        raise InputError(f"{name}: its weight is not completely on one device")
    owners = [other for other, value in model.named_parameters(remove_duplicate=False) if value is weight]
    if owners != [f"{name}.weight"]:
        others = [other for other in owners if other != f"{name}.weight"]
        why = f"is that of {others[0]} too (tied)" if others else "is made of other parameters"
        raise InputError(
            f"{name}: its weight {why}, so its gradient is not that of the parameter; remove it from --layers"
        )
    return InnerLayer(name, module, _is_transposed(module))


__all__ = ["Chosen", "InnerLayer", "choose_layers"]
