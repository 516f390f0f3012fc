"""Pairs of token tiles, for the kernels of ``gram.py``: where a pair is, what its tiles load, one chain of products.

With E of ``logits.py`` (e^{z − reference}, 0 at the label), R_t = Σ_{v ≠ y} e^{z_v − reference}, ℓ_t = f′(a_y), r_t the
magnitude of a token relative to its sample's largest, share_t = r_t / R_t and λ_t = R_t ℓ_t (``rows.py``):

    r_t D_t = share_t (E_t − λ_t onehot(y_t))
    r_t r_s D_t · D_s = share_t share_s (E_t · E_s + L_ts)
    L_ts = λ_t λ_s [y_t = y_s] − λ_s E_t[y_s] − λ_t E_s[y_t]

E_t · E_s is one chain of products on the tensor cores in the stored type; L and the shares are applied in float32. So
the column of the label, which dominates all others, is never rounded. The sums are linear in the columns, so parts of
the vocabulary can be added.

Range: tokens with |log R| > 30 (``rows.FAR``) have another reference, so E_t · E_s ≤ R_t R_s ≤ e^60 = 1.1e26, far from
the end of float32. At the other end λ_t λ_s is e^−60 = 8.8e-27 for a plain head; products below 1.2e-38, the least
normal number, sum to 2e-7 of it at most (V = 128,000), even where a device counts them as 0. Each share, at most e^30,
is multiplied separately: share_t share_s times h_t · h_s could overflow.

Slots past a sample's end are read as its last token, with a share of 0. So loads need no mask, and no value of another
sample is touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.language import dot
from donod_fast.kernels.triton_backend.layout import Group, Layout


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One side of the products: tokens of a set of samples and their stored columns.

    Attributes:
        hidden: (rows, dim).
        exps: (slots, columns) E of the group.
        share: (all slots,) float32, r_t / R_t with a sign, 0 for pads.
        label_signal: (all slots,) float32, R_t ℓ_t.
        labels: (rows,).
        layout, group: positions of the tokens.
    """

    hidden: Tensor
    exps: Tensor
    share: Tensor
    label_signal: Tensor
    labels: Tensor
    layout: Layout
    group: Group


@triton.jit
def find_pair(
    pair, pair_start, left_slot_start, right_slot_start, left_counts, right_counts, left_step_sample,
    right_step_sample, left_first, left_samples, right_first, right_samples, right_tiles,
    CROSS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
):  # fmt: skip
    """Find the first slots of the left and right tile of a pair, and the last slots of their samples.

    CROSS: pairs are the cells of left tiles × ``right_tiles``. Otherwise they are those of the samples' triangles
    (i ≥ j). The result begins with False for a cell without a pair.
    """
    if CROSS:
        left = tl.load(left_slot_start + left_first) + pair // right_tiles * BLOCK_TOKENS
        right = tl.load(right_slot_start + right_first) + pair % right_tiles * BLOCK_TOKENS
        exists = left < tl.load(left_slot_start + left_first + left_samples)
        exists &= right < tl.load(right_slot_start + right_first + right_samples)
        # Slots are aligned to the tiles, so a tile belongs to one sample.
        left_sample = left_first
        right_sample = right_first
        if exists:
            left_sample = tl.load(left_step_sample + left // BLOCK_TOKENS)
            right_sample = tl.load(right_step_sample + right // BLOCK_TOKENS)
        left_last = tl.load(left_slot_start + left_sample) + tl.load(left_counts + left_sample) - 1
        right_last = tl.load(right_slot_start + right_sample) + tl.load(right_counts + right_sample) - 1
    else:
        pair += tl.load(pair_start + left_first)
        exists = pair < tl.load(pair_start + left_first + left_samples)
        # The sample that owns the pair: the last whose pairs begin at or before it.
        low = left_first
        high = left_first + left_samples
        while high - low > 1:
            middle = (low + high) // 2
            if tl.load(pair_start + middle) <= pair:
                low = middle
            else:
                high = middle
        within = pair - tl.load(pair_start + low)
        # Row of a cell in the triangle, corrected by one if the root was rounded.
        i = ((tl.sqrt(8.0 * within.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
        i = tl.where(i * (i + 1) // 2 > within, i - 1, i)
        i = tl.where((i + 1) * (i + 2) // 2 <= within, i + 1, i)
        j = within - i * (i + 1) // 2
        begin = tl.load(left_slot_start + low)
        left = begin + i * BLOCK_TOKENS
        right = begin + j * BLOCK_TOKENS
        left_last = begin + tl.load(left_counts + low) - 1
        right_last = left_last
    return exists, left, right, left_last, right_last


@triton.jit
def load_shares(slots, last, share):
    """Load the shares of a tile of slots; 0 past the sample's last slot."""
    return tl.load(share + slots, mask=slots <= last, other=0.0)


@triton.jit
def load_row(slots, last, slot_row):
    """Load the rows of hidden of a tile of slots; that of the sample's last token past its end."""
    # (bounds that are invalid leave −1 in slots of samples)
    return tl.maximum(tl.load(slot_row + tl.minimum(slots, last)), 0).to(tl.int64)


@triton.jit
def chain(
    left, right, left_rows, right_rows, left_stride, right_stride, begin, end, same,
    EVEN: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute Σ_k left[t, k] right[s, k] for k in begin … end; EVEN: whole blocks.

    If ``same``, both tiles are the same rows, which are loaded once.
    """
    total = tl.zeros((ROWS, ROWS), dtype=tl.float32)
    k = begin + tl.arange(0, BLOCK)
    left += left_rows.to(tl.int64)[:, None] * left_stride + k[None, :]
    right += right_rows.to(tl.int64)[None, :] * right_stride + k[:, None]
    if same:
        for start in range(begin, end, BLOCK):
            if EVEN:
                x = tl.load(left)
            else:
                x = tl.load(left, mask=(k < end + begin - start)[None, :], other=0.0)
            total = dot(x, tl.trans(x), total, PRECISION, INTERPRETED)
            left += BLOCK
    else:
        for start in range(begin, end, BLOCK):
            if EVEN:
                x, y = tl.load(left), tl.load(right)
            else:
                x = tl.load(left, mask=(k < end + begin - start)[None, :], other=0.0)
                y = tl.load(right, mask=(k < end + begin - start)[:, None], other=0.0)
            total = dot(x, y, total, PRECISION, INTERPRETED)
            left += BLOCK
            right += BLOCK
    return total
