"""‖U‖² and ⟨W, U⟩ from gradient tiles whose product is in float8 (e4m3), on request and for long samples only.

A sum over tokens cannot have a scale per token outside, so the scale of a hidden state moves into the signals:

    b_t = max_k |c_t h_tk| / L              H'_tk = c_t h_tk / b_t           per token
    a_v = max_t |D_tv| b_t / L              D'_tv = D_tv b_t / a_v           per vocabulary row and sample
    g_vk = a_v Σ_t D'_tv H'_tk              float8 products, float32 sums

with L the largest finite float8 (448, or 240 for the format of gfx942), D the error signals and c_t the share of
the token (``pack.py``). Both operands are stored with the slots contiguous, Dᵀ (columns, slots) and Hᵀ (dim, slots),
because float8 tensor instructions take only operands whose summed dimension is contiguous. D is read twice and written
once at half its size; the instructions of the product have twice the rate of bfloat16's.

e4m3 has three bits of mantissa: an element is off by up to 1/16 of itself. Under AdamW and Sign most of U is ±1, so
that only small |g| show it. ``bench/float8.py`` measures errors of DON and NOD, and ``donod-fast check`` allows 1e-3
NOD. Shorter samples than ``LEAST_TOKENS`` stay in bfloat16: their time is that of the epilogue.

The sum of a step of slots is added to g in float32: the tensor cores of Ada and Hopper keep about 14 bits of a float8
product's running sum (DeepSeek-V3, arXiv 2412.19437, §3.3.2), which would be too few for 1,000 tokens.
"""

from __future__ import annotations

from itertools import groupby

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.kernels.float8 import is_long
from donod_fast.kernels.triton_backend.architectures import architecture_of
from donod_fast.kernels.triton_backend.configs import FLOAT8, Float8Config, ceil_div
from donod_fast.kernels.triton_backend.direct import load_weight, rule_of, tile_update
from donod_fast.kernels.triton_backend.float8_operands import Operands
from donod_fast.kernels.triton_backend.language import (
    INTERPRETING,
    LAUNCH_OPTIONS,
    RECIPROCAL,
    share_of,
    two_sums,
    widen,
)
from donod_fast.kernels.triton_backend.layout import Group, Layout
from donod_fast.kernels.updates import Update


@triton.jit
def from_float8(x):
    """Cast to float32 under the interpreter, whose cast does not know NaN."""
    return tl.where((x.to(tl.uint8, bitcast=True) & 0x7F) == 0x7F, float("nan"), x.to(tl.float32))


@triton.jit(do_not_specialize=["first_sample", "samples", "base_sample", "first_block"])
def float8_kernel(
    quantised,
    states,
    row_scale,
    weight,
    numbers,
    slot_start,
    step_sample,
    partials,
    base_sample,
    first_sample,
    samples,
    first_block,
    vocab,
    dim,
    columns,
    quantised_stride,
    states_stride,
    weight_stride,
    RULE: tl.constexpr,
    EVEN_DIM: tl.constexpr,
    RECIPROCAL: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_VOCAB: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    STEP: tl.constexpr,
    SPLIT: tl.constexpr,
    PROMOTE: tl.constexpr,
):
    """One tile of W, every sample of the launch. Grid: (column tiles · dim tiles,), dim tiles first."""
    dim_tiles = tl.cdiv(dim, BLOCK_DIM)
    tiles = tl.num_programs(0)
    place = (tl.program_id(0) // dim_tiles) * BLOCK_VOCAB + tl.arange(0, BLOCK_VOCAB)
    k_base = (tl.program_id(0) % dim_tiles) * BLOCK_DIM
    step = tl.load(slot_start + first_sample) // STEP
    last = tl.load(slot_start + first_sample + samples) // STEP
    # In whole steps, so that the compiler knows the alignment of the loads.
    first = (step - tl.load(slot_start + base_sample) // STEP) * STEP
    slots = tl.arange(0, STEP)
    left = quantised + first + place.to(tl.int64)[:, None] * quantised_stride + slots[None, :]
    k = k_base + tl.arange(0, BLOCK_DIM)
    right = states + first + k.to(tl.int64)[:, None] * states_stride + slots[None, :]
    v = first_block * BLOCK_VOCAB + place
    g = tl.zeros((BLOCK_VOCAB, BLOCK_DIM), dtype=tl.float32)
    for current in range(step, last):
        d = tl.load(left)
        h = tl.trans(tl.load(right))
        left += STEP
        right += STEP
        if INTERPRETED:
            g += tl.dot(from_float8(d), from_float8(h), input_precision="ieee")
        elif PROMOTE:
            # The bound keeps the compiler from adding to g inside the product.
            g += tl.dot(d, h, max_num_imprecise_acc=STEP)
        else:
            g = tl.dot(d, h, g)
        sample = tl.load(step_sample + current)
        if tl.load(step_sample + current + 1) != sample:
            number = numbers + sample * 4
            local = (sample - first_sample).to(tl.int64)
            target = partials + local * 2 * tiles + tl.program_id(0)
            scale = tl.load(row_scale + local * columns + place)[:, None]
            # In parts, so that the epilogue's values fit in registers together with g.
            squares = tl.zeros((BLOCK_VOCAB, BLOCK_DIM // SPLIT), dtype=tl.float32)
            dots = tl.zeros((BLOCK_VOCAB, BLOCK_DIM // SPLIT), dtype=tl.float32)
            for part in tl.static_range(SPLIT):
                k_part = k_base + part * (BLOCK_DIM // SPLIT) + tl.arange(0, BLOCK_DIM // SPLIT)
                w = widen(load_weight(weight, v, k_part, vocab, dim, weight_stride, EVEN_DIM), RECIPROCAL)
                u = tile_update(
                    share_of(g, part, SPLIT, BLOCK_VOCAB, BLOCK_DIM) * scale, w, v, k_part,
                    number, weight, weight, vocab, dim, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                    RULE, None, RECIPROCAL, INTERPRETED,
                )  # fmt: skip
                squares += u * u
                dots += u * w
            square, product = two_sums(squares, dots, INTERPRETED)
            tl.store(target, square)
            tl.store(target + tiles, product)
            g = tl.zeros((BLOCK_VOCAB, BLOCK_DIM), dtype=tl.float32)


def supports(device: torch.device) -> str | None:
    """Reason why a device has no float8 products, or None. A CPU stands for the interpreter."""
    if device.type == "cpu":
        return None
    name = torch.cuda.get_device_name(device)
    if torch.version.hip:
        architecture = torch.cuda.get_device_properties(device).gcnArchName.partition(":")[0]
        return None if architecture in FLOAT8 else f"{name} ({architecture}) is not among {', '.join(FLOAT8)}"
    if torch.cuda.get_device_capability(device) < (8, 9):
        return f"{name} is older than compute capability 8.9"
    return None if architecture_of(device) in FLOAT8 else f"no float8 tiles are known for {name}"


def runs_of(group: Group, align: int) -> list[tuple[bool, Group]]:
    """Consecutive samples of a group that are all long enough for float8, or all too short, in order.

    Without lengths on the host all are too short.
    """
    if group.lengths is None:
        return [(False, group)]
    found: list[tuple[bool, Group]] = []
    for long, members in groupby(enumerate(group.lengths), lambda item: is_long(item[1])):
        first, *_ = places = [sample for sample, _ in members]
        lengths = group.lengths[first : first + len(places)]
        slots = sum(ceil_div(length, align) * align for length in lengths)
        found.append((long, Group(group.first_sample + first, len(places), sum(lengths), slots, lengths)))
    return found


def launch_float8(
    operands: Operands,
    row_scale: Tensor,  # (samples, columns) float32 a
    weight: Tensor,  # (vocab, dim)
    update: Update,
    numbers: Tensor,  # (all samples, 4) float32 of update_numbers
    layout: Layout,
    some: Group,  # the samples of this launch
    partials: Tensor,  # (samples, 2, tiles) float32, written: Σ u² and Σ W ∘ u
    config: Float8Config,
    *,
    base_sample: int,  # the group's first
    first_column: int,
) -> None:
    """Fill ``partials``; rows of samples without a scored token are not changed."""
    vocab, dim = weight.shape
    columns = operands.signals.shape[0]
    float8_kernel[(tiles_of(columns, dim, config),)](
        operands.signals,
        operands.states,
        row_scale,
        weight,
        numbers,
        layout.slot_start,
        layout.step_sample,
        partials,
        base_sample,
        some.first_sample,
        some.samples,
        first_column // config.vocab,
        vocab,
        dim,
        columns,
        operands.signals.stride(0),
        operands.states.stride(0),
        weight.stride(0),
        RULE=rule_of(update),
        EVEN_DIM=dim % config.dim == 0,
        RECIPROCAL=RECIPROCAL,
        INTERPRETED=INTERPRETING,
        BLOCK_VOCAB=config.vocab,
        BLOCK_DIM=config.dim,
        STEP=layout.align,
        SPLIT=config.split,
        PROMOTE=config.promote,
        num_warps=config.warps,
        num_stages=config.stages,
        **LAUNCH_OPTIONS,
    )


def tiles_of(columns: int, dim: int, config: Float8Config) -> int:
    """Programs of a launch over ``columns`` vocabulary rows (a multiple of the tile's)."""
    return columns // config.vocab * ceil_div(dim, config.dim)
