"""Closed form of DON and NOD, and the tuple that every backend returns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DonNod(NamedTuple):
    """Scores of B samples: (B,) tensors on the input's device, float64 unless stated otherwise.

    A sample without a scored token has NaN in every score and 0 in ``scored_tokens``. Only ``token_loss`` is
    per token.

    Attributes:
        don: ‖W‖_F − ‖W′‖_F, higher is better (DONOD, arXiv 2504.14810, §3.2).
        nod: ‖W − W′‖_F, lower is better.
        loss: cross entropy in nats, averaged or summed over scored tokens according to ``reduction``.
        entropy: entropy of the predicted distributions in nats, reduced in the same way.
        weight_dot_update: ⟨W, U + weight_decay · W⟩ of the step W′ = W − lr · (U + weight_decay · W).
        update_norm: ‖U + weight_decay · W‖_F. Both are valid for any learning rate, unless W′ was rounded
            to a storage dtype: then they refer to the effective update (W − W′)/lr.
        scored_tokens: int32, number of scored tokens.
        error_norm: mean over scored tokens (for the sum too) of ‖p − onehot(y)‖₂: EL2N of Paul et al. 2021,
            arXiv 2107.07075, token by token. None unless requested by ``extras``.
        gradient_norm: ‖G‖_F of the gradient of the loss with respect to W: GraNd of the same paper, for the output
            layer only. It is independent of update, weight decay and rounding. None unless requested by ``extras``.
        token_loss: (tokens,) cross entropy in nats of each row of ``hidden``, NaN for the label −100: the numbers whose
            mean or sum is ``loss``. None unless requested by ``extras``.
    """

    don: Tensor
    nod: Tensor
    loss: Tensor
    entropy: Tensor
    weight_dot_update: Tensor
    update_norm: Tensor
    scored_tokens: Tensor
    error_norm: Tensor | None = None
    gradient_norm: Tensor | None = None
    token_loss: Tensor | None = None


def precise_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device without float64 (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def don_and_nod(
    weight_dot_update: Tensor,  # (n,) float64
    update_norm: Tensor,  # (n,) float64
    weight_norm: float | Tensor,
    lr: float,
) -> tuple[Tensor, Tensor]:
    """DON and NOD of the step W′ = W − lr · U from three scalars, without the difference of two norms.

    DON = (2 lr ⟨W,U⟩ − lr² ‖U‖²) / (‖W‖ + ‖W′‖), NOD = lr ‖U‖. In float32 the literal ‖W‖ − ‖W′‖ is
    rounding noise: the step is some 1e-6 of W. Returns two (n,) tensors of the inputs' dtype.
    """
    nod = lr * update_norm
    decrease = 2.0 * lr * weight_dot_update - nod.square()  # ‖W‖² − ‖W′‖²
    weight_norm = torch.as_tensor(weight_norm, dtype=nod.dtype, device=nod.device)
    new_norm = (weight_norm.square() - decrease).clamp_min(0.0).sqrt()
    total = weight_norm + new_norm
    # An all-zero W that stays zero: both norms are 0 and so is their difference.
    don = torch.where(total > 0.0, decrease / total, torch.where(decrease.isnan(), decrease, 0.0))
    return don, nod


def with_weight_decay(
    weight_dot_update: Tensor,  # (n,) ⟨W,U⟩
    update_norm_sq: Tensor,  # (n,) ‖U‖²
    weight_norm: float | Tensor,
    weight_decay: float,
) -> tuple[Tensor, Tensor]:
    """⟨W,·⟩ and ‖·‖² of U + λW from those of U: (n,) tensors."""
    if weight_decay == 0.0:
        return weight_dot_update, update_norm_sq
    weight_norm_sq = torch.as_tensor(weight_norm, dtype=update_norm_sq.dtype, device=update_norm_sq.device) ** 2
    norm_sq = update_norm_sq + 2 * weight_decay * weight_dot_update + weight_decay**2 * weight_norm_sq
    return weight_dot_update + weight_decay * weight_norm_sq, norm_sq.clamp_min(0.0)
