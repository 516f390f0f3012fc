"""Sums of reference gradients, as matrices of the output layer's shape, and cosines with single references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from donod_fast.criteria.base import Context
from donod_fast.criteria.reference import ReferenceBatch
from donod_fast.errors import InputError
from donod_fast.kernels import accumulate_gradients
from donod_fast.system.wording import plural


def zero_matrices(count: int, sets: int, context: Context, signal: str) -> Tensor:
    """(count, V, d) zeros in float32 (float64 if the output layer is), on the head's device.

    Raises:
        InputError: they do not fit into memory; names the signal.
    """
    weight = context.head.weight
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    try:
        with torch.inference_mode():
            return torch.zeros((count, *weight.shape), dtype=dtype, device=weight.device)
    except (MemoryError, RuntimeError) as error:
        size = dtype.itemsize * count * weight.numel() / 2**30
        raise InputError(
            f"--signals {signal}: the gradients of {plural(sets, 'reference set')} take {size:.1f} GiB on "
            f"{weight.device}, which does not have that much free memory; give fewer sets, or join their files"
        ) from error


@torch.inference_mode()
def add_gradients(batch: ReferenceBatch, scales: Iterable[Tensor], into: Tensor, context: Context) -> None:
    """Add Σ_r scales[j][r] · G_r of a batch to ``into[j]``; see ``accumulate_gradients``."""
    head = context.head
    accumulate_gradients(
        batch.hidden,
        head.weight,
        batch.labels,
        batch.cu_seqlens,
        torch.stack(list(scales), 1),
        into,
        reduction=context.reduction,
        bias=head.bias,
        logit_scale=head.logit_scale,
        softcap=head.softcap,
    )


def inverse_norms(batch: ReferenceBatch) -> Tensor:
    """1/‖G_r‖; 0 for a zero gradient, whose cosine with any other counts as 0, and for a row that is left out."""
    return torch.where(batch.norms > 1e-300, 1.0 / batch.norms, 0.0)


def joined(batches: Sequence[ReferenceBatch]) -> ReferenceBatch:
    """All batches of a set as one."""
    with torch.inference_mode():
        lengths = torch.cat([batch.cu_seqlens.diff() for batch in batches])
        return ReferenceBatch(
            torch.cat([batch.hidden for batch in batches]),
            torch.cat([batch.labels for batch in batches]),
            torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
            torch.cat([batch.norms for batch in batches]),
        )


def largest_cosine(products: Tensor, own_norms: Tensor, references: ReferenceBatch) -> Tensor:
    """(n,) largest cosine of n rows over the references, without those that have none; NaN if none is left.

    Args:
        products: (n, R) inner products.
        own_norms: (n,) lengths of the rows' gradients.
        references: R references.
    """
    cosines = products / references.norms / own_norms.unsqueeze(1)
    largest = torch.where(cosines.isnan(), -torch.inf, cosines).amax(1)
    return torch.where(largest.isneginf(), torch.nan, largest)


__all__ = ["add_gradients", "inverse_norms", "joined", "largest_cosine", "zero_matrices"]
