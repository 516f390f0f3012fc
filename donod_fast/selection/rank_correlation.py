"""Spearman's rank correlation of two columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two (n,) columns: Pearson's of their ranks, ties at their average rank.

    NaN if a column is constant (or n < 2).
    """
    x, y = average_ranks(a), average_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(x.square().sum() * y.square().sum())
    return float((x * y).sum()) / math.sqrt(size) if size > 0 else math.nan


def average_ranks(column: Tensor) -> Tensor:
    """Rank of each element, counted from 1, (n,) float64; equal elements share the average of their ranks."""
    _, place, counts = torch.unique(column, sorted=True, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts.double() - 1) / 2
    return ranks[place]


__all__ = ["average_ranks", "spearman"]
