"""``don_nod_padded``: DON and NOD of a padded batch, as Hugging Face models take and give it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Unpack

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.arguments import IGNORE_INDEX, StepOptions
from donod_fast.kernels.dispatch import don_nod
from donod_fast.kernels.scores import DonNod


class DonNodOptions(StepOptions, total=False):
    """Options of ``don_nod``; see there for their meaning."""

    backend: str
    weight_norm: float | None
    workspace_bytes: int
    extras: Collection[str]
    precision: str


def don_nod_padded(
    hidden: Tensor,  # (batch, length, dim)
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (batch, length) int64 or int32
    *,
    ignore_index: int = IGNORE_INDEX,
    shift: bool = True,
    **options: Unpack[DonNodOptions],
) -> DonNod:
    """Compute DON and NOD of each row of a padded batch. See :func:`don_nod`, which does the work.

    By default ``labels`` are aligned with the input ids, as the causal language models of transformers take them: the
    hidden state at a position predicts the label of the next position (``hidden[:, :-1]`` against ``labels[:, 1:]``),
    and the label of the first position is never scored. With ``shift=False`` the hidden state at a position predicts
    the label of the same position.

    Only the labels say what is scored: padding, the prompt and everything else that is not scored must have the label
    ``ignore_index``, whatever an attention mask says. It does not matter on which side the padding is.

    Args:
        hidden: the final-norm hidden states, for example ``hidden_states[-1]`` of a model's output.
        weight: the output layer W.
        labels: the tokens to predict, and ``ignore_index`` where nothing is scored.
        ignore_index: label of positions that are not scored. If it is another than -100, a label of -100 is an error.
        shift: whether a hidden state predicts the label of the next position.
        options: as for :func:`don_nod`.

    Returns:
        ``DonNod`` of (batch,) tensors. A row without a scored token has NaN in every score and 0 in ``scored_tokens``.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
        BackendError: the backend that was named does not support the input.
    """
    for name, given in (("hidden", hidden), ("weight", weight), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise InputError(f"{name} must be a torch.Tensor, got a {type(given).__name__}")
    if hidden.ndim != 3:
        packed = "; packed samples are for don_nod(hidden, weight, labels, cu_seqlens)" if hidden.ndim == 2 else ""
        raise InputError(f"hidden must be (batch, length, dim), got shape {tuple(hidden.shape)}{packed}")
    batch, length, dim = hidden.shape
    if labels.shape != (batch, length):
        raise InputError(f"labels must be ({batch}, {length}) to fit hidden, got {tuple(labels.shape)}")
    if batch == 0:
        raise InputError("hidden must have at least one row, got a batch of 0")
    if labels.dtype not in (torch.int64, torch.int32):
        raise InputError(f"labels must be int64 or int32, got {labels.dtype}")
    if not isinstance(shift, bool):
        raise InputError(f"shift is True or False, got {shift!r}")
    if ignore_index != IGNORE_INDEX:
        if bool((labels == IGNORE_INDEX).any()):
            raise InputError(f"labels hold {IGNORE_INDEX}, but ignore_index is {ignore_index}: use one of them")
        labels = labels.masked_fill(labels == ignore_index, IGNORE_INDEX)
    if shift:  # the last state predicts nothing; so the hidden states need no copy
        labels = torch.cat([labels[:, 1:], labels.new_full((batch, min(length, 1)), IGNORE_INDEX)], 1)
    bounds = torch.arange(batch + 1, dtype=torch.int64, device=hidden.device) * length
    return don_nod(hidden.reshape(batch * length, dim), weight, labels.reshape(-1), bounds.to(torch.int32), **options)


__all__ = ["DonNodOptions", "don_nod_padded"]
