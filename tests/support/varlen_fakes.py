"""Fakes for variable-length attention functions of GPUs: their signatures, one dense formula in float64.

They check their arguments like the real functions. This module has helpers only, no tests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    *,
    scale: float,
    left: int = -1,
    causal: bool = True,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of the whole row under one (T, T) mask, in float64: (T, H, D_v), and the log-sum-exp (H, T)."""
    total, heads, _ = query.shape
    shared = heads // key.shape[1]
    sample = torch.bucketize(torch.arange(total), bounds.long(), right=True)
    back = torch.arange(total)[:, None] - torch.arange(total)
    seen = sample[:, None] == sample
    seen &= (back >= 0) if causal else torch.ones_like(seen)
    seen &= (back <= left) if left >= 0 else torch.ones_like(seen)
    q, k, v = query.double(), key.double(), value.double()
    scores = torch.stack([scale * q[:, h] @ k[:, h // shared].T for h in range(heads)])
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    powers = scores.exp() * seen
    total_power = powers.sum(-1)
    below = total_power if sinks is None else total_power + sinks.double().exp()[:, None]
    out = torch.stack([powers[h] / below[h, :, None] @ v[:, h // shared] for h in range(heads)], 1)
    return out.to(value.dtype), total_power.log().float()


class Request(NamedTuple):
    """As ``torch.nn.attention.varlen.AuxRequest``."""

    lse: bool = False


def _checked(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> None:
    assert query.shape[-1] == key.shape[-1] == value.shape[-1] and query.shape[-1] % 8 == 0
    assert bounds.dtype == torch.int32 and isinstance(longest, int)
    assert longest == int(bounds.diff().max())


def varlen_2_10(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: Any = None,
) -> Any:
    _checked(query, key, value, cu_seq_q, max_q)
    assert query.shape[1] == key.shape[1] and cu_seq_q is cu_seq_k and max_q == max_k
    out, lse = dense(query, key, value, cu_seq_q, scale=query.shape[-1] ** -0.5, causal=is_causal)
    return (out, lse) if return_aux is not None and return_aux.lse else out


def varlen_2_13(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
    num_splits: int | None = None,
) -> Any:
    _checked(query, key, value, cu_seq_q, max_q)
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert cu_seq_k is cu_seq_q and max_q == max_k and seqused_k is None and block_table is None
    left, right = window_size
    assert right in (-1, 0)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out, lse = dense(query, key, value, cu_seq_q, scale=scale, left=left, causal=right == 0)
    return (out, lse) if return_aux is not None and return_aux.lse else out


def flash_2_7(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    assert cu_seqlens_q.dtype == torch.int32 and max_seqlen_q == max_seqlen_k and softmax_scale is not None
    assert q.shape[-1] == v.shape[-1] and causal and dropout_p == 0.0
    out, lse = dense(q, k, v, cu_seqlens_q, scale=softmax_scale, left=window_size[0], softcap=softcap)
    return (out, lse, None) if return_attn_probs else out
