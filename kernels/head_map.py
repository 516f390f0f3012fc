"""Map from pre-activations of the output layer to logits, z = f(a), and its derivative f′.

With x = logit_scale · (a + bias):  z = x, or with a soft-cap  z = softcap · tanh(x / softcap).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class HeadMap:
    """f and f′ of a head. ``bias`` is (vocab,) or None; it is not part of W."""

    bias: Tensor | None = None
    logit_scale: float = 1.0
    softcap: float | None = None

    @property
    def plain(self) -> bool:
        """Whether z = a exactly."""
        return self.bias is None and self.logit_scale == 1.0 and self.softcap is None

    def logits(self, a: Tensor, columns: slice | Tensor = slice(None)) -> Tensor:
        """Map pre-activations to logits.

        Args:
            a: (..., n) pre-activations of the vocabulary rows ``columns``, or (n,) with one row each.
            columns: vocabulary rows of the last dimension.
        """
        x = a
        if self.bias is not None:
            x = x + self.bias[columns].to(a.dtype)
        if self.logit_scale != 1.0:
            x = x * self.logit_scale
        if self.softcap is not None:
            x = torch.tanh(x / self.softcap) * self.softcap
        return x

    def derivative(self, a: Tensor, columns: slice | Tensor = slice(None)) -> Tensor | float:
        """f′(a): a float if it is constant, else a tensor like ``a``."""
        if self.softcap is None:
            return self.logit_scale
        x = a if self.bias is None else a + self.bias[columns].to(a.dtype)
        # sech² from exp(−2|x|): 1 − tanh² loses every digit when the cap saturates.
        decay = torch.exp(x.abs() * (-2.0 * abs(self.logit_scale) / self.softcap))
        return decay.div_((1.0 + decay).square_()).mul_(4.0 * self.logit_scale)
