"""‖U‖² and ⟨W, U⟩ from gradient tiles that are formed, used and discarded, for every nonlinear update.

For sample i with gradient G = s · g and a tile of vocabulary rows × hidden dimensions:

    g = Σ_t E_tᵀ (share_t h_t)    over the sample's slots, on the tensor cores, float32
    u = U / unit                  in registers (below)
    Σ u²,  Σ W ∘ u                summed over the tile, stored per (sample, tile); the tile is discarded

with, per update (``numbers`` are computed per sample by ``update_numbers``),

    fresh AdamW   u = g / (k₁|g| + k₀),  (k₁, k₀, unit) = (1, eps/s, 1) for s ≥ eps, else (s/eps, 1, s/eps)
    AdamW, state  u = m̂ / (√v̂ + eps) of the moments after the step
    sign          u = sign g
    SGD           u = g, unit = s

and, if W′ is rounded to a storage dtype, the effective step (W − round(W − lr(unit · u + λW))) / lr instead.

A program owns one tile of W and processes *all* samples of the launch in one loop over steps of ``align`` slots. So W
is read from memory once for all samples, loads are prefetched across the ends of samples, and every program has the
same amount of work for any lengths. The epilogue of one program overlaps with the products of the others on the same
multiprocessor: the tiles are small enough for two or more programs.

On sm_90 and later D, h and W are loaded by descriptors (``tma.py``), and W stays in shared memory for all samples. The
epilogue reads it in the layout of g, so u is not moved. Else the epilogue loads W from the cache for every sample.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import DirectConfig, ceil_div
from donod_fast.kernels.triton_backend.language import (
    INTERPRETING,
    LAUNCH_OPTIONS,
    RECIPROCAL,
    dithered,
    dot,
    element,
    narrow,
    reciprocal,
    share_of,
    tensor_or,
    two_sums,
    widen,
)
from donod_fast.kernels.triton_backend.layout import Group, Layout
from donod_fast.kernels.triton_backend.tma import describable, described
from donod_fast.kernels.updates import SGD, AdamW, Sign, Update

# Smallest normal float32.
SMALLEST = 2.0**-126


@triton.jit
def load_weight(weight, v, k, vocab, dim, weight_stride, EVEN_DIM: tl.constexpr):
    """Load a tile of W. Rows past the vocabulary repeat the last one; they are multiplied by 0."""
    at = weight + tl.minimum(v, vocab - 1).to(tl.int64)[:, None] * weight_stride + k[None, :]
    if EVEN_DIM:
        w = tl.load(at)
    else:
        w = tl.load(at, mask=(k < dim)[None, :], other=0.0)
    return w


@triton.jit
def tile_update(
    g, w, v, k, number, exp_avg, exp_avg_sq, vocab, dim, state_stride,
    lr, inverse_lr, weight_decay, beta1, beta2, step_size, root_scale, eps,
    RULE: tl.constexpr, STORAGE: tl.constexpr, RECIPROCAL: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Compute u of a tile of gradient g, (vocabulary rows v, hidden dimensions k); w is read with a STORAGE only."""
    # Past the vocabulary g is 0, and so is u (except for a given state or rounding).
    if RULE == "state" or STORAGE is not None:
        inside = (v < vocab)[:, None] & (k < dim)[None, :]
    if RULE == "adamw":
        u = g * reciprocal(tl.abs(g) * tl.load(number) + tl.load(number + 1), RECIPROCAL)
    elif RULE == "state":
        gradient = g * tl.load(number)
        at = tl.minimum(v, vocab - 1).to(tl.int64)[:, None] * state_stride + k[None, :]
        first = tl.load(exp_avg + at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(exp_avg_sq + at, mask=inside, other=0.0).to(tl.float32)
        first = first * beta1 + gradient * (1.0 - beta1)
        second = second * beta2 + gradient * gradient * (1.0 - beta2)
        # √x = x · rsqrt(x), in two instructions.
        root = second * tl.rsqrt(tl.maximum(second, 1e-37))
        u = first * step_size * reciprocal(root * root_scale + eps, RECIPROCAL)
    elif RULE == "sign":
        # With a scale of 0 every token's magnitude is 0, and so is the gradient. The two factors take the smallest
        # number, 2⁻¹⁴⁹, past 1.
        u = tl.clamp(g * tl.where(tl.load(number) > 0.0, 2.0**100, 0.0) * 2.0**100, -1.0, 1.0)
    else:
        u = g
    if STORAGE is not None:
        new = w - lr * (u * tl.load(number + 2) + weight_decay * w)
        u = (w - narrow(new, STORAGE, INTERPRETED).to(tl.float32)) * inverse_lr
        u = tl.where(inside, u, 0.0)
    return u


@triton.jit(do_not_specialize=["first_sample", "samples", "base_sample", "first_block"])
def direct_kernel(
    signals,
    hidden,
    weight,
    exp_avg,
    exp_avg_sq,
    numbers,
    share,
    slot_row,
    slot_start,
    step_sample,
    partials,
    base_sample,
    first_sample,
    samples,
    first_block,
    vocab,
    dim,
    signals_stride,
    hidden_stride,
    weight_stride,
    state_stride,
    lr,
    inverse_lr,
    weight_decay,
    beta1,
    beta2,
    step_size,
    root_scale,
    eps,
    RULE: tl.constexpr,
    NEEDS_WEIGHT: tl.constexpr,
    STORAGE: tl.constexpr,
    PACKED: tl.constexpr,
    TMA: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    PRECISION: tl.constexpr,
    RECIPROCAL: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    STEP: tl.constexpr,
    SPLIT: tl.constexpr,
    KEEP: tl.constexpr,
    LOADED_ZERO: tl.constexpr,
):
    """One tile of W, every sample of the launch. Grid: (dim tiles, column tiles)."""
    tiles = tl.num_programs(0) * tl.num_programs(1)
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    column = tl.program_id(1) * BLOCK_VOCAB
    place = column + tl.arange(0, BLOCK_VOCAB)
    k_base = tl.program_id(0) * BLOCK_DIM
    k = k_base + tl.arange(0, BLOCK_DIM)
    base = tl.load(slot_start + base_sample)  # the slot of the signals' first row
    step = tl.load(slot_start + first_sample) // STEP
    last = tl.load(slot_start + first_sample + samples) // STEP

    rows = tl.arange(0, STEP)
    if not TMA:
        left = signals + place[:, None] + (step * STEP - base + rows).to(tl.int64)[None, :] * signals_stride
        if PACKED:
            right = hidden + (step * STEP - base + rows).to(tl.int64)[:, None] * hidden_stride + k[None, :]
    v = first_block * BLOCK_VOCAB + place

    kept = 0.0
    if NEEDS_WEIGHT and TMA:
        kept = weight.load([first_block * BLOCK_VOCAB + column, k_base])
    elif KEEP:
        kept = load_weight(weight, v, k, vocab, dim, weight_stride, EVEN_DIM)
    sample = tl.load(step_sample + step)
    # One sum of the whole tile has the fewest barriers. But ptxas for sm_80 computes all signs first, and spills.
    APART: tl.constexpr = RULE == "sign" and not TMA
    g = tl.zeros((BLOCK_VOCAB, BLOCK_DIM), dtype=tl.float32)
    for current in range(step, last):
        if TMA:
            d = signals.load([current * STEP - base, column])
            h = hidden.load([current * STEP - base, k_base])
            d = tl.trans(d)  # after both loads, which then share their barriers
        else:
            d = tl.load(left)
            left += STEP * signals_stride
            if PACKED:
                if EVEN_DIM:
                    h = tl.load(right)
                else:
                    h = tl.load(right, mask=(k < dim)[None, :], other=0.0)
                right += STEP * hidden_stride
            else:
                row = tl.load(slot_row + current * STEP + rows)
                right = hidden + row.to(tl.int64)[:, None] * hidden_stride + k[None, :]
                h = tl.load(right, mask=(row >= 0)[:, None] & (k < dim)[None, :], other=0.0).to(tl.float32)
                h = dithered(h * tl.load(share + current * STEP + rows)[:, None], rows, k, d.dtype)
        g = dot(d, h, g, PRECISION, INTERPRETED)
        following = tl.load(step_sample + current + 1)
        if following != sample:
            number = numbers + sample * 4
            target = partials + (sample - first_sample).to(tl.int64) * 2 * tiles + tile
            # In parts, so that the epilogue's values fit in registers together with g.
            if APART:
                square, product = 0.0, 0.0
            else:
                squares = tl.zeros((BLOCK_VOCAB, BLOCK_DIM // SPLIT), dtype=tl.float32)
                dots = tl.zeros((BLOCK_VOCAB, BLOCK_DIM // SPLIT), dtype=tl.float32)
            for part in tl.static_range(SPLIT):
                k_part = k_base + part * (BLOCK_DIM // SPLIT) + tl.arange(0, BLOCK_DIM // SPLIT)
                w = 0.0
                if NEEDS_WEIGHT:
                    if TMA or KEEP:
                        w = widen(share_of(kept, part, SPLIT, BLOCK_VOCAB, BLOCK_DIM), RECIPROCAL)
                    else:
                        w = widen(load_weight(weight, v, k_part, vocab, dim, weight_stride, EVEN_DIM), RECIPROCAL)
                u = tile_update(
                    share_of(g, part, SPLIT, BLOCK_VOCAB, BLOCK_DIM), w, v, k_part,
                    number, exp_avg, exp_avg_sq, vocab, dim, state_stride,
                    lr, inverse_lr, weight_decay, beta1, beta2, step_size, root_scale, eps,
                    RULE, STORAGE, RECIPROCAL, INTERPRETED,
                )  # fmt: skip
                if APART:
                    more_square, more_product = two_sums(u * u, u * w, INTERPRETED)
                    square += more_square
                    product += more_product
                else:
                    squares += u * u
                    if NEEDS_WEIGHT:
                        dots += u * w
            if not NEEDS_WEIGHT:
                square = tl.sum(squares)
            elif not APART:
                square, product = two_sums(squares, dots, INTERPRETED)
            tl.store(target, square)
            if NEEDS_WEIGHT:
                tl.store(target + tiles, product)
            if LOADED_ZERO:
                g = tl.full((BLOCK_VOCAB, BLOCK_DIM), tl.load(number + 3), dtype=tl.float32)
            else:
                g = tl.zeros((BLOCK_VOCAB, BLOCK_DIM), dtype=tl.float32)
        sample = following


def rule_of(update: Update) -> str:
    """Name of an update in the kernel."""
    if isinstance(update, SGD):
        return "sgd"
    if isinstance(update, Sign):
        return "sign"
    assert isinstance(update, AdamW)  # a factored state is refused before
    return "adamw" if update.state is None else "state"


def update_numbers(update: Update, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of each sample for the kernel, (samples, 4) float32, and the unit of its u, (samples,) float64.

    ``scale`` is s, (samples,) float64. Columns: k₁ or s, k₀, unit, 0 (the start of the sample's g).
    """
    ones, zeros = torch.ones_like(scale), torch.zeros_like(scale)
    if rule_of(update) == "adamw":
        assert isinstance(update, AdamW)
        large = scale >= update.eps
        k1 = torch.where(large, 1.0, scale / update.eps)
        # No denominator |g| k₁ + k₀ is subnormal, which the reciprocal would take for 0.
        k0 = torch.where(large, update.eps / scale, 1.0).clamp_min(SMALLEST)
        unit = k1
    else:
        k1, k0 = scale, ones
        unit = scale if isinstance(update, SGD) else ones
    return torch.stack([k1, k0, unit, zeros], 1).float(), torch.where(scale.isnan(), scale, unit)


def supports(update: Update, storage_dtype: torch.dtype | None) -> str | None:
    """Reason why the kernel does not support an update, or None."""
    if storage_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        return f"storage_dtype {storage_dtype} is not bfloat16, float16 or float32"
    if isinstance(update, AdamW):
        if update.eps < 1e-30:
            return f"AdamW's eps of {update.eps} is below what float32 holds; use Sign"
        if update.state is not None:
            for name in ("exp_avg", "exp_avg_sq"):
                moment = getattr(update.state, name)
                if not moment.is_contiguous() or moment.dtype == torch.float64:
                    return f"AdamW's state.{name} must be contiguous and of a dtype up to float32"
    return None


def launch_direct(
    signals: Tensor,  # (slots, columns) E with the label's entries, from base_sample's first slot on
    hidden: Tensor,  # (slots, dim) share · h packed like the signals, or (rows, dim) h where packed is False
    weight: Tensor,  # (vocab, dim)
    update: Update,
    numbers: Tensor,  # (all samples, 4) float32 of update_numbers
    layout: Layout,
    group: Group,  # the samples of this launch
    partials: Tensor,  # (samples, 2, tiles) float32, written: Σ u² and Σ W ∘ u
    config: DirectConfig,
    *,
    base_sample: int,
    first_column: int,
    needs_weight: bool,
    packed: bool,
    share: Tensor | None,  # (all slots,) float32, where packed is False, else None
    lr: float,
    weight_decay: float,
    storage_dtype: torch.dtype | None,
) -> None:
    """Fill ``partials``; rows of samples without a scored token are not changed."""
    assert packed == (share is None)
    vocab, dim = weight.shape
    tma = config.tma and packed and describable(signals, hidden, weight)
    state = update.state if isinstance(update, AdamW) else None
    beta1, beta2 = update.betas if isinstance(update, AdamW) else (0.0, 0.0)
    step = 0 if state is None else state.step + 1
    direct_kernel[(ceil_div(dim, config.dim), signals.shape[1] // config.vocab)](
        described(signals, (config.step, config.vocab), tma),
        described(hidden, (config.step, config.dim), tma),
        described(weight, (config.vocab, config.dim), tma),
        weight if state is None else state.exp_avg,
        weight if state is None else state.exp_avg_sq,
        numbers,
        tensor_or(share, numbers),
        layout.slot_row,
        layout.slot_start,
        layout.step_sample,
        partials,
        base_sample,
        group.first_sample,
        group.samples,
        first_column // config.vocab,
        vocab,
        dim,
        signals.stride(0),
        hidden.stride(0),
        weight.stride(0),
        0 if state is None else state.exp_avg.stride(0),
        lr,
        0.0 if storage_dtype is None else 1.0 / lr,
        weight_decay,
        beta1,
        beta2,
        1.0 / (1.0 - beta1**step) if step else 1.0,
        (1.0 - beta2**step) ** -0.5 if step else 1.0,
        update.eps if isinstance(update, AdamW) else 0.0,
        RULE=rule_of(update),
        NEEDS_WEIGHT=needs_weight or storage_dtype is not None,
        STORAGE=None if storage_dtype is None else element(storage_dtype),
        PACKED=packed,
        TMA=tma,
        EVEN_DIM=tma or dim % config.dim == 0,
        PRECISION=config.precision(signals.dtype),
        RECIPROCAL=RECIPROCAL,
        INTERPRETED=INTERPRETING,
        BLOCK_VOCAB=config.vocab,
        BLOCK_DIM=config.dim,
        STEP=config.step,
        SPLIT=config.split,
        KEEP=config.keep and not tma,
        LOADED_ZERO=config.loaded_zero,
        num_warps=config.warps,
        num_stages=config.stages,
        **LAUNCH_OPTIONS,
    )


def tiles_of(columns: int, dim: int, config: DirectConfig) -> int:
    """Programs of a launch over ``columns`` vocabulary rows (a multiple of the tile's)."""
    return columns // config.vocab * ceil_div(dim, config.dim)
