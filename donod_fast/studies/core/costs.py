"""Operations and accelerator hours of scoring, of losses and of generated answers, for plans.

Hours are estimates: a share of the accelerator's peak for products, and a share of its memory bandwidth for generating,
where every step reads all weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from donod_fast.training.model_size import ModelSize
    from donod_fast.training.planning import TokenCounts

BANDWIDTH = {"a100": 2.0e12, "h100": 3.35e12, "h200": 4.8e12}
"""Bytes a second of the accelerators of ``training.planning``; vendors' data sheets."""

SHARE_OF_BANDWIDTH = 0.5
"""Share of the bandwidth that generating is assumed to reach."""

_WEIGHT_BYTES = 2  # bfloat16


def forward_flops(size: ModelSize, tokens: float, squares: float) -> float:
    """Operations of a forward pass with all logits; ``squares`` is the sum of the squares of the rows' tokens."""
    attention = 2.0 * size.layers * size.heads_dim * squares
    return 2.0 * (size.parameters - size.embedding) * tokens + attention


def scoring_flops(size: ModelSize, counts: TokenCounts) -> float:
    """Operations of one forward pass, plus the output layer's gradient tiles for AdamW (two logits products)."""
    return forward_flops(size, counts.tokens, counts.squares) + 2.0 * size.vocab * size.dim * counts.tokens


def generation_hours(
    size: ModelSize,
    samples: int,
    *,
    new_tokens: int,
    prompt_tokens: float,
    batch: int,
    gpu: str,
    utilisation: float,
) -> float:
    """Hours of generation: a step takes the longer of reading the weights and computing; prompts are prefilled.

    Args:
        size: the model.
        samples: number of answers.
        new_tokens: tokens of an answer.
        prompt_tokens: mean tokens of a prompt.
        batch: answers at once.
        gpu: a name of :data:`BANDWIDTH`.
        utilisation: share of the peak for products.
    """
    products = 2.0 * (size.parameters - size.embedding)
    batches = -(-samples // batch)
    step = max(
        size.parameters * _WEIGHT_BYTES / (BANDWIDTH[gpu] * SHARE_OF_BANDWIDTH),
        batch * products / speed(gpu, utilisation),
    )
    prefill = samples * prompt_tokens * products / speed(gpu, utilisation)
    return (batches * new_tokens * step + prefill) / 3600


def speed(gpu: str, utilisation: float) -> float:
    """Operations a second that products are assumed to reach."""
    from donod_fast.training.planning import ACCELERATORS

    return ACCELERATORS[gpu].peak * utilisation


def assumed_speeds(gpu: str, utilisation: float) -> str:
    """What the hours assume, in words."""
    return (
        f"{utilisation:.0%} of the peak for training and scoring, {SHARE_OF_BANDWIDTH:.0%} of "
        f"{BANDWIDTH[gpu] / 1e12:g} TB/s for generating"
    )


__all__ = [
    "BANDWIDTH",
    "SHARE_OF_BANDWIDTH",
    "assumed_speeds",
    "forward_flops",
    "generation_hours",
    "scoring_flops",
    "speed",
]
