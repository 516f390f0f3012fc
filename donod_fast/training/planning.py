"""Estimate the cost of a training before it runs: parameters, memory, operations and accelerator hours.

The model is built on the meta device from its config: its shapes are those of the real model, and no weights are
loaded. Numbers of parameters are exact. Memory and hours are estimates that name their assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from donod_fast.errors import InputError
from donod_fast.system.wording import plural
from donod_fast.training.model_size import ModelSize, model_config, model_size
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
    "TokenCounts",
    "TrainPlan",
    "activation_bytes",
    "plan_training",
]
