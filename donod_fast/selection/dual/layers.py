"""Which parameters stand in the gradient interaction matrix: weights of linear layers, and of the output layer.

The gradient of a linear layer z = A a of one sample is Σ_t δ_t a_tᵀ, δ the gradient at its output. So all that is
needed of a layer is what goes in and what comes back; :func:`choose_layers` refuses a layer of which that is not so.
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
    """A linear layer of the trunk; its bias is no part of the matrix.

    Attributes:
        name: of the module in the model.
        module: it.
        transposed: True for a weight of (in, out), as GPT-2's; else (out, in).
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
        """The parameter itself."""
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
    """A model and the parameters of it that are looked at.

    Attributes:
        loaded: the model.
        decoder: it without its output layer.
        head: the proved output layer.
        inner: the chosen layers of the trunk, in the model's order.
        output: the name of the output layer's weight where it is chosen, else None.
        compute: what sums are made in: float64 for a float64 model, else float32.
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
        """One zero matrix a parameter."""
        device = self.head.weight.device
        return {name: torch.zeros(shape, dtype=self.compute, device=device) for name, shape in self.shapes.items()}

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Within the block the chosen inner weights need a gradient and nothing else does."""
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
    """Find the linear layers that are meant, prove the output layer, and refuse what cannot be served.

    Args:
        loaded: the model.
        patterns: names of modules as in ``model.named_modules()``, or globs (``model.layers.3.*``, ``*down_proj``,
            ``lm_head``). None: the last decoder layer's linear layers, and the output layer unless it is tied.

    Raises:
        InputError: a pattern that no linear layer bears, or a layer that is tied, quantised or otherwise not plain;
            names it and why.
        ModelError: the model's trunk or output layer is not served (as in scoring), or the model is off-loaded.
    """
    if loaded.offloaded:
        raise ModelError(f"{loaded.name}: parts of it are off-loaded, and gradients need it whole on a device")
    trunk = Trunk(loaded, packing="off")
    if trunk.rope is not None:
        raise ModelError(
            f"{loaded.name}: its position frequencies depend on the longest sample of a batch, so gradients of a "
            "sample would depend on its neighbours; DualSFT is not served for such models"
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
    """Names of linear layers that a pattern means, in the model's order."""
    wanted = set()
    for pattern in patterns:
        if pattern in modules and pattern != output_name and not _is_linear(modules[pattern]):
            kind = type(modules[pattern]).__name__
            raise InputError(f"--layers {pattern}: a {kind} is no linear layer; name those within it ({pattern}.*)")
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
        raise InputError(f"{name}: its weight is not whole on a device here")
    owners = [other for other, value in model.named_parameters(remove_duplicate=False) if value is weight]
    if owners != [f"{name}.weight"]:
        others = [other for other in owners if other != f"{name}.weight"]
        why = f"is that of {others[0]} too (tied)" if others else "is made of other parameters"
        raise InputError(
            f"{name}: its weight {why}, so that its own gradient is not the parameter's; leave it out of --layers"
        )
    return InnerLayer(name, module, _is_transposed(module))


__all__ = ["Chosen", "InnerLayer", "choose_layers"]
