"""A model that somebody else owns and trains: unwrapped, held in a neutral state for a while, and then restored.

A trainer wraps the model (DDP, ``torch.compile``, peft), replaces ``forward`` by one that runs under autocast, sets
train mode module by module, and hangs hooks on modules. :func:`bare` takes the wrappers off, or refuses those under
which no process has the whole weights. Within :func:`neutral` the model computes what a plain copy of it would: no
autocast, eval mode, no hooks, nothing compiled. Afterwards every module and every random number generator is as before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from donod_fast.errors import ModelError
from donod_fast.models.head import Head

_CONTAINERS = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_hooks_with_kwargs",
               "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs")  # fmt: skip
"""Dicts of a module that are restored in place: handles of hooks keep a reference to them."""

_HOOKS = tuple(name for name in _CONTAINERS if "hooks" in name)

_REMEDY = "train with DDP or ZeRO-2, or score a saved checkpoint with `donod-fast score`"


def bare(model: Any) -> Any:
    """The causal language model inside wrappers of training; adapters of peft stay in it.

    Taken off are ``DistributedDataParallel``, ``DataParallel``, DeepSpeed's engine, ``torch.compile`` and
    ``PeftModel``.

    Raises:
        ModelError: the weights are divided among processes (FSDP, ZeRO-3, tensor parallelism), or a prompt is learnt
            that the model alone does not have; names which.
    """
    for _ in range(8):  # no real model has more wrappers
        kinds = {kind.__name__ for kind in type(model).__mro__}
        if kinds & {"DistributedDataParallel", "DataParallel", "DeepSpeedEngine"}:
            model = model.module
        elif "OptimizedModule" in kinds:
            model = model._orig_mod
        elif "FullyShardedDataParallel" in kinds:
            break
        elif callable(getattr(model, "get_base_model", None)) and hasattr(model, "peft_config"):
            if getattr(model.active_peft_config, "is_prompt_learning", False):
                kind = model.active_peft_config.peft_type
                raise ModelError(
                    f"{type(model).__name__}: a live model with {getattr(kind, 'value', kind)} cannot be scored: its "
                    "learnt prompt stands before every row; train an adapter of the weights, such as LoRA"
                )
            model = model.get_base_model()
        else:
            break
    _refuse_divided(model)
    return model


def _refuse_divided(model: Any) -> None:
    """Refuse a model of which this process has only a part."""
    name = type(model).__name__
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise ModelError(f"{name}: FSDP divides {path or 'the model'} among processes; {_REMEDY}")
        for leaf, parameter in module.named_parameters(recurse=False):
            place = f"{path}.{leaf}".lstrip(".")
            if hasattr(parameter, "ds_id"):
                raise ModelError(f"{name}: DeepSpeed ZeRO-3 divides {place} among processes; {_REMEDY}")
            if hasattr(parameter, "full_tensor"):
                raise ModelError(
                    f"{name}: {place} is divided among processes (a DTensor of FSDP2 or tensor parallelism); {_REMEDY}"
                )


@contextmanager
def neutral(model: nn.Module) -> Iterator[None]:
    """Let a bare model compute as a plain copy of it would, within the block; then restore all that was changed.

    Restored are every attribute of every module (modes, buffers, hooks, wrapped ``forward``), and the random number
    generators of Python, NumPy and PyTorch. Gradients and parameters are not touched. No other thread may use the
    model within the block.

    Raises:
        ModelError: after the block, if a forward pass has changed a buffer in place, which cannot be undone.
    """
    modules = list(model.modules())
    before = [_attributes(module) for module in modules]
    versions = [(path, buffer, buffer._version) for path, buffer in model.named_buffers() if not buffer.is_inference()]
    generators = _generators()
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    try:
        for module in modules:
            _make_plain(module)
        with ExitStack() as stack:
            for kind in {"cpu", device} - {"meta"}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for module, attributes in zip(modules, before, strict=True):
            _restore(module, attributes)
        _restore_generators(generators)
    changed = next((path for path, buffer, version in versions if buffer._version != version), None)
    if changed is not None:
        raise ModelError(
            f"{type(model).__name__}: a forward pass in eval mode changes the buffer {changed} in place, so scoring "
            "would change the model that is trained; score a copy of it"
        )


def with_adapters(head: Head, model: Any) -> Head:
    """The head with the weights of the LoRA adapters that are active on the output layer: W + scaling · B A.

    Without such adapters it is returned as it is. Otherwise its weight is a copy, as merging the adapters would make.

    Raises:
        ModelError: an adapter of the output layer is more than a product of two matrices.
    """
    layer = model.get_output_embeddings()
    delta_of = getattr(layer, "get_delta_weight", None)
    if not callable(delta_of) or getattr(layer, "merged", False) or getattr(layer, "disable_adapters", False):
        return head
    active = [name for name in layer.active_adapters if name in getattr(layer, "lora_A", {})]
    if not active:
        return head
    for kind, names in (("DoRA", "use_dora"), ("a bias", "lora_bias")):
        if any((getattr(layer, names, None) or {}).get(name) for name in active):
            raise ModelError(
                f"{type(model).__name__}: an adapter of the output layer has {kind}, which cannot be scored live; "
                "use plain LoRA there"
            )
    with torch.no_grad():
        weight = head.weight.clone()
        for name in active:
            weight += delta_of(name).to(weight.device, weight.dtype)
    return replace(head, weight=weight)


def _make_plain(module: nn.Module) -> None:
    """Eval mode, the module's own forward, no hooks; the module's own methods for these may have side effects."""
    module.training = False
    attributes = vars(module)
    if "forward" in attributes:
        attributes["forward"] = _without_autocast(attributes["forward"], attributes.get("_original_forward"))
    if attributes.get("_compiled_call_impl") is not None:
        attributes["_compiled_call_impl"] = None
    needed = {key for key, hook in module._forward_pre_hooks.items() if _computes_weights(hook)}
    for name in _HOOKS:
        hooks = attributes[name]
        for key in [key for key in hooks if key not in needed]:
            del hooks[key]


def _computes_weights(hook: Any) -> bool:
    """Whether a hook makes a weight from others (pruning, weight norm): without it the layer has an old one or none."""
    return type(hook).__module__.startswith("torch.nn.utils.")


def _without_autocast(forward: Any, original: Any) -> Any:
    """The function inside accelerate's wrapper, which keeps the original, or inside decorators of autocast."""
    if original is not None:
        return original
    inner = forward
    while inner is not None:
        function = getattr(inner, "__func__", inner)
        code = getattr(function, "__code__", None)
        inner = getattr(function, "__wrapped__", None)
        if getattr(code, "co_name", "") == "decorate_autocast" and inner is not None:
            owner = getattr(forward, "__self__", None)
            return inner if owner is None or hasattr(inner, "__self__") else inner.__get__(owner)
    return forward


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module, with copies of its containers."""
    found = dict(vars(module))
    return {**found, **{name: dict(found[name]) for name in _CONTAINERS if name in found}}


def _restore(module: nn.Module, attributes: dict[str, Any]) -> None:
    own = vars(module)
    for name in [name for name in own if name not in attributes]:
        del own[name]
    for name, value in attributes.items():
        if name not in _CONTAINERS:
            own[name] = value
        elif [(key, id(one)) for key, one in own[name].items()] != [(key, id(one)) for key, one in value.items()]:
            own[name].clear()
            own[name].update(value)


def _generators() -> tuple[Any, ...]:
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if in_use else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _restore_generators(states: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


__all__ = ["bare", "neutral", "with_adapters"]
