"""Each Triton kernel separately, compared with plain torch in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from head_cases import Case
from token_cases import COLUMNS, DIM, HEADS, LENGTHS, VOCAB, Softmax, empty_tokens, finished, prepared
from torch import Tensor
from triton_cases import TINY, interpreted

from donod_fast.kernels import AdamState, AdamW
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend import (
    direct,
    gram,
    label_entries,
    label_logits,
    pack,
    reduce,
    rows,
)
from donod_fast.kernels.triton_backend.language import INTERPRETING, LOG2_E, log1p, narrow, softplus
from donod_fast.kernels.triton_backend.layout import Layout
from donod_fast.kernels.updates import SGD, Sign

pytestmark = interpreted


@pytest.mark.parametrize("head", HEADS)
def test_the_labels_logit_is_that_of_float64(head: str) -> None:
    case, layout, group = prepared(HEADS[head])
    tokens, expected = empty_tokens(case, HEADS[head], layout), Softmax(case, HEADS[head])
    label_logits.launch_label_logits(
        case.hidden, case.weight, HEADS[head], case.labels, layout, group,
        tokens.label_values, tokens.label_slope, tokens.reference,
    )  # fmt: skip
    slots = layout.token_slot[: len(expected.rows)].long()
    # Constants of the head are rounded to float32.
    torch.testing.assert_close(tokens.label_values[0, slots] / LOG2_E, expected.label_z, rtol=2e-7, atol=1e-12)
    torch.testing.assert_close(tokens.reference[slots].double(), tokens.label_values[0, slots], rtol=1e-7, atol=0.0)
    product = expected.label_a
    if HEADS[head].softcap is not None:
        assert tokens.label_slope is not None
        torch.testing.assert_close(tokens.label_slope[slots].double(), expected.label_slope, rtol=1e-6, atol=0.0)
        product = product * expected.label_slope
    torch.testing.assert_close(tokens.label_values[1, slots], product, rtol=1e-6, atol=1e-12)


FAR = (0.0, 29.0, -29.0, 45.0, -45.0, 95.0, -95.0, 160.0, -160.0)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("margins", [(0.0, 6.0, 25.0), FAR], ids=["near", "far"])
@pytest.mark.parametrize("head", HEADS)
def test_logits_and_statistics_give_the_numbers_of_every_token(head: str, margins: tuple[float, ...]) -> None:
    case, layout, group = prepared(HEADS[head], margins=margins)
    tokens, exps = finished(case, HEADS[head], layout, group)
    expected = Softmax(case, HEADS[head])
    slots = layout.token_slot[: len(expected.rows)].long()
    loss, entropy, log_miss, dot = tokens.statistics[:, slots]
    rtol = 1e-5 if margins is not FAR else 4e-5  # the float32 logits themselves are larger
    torch.testing.assert_close(loss, expected.loss, rtol=rtol, atol=0.0)
    torch.testing.assert_close(log_miss, expected.log_miss, rtol=rtol, atol=1e-5)
    torch.testing.assert_close(entropy, expected.entropy, rtol=rtol, atol=1e-15 if margins is not FAR else 4e-5)
    torch.testing.assert_close(dot, expected.dot, rtol=rtol, atol=1e-5)
    rest = tokens.rest[slots].double()
    log_rest = tokens.reference[slots].double() / LOG2_E + rest.log()
    torch.testing.assert_close(log_rest, expected.log_rest, rtol=1e-5, atol=1e-5)
    assert bool((rest.log().abs() <= rows.FAR).all()), "a token is still far from its reference"
    moved = (tokens.reference[slots].double() - tokens.label_values[0, slots]).abs() > 1e-3
    assert torch.equal(moved, (expected.log_rest - expected.label_z).abs() > rows.FAR)
    wanted = expected.signals.scatter(1, expected.labels.unsqueeze(1), 0.0)
    scaled = exps[slots, :VOCAB].double() / rest.unsqueeze(1)
    torch.testing.assert_close(scaled, wanted, rtol=3 * rtol, atol=1e-30)


@pytest.mark.parametrize("margins", [(0.0, 6.0, 25.0), FAR], ids=["near", "far"])
@pytest.mark.parametrize("head", ["plain", "bias-scale-softcap"])
def test_statistics_of_blocks_of_tokens_are_those_of_all_at_once(head: str, margins: tuple[float, ...]) -> None:
    case, layout, group = prepared(HEADS[head], margins=margins)
    whole, _ = finished(case, HEADS[head], layout, group)
    tokens = empty_tokens(case, HEADS[head], layout)
    tokens.normalise(group, None, 5, TINY.logits)
    slots = layout.token_slot[: int(layout.counts.sum())].long()
    # (The interpreter's products of float32 depend on the row of the tile.)
    for found, wanted in ((tokens.reference, whole.reference), (tokens.rest, whole.rest)):
        torch.testing.assert_close(found[slots], wanted[slots], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(tokens.statistics[:, slots], whole.statistics[:, slots], rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("first", [0, 64], ids=["first chunk", "second chunk"])
@pytest.mark.parametrize("margins", [(0.0, 6.0, 25.0), FAR], ids=["near", "far"])
@pytest.mark.parametrize("head", HEADS)
def test_columns_computed_again_are_those_of_the_first_time(head: str, margins: tuple[float, ...], first: int) -> None:
    case, layout, group = prepared(HEADS[head], margins=margins)
    tokens, whole = finished(case, HEADS[head], layout, group)
    exps = torch.full((layout.slot_row.shape[0], 64), math.nan)
    tokens.exponentials(group, exps, TINY.logits, first_column=first)
    # (Rescued tokens were computed in other tiles, so their products are rounded in another order.)
    torch.testing.assert_close(exps, whole[:, first : first + 64], rtol=2e-5, atol=1e-30, equal_nan=True)
    pads = layout.slot_row < 0
    assert bool(exps[pads].isnan().all()), "pads are left alone"


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_error_signals_match_the_formula_and_are_zero_elsewhere(head: str, dtype: torch.dtype) -> None:
    case, layout, group = prepared(HEADS[head])
    tokens, exps = finished(case, HEADS[head], layout, group)
    exps, expected = exps.to(dtype), Softmax(case, HEADS[head])
    slots = layout.token_slot[: len(expected.rows)].long()
    tokens.share.copy_(torch.linspace(0.1, 1.0, len(tokens.share)))
    signal = tokens.rest * (1.0 if tokens.label_slope is None else tokens.label_slope)
    signal[layout.slot_row < 0] = 0.0
    for first in (0, 64):
        label_entries.launch_label_entries(
            exps[:, first : first + 64], signal, case.labels, layout, group,
            first_column=first, clear=True,
        )  # fmt: skip
    used = int(layout.slot_start[-1])
    wanted = torch.zeros(layout.slot_row.shape[0], COLUMNS, dtype=torch.float64)
    scale = tokens.share[slots].double() * tokens.rest[slots].double()
    wanted[slots, :VOCAB] = expected.signals * scale.unsqueeze(1)
    share = torch.where(layout.slot_row < 0, 0.0, tokens.share).double()
    found = exps.double() * share.unsqueeze(1)
    rtol = 5e-5 if dtype == torch.float32 else 2.0**-7
    torch.testing.assert_close(found[:used], wanted[:used], rtol=rtol, atol=1e-30)
    assert bool(exps[:used, VOCAB:].eq(0.0).all())


def test_sums_of_samples_are_weighted_and_their_scale_is_the_largest_miss() -> None:
    case, layout, group = prepared(HEADS["plain"])
    expected = Softmax(case, HEADS["plain"])
    tokens, _ = finished(case, HEADS["plain"], layout, group)
    samples = len(LENGTHS)
    weight = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    sums = torch.zeros(samples, 4, dtype=torch.float64)
    scale = torch.zeros(samples, dtype=torch.float64)
    rows.launch_sample_sums(
        tokens.statistics, tokens.rest, None, layout, group, weight, sums, scale, tokens.share, tokens.label_signal,
        HeadMap(logit_scale=-2.0),
    )  # fmt: skip
    starts = layout.scored_start.tolist()
    slots = layout.token_slot.long()
    for sample, (start, stop) in list(enumerate(pairwise(starts)))[1:]:
        miss, own = expected.log_miss[start:stop].exp(), weight[sample]
        wanted = [expected.loss[start:stop].sum(), expected.entropy[start:stop].sum()]
        wanted.append((miss * expected.dot[start:stop]).sum())
        torch.testing.assert_close(sums[sample, :3], torch.stack(wanted) * own, rtol=1e-5, atol=0.0)
        torch.testing.assert_close(scale[sample], miss.max() * own * 2.0, rtol=1e-5, atol=0.0)
        share, rest = (x[slots[start:stop]].double() for x in (tokens.share, tokens.rest))
        torch.testing.assert_close(share * rest, -miss / miss.max(), rtol=2e-5, atol=0.0)
        torch.testing.assert_close(tokens.label_signal[slots[start:stop]].double(), rest, rtol=0.0, atol=0.0)
    used = int(layout.slot_start[-1])
    pads = layout.slot_row[:used] < 0
    assert bool(tokens.share[:used][pads].eq(0.0).all()), "pads weigh nothing"
    assert bool(tokens.label_signal[:used][pads].eq(0.0).all())


def signals_of(case: Case, layout: Layout) -> Tensor:
    """(slots, COLUMNS) of order one, 0 past the vocabulary and in pads."""
    generator = torch.Generator().manual_seed(3)
    signals = torch.randn(layout.slot_row.shape[0], COLUMNS, generator=generator)
    signals[:, VOCAB:] = 0.0
    signals[layout.slot_row < 0] = 0.0
    return signals


STATE = AdamState(*(torch.rand(2, VOCAB, DIM, generator=torch.Generator().manual_seed(5)) + 0.1), 3)
RULES: dict[str, Any] = {"sgd": SGD(), "sign": Sign(), "adamw": AdamW(eps=1e-2), "state": AdamW(eps=1e-2, state=STATE)}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "looked up"])
@pytest.mark.parametrize("rule", RULES)
def test_gradient_tiles_give_update_squares_and_weight_products(rule: str, packed: bool) -> None:
    case, layout, group = prepared(HEADS["plain"])
    signals = signals_of(case, layout)
    states, coefficient = case.hidden, torch.linspace(-1.0, 2.0, layout.slot_row.shape[0])
    if packed:
        states = torch.full((layout.slot_row.shape[0], DIM), math.nan)
        pack.launch_pack(case.hidden, coefficient, layout, group, states)
    scale = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)
    numbers, unit = direct.update_numbers(RULES[rule], scale)
    tiles = direct.tiles_of(COLUMNS, DIM, TINY.direct)
    partials = torch.full((len(LENGTHS), 2, tiles), math.nan)
    direct.launch_direct(
        signals, states, case.weight, RULES[rule], numbers, layout, group, partials, TINY.direct,
        base_sample=0, first_column=0, needs_weight=True, packed=packed, share=None if packed else coefficient,
        lr=1.0, weight_decay=0.0, storage_dtype=None,
    )  # fmt: skip
    starts, slots = layout.scored_start.tolist(), layout.token_slot.long()
    weight = case.weight.double()
    for sample in (1, 2):
        own = slice(starts[sample], starts[sample + 1])
        h = case.hidden[layout.token_row[own].long()].double() * coefficient[slots[own]].double().unsqueeze(1)
        g = scale[sample] * (signals[slots[own], :VOCAB].double().T @ h)
        if rule == "state":
            first, second = 0.9 * STATE.exp_avg.double() + 0.1 * g, 0.999 * STATE.exp_avg_sq.double() + 0.001 * g * g
            u = first / (1 - 0.9**4) / ((second / (1 - 0.999**4)).sqrt() + 1e-2)
        else:
            u = {"sgd": g, "sign": g.sign(), "adamw": g / (g.abs() + 1e-2)}[rule]
        squares, dots = partials[sample].double().sum(1)
        torch.testing.assert_close(squares * unit[sample] ** 2, u.square().sum(), rtol=1e-5, atol=0.0)
        torch.testing.assert_close(dots * unit[sample], (u * weight).sum(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packing_puts_scaled_states_at_their_slots_and_zeros_into_pads(dtype: torch.dtype) -> None:
    case, layout, group = prepared(HEADS["plain"])
    packed = torch.full((layout.slot_row.shape[0], DIM), math.nan, dtype=dtype)
    coefficient = torch.linspace(-1.0, 2.0, layout.slot_row.shape[0])
    coefficient[layout.slot_row < 0] = math.nan
    pack.launch_pack(case.hidden, coefficient, layout, group, packed)
    used = int(layout.slot_start[-1])
    row = layout.slot_row[:used].long()
    scaled = torch.where((row >= 0).unsqueeze(1), case.hidden[row.clamp_min(0)] * coefficient[:used].unsqueeze(1), 0.0)
    if dtype == torch.float32:
        assert torch.equal(packed[:used], scaled)
    else:
        error = (packed[:used].double() - scaled.double()) / scaled.double().abs().clamp_min(1e-30)
        assert float(error.abs().max()) <= 2.0**-7
        assert abs(float(error[row >= 0].mean())) < 2.0**-11, "rounded evenly"


def test_only_few_pairs_are_spread_over_parts_of_the_vocabulary() -> None:
    assert gram.vocabulary_parts(1, 192, TINY.gram) == 6, "blocks of 16 columns, two a part"
    assert gram.vocabulary_parts(4, 192, TINY.gram) == 3, "twelve programs"
    assert gram.vocabulary_parts(100, 192, TINY.gram) == 1
    assert gram.vocabulary_parts(0, 16, TINY.gram) == 1
    assert gram.vocabulary_parts(1, 1 << 20, replace(TINY.gram, programs=10**6)) == 64


def test_segments_are_added_to_what_stands_there_in_float64() -> None:
    values = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    bounds = torch.tensor([0, 2, 2, 7, 9], dtype=torch.int32)
    out = torch.full((4, 2), 100.0, dtype=torch.float64)
    # Samples 1 to 3 only, whose segments begin at item 2; a column of a wider table.
    reduce.launch_segment_sums(values[2:], bounds, out[:, 1], 1, 3)
    wide = values.double()
    assert out[:, 0].tolist() == [100.0] * 4
    wanted = torch.stack([torch.zeros((), dtype=torch.float64), wide[2:2].sum(), wide[2:7].sum(), wide[7:9].sum()])
    torch.testing.assert_close(out[:, 1], 100.0 + wanted, rtol=1e-15, atol=0.0)


def test_rows_are_added_to_their_places_past_a_block() -> None:
    values = torch.randn(3, 2, 2500, generator=torch.Generator().manual_seed(0))
    out = torch.ones(2, 5, dtype=torch.float64)
    reduce.launch_row_sums(values[:, 1], out[1], 2)
    torch.testing.assert_close(out[1, 2:], 1.0 + values[:, 1].double().sum(1), rtol=1e-14, atol=0.0)
    assert out[0].tolist() == [1.0] * 5
    assert out[1, :2].tolist() == [1.0] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (8, 128), (19, 131), (3, 300)], ids=str)
def test_the_norm_of_the_weight_is_that_of_its_values(shape: tuple[int, int], dtype: torch.dtype) -> None:
    wide = torch.randn(shape[0], shape[1] + 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    weight = wide[:, 5:]  # rows further apart than they are long
    found = reduce.squared_norm(weight)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, weight.double().square().sum(), rtol=1e-13, atol=0.0)


@triton.jit
def narrow_kernel(x, out, INTERPRETED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, narrow(tl.load(x + at), out.dtype.element_ty, INTERPRETED))


@triton.jit
def logarithms_kernel(x, first, second, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    value = tl.load(x + at)
    tl.store(first + at, log1p(tl.abs(value)))
    tl.store(second + at, softplus(value))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_narrowing_rounds_to_nearest_even_and_keeps_nan_and_infinity(dtype: torch.dtype) -> None:
    ties = [1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, -(1.0 + 2.0**-8), 1.0 + 2.0**-8 + 2.0**-20, 1.0 + 2.0**-11]
    # (Below 1.2e-38 the interpreter's own cast drops bits; a signal of that size is negligible.)
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.2e-38, 3e38, 65504.0, 1e-7]
    generator = torch.Generator().manual_seed(2)
    spread = torch.randn(1024 - 14, generator=generator) * torch.exp(torch.randn(1024 - 14, generator=generator))
    x = torch.cat([torch.tensor(ties + special), spread])
    out = torch.empty(1024, dtype=dtype)
    narrow_kernel[(1,)](x, out, INTERPRETED=INTERPRETING, BLOCK=1024)
    assert torch.equal(out.isnan(), x.isnan())
    assert torch.equal(out.nan_to_num(7.0, 8.0, 9.0), x.to(dtype).nan_to_num(7.0, 8.0, 9.0))


def test_logarithms_are_exact_relative_to_themselves_at_both_ends() -> None:
    exponents = torch.linspace(-300.0, 2.0, 253, dtype=torch.float64)
    x = torch.cat([-(10.0**exponents), torch.tensor([0.0, 700.0, math.nan], dtype=torch.float64)])
    first, second = torch.empty_like(x), torch.empty_like(x)
    logarithms_kernel[(1,)](x, first, second, BLOCK=256)
    torch.testing.assert_close(first, x.abs().log1p(), rtol=1e-15, atol=0.0, equal_nan=True)
    wanted = x.clamp_min(0.0) + x.abs().neg().exp().log1p() + (x - x)
    torch.testing.assert_close(second, wanted, rtol=1e-15, atol=0.0, equal_nan=True)
