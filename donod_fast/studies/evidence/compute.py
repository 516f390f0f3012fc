"""Count what scoring and training cost, in tokens and in floating-point operations.

A multiply-add counts 2. A forward pass costs 2 for each parameter of the trunk and token, and 2 for each parameter of
the output layer and scored token; attention between tokens is left out (2 % of SmolLM2's on rows of 150 tokens). A
training step costs three forward passes, with adapters two: they need no gradients of the parameters. A score by AdamW
needs a further product of the size of the logits. Experts of a mixture count as if all were active.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from donod_fast.criteria.base import FORWARD, Need
from donod_fast.criteria.registry import SIGNALS, SignalOptions
from donod_fast.selection.column_methods import signals_of, split_end
from donod_fast.selection.kmeans_ifd import KMEANS_IFD
from donod_fast.studies.core.selecting import base_method
from donod_fast.studies.evidence.result import Compute

_BY_UPDATE = ("topsis", "don", "nod", "weighted", "pareto", "nodon", "don-threshold")
_BY_LOSS = ("loss", "entropy", "weight_dot_update", "update_norm")


@dataclass(frozen=True, slots=True)
class Passed:
    """Tokens of a pass: all, and those that are scored."""

    tokens: int
    scored: int

    def __add__(self, other: Passed) -> Passed:
        return Passed(self.tokens + other.tokens, self.scored + other.scored)


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Parameters that each token meets.

    Attributes:
        trunk: of the decoder, without the embedding, which is only looked up in.
        head: of the output layer.
    """

    trunk: int
    head: int

    @staticmethod
    def of(model: Any) -> ModelCost:
        """Count those of a loaded transformers model."""
        output, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        looked_up = 0 if output is embedding else embedding.numel()
        total = sum(parameter.numel() for parameter in model.parameters())
        return ModelCost(total - looked_up - output.numel(), output.numel())

    def forward(self, passed: Passed) -> float:
        """Operations of a forward pass."""
        return 2.0 * (self.trunk * passed.tokens + self.head * passed.scored)

    def training(self, passed: Passed, *, adapters: bool) -> float:
        """Operations of training on these tokens once."""
        return (2 if adapters else 3) * self.forward(passed)


@dataclass(frozen=True, slots=True)
class Passes:
    """What a method needs before it can rank.

    Attributes:
        forward: whether it needs a forward pass over the pool.
        update: whether it needs the update's products with the output layer.
        second: whether it needs a further pass over a part of each row, counted as one over its answer.
        reference: whether it needs a pass over the reference sets.
    """

    forward: bool = False
    update: bool = False
    second: bool = False
    reference: bool = False

    @staticmethod
    def of(method: str) -> Passes:
        """What a method needs; a method by a number that reading the rows gives needs nothing."""
        name = split_end(base_method(method))[0].partition("@")[0]
        if name in _BY_UPDATE:
            return Passes(forward=True, update=True)
        if name in _BY_LOSS:
            return Passes(forward=True)
        if name == KMEANS_IFD:
            return Passes(forward=True, second=True)
        needs: frozenset[Need] = frozenset()
        for signal in signals_of([name]):
            needs |= SIGNALS[signal](SignalOptions()).needs
        second = Need.SECOND_PASS in needs
        forward = second or bool(needs & FORWARD)
        return Passes(forward, False, second, forward and Need.REFERENCE in needs)

    def cost(self, model: ModelCost, pool: Passed, references: Passed, *, update: str, seconds: float = 0.0) -> Compute:
        """Cost of the scores.

        Args:
            model: the scoring model.
            pool: tokens of the pool.
            references: tokens of the reference sets.
            update: the update that scores; a linear one needs no further product with the output layer.
            seconds: wall time of the pass that computed all criteria.
        """
        tokens, flops = 0, 0.0
        if self.forward:
            tokens, flops = pool.tokens, model.forward(pool)
        if self.update and update != "sgd":
            flops += 2.0 * model.head * pool.scored
        if self.second:
            tokens, flops = tokens + pool.scored, flops + model.forward(Passed(pool.scored, pool.scored))
        if self.reference:
            tokens, flops = tokens + references.tokens, flops + model.forward(references)
        return Compute(tokens, flops, seconds if self.forward else 0.0)


__all__ = ["ModelCost", "Passed", "Passes"]
