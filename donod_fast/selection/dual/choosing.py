"""From row and column sums of the matrix to the best rows and a mask of the most important entries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from donod_fast.data.types import Status
from donod_fast.errors import InputError
from donod_fast.selection.dual.interactions import Utility
from donod_fast.selection.keeping import kept_count


def best_rows(utilities: Sequence[Utility], keep: float | int, order: str) -> list[int]:
    """Positions in ``utilities`` of the scored candidates with the highest utility, best first; ties in input order.

    Args:
        utilities: one per candidate.
        keep: a fraction of the scored candidates, or a count.
        order: which utility to use, ``"first"`` or ``"second"``.

    Raises:
        InputError: no candidate is scored; gives the reason of the first one.
    """
    scored = [at for at, row in enumerate(utilities) if row.status == Status.SCORED]
    if not scored:
        first = next((row.detail or row.status for row in utilities), "there are no candidates")
        raise InputError(f"no candidate row could be scored, so none can be chosen; the first row: {first}")
    value = {at: utilities[at].second if order == "second" else utilities[at].first for at in scored}
    return sorted(scored, key=lambda at: (-value[at], at))[: kept_count(keep, len(scored))]


def parameter_masks(importance: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks of the most important entries, compared over all parameters.

    Args:
        importance: finite values, by parameter name.
        share: share of all entries to choose, above 0 and at most 1; at least one is chosen.

    Returns:
        Bool tensors on the CPU, by parameter name. Exactly the share is True; among equal entries the first ones are
        chosen, in the order of ``importance`` and row by row within a parameter.

    Raises:
        InputError: the share is out of range.
    """
    if not (isinstance(share, (int, float)) and 0.0 < share <= 1.0):
        raise InputError(f"the share of parameters must be above 0 and at most 1, got {share!r}")
    flat = torch.cat([value.detach().cpu().flatten() for value in importance.values()])
    count = max(1, min(len(flat), math.floor(share * len(flat) + 0.5 + 1e-9)))
    threshold = torch.kthvalue(flat, len(flat) - count + 1).values
    mask = flat > threshold
    equal = (flat == threshold).nonzero().squeeze(1)
    mask[equal[: count - int(mask.sum())]] = True
    parts = torch.split(mask, [value.numel() for value in importance.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(importance.items(), parts, strict=True)}


__all__ = ["best_rows", "parameter_masks"]
