"""Loss, entropy and error norm of every token from its hidden state, with streamed logits.

For a token with label y, in the notation of ``softmax.py``:

    loss = −log p_y,    entropy = −Σ_v p_v log p_v,    error norm = ‖p − onehot(y)‖₂ = u · √(1 + Σ_{v≠y} q_v²)

They are exact for any confidence in the label. (For a confident prediction of another token the entropy is exact to the
last digit of its logits.) The error norm refers to the probabilities and does not contain the slope f′ of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from donod_fast.kernels.arguments import (
    DEFAULT_WORKSPACE,
    IGNORE_INDEX,
    HeadArguments,
    HeadBatch,
    batch_of,
    check_labels,
    check_plain_call,
    gather_batch,
)
from donod_fast.kernels.precision import full_precision
from donod_fast.kernels.scores import precise_dtype
from donod_fast.kernels.signals import signal_blocks


class TokenColumns(NamedTuple):
    """Statistics of M tokens: (M,) tensors on the input's device, float64; NaN for the label −100.

    Attributes:
        loss: −log p_y in nats.
        entropy: entropy of p in nats.
        error_norm: ‖p − onehot(y)‖₂, from 0 to √2.
    """

    loss: Tensor
    entropy: Tensor
    error_norm: Tensor


def token_statistics(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    *,
    bias: Tensor | None = None,  # (vocab,)
    logit_scale: float = 1.0,
    softcap: float | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE,
) -> TokenColumns:
    """Loss, entropy and ‖p − onehot(y)‖₂ of each token; any torch device.

    ``don_nod`` returns the same statistics per sample, together with the scores; this function returns them per token.
    It costs one logits product.

    Args:
        hidden: hidden states after the final norm that predict ``labels`` (already shifted).
        weight: output layer W; tokens and vocabulary are streamed within ``workspace_bytes``.
        labels: token that each row of ``hidden`` should predict; −100 is not scored.
        bias: added to W h, or None.
        logit_scale: multiplies W h + bias.
        softcap: cap of the logits, or None.
        workspace_bytes: memory limit of the call in addition to arguments and result, at least 1 MiB.

    Returns:
        Three (tokens,) columns. Arithmetic is float32 (float64 if an input is) with float64 sums.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value. On an accelerator no
            value is read back: a label outside the vocabulary gives NaN there, or an error if ``DONOD_FAST_DEBUG`` is
            set.
    """
    bounds = torch.tensor([0, hidden.shape[0] if hidden.ndim else 0], dtype=torch.int32)
    call = check_plain_call(
        hidden,
        weight,
        labels,
        bounds,
        bias=bias,
        logit_scale=logit_scale,
        softcap=softcap,
        workspace_bytes=workspace_bytes,
    )
    return TokenColumns(*per_token(call, 3, _columns))


def mean_error_norm(call: HeadArguments) -> Tensor:
    """(samples,) mean of ‖p − onehot(y)‖₂ over each sample's scored tokens; NaN for a sample without one."""
    return sample_sums(call, per_token(call, 3, _columns)[2:], mean=True)[0]


def _columns(batch: HeadBatch) -> Tensor:
    """(3, scored) loss, entropy and error norm."""
    statistics = [block.statistics for block in signal_blocks(batch, squares=True)]
    return torch.cat([torch.stack([some.loss, some.entropy, some.error_norm]) for some in statistics], 1)


@torch.no_grad()
def per_token(call: HeadArguments, width: int, compute: Callable[[HeadBatch], Tensor]) -> Tensor:
    """Compute numbers for every token of a checked call; tokens are independent of each other.

    Collecting the scored rows on an accelerator would wait for it. So every row is computed there, unscored rows with
    another label, and labels outside the vocabulary give NaN.

    Args:
        call: the call; its bounds are not used.
        width: numbers per token.
        compute: returns (width, scored) in the precise dtype for a batch with at least one scored token.

    Returns:
        (width, rows) in the precise dtype, NaN for the label −100.
    """
    vocab, device = call.weight.shape[0], call.hidden.device
    check_labels(call.labels, vocab)
    rows = len(call.labels)
    found = torch.full((width, rows), torch.nan, dtype=precise_dtype(device), device=device)
    if not rows:
        return found
    with full_precision(device):
        if _can_gather(device):
            batch = gather_batch(replace(call, cu_seqlens=torch.tensor([0, rows])))
            if len(batch.labels):
                found[:, batch.rows] = compute(batch)
            return found
        inside = (call.labels >= 0) & (call.labels < vocab)
        labels = torch.where(inside, call.labels, 0).long()
        every = torch.arange(rows, device=device)
        return torch.where(inside, compute(batch_of(call, every, labels, [0, rows])), found)


def _can_gather(device: torch.device) -> bool:
    """Whether reading the labels does not wait for a device."""
    return device.type == "cpu"


def sample_sums(call: HeadArguments, values: Tensor, *, mean: bool) -> Tensor:
    """Sums or means of the numbers of each sample's scored tokens.

    Args:
        call: the call. Bounds on a device are not read back: invalid bounds give NaN for every sample.
        values: (width, rows) of :func:`per_token`.
        mean: divide by the number of scored tokens.

    Returns:
        (width, samples); NaN for a sample without a scored token.
    """
    device = values.device
    if device.type not in ("cpu", "cuda"):  # PyTorch has no segment sums there
        values = values.cpu()
    bounds = call.cu_seqlens.to(values.device).long()
    valid = (bounds[0] == 0) & (bounds[-1] == values.shape[1]) & (bounds.diff() >= 0).all()
    bounds = torch.where(valid, bounds, 0)  # no read past the end
    scored = (call.labels != IGNORE_INDEX).to(values.device)
    rows = [*torch.where(scored, values, 0.0), scored.to(values.dtype)]
    # Sums in a fixed order, where index_add would be atomic.
    *totals, count = (torch.segment_reduce(row, "sum", offsets=bounds, unsafe=True) for row in rows)
    return (torch.stack(totals) / (count if mean else torch.where(count > 0, 1.0, torch.nan))).to(device)
