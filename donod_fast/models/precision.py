"""Precision of a trunk: that of the checkpoint, or float8 on request.

Only the trunk is converted. Scores refer to the output layer, and the embedding is a look-up: both keep their dtype,
and so do the hidden states between them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor, nn

from donod_fast.errors import InputError, ModelError, suggest
from donod_fast.models.settings import PRECISIONS
from donod_fast.system.wording import shortened

FLOAT8_CAPABILITY = (8, 9)
"""Lowest CUDA compute capability with float8 matrix products (Ada; Hopper is 9.0)."""

_MULTIPLE = 16  # float8 products need multiples of it in both dimensions
_ROUTERS = ("gate", "router", "shared_expert_gate")
_log = logging.getLogger(__name__)

Quantise = Callable[[nn.Module, Callable[[nn.Module, str], bool]], None]


def refuse_precision(precision: str, dtype: str, device: torch.device) -> None:
    """Refuse an impossible precision before anything is loaded.

    Raises:
        InputError: the precision is unknown, the device does not support it, a package is missing, or ``dtype``
            contradicts it.
    """
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise InputError(f"precision={precision!r} is not known; use {known}{suggest(precision, PRECISIONS)}")
    if precision == "auto":
        return
    if dtype not in ("auto", "bfloat16"):
        raise InputError(f"precision='float8' starts from bfloat16 weights; remove dtype={dtype!r}")
    reason = why_no_float8(device)
    if reason is not None:
        raise InputError(f"precision='float8' {reason}; use precision='auto', or a quantised model")
    torchao_float8()


def why_no_float8(device: torch.device) -> str | None:
    """Reason why a device has no float8 matrix products, or None if it has them."""
    least = ".".join(map(str, FLOAT8_CAPABILITY))
    wanted = f"needs a CUDA device of compute capability {least} or more (Ada, Hopper, Blackwell)"
    if device.type != "cuda":
        return f"{wanted}, and this is {device}"
    if torch.version.hip is not None:  # AMD numbers its devices differently; torchao knows which of them have float8
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < FLOAT8_CAPABILITY:
        return f"{wanted}, and {torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}"
    return None


def float8_layers(decoder: nn.Module, head: nn.Module | None) -> list[tuple[str, nn.Linear]]:
    """Linear layers of a decoder that can be converted to float8, with their names.

    Only plain ``nn.Linear`` layers (a subclass may compute more than one product). Excluded are the output layer,
    layers with a dimension that is not a multiple of 16 or with a row of zeros (whose scale would be 0), and routers
    of experts: they cost little, and an error there selects another expert.
    """
    return [
        (name, layer)
        for name, layer in decoder.named_modules()
        if type(layer) is nn.Linear
        and layer is not head
        and not any(size % _MULTIPLE for size in layer.weight.shape)
        and name.rpartition(".")[2] not in _ROUTERS
        and bool(layer.weight.detach().ne(0).any(dim=1).all())
    ]


def to_float8(name: str, decoder: nn.Module, head: nn.Module | None, quantise: Quantise | None = None) -> str:
    """Convert the decoder's linear layers to float8 in place: weights per row, activations dynamically per token.

    Args:
        name: name of the model, for messages.
        decoder: the trunk, in bfloat16, on devices with float8 matrix products.
        head: the output layer, which is not converted.
        quantise: function that converts the chosen layers of a module; None for torchao's.

    Returns:
        Description of the precision, for the manifest.

    Raises:
        ModelError: a layer is off-loaded or on a device without float8, or torchao does not convert it.
    """
    layers = float8_layers(decoder, head)
    if not layers:
        raise ModelError(f"{name}: no linear layer is suitable for float8; use precision='auto'")
    for path, layer in layers if quantise is None else ():
        reason = why_no_float8(layer.weight.device)
        if reason is not None:
            raise ModelError(f"{name}: float8 {reason} ({path}); put the whole trunk on such devices")
    chosen = {id(layer) for _, layer in layers}
    before = {path: layer.weight for path, layer in layers}
    share = sum(weight.numel() for weight in before.values()) / max(1, sum(p.numel() for p in decoder.parameters()))
    try:
        (quantise or torchao_float8())(decoder, lambda layer, _: id(layer) in chosen)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{name}: torchao cannot convert the model to float8: {shortened(error, 300)}") from error
    left = [path for path, layer in layers if layer.weight is before[path]]
    if left:
        raise ModelError(f"{name}: torchao left {left[0]} and {len(left) - 1} more layers unchanged; upgrade torchao")
    if share < 0.5:
        _log.warning("%s: only %.0f %% of the trunk's weights are in layers that support float8", name, 100 * share)
    return f"float8 rowwise dynamic{_version('torchao')}"


def torchao_float8() -> Quantise:
    """Conversion to float8 by torchao, with dynamic scales for each row of a weight and each token.

    Raises:
        InputError: torchao is missing or too old.
    """
    try:
        with _without_warnings():
            torchao = import_module("torchao.quantization")
            config = torchao.Float8DynamicActivationFloat8WeightConfig
            # Without the bound a token of zeros (often the padding token) has scale 0 and becomes NaN. NaN times the
            # attention weight 0 is NaN, which spreads to every token before it.
            settings: dict[str, Any] = {"granularity": torchao.PerRow(), "activation_value_lb": 1e-12}
            config(**settings)
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"precision='float8' needs a recent torchao: pip install 'donod-fast[float8]' ({error})"
        ) from error
    # It would change the compiler settings of the whole process, and make compilation very slow.
    if "set_inductor_config" in inspect.signature(config).parameters:
        settings["set_inductor_config"] = False
    quantize: Any = torchao.quantize_
    made = config(**settings)
    return lambda module, chosen: quantize(module, made, filter_fn=chosen)


def quantisation(model: Any) -> str | None:
    """Storage format of a quantised model, for the manifest; None for a model of plain floats.

    Taken from the config if it says so (``bitsandbytes int8 (bitsandbytes 0.50.2)``, ``gptq 4 bits``), else from the
    types of the parameters (``torchao Int8Tensor (torchao 0.18.0)``).
    """
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is not None:
        method = str(getattr(_entry(config, "quant_method"), "value", _entry(config, "quant_method")) or "quantised")
        return " ".join(filter(None, (method, _bits(config)))) + _version(method)
    kinds = sorted({kind for parameter in model.parameters() if (kind := weight_kind(parameter)) is not None})
    return None if not kinds else ", ".join(kinds) + _version(kinds[0].partition(" ")[0])


def weight_kind(weight: Tensor) -> str | None:
    """Storage type of a quantised weight (``torchao Int8Tensor``, ``torch.int8``, …); None for plain floats."""
    kind = type(weight)
    package = kind.__module__.partition(".")[0]
    # A tensor subclass reports the dtype that it represents. DTensor is one too, but is only sharded.
    made_of_others = hasattr(weight, "__tensor_flatten__") and not hasattr(weight, "full_tensor")
    if made_of_others or package == "bitsandbytes":
        return f"{package} {kind.__name__}"
    if not weight.dtype.is_floating_point or weight.dtype.itemsize < 2:
        return str(weight.dtype)
    return None


def _bits(config: Any) -> str:
    if _entry(config, "load_in_8bit"):
        return "int8"
    if _entry(config, "load_in_4bit"):
        return str(_entry(config, "bnb_4bit_quant_type") or "4 bits")
    bits = _entry(config, "bits")
    if isinstance(bits, int):
        return f"{bits} bits"
    kind = _entry(config, "quant_type")  # torchao's: an object, or its serialised form
    if isinstance(kind, str):
        return kind
    if isinstance(kind, dict):
        return str(dict(kind.get("default") or kind).get("_type", ""))
    return "" if kind is None else type(kind).__name__


def _entry(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, dict) else getattr(config, key, None)


def _version(package: str) -> str:
    try:
        return f" ({package} {metadata.version(package)})"
    except metadata.PackageNotFoundError:
        return ""


def silence_torchao() -> None:
    """Silence torchao's log. Transformers imports it if installed, and it reports missing kernel libraries."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress log records during the block: at import, torchao reports every missing kernel library."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


__all__ = [
    "FLOAT8_CAPABILITY",
    "PRECISIONS",
    "float8_layers",
    "quantisation",
    "refuse_precision",
    "silence_torchao",
    "to_float8",
    "torchao_float8",
    "weight_kind",
    "why_no_float8",
]
