"""Estimate the cost of a training before it runs: parameters, memory, operations and accelerator hours.

The model is built on the meta device from its config: its shapes are those of the real model, and no weights are
loaded. Numbers of parameters are exact. Memory and hours are estimates that name their assumptions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from donod_fast.errors import InputError
from donod_fast.models.loading import quiet, text_config
from donod_fast.models.precision import silence_torchao
from donod_fast.models.shapes import SHAPES
from donod_fast.system.wording import plural
from donod_fast.training.recipe import TrainSettings
from donod_fast.training.trainer import planned_steps

GIB = 1 << 30
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NF4_BYTES = 0.5 + 0.127 / 8  # 4 bits, and 0.127 bits of twice quantised scales (arXiv 2305.14314, §3)
_LOGIT_COLUMNS = 32768  # columns of the output layer that TRL's loss holds at once

UTILISATION = 0.4
"""Default for the share of peak speed that training is assumed to reach."""


@dataclass(frozen=True)
class Accelerator:
    """A device by its dense bfloat16 peak (operations a second) and its memory (bytes); vendors' data sheets."""

    name: str
    peak: float
    memory: int


ACCELERATORS = {
    gpu.name: gpu
    for gpu in (
        Accelerator("a100", 312e12, 80 * GIB),
        Accelerator("h100", 989.4e12, 80 * GIB),
        Accelerator("h200", 989.4e12, 141 * GIB),
    )
}

# Hub ids of models whose shapes are listed here, so that plans for them need no connection to the hub.
_KNOWN = {"llama-2-7b-hf": "llama-2-7b", "llama-2-7b-chat-hf": "llama-2-7b", "llama-3.1-8b-instruct": "llama-3.1-8b",
          "meta-llama-3.1-8b": "llama-3.1-8b", "meta-llama-3.1-8b-instruct": "llama-3.1-8b",
          "qwen2.5-7b-instruct": "qwen2.5-7b"}  # fmt: skip


@dataclass(frozen=True)
class ModelSize:
    """A model's shape, counted.

    Attributes:
        parameters: all, a tied output layer once.
        by_module: the same by part: embedding, attention, feed_forward, norms, output, other.
        embedding: of the input embedding that is only looked up in (0 where it is the output layer too).
        adapters: parameters of low-rank adapters, by the recipe's rank and targets; 0 without.
        quantisable: parameters of the linear layers that QLoRA keeps in 4 bits.
        layers, dim, inner, vocab, heads_dim, key_value_dim: of the decoder; widths of all heads together.
    """

    parameters: int
    by_module: dict[str, int]
    embedding: int
    adapters: int
    quantisable: int
    layers: int
    dim: int
    inner: int
    vocab: int
    heads_dim: int
    key_value_dim: int


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one epoch.

    Attributes:
        rows: rows.
        tokens: of all of them.
        longest: of one row.
        squares: sum of the squares of the rows' tokens, for attention.
        how: counted, or how they were guessed.
    """

    rows: int
    tokens: int
    longest: int
    squares: int
    how: str = "counted"

    @staticmethod
    def of(lengths: Iterable[int], how: str = "counted") -> TokenCounts:
        """Count from the tokens of each row."""
        found = [int(n) for n in lengths]
        return TokenCounts(len(found), sum(found), max(found, default=0), sum(n * n for n in found), how)

    @staticmethod
    def guessed(rows: int, mean: float, how: str) -> TokenCounts:
        """Estimate from a number of rows and a mean length; the longest row is assumed to be four times the mean."""
        return TokenCounts(rows, round(rows * mean), round(4 * mean), round(rows * mean * mean * 1.5), how)

    def share(self, fraction: float) -> TokenCounts:
        """The counts of a subset with this share of the rows, of average length."""
        parts = (self.rows * fraction, self.tokens * fraction, self.squares * fraction)
        rows, tokens, squares = (round(part) for part in parts)
        return TokenCounts(rows, tokens, self.longest, squares, f"{fraction:.0%} of {self.how}")


@dataclass(frozen=True)
class TrainPlan:
    """What a training will need.

    Attributes:
        model: its name.
        size: its shape, counted on the meta device.
        trained_parameters: those that get a gradient.
        counts: tokens of an epoch.
        steps: optimizer steps.
        tokens: over all epochs.
        weight_bytes, gradient_bytes, optimizer_bytes: exact for AdamW by dtype.
        activation_bytes: estimate for one micro-batch of the longest row.
        flops: operations over all, re-computed activations counted.
        gpu, utilisation: what ``gpu_hours`` assumes.
        gpu_hours: operations over assumed speed.
        gpus: how many of these are needed for the memory (parameters spread evenly by FSDP).
    """

    model: str
    size: ModelSize
    trained_parameters: int
    counts: TokenCounts
    steps: int
    tokens: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    flops: float
    gpu: str
    utilisation: float
    gpu_hours: float
    gpus: int

    @property
    def total_bytes(self) -> int:
        """Of the four kinds of memory, on one device."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "total_bytes": self.total_bytes}

    def text(self) -> str:
        """A text for readers, one fact per line."""
        size = self.size
        parts = ", ".join(f"{name} {count:,}" for name, count in size.by_module.items() if count)
        return "\n".join(
            [
                f"model    {self.model}: {size.parameters:,} parameters ({parts}); {self.trained_parameters:,} trained",
                f"data     {plural(self.counts.rows, 'row')}, {plural(self.counts.tokens, 'token')} an epoch "
                f"({self.counts.how}), "
                f"longest {self.counts.longest:,}",
                f"training {plural(self.steps, 'step')}, {plural(self.tokens, 'token')}",
                f"memory   weights {_size(self.weight_bytes)} + gradients {_size(self.gradient_bytes)} + optimizer "
                f"{_size(self.optimizer_bytes)} + activations about {_size(self.activation_bytes)} = about "
                f"{_size(self.total_bytes)}: {self.gpus} × {self.gpu}",
                f"time     {self.flops:.3g} operations, {self.gpu_hours:,.2g} {self.gpu} hours at an assumed "
                f"{self.utilisation:.0%} of {ACCELERATORS[self.gpu].peak / 1e12:,.0f} Tflop/s",
            ]
        )


def model_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """A model's config: a folder's own, that of a shape known here by its name or hub id, else the hub's.

    Raises:
        InputError: no config is found.
    """
    silence_torchao()
    from transformers import AutoConfig

    folder = Path(name).expanduser()
    short = name.rpartition("/")[2].lower()
    if not folder.is_dir() and (known := _KNOWN.get(short, short)) in SHAPES:
        return SHAPES[known].config()
    try:
        with quiet():
            return AutoConfig.from_pretrained(
                str(folder) if folder.is_dir() else name, revision=revision, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # the hub client raises many kinds of errors
        raise InputError(
            f"{name}: its config cannot be read ({' '.join(str(error).split())[:150]}); give a folder with a "
            f"config.json, or a model whose shape is known: {', '.join(SHAPES)}"
        ) from error


def model_size(config: Any, settings: TrainSettings | None = None) -> ModelSize:
    """Count a model's parameters on the meta device; adapters by the settings, where they ask for some."""
    silence_torchao()
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), quiet():
        model = AutoModelForCausalLM.from_config(config)
    text = text_config(config)
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = output.weight is embedding.weight
    heads = int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    linear = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not output
    }
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        by_module=dict(_by_module(model)),
        embedding=0 if tied else embedding.weight.numel(),
        adapters=_adapters(linear, settings),
        quantisable=sum(module.weight.numel() for module in linear.values()),
        layers=int(text.num_hidden_layers),
        dim=int(text.hidden_size),
        inner=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        vocab=int(output.weight.shape[0]),
        heads_dim=heads * head_dim,
        key_value_dim=int(getattr(text, "num_key_value_heads", None) or heads) * head_dim,
    )


def plan_training(
    settings: TrainSettings,
    counts: TokenCounts | int,
    *,
    config: Any = None,
    gpu: str = "h100",
    utilisation: float = UTILISATION,
) -> TrainPlan:
    """Plan a training on one epoch's tokens.

    Operations (Kaplan et al., arXiv 2001.08361): 2 for each weight and token forward, 2 for the gradient of the
    input and 2 for that of a trained weight; the embedding is a look-up; attention over the rows' own lengths
    (over packed rows in packing ``"paper"``), causal; what gradient checkpointing computes again is counted once more.

    Args:
        settings: the training.
        counts: tokens of an epoch; a number stands for rows of 512 tokens.
        config: the model's, None to find it by ``settings.model``.
        gpu: a name of :data:`ACCELERATORS`.
        utilisation: share of its peak, an assumption.

    Raises:
        InputError: an accelerator that is not known, or a model whose shape cannot be found.
    """
    if gpu not in ACCELERATORS:
        raise InputError(f"accelerator {gpu!r} is not known; known are {', '.join(ACCELERATORS)}")
    if isinstance(counts, int):
        tokens, rows = counts, max(1, round(counts / 512))
        guess = TokenCounts.guessed(rows, tokens / rows, "rows of 512 tokens assumed")
        counts = replace(guess, tokens=tokens, longest=min(guess.longest, settings.max_length or guess.longest))
    if config is None:
        config = model_config(settings.model, revision=settings.revision, trust_remote_code=settings.trust_remote_code)
    size = model_size(config, settings)
    trained = size.parameters if settings.method == "full" else size.adapters
    steps = planned_steps(settings, counts.rows)
    passes = steps / -(-counts.rows // settings.global_batch)
    weights, gradients, states = _memory(settings, size, trained)
    activations = activation_bytes(settings, size, counts.longest)
    flops = passes * _epoch_flops(settings, size, counts)
    device = ACCELERATORS[gpu]
    room = max(1.0, 0.95 * device.memory - activations)
    return TrainPlan(
        model=settings.model,
        size=size,
        trained_parameters=trained,
        counts=counts,
        steps=steps,
        tokens=round(passes * counts.tokens),
        weight_bytes=weights,
        gradient_bytes=gradients,
        optimizer_bytes=states,
        activation_bytes=activations,
        flops=flops,
        gpu=gpu,
        utilisation=utilisation,
        gpu_hours=flops / (device.peak * utilisation) / 3600,
        gpus=max(1, math.ceil((weights + gradients + states) / room)),
    )


def _size(count: int) -> str:
    return f"{count / GIB:,.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:,.1f} MiB"


def _by_module(model: nn.Module) -> Counter[str]:
    output = model.get_output_embeddings().weight  # type: ignore[operator]
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    found = Counter(dict.fromkeys(("embedding", "attention", "feed_forward", "norms", "output", "other"), 0))
    for name, parameter in model.named_parameters():
        if parameter is embedding:
            part = "embedding"
        elif parameter is output:
            part = "output"
        elif "norm" in name or ".ln_" in name:
            part = "norms"
        elif "attn" in name or "attention" in name:
            part = "attention"
        elif "mlp" in name or "feed_forward" in name or "expert" in name:
            part = "feed_forward"
        else:
            part = "other"
        found[part] += parameter.numel()
    return found


def _adapters(linear: dict[str, nn.Linear], settings: TrainSettings | None) -> int:
    if settings is None or settings.method == "full":
        return 0
    targets = settings.lora.targets
    chosen = [
        module
        for name, module in linear.items()
        if targets == "all-linear" or any(name == target or name.endswith(f".{target}") for target in targets)
    ]
    return sum(settings.lora.rank * (module.in_features + module.out_features) for module in chosen)


def _memory(settings: TrainSettings, size: ModelSize, trained: int) -> tuple[int, int, int]:
    """Bytes of weights, gradients and AdamW's two moments; torch keeps both in the dtype of the parameter."""
    dtype = settings.dtype if settings.dtype != "auto" else "float32" if settings.mixed_precision else "bfloat16"
    width = _BYTES[dtype]
    if settings.method == "full":
        return size.parameters * width, trained * width, _moments(settings, trained, width)
    if settings.method == "lora":  # peft keeps adapters of a 16-bit base in float32
        return size.parameters * width + trained * 4, trained * 4, _moments(settings, trained, 4)
    base = size.quantisable * _NF4_BYTES + (size.parameters - size.quantisable) * 2
    return round(base) + trained * 2, trained * 2, _moments(settings, trained, 2)


def _moments(settings: TrainSettings, trained: int, width: int) -> int:
    name = settings.optimizer
    if "sgd" in name:
        return 0
    return 2 * trained * (1 if "8bit" in name else width)


def activation_bytes(settings: TrainSettings, size: ModelSize, longest: int) -> int:
    """Estimate the bytes that one micro-batch keeps for the backward pass, for gated decoder layers.

    Args:
        settings: batch, dtype and checkpointing.
        size: shape of the model.
        longest: tokens of the longest row.
    """
    tokens = settings.micro_batch * longest
    half = settings.mixed_precision or settings.dtype in ("auto", "bfloat16", "float16")
    width = 2 if half else 4
    # Inputs of both norms in float32 and their outputs, queries, keys, values, what attention gives, and the
    # feed-forward part's gate, up, activated gate and product.
    layer = 2 * (4 * size.dim + width * size.dim) + width * (
        2 * size.heads_dim + 2 * size.key_value_dim + size.dim + 4 * size.inner
    )
    kept = size.layers * width * size.dim + layer if settings.gradient_checkpointing else size.layers * layer
    logits = 4 * 2 * min(size.vocab, _LOGIT_COLUMNS)
    return tokens * (kept + logits)


def _epoch_flops(settings: TrainSettings, size: ModelSize, counts: TokenCounts) -> float:
    products = size.parameters - size.embedding
    squares = counts.squares
    if settings.packing == "paper" and counts.rows:  # attention over packed rows, not over the samples in them
        packed = settings.micro_batch * counts.tokens / counts.rows
        squares = max(squares, round(counts.tokens * min(settings.max_length or packed, packed)))
    attention = 2.0 * size.layers * size.heads_dim * squares  # two products, half of each pair is causal
    again = 1 if settings.gradient_checkpointing else 0
    weights = 3 if settings.method == "full" else 2  # without gradients of the frozen weights
    adapters = 0.0 if settings.method == "full" else 6.0 * size.adapters * counts.tokens
    return 2.0 * products * counts.tokens * (weights + again) + attention * (3 + again) + adapters


__all__ = [
    "ACCELERATORS",
    "UTILISATION",
    "Accelerator",
    "ModelSize",
    "TokenCounts",
    "TrainPlan",
    "activation_bytes",
    "model_config",
    "model_size",
    "plan_training",
]
