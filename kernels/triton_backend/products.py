"""⟨G_i, G_j⟩ between two sets of samples, kernel by kernel (the mathematics is in ``gram.py``).

    per set: layout → references and normalisers, for one block of tokens at a time → scales, factors of the tokens
    per range of the vocabulary: E of both sets (one logits product each) → sums of products of token tiles
    per pair of samples: its rectangle of tiles, in float64

Slots are aligned to the tiles of the Gram kernel, so that a tile belongs to one sample. If the sets do not fit together
and their bounds are on the host, they are divided between samples.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from donod_fast.errors import BackendError
from donod_fast.kernels.arguments import HeadArguments, check_bounds, check_labels
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend import gram, logits, op, resources
from donod_fast.kernels.triton_backend.arena import Arena, Need
from donod_fast.kernels.triton_backend.configs import Configs, ceil_div, configs_for
from donod_fast.kernels.triton_backend.language import OnDevice
from donod_fast.kernels.triton_backend.layout import Group, Layout, make_layout, slots_bound
from donod_fast.kernels.triton_backend.op import bounds_of
from donod_fast.kernels.triton_backend.pairs import Side
from donod_fast.kernels.triton_backend.plan import table_blocks
from donod_fast.kernels.triton_backend.tokens import Tokens


@triton.jit(do_not_specialize=["out", "partials_stride", "out_stride"])
def rectangle_sums_kernel(
    partials, row_start, column_start, out, align, partials_stride, out_stride, BLOCK: tl.constexpr
):
    """Σ of one rectangle of tiles in float64. Grid: (samples, other samples)."""
    row = tl.load(row_start + tl.program_id(0)) // align
    last_row = tl.load(row_start + tl.program_id(0) + 1) // align
    column = tl.load(column_start + tl.program_id(1)) // align
    last_column = tl.load(column_start + tl.program_id(1) + 1) // align
    total = tl.zeros((BLOCK,), dtype=tl.float64)
    line = partials + row.to(tl.int64) * partials_stride
    for _ in range(row, last_row):
        for j in range(column, last_column, BLOCK):
            at = j + tl.arange(0, BLOCK)
            total += tl.load(line + at, mask=at < last_column, other=0.0).to(tl.float64)
        line += partials_stride
    tl.store(out + tl.program_id(0).to(tl.int64) * out_stride + tl.program_id(1), tl.sum(total, 0))


def supports(left: HeadArguments, right: HeadArguments) -> str | None:
    """Reason why the kernels do not support a call of ``gradient_products``, or None."""
    return op.supports(left) or op.supports(right) or resources.reason_for(lambda: ("products", op.kind_of(left)))


def attempt_products(left: HeadArguments, right: HeadArguments) -> Tensor | None:
    """``triton_products``, or None if the tiles do not fit the device; ``supports`` gives the reason from then on."""
    return resources.attempt(lambda: ("products", op.kind_of(left)), lambda: triton_products(left, right))


def triton_products(left: HeadArguments, right: HeadArguments) -> Tensor:
    """(left samples, right samples) float64; see ``kernels/products.py``."""
    products: Tensor = gradient_products_op(
        left.hidden,
        left.labels,
        left.cu_seqlens,
        right.hidden,
        right.labels,
        right.cu_seqlens,
        left.weight,
        left.head.bias,
        left.mean,
        left.head.logit_scale,
        left.head.softcap,
        left.workspace_bytes,
    )
    return products


@torch.library.custom_op("donod_fast::gradient_products", mutates_args=())
def gradient_products_op(
    hidden: Tensor,
    labels: Tensor,
    cu_seqlens: Tensor,
    other_hidden: Tensor,
    other_labels: Tensor,
    other_cu_seqlens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mean: bool,
    logit_scale: float,
    softcap: float | None,
    workspace_bytes: int,
) -> Tensor:
    """Products as one operator."""
    head = HeadMap(None if bias is None else bias.contiguous(), logit_scale, softcap)
    signals = logits.signals_dtype(hidden.dtype, weight.numel())
    configs = configs_for(
        hidden.device,
        hidden.dtype,
        signals,
        mapped=bias is not None or softcap is not None,
        heavy=False,
        tokens=hidden.shape[0],
        samples=cu_seqlens.shape[0] - 1,
        dim=hidden.shape[1],
    )
    for targets, bounds in ((labels, cu_seqlens), (other_labels, other_cu_seqlens)):
        check_labels(targets, weight.shape[0])
        if os.environ.get("DONOD_FAST_DEBUG"):
            check_bounds(bounds, targets.shape[0])
    with OnDevice(hidden.device):
        left = _Set(hidden, weight, labels, cu_seqlens, head, mean, configs)
        right = _Set(other_hidden, weight, other_labels, other_cu_seqlens, head, mean, configs)
        pieces = _pieces(left, right, signals, workspace_bytes)
        left.normalise(workspace_bytes)
        right.normalise(workspace_bytes)
        out = torch.empty((left.samples, right.samples), dtype=torch.float64, device=hidden.device)
        needs = [_needs(left, a, b, width, signals, workspace_bytes // 8) for a, b, width in pieces]
        arena = Arena(max(sum(need.bytes for need in some) for some in needs), hidden.device)
        for (a, b, width), some in zip(pieces, needs, strict=True):
            _fill(out, left, a, right, b, width, some, arena)
        scaled = out * left.scale.unsqueeze(1) * right.scale
        sound = left.sound.unsqueeze(1) & right.sound
        return torch.where(sound, scaled, torch.nan)


@gradient_products_op.register_fake
def _(
    hidden: Tensor, labels: Tensor, cu_seqlens: Tensor, other_hidden: Tensor, other_labels: Tensor, *rest: Any
) -> Tensor:
    return hidden.new_empty((cu_seqlens.shape[0] - 1, rest[0].shape[0] - 1), dtype=torch.float64)


class _Set:
    """One set: its layout, and the normalisers of all its tokens after ``normalise`` has run."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        cu_seqlens: Tensor,
        head: HeadMap,
        mean: bool,
        configs: Configs,
    ) -> None:
        self.hidden, self.weight, self.head, self.configs = hidden, weight, head, configs
        self.labels = labels.contiguous()
        self.mean = mean
        bounds, self.host_bounds = bounds_of(cu_seqlens, hidden)
        self.align = configs.gram.tokens
        self.layout: Layout = make_layout(labels, bounds, self.align)
        self.samples, tokens = bounds.shape[0] - 1, hidden.shape[0]
        slots = self.layout.slot_row.shape[0]
        device = hidden.device
        self.tokens = Tokens.empty(hidden, weight, head, self.labels, self.layout)
        self.scale = torch.empty(self.samples, dtype=torch.float64, device=device)
        self.sound = (self.layout.counts > 0) & self.layout.valid
        self.group = Group(0, self.samples, tokens, slots)

    def normalise(self, workspace_bytes: int) -> None:
        """Finish the softmax of every token, and compute scales and the factors of the tokens."""
        config, vocab = self.configs.statistics, self.weight.shape[0]
        sums = 3 if self.head.bias is not None or self.head.softcap is not None else 2
        token = table_blocks(ceil_div(vocab, config.vocab)) * sums * 4
        fits = workspace_bytes // token // config.tokens * config.tokens
        if fits == 0:
            raise BackendError(
                f"backend 'triton' does not support this call: workspace_bytes = {workspace_bytes} is too small; "
                f"give it at least {token * config.tokens}"
            )
        self.tokens.normalise(self.group, None, min(fits, self.group.tokens_bound), config)
        ones = torch.ones(self.samples, dtype=torch.float64, device=self.hidden.device)
        weight = ones / self.layout.counts.clamp_min(1) if self.mean else ones
        self.tokens.sum_samples(self.group, weight, ones.new_empty((self.samples, 4)), self.scale)

    def groups(self, most_slots: int) -> list[Group]:
        """Consecutive samples with at most so many slots (or one sample); all if the host does not know the bounds."""
        if self.host_bounds is None or self.group.slots_bound <= most_slots:
            return [self.group]
        found: list[Group] = []
        first, tokens, slots = 0, 0, 0
        for sample in range(self.samples):
            length = self.host_bounds[sample + 1] - self.host_bounds[sample]
            more = slots_bound(length, 1, self.align)
            if sample > first and slots + more > most_slots:
                found.append(Group(first, sample - first, tokens, slots))
                first, tokens, slots = sample, 0, 0
            tokens, slots = tokens + length, slots + more
        return [*found, Group(first, self.samples - first, tokens, slots)]

    def stored(self, group: Group, exps: Tensor, first: int) -> Side:
        """E of a group for the columns from ``first`` on."""
        self.tokens.exponentials(group, exps, self.configs.logits, first_column=first)
        tokens = self.tokens
        return Side(self.hidden, exps, tokens.share, tokens.label_signal, self.labels, self.layout, group)


def _pieces(left: _Set, right: _Set, signals: torch.dtype, workspace_bytes: int) -> list[tuple[Group, Group, int]]:
    """Pairs of groups, and the number of columns of E that fit in memory with both.

    Raises:
        BackendError: not even one tile fits.
    """
    tile, columns = _columns(left)
    budget = workspace_bytes - workspace_bytes // 8  # an eighth for pairs of tiles
    # Groups that leave room for a wide range of the vocabulary: the products of E should cost more than h · h.
    wide = min(columns, 16 * tile)
    most = max(left.align, budget // (2 * wide * signals.itemsize) // left.align * left.align)
    found = []
    for a in left.groups(most):
        for b in right.groups(most):
            row = (a.slots_bound + b.slots_bound) * signals.itemsize
            width = min(columns, budget // row // tile * tile) if row else columns
            if width == 0:
                raise BackendError(
                    f"backend 'triton' does not support this call: workspace_bytes = {workspace_bytes} cannot hold "
                    f"{tile} vocabulary rows of {a.tokens_bound} and {b.tokens_bound} tokens; "
                    f"give it at least {row * tile * 8 // 7 + 1}"
                )
            found.append((a, b, width))
    return found


def _columns(side: _Set) -> tuple[int, int]:
    """Columns of E come in multiples of the first number; the second is all of them."""
    tile = max(side.configs.logits.vocab, side.configs.gram.columns)
    return tile, ceil_div(side.weight.shape[0], tile) * tile


def _needs(left: _Set, a: Group, b: Group, width: int, signals: torch.dtype, nbytes: int) -> tuple[Need, ...]:
    """Sums of pairs of tiles, products of hidden states in ``nbytes`` bytes with them, and E of two groups."""
    config = left.configs.gram
    tiles = (a.slots_bound // left.align, b.slots_bound // left.align)
    pairs = tiles[0] * tiles[1]
    held = gram.pairs_held(pairs, nbytes - 4 * pairs, config)
    return (
        Need(tiles, torch.float32),
        Need((held, config.tokens**2), torch.float32),
        Need((a.slots_bound, width), signals),
        Need((b.slots_bound, width), signals),
    )


def _fill(
    out: Tensor, left: _Set, a: Group, right: _Set, b: Group, width: int, needs: tuple[Need, ...], arena: Arena
) -> None:
    """Write the unscaled products of two groups."""
    with arena.scope():
        partials, states, e_left, e_right = (arena.take(need) for need in needs)
        partials.zero_()
        for first in range(0, left.weight.shape[0], width):
            one, two = left.stored(a, e_left, first), right.stored(b, e_right, first)
            gram.launch_cross(one, two, states, partials, left.configs.gram, first_column=first)
        _sum_rectangles(partials, left, a, right, b, out)


def _sum_rectangles(partials: Tensor, left: _Set, a: Group, right: _Set, b: Group, out: Tensor) -> None:
    starts = [
        side.layout.slot_start[group.first_sample : group.first_sample + group.samples + 1]
        for side, group in ((left, a), (right, b))
    ]
    row_start, column_start = (start - start[0] for start in starts)
    target = out[a.first_sample : a.first_sample + a.samples, b.first_sample : b.first_sample + b.samples]
    rectangle_sums_kernel[(a.samples, b.samples)](
        partials,
        row_start,
        column_start,
        target,
        left.align,
        partials.stride(0),
        out.stride(0),
        BLOCK=64,
        num_warps=2,
    )
