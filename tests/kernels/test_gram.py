"""The Gram and cross kernels separately: E, shares and label signals made by hand, compared with float64 gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from triton_cases import TINY, interpreted

from donod_fast.kernels import IGNORE_INDEX
from donod_fast.kernels.triton_backend import gram, reduce
from donod_fast.kernels.triton_backend.configs import GramConfig
from donod_fast.kernels.triton_backend.layout import Group, make_layout
from donod_fast.kernels.triton_backend.pairs import Side

pytestmark = interpreted

VOCAB, COLUMNS = 67, 96
CONFIG: GramConfig = TINY.gram


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """One side, and its samples' gradients in float64."""

    side: Side
    gradients: Tensor  # (samples, VOCAB, dim)


def make_side(
    lengths: tuple[int, ...],
    *,
    dim: int = 24,
    dtype: torch.dtype = torch.float32,
    log_rest: tuple[float, ...] = (0.0,),
    few_labels: bool = False,
    seed: int = 0,
) -> Made:
    """Samples with every third row unscored; log R of their tokens runs through ``log_rest``. All pads are NaN."""
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    rows = int(bounds[-1])
    labels = torch.randint(2 if few_labels else VOCAB, (rows,), generator=generator)
    labels[2::3] = IGNORE_INDEX
    hidden = torch.randn(rows, dim, generator=generator).to(dtype)
    hidden[2::3] = math.nan
    layout = make_layout(labels, bounds, CONFIG.tokens)
    slots = layout.slot_row.shape[0]
    used = layout.slot_row >= 0
    row = layout.slot_row[used].long()
    label = labels[row].unsqueeze(1)
    count = len(row)
    level = torch.tensor(log_rest, dtype=torch.float64).repeat(count)[:count].unsqueeze(1)
    logits = 3.0 * torch.randn(count, VOCAB, generator=generator).double().scatter(1, label, -math.inf)
    stored = (torch.softmax(logits, 1) * level.exp()).to(dtype)
    rest = stored.double().sum(1)
    slope = torch.rand(count, generator=generator).double() + 0.25
    share = ((torch.rand(count, generator=generator).double() + 0.05) / rest).float()
    share[::2] *= -1.0
    signal = (rest * slope).float()

    def placed(values: Tensor) -> Tensor:
        table = torch.full((slots, *values.shape[1:]), math.nan, dtype=values.dtype)
        table[used] = values
        return table

    exps = torch.nn.functional.pad(placed(stored), (0, COLUMNS - VOCAB))
    group = Group(0, len(lengths), rows, slots, lengths)
    side = Side(hidden, exps, placed(share), placed(signal), labels, layout, group)
    errors = share.double().unsqueeze(1) * stored.double().scatter(1, label, -signal.double().unsqueeze(1))
    starts = layout.scored_start.tolist()
    gradients = [errors[a:b].T @ hidden[row[a:b]].double() for a, b in pairwise(starts)]
    return Made(side, torch.stack(gradients))


def squares(side: Side, parts: int, *, width: int = COLUMNS, nbytes: int = 1 << 20) -> Tensor:
    """‖G‖² of every sample of a side, by chunks of ``width`` columns, with memory for ``nbytes`` of products h · h."""
    layout, group = side.layout, side.group
    pair_start, pairs = gram.pair_bounds(layout.counts, CONFIG), gram.pairs_at_most(group, CONFIG)
    states = torch.full((gram.pairs_held(pairs, nbytes, CONFIG), CONFIG.tokens**2), math.nan)
    norms = torch.zeros(len(layout.counts), dtype=torch.float64)
    for first in range(0, COLUMNS, width):
        chunk = replace(side, exps=side.exps[:, first : first + width])
        partials = torch.full((pairs, 1 + parts), math.nan)
        gram.launch_gram(chunk, pair_start, states, partials, CONFIG, first_column=first)
        reduce.launch_segment_sums(partials, pair_start, norms, group.first_sample, group.samples)
    return norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_pairs_of_tokens_give_the_squared_norm_of_each_samples_gradient(parts: int, dtype: torch.dtype) -> None:
    made = make_side((0, 1, 2, 60, 24), dtype=dtype, few_labels=True)
    expected = made.gradients.square().sum((1, 2))
    torch.testing.assert_close(squares(made.side, parts), expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("dim", [5, 16, 33])
def test_any_number_of_hidden_dimensions_gives_the_squared_norm(dim: int) -> None:
    made = make_side((31, 8), dim=dim)
    torch.testing.assert_close(squares(made.side, 2), made.gradients.square().sum((1, 2)), rtol=1e-5, atol=0.0)


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("nbytes", [0, 3 << 10, 1 << 20], ids=["one pair", "three pairs", "all pairs"])
@pytest.mark.parametrize("width", [16, 48, 96])
def test_chunks_of_the_vocabulary_add_up_to_the_squared_norm(width: int, nbytes: int) -> None:
    made = make_side((5, 40), few_labels=True)
    found = squares(made.side, 1, width=width, nbytes=nbytes)
    torch.testing.assert_close(found, made.gradients.square().sum((1, 2)), rtol=1e-5, atol=0.0)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("levels", [(40.0,), (-40.0,), (40.0, -40.0, 0.0), (-40.0, 3.0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_hold_at_both_ends_of_the_range_of_a_reference(dtype: torch.dtype, levels: tuple[float, ...]) -> None:
    made = make_side((50, 3), dtype=dtype, log_rest=levels, few_labels=True)
    torch.testing.assert_close(squares(made.side, 2), made.gradients.square().sum((1, 2)), rtol=1e-5, atol=0.0)


def test_a_later_group_of_samples_has_its_own_rows_of_exps() -> None:
    made = make_side((40, 7, 30, 11))
    layout = made.side.layout
    begin = int(layout.slot_start[2])
    lengths = (30, 11)
    group = Group(2, 2, 41, layout.slot_row.shape[0] - begin, lengths)
    found = squares(replace(made.side, exps=made.side.exps[begin:], group=group), 1)
    expected = made.gradients.square().sum((1, 2))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, *expected[2:].tolist()]).double(), rtol=1e-5, atol=0.0)


def test_a_sample_of_nan_leaves_its_neighbours_alone() -> None:
    made = make_side((19, 20, 21))
    expected = made.gradients.square().sum((1, 2))
    begin, end = made.side.layout.slot_start[1:3].tolist()
    made.side.exps[begin:end] = math.nan
    made.side.share[begin:end] = math.nan
    made.side.label_signal[begin:end] = math.nan
    found = squares(made.side, 2)
    assert bool(found[1].isnan())
    torch.testing.assert_close(found[::2], expected[::2], rtol=1e-5, atol=0.0)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("held", [1, 7, 1000], ids=["one pair", "seven pairs", "all pairs"])
@pytest.mark.parametrize("width", [96, 32])
def test_rectangles_of_tiles_give_the_products_of_two_sets(dtype: torch.dtype, width: int, held: int) -> None:
    one = make_side((0, 20, 3, 30), dtype=dtype, few_labels=True, log_rest=(0.0, 40.0))
    two = make_side((33, 1, 18), dtype=dtype, few_labels=True, log_rest=(-40.0, 1.0), seed=1)
    tiles = [len(made.side.layout.slot_row) // CONFIG.tokens for made in (one, two)]
    partials = torch.zeros(tiles[0], tiles[1])
    states = torch.full((min(held, partials.numel()), CONFIG.tokens**2), math.nan)
    for first in range(0, COLUMNS, width):
        left, right = (replace(made.side, exps=made.side.exps[:, first : first + width]) for made in (one, two))
        gram.launch_cross(left, right, states, partials, CONFIG, first_column=first)
    expected = torch.einsum("ivd,jvd->ij", one.gradients, two.gradients)
    scale = one.gradients.flatten(1).norm(dim=1).unsqueeze(1) * two.gradients.flatten(1).norm(dim=1)
    row, column = (made.side.layout.slot_start // CONFIG.tokens for made in (one, two))
    for i in range(4):
        for j in range(3):
            found = partials[row[i] : row[i + 1], column[j] : column[j + 1]].double().sum()
            assert abs(found - expected[i, j]) <= 1e-5 * scale[i, j]
