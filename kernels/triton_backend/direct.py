"""‖U‖² and ⟨W, U⟩ from gradient tiles that are formed, used and discarded, for every nonlinear update.

For sample i with gradient G = s · g and a tile of vocabulary rows × hidden dimensions:

    g = Σ_t E_tᵀ (c_t h_t)        over the sample's slots, on the tensor cores, float32
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
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.triton_backend.configs import DirectConfig, ceil_div
from donod_fast.kernels.triton_backend.language import INTERPRETING, dot, element, narrow, share_of, tensor_or
from donod_fast.kernels.triton_backend.layout import Group, Layout
from donod_fast.kernels.updates import SGD, AdamW, Sign, Update


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
def tile_sums(
    g, kept, v, k, number, weight, exp_avg, exp_avg_sq, vocab, dim, weight_stride, state_stride,
    lr, weight_decay, beta1, beta2, step_size, root_scale, eps,
    RULE: tl.constexpr, NEEDS_WEIGHT: tl.constexpr, STORAGE: tl.constexpr, EVEN_DIM: tl.constexpr,
    KEEP: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Compute Σ u² and Σ W ∘ u of a tile of gradient g, (vocabulary rows v, hidden dimensions k)."""
    # Past the vocabulary g is 0, and so is u (except for a given state or rounding). So any row of W can be used there,
    # and a clamped index needs no mask.
    row = tl.minimum(v, vocab - 1).to(tl.int64)
    if RULE == "state" or STORAGE is not None:
        inside = (v < vocab)[:, None] & (k < dim)[None, :]
    if RULE == "adamw":
        u = g / (tl.abs(g) * tl.load(number) + tl.load(number + 1))
    elif RULE == "state":
        gradient = g * tl.load(number)
        at = row[:, None] * state_stride + k[None, :]
        first = tl.load(exp_avg + at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(exp_avg_sq + at, mask=inside, other=0.0).to(tl.float32)
        first = first * beta1 + gradient * (1.0 - beta1)
        second = second * beta2 + gradient * gradient * (1.0 - beta2)
        # √x = x · rsqrt(x), in two instructions.
        root = second * tl.rsqrt(tl.maximum(second, 1e-37))
        u = first * step_size / (root * root_scale + eps)
    elif RULE == "sign":
        # With a scale of 0 every token's magnitude is 0, and so is the gradient.
        live = tl.where(tl.load(number) > 0.0, 1.0, 0.0)
        u = tl.where(g > 0.0, live, 0.0) - tl.where(g < 0.0, live, 0.0)
    else:
        u = g
    products = 0.0
    if NEEDS_WEIGHT:
        if KEEP:
            w = kept.to(tl.float32)
        else:
            w = load_weight(weight, v, k, vocab, dim, weight_stride, EVEN_DIM).to(tl.float32)
        if STORAGE is not None:
            new = w - lr * (u * tl.load(number + 2) + weight_decay * w)
            u = (w - narrow(new, STORAGE, INTERPRETED).to(tl.float32)) / lr
            u = tl.where(inside, u, 0.0)
        products = tl.sum(u * w)
    return tl.sum(u * u), products


@triton.jit(do_not_specialize=["first_sample", "samples", "base_sample", "first_block"])
def direct_kernel(
    signals,
    hidden,
    weight,
    exp_avg,
    exp_avg_sq,
    numbers,
    coefficient,
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
    EVEN_DIM: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    STEP: tl.constexpr,
    SPLIT: tl.constexpr,
    KEEP: tl.constexpr,
):
    """One tile of W, every sample of the launch. Grid: (column tiles · dim tiles,), dim tiles first."""
    dim_tiles = tl.cdiv(dim, BLOCK_DIM)
    tiles = tl.num_programs(0)
    place = (tl.program_id(0) // dim_tiles) * BLOCK_VOCAB + tl.arange(0, BLOCK_VOCAB)
    k_base = (tl.program_id(0) % dim_tiles) * BLOCK_DIM
    k = k_base + tl.arange(0, BLOCK_DIM)
    base = tl.load(slot_start + base_sample)  # the slot of the signals' first row
    step = tl.load(slot_start + first_sample) // STEP
    last = tl.load(slot_start + first_sample + samples) // STEP

    rows = tl.arange(0, STEP)
    left = signals + place[:, None] + (step * STEP - base + rows).to(tl.int64)[None, :] * signals_stride
    if PACKED:
        right = hidden + (step * STEP - base + rows).to(tl.int64)[:, None] * hidden_stride + k[None, :]
    v = first_block * BLOCK_VOCAB + place

    kept = 0.0
    if KEEP:
        kept = load_weight(weight, v, k, vocab, dim, weight_stride, EVEN_DIM)
    g = tl.zeros((BLOCK_VOCAB, BLOCK_DIM), dtype=tl.float32)
    for current in range(step, last):
        d = tl.load(left)
        if PACKED:
            if EVEN_DIM:
                h = tl.load(right)
            else:
                h = tl.load(right, mask=(k < dim)[None, :], other=0.0)
            right += STEP * hidden_stride
        else:
            row = tl.load(slot_row + current * STEP + rows)
            right = hidden + row.to(tl.int64)[:, None] * hidden_stride + k[None, :]
            h = tl.load(right, mask=(row >= 0)[:, None] & (k < dim)[None, :], other=0.0)
            c = tl.load(coefficient + current * STEP + rows)
            h = narrow(h.to(tl.float32) * c[:, None], d.dtype, INTERPRETED)
        left += STEP * signals_stride
        g = dot(d, h, g, PRECISION, INTERPRETED)
        sample = tl.load(step_sample + current)
        if tl.load(step_sample + current + 1) != sample:
            number = numbers + sample * 4
            target = partials + (sample - first_sample).to(tl.int64) * 2 * tiles + tl.program_id(0)
            # In parts, so that the epilogue's values fit in registers together with g.
            squares = 0.0
            dots = 0.0
            for part in tl.static_range(SPLIT):
                more_squares, more_dots = tile_sums(
                    share_of(g, part, SPLIT, BLOCK_VOCAB, BLOCK_DIM),
                    share_of(kept, part, SPLIT, BLOCK_VOCAB, BLOCK_DIM) if KEEP else 0.0, v,
                    k_base + part * (BLOCK_DIM // SPLIT) + tl.arange(0, BLOCK_DIM // SPLIT),
                    number, weight, exp_avg, exp_avg_sq, vocab, dim, weight_stride, state_stride,
                    lr, weight_decay, beta1, beta2, step_size, root_scale, eps,
                    RULE, NEEDS_WEIGHT, STORAGE, EVEN_DIM, KEEP, INTERPRETED,
                )  # fmt: skip
                squares += more_squares
                dots += more_dots
            tl.store(target, squares)
            if NEEDS_WEIGHT:
                tl.store(target + tiles, dots)
            g = tl.zeros((BLOCK_VOCAB, BLOCK_DIM), dtype=tl.float32)


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

    ``scale`` is s, (samples,) float64. Columns: k₁ or s, k₀, unit, unused.
    """
    ones = torch.ones_like(scale)
    if rule_of(update) == "adamw":
        assert isinstance(update, AdamW)
        large = scale >= update.eps
        k1 = torch.where(large, 1.0, scale / update.eps)
        k0 = torch.where(large, update.eps / scale, 1.0)
        unit = k1
    else:
        k1, k0 = scale, ones
        unit = scale if isinstance(update, SGD) else ones
    return torch.stack([k1, k0, unit, ones], 1).float(), torch.where(scale.isnan(), scale, unit)


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
    hidden: Tensor,  # (slots, dim) c h packed like the signals, or (rows, dim) h where packed is False
    weight: Tensor,  # (vocab, dim)
    update: Update,
    numbers: Tensor,  # (all samples, 4) float32 of update_numbers
    coefficient: Tensor | None,  # (all slots,) float32 c, where packed is False
    layout: Layout,
    group: Group,  # the samples of this launch
    partials: Tensor,  # (samples, 2, tiles) float32, written: Σ u² and Σ W ∘ u
    config: DirectConfig,
    *,
    base_sample: int,
    first_column: int,
    needs_weight: bool,
    packed: bool,
    lr: float,
    weight_decay: float,
    storage_dtype: torch.dtype | None,
) -> None:
    """Fill ``partials``; rows of samples without a scored token are not changed."""
    vocab, dim = weight.shape
    tiles = tiles_of(signals.shape[1], dim, config)
    state = update.state if isinstance(update, AdamW) else None
    beta1, beta2 = update.betas if isinstance(update, AdamW) else (0.0, 0.0)
    step = 0 if state is None else state.step + 1
    direct_kernel[(tiles,)](
        signals,
        hidden,
        weight,
        weight if state is None else state.exp_avg,
        weight if state is None else state.exp_avg_sq,
        numbers,
        tensor_or(coefficient, numbers),
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
        EVEN_DIM=dim % config.dim == 0,
        PRECISION=config.precision(signals.dtype),
        INTERPRETED=INTERPRETING,
        BLOCK_VOCAB=config.vocab,
        BLOCK_DIM=config.dim,
        STEP=config.step,
        SPLIT=config.split,
        KEEP=config.keep,
        num_warps=config.warps,
        num_stages=config.stages,
    )


def tiles_of(columns: int, dim: int, config: DirectConfig) -> int:
    """Programs of a launch over ``columns`` vocabulary rows (a multiple of the tile's)."""
    return columns // config.vocab * ceil_div(dim, config.dim)
