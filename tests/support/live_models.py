"""Models as a trainer leaves them: wrapped, in mixed modes, with hooks and gradients; drawn, built and digested."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import numpy as np
import torch
from tiny_models import tiny_model
from torch import nn

KINDS = ("llama", "llama-tied", "gemma2", "gpt2", "qwen2")
UNTIED = ("llama", "qwen2")
ADAPTERS = ("none", "layers", "head-trained", "head-adapted")
FORWARDS = ("own", "accelerate", "decorated", "decoder-decorated", "fused-and-accelerate")
WRAPPERS = ("none", "data-parallel", "distributed", "compiled", "deepspeed", "compiled-distributed")
CALLERS = ("plain", "autocast", "no-grad")


class DeepSpeedEngine(nn.Module):
    """As the engine of DeepSpeed's stages 0 to 2 looks from outside; it is not installed here."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class DistributedDataParallel(nn.Module):
    """As PyTorch's looks from outside, without a process group."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@dataclass(frozen=True)
class LiveCase:
    """One state of a model in training.

    Attributes:
        seed: draws modes of modules and random weights.
        kind: of ``tiny_models.KINDS``.
        adapters: LoRA, and where.
        forward: who replaced ``forward``.
        wrapper: what the trainer holds instead of the model.
        caller: context of the call of the scorer.
        hooks: whether there are hooks that would change the numbers or fail.
        gradients: whether there are gradients.
        checkpointing: whether gradient checkpointing is on.
    """

    seed: int
    kind: str
    adapters: str
    forward: str
    wrapper: str
    caller: str
    hooks: bool
    gradients: bool
    checkpointing: bool


def drawn(seed: int) -> LiveCase:
    """The case of a seed. Consecutive seeds go through every value of the longest list."""
    draw = random.Random(seed)
    adapters = ADAPTERS[seed % len(ADAPTERS)]
    return LiveCase(
        seed,
        draw.choice(UNTIED if adapters.startswith("head") else KINDS),  # peft warns of adapters of a tied head
        adapters,
        FORWARDS[seed % len(FORWARDS)],
        WRAPPERS[seed % len(WRAPPERS)],
        draw.choice(CALLERS),
        *(draw.random() < 0.6 for _ in range(3)),
    )


@dataclass
class Live:
    """A built case.

    Attributes:
        given: what a trainer would hand to the scorer.
        inner: the language model inside, with its adapters.
        fired: names of hooks that ran.
    """

    given: Any
    inner: Any
    fired: list[str]
    adapted: Any = None

    def plain(self) -> Any:
        """A plain model with the weights of now, adapters merged; made from scratch, not by copying the live one."""
        if self.adapted is None:
            found = type(self.inner)(copy.deepcopy(self.inner.config))
            found.load_state_dict(self.inner.state_dict())
            return found.eval()
        return _merged(self.adapted)


def build(case: LiveCase) -> Live:
    """Build a case."""
    torch.manual_seed(case.seed)
    draw = random.Random(case.seed)
    inner = tiny_model(case.kind, seed=case.seed)
    adapted = _with_adapters(inner, case.adapters)
    outer: Any = inner if adapted is None else adapted
    if case.checkpointing:
        inner.gradient_checkpointing_enable()
    if case.gradients:
        outer.train()
        tokens = torch.randint(6, 90, (2, 9))
        outer(input_ids=tokens, labels=tokens).loss.backward()
    fired: list[str] = []
    if case.hooks:
        _hang_hooks(inner, fired)
    _replace_forward(case.forward, outer, inner)
    for module in outer.modules():
        module.training = draw.random() < 0.5
    return Live(_wrapped(case.wrapper, outer), inner, fired, adapted)


def _with_adapters(model: Any, adapters: str) -> Any:
    if adapters == "none":
        return None
    from peft import LoraConfig, get_peft_model

    layers = [name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")]
    targets = [name for name in layers if "lm_head" not in name][:3]
    config: dict[str, Any] = {"target_modules": targets, "r": 2, "lora_alpha": 4, "lora_dropout": 0.1}
    if adapters == "head-trained":
        config["modules_to_save"] = ["lm_head"]
    if adapters == "head-adapted":
        config["target_modules"] = [*targets, "lm_head"]
    found = get_peft_model(model, LoraConfig(**config))
    with torch.no_grad():  # B is zero at first, which would hide everything
        for parameter in found.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return found


def _merged(adapted: Any) -> Any:
    live = {name: value.clone() for name, value in adapted.state_dict().items()}
    model = tiny_model_like(adapted)
    model.load_state_dict(live)
    return model.merge_and_unload().eval()


def tiny_model_like(adapted: Any) -> Any:
    """A model with the same adapters and no state of training."""
    from peft import get_peft_model

    base = type(adapted.get_base_model())(copy.deepcopy(adapted.get_base_model().config))
    return get_peft_model(base, copy.deepcopy(adapted.peft_config["default"])).eval()


def _hang_hooks(model: Any, fired: list[str]) -> None:
    def noisy(module: nn.Module, args: Any, output: Any) -> Any:
        fired.append("noise")
        return output + torch.rand_like(output)

    def failing(module: nn.Module, args: Any) -> None:
        fired.append("pre-hook")
        raise AssertionError("a hook of the trainer ran")

    model.get_input_embeddings().register_forward_hook(noisy)
    model.register_forward_pre_hook(failing)
    next(iter(model.modules())).register_forward_hook(lambda *_: fired.append("always"), always_call=True)
    model.get_decoder().register_forward_hook(lambda module, args, kwargs, output: None, with_kwargs=True)


def _replace_forward(kind: str, outer: Any, inner: Any) -> None:
    if kind == "fused-and-accelerate":
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(inner, outputs=("log_probs",))
    if kind in ("accelerate", "fused-and-accelerate"):
        from accelerate.utils import convert_outputs_to_fp32

        for model in {id(outer): outer, id(inner): inner}.values():  # as Accelerator.prepare_model does
            model._original_forward = model.forward
            wrapped = torch.autocast("cpu", torch.bfloat16)(model.forward.__func__)
            model.forward = MethodType(wrapped, model)
            model.forward = MethodType(convert_outputs_to_fp32(model.forward.__func__), model)
    if kind == "decorated":
        inner.forward = torch.autocast("cpu", torch.bfloat16)(inner.forward)
    if kind == "decoder-decorated":
        decoder = inner.get_decoder()
        decoder.forward = torch.autocast("cpu", torch.bfloat16)(decoder.forward)


def _wrapped(wrapper: str, model: Any) -> Any:
    makers: dict[str, Callable[[Any], Any]] = {
        "none": lambda one: one,
        "data-parallel": nn.DataParallel,
        "distributed": DistributedDataParallel,
        "deepspeed": DeepSpeedEngine,
        "compiled": torch.compile,
        "compiled-distributed": lambda one: DistributedDataParallel(torch.compile(one)),
    }
    return makers[wrapper](model)


def digest(model: nn.Module) -> str:
    """Hash of all that training depends on: modules and their attributes, tensors, gradients, config, generators."""
    found = hashlib.sha256()

    def add(*values: object) -> None:
        found.update(repr(values).encode())

    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, dict):
                add(path, name, [(key, id(one)) for key, one in value.items()])
            else:
                add(path, name, id(value))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        add(name, tensor.requires_grad, tensor._version, tensor.detach().cpu().numpy().tobytes())
        add(None if tensor.grad is None else tensor.grad.numpy().tobytes())
    config = getattr(model, "config", None)
    add(None if config is None else sorted((key, repr(value)) for key, value in vars(config).items()))
    add(random.getstate(), np.random.get_state(), torch.get_rng_state().tolist(), torch.is_autocast_enabled("cpu"))
    return found.hexdigest()
