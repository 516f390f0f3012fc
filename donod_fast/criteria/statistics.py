"""Criteria from the token statistics of the same pass: perplexity, EL2N, and GraNd at the output layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from donod_fast.criteria.base import BatchView, Column, Criterion, Need, RowView, Value


class Perplexity(Criterion):
    """exp of the mean loss per scored token."""

    name = "perplexity"

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column."""
        return (Column("perplexity", "exp(loss per scored token)", "low"),)

    def of_row(self, row: RowView) -> Sequence[Value]:
        """Computed from the loss alone."""
        return (math.exp(min(row.mean_loss, 700.0)),)


class ErrorNorm(Criterion):
    """EL2N: mean over scored tokens of ‖p − onehot(y)‖₂ (Paul et al., arXiv 2107.07075, who use it for one label)."""

    name = "el2n"
    needs = frozenset({Need.ERROR_NORM})

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column; the paper keeps the hard samples."""
        return (Column("el2n", "mean ‖p − onehot(y)‖ of the scored tokens", "high"),)

    def width(self) -> int:
        """One number."""
        return 1

    def of_batch(self, view: BatchView) -> Tensor:
        """Taken from the head's pass."""
        assert view.error_norm is not None
        return view.error_norm.unsqueeze(1)


class GradientNorm(Criterion):
    """GraNd at the output layer: ‖G‖_F of the loss (Paul et al., arXiv 2107.07075, who use all parameters)."""

    name = "grand"
    needs = frozenset({Need.GRADIENT_NORM})

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column; the paper keeps the hard samples."""
        return (Column("grand", "‖G‖_F of the output layer", "high"),)

    def width(self) -> int:
        """One number."""
        return 1

    def of_batch(self, view: BatchView) -> Tensor:
        """Taken from the head's pass."""
        assert view.gradient_norm is not None
        return view.gradient_norm.unsqueeze(1)


__all__ = ["ErrorNorm", "GradientNorm", "Perplexity"]
