"""‖U‖² and ⟨W, U⟩ from gradient tiles: G is formed for a few vocabulary rows at a time, used and discarded.

Numbers stay in range for tokens of any confidence: hidden states are scaled by the magnitude of their token relative to
the largest magnitude s of the sample, and the update is evaluated for G = s · g.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from donod_fast.kernels.updates import SGD, AdamW, FactoredAdamW, Sign, Update


class TileSums:
    """Accumulates Σ u² and Σ W ∘ u (and Σ g²) over gradient tiles, for several samples.

    Args:
        samples: number of samples.
        needs_weight: whether to accumulate Σ W ∘ u.
        scratch: (tile rows, dim) for the products.
        needs_norm: whether to accumulate Σ g².
    """

    def __init__(self, samples: int, *, needs_weight: bool, scratch: Tensor, needs_norm: bool = False) -> None:
        self._scratch = scratch
        self._squares: list[list[Tensor]] = [[] for _ in range(samples)]
        self._dots: list[list[Tensor]] | None = [[] for _ in range(samples)] if needs_weight else None
        self._gradients: list[list[Tensor]] = [[] for _ in range(samples if needs_norm else 0)]

    def add_gradient(self, sample: int, gradient: Tensor) -> None:
        """Add one gradient tile (rows, dim), which is not changed."""
        self._gradients[sample].append(torch.mul(gradient, gradient, out=self._scratch[: len(gradient)]).sum())

    def add(self, sample: int, update: Tensor, weight: Tensor | None) -> None:
        """Add one update tile (rows, dim), which is overwritten, and the same rows of W.

        Not ``torch.dot``: on some processors its float32 sum of a tile of squares near 1 is off by 6e-5.
        """
        if self._dots is not None and weight is not None:
            self._dots[sample].append(torch.mul(update, weight, out=self._scratch[: update.shape[0]]).sum())
        self._squares[sample].append(update.square_().sum())

    def add_rows(self, sample: int, squares: Tensor, dots: Tensor) -> None:
        """Add the sums over each row of an update tile, (rows,) each."""
        self._squares[sample].append(squares.sum(dtype=torch.float64))
        if self._dots is not None:
            self._dots[sample].append(dots.sum(dtype=torch.float64))

    def gradient_totals(self, dtype: torch.dtype) -> Tensor:
        """(samples,) Σ g² over tiles in ``dtype``."""
        return _sum_tiles(self._gradients, dtype)

    def totals(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """(samples,) sums over tiles in ``dtype``."""
        return _sum_tiles(self._squares, dtype), None if self._dots is None else _sum_tiles(self._dots, dtype)


def _sum_tiles(parts: list[list[Tensor]], dtype: torch.dtype) -> Tensor:
    flat = torch.stack([part for sample in parts for part in sample])
    return flat.view(len(parts), -1).sum(1, dtype=dtype)


TileStep = Callable[[Tensor, Tensor | None, slice, float], Tensor]


def tile_step(
    update: Update,
    *,
    lr: float,
    weight_decay: float,
    storage_dtype: torch.dtype | None,
    scratch: Tensor,  # (tile rows, dim) compute dtype
) -> TileStep:
    """Return the function that turns a gradient tile into an update tile.

    It takes (g, weight tile or None, vocabulary rows, s) for a gradient s · g and returns u with
    U = unit(s) · u, where ``unit_of`` gives unit(s); g may be overwritten. With a storage dtype u is
    the effective update (W − W′)/lr of a W′ rounded to it, decay included, and unit is 1.
    """
    rule = _rule(update, scratch)
    if storage_dtype is None:
        return rule

    def rounded(g: Tensor, weight: Tensor | None, rows: slice, s: float) -> Tensor:
        assert weight is not None
        u = rule(g, weight, rows, s).mul(unit_of(update, s))
        new = (weight - lr * (u + weight_decay * weight)).to(storage_dtype).to(weight.dtype)
        return (weight - new).div_(lr)

    return rounded


def unit_of(update: Update, s: float) -> float:
    """Factor that ``tile_step`` omits from U for a gradient s · g, so that squares stay in range."""
    if isinstance(update, (SGD, FactoredAdamW)):
        return s
    if isinstance(update, AdamW) and update.state is None:
        return min(1.0, s / update.eps)
    return 1.0


def _rule(update: Update, scratch: Tensor) -> TileStep:
    if isinstance(update, (SGD, FactoredAdamW)):  # the backend scales G before
        return lambda g, weight, rows, s: g
    if isinstance(update, Sign):
        # If every token's magnitude is 0, so is the gradient.
        return lambda g, weight, rows, s: g.zero_() if s == 0.0 else g.sign_()
    if update.state is None:
        return _fresh_adamw(update.eps, scratch)
    return _adamw(update)


def _fresh_adamw(eps: float, scratch: Tensor) -> TileStep:
    """U = G/(|G| + eps) with G = s g, over min(1, s/eps): g/(|g| + eps/s) or g/(|g| s/eps + 1)."""

    def step(g: Tensor, weight: Tensor | None, rows: slice, s: float) -> Tensor:
        denominator = torch.abs(g, out=scratch[: g.shape[0]])
        if s >= eps:
            denominator.add_(eps / s)
        else:
            denominator.mul_(s / eps).add_(1.0)
        return g.div_(denominator)

    return step


def _adamw(update: AdamW) -> TileStep:
    """U = m̂ / (√v̂ + eps) after one more step from the given state."""
    state = update.state
    assert state is not None
    beta1, beta2 = update.betas
    step_size = 1.0 / (1.0 - beta1 ** (state.step + 1))
    root_scale = (1.0 - beta2 ** (state.step + 1)) ** -0.5

    def step(g: Tensor, weight: Tensor | None, rows: slice, s: float) -> Tensor:
        g.mul_(s)
        first = state.exp_avg[rows].to(g.dtype) * beta1 + g * (1.0 - beta1)
        second = state.exp_avg_sq[rows].to(g.dtype) * beta2 + g.square() * (1.0 - beta2)
        return first.mul_(step_size).div_(second.sqrt_().mul_(root_scale).add_(update.eps))

    return step
