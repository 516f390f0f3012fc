"""``make_layout`` compared with a loop in Python: the position of every token, for any labels and bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from head_cases import make_case
from hypothesis import example, given, settings
from hypothesis import strategies as st
from triton_cases import TINY, interpreted

from donod_fast.kernels import IGNORE_INDEX
from donod_fast.kernels.triton_backend.gram import pair_bounds, pairs_at_most
from donod_fast.kernels.triton_backend.layout import Group, Layout, make_layout, slots_bound

pytestmark = interpreted


def laid_out(labels: list[int], bounds: list[int], align: int) -> tuple[list[int], list[int], list[list[int]]]:
    """(rows of scored tokens, their slots, rows of each sample's slots), one sample after the other."""
    rows, slots, tables = [], [], []
    slot = 0
    for start, stop in pairwise(bounds):
        own = [row for row in range(start, stop) if labels[row] != IGNORE_INDEX]
        rows += own
        slots += range(slot, slot + len(own))
        padded = -(-len(own) // align) * align
        tables.append(own + [-1] * (padded - len(own)))
        slot += padded
    return rows, slots, tables


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Labels of which some are not scored, bounds with empty samples, an alignment."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=7))
    labels = draw(st.lists(st.sampled_from([IGNORE_INDEX, 0, 3]), min_size=sum(lengths), max_size=sum(lengths)))
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    return labels, bounds, draw(st.sampled_from([1, 2, 4, 16]))


@settings(max_examples=150, deadline=None)
@given(batch=batches())
@example(batch=([], [0, 0], 16))
@example(batch=([], [0, 0, 0, 0], 16))
@example(batch=([IGNORE_INDEX] * 3, [0, 0, 3, 3], 4))
@example(batch=([1] * 16, [0, 16, 16], 16))
@example(batch=([1] * 9, list(range(10)), 8))
def test_every_scored_token_has_its_row_and_slot_and_every_pad_is_marked(
    batch: tuple[list[int], list[int], int],
) -> None:
    labels, bounds, align = batch
    rows, slots, tables = laid_out(labels, bounds, align)
    layout = make_layout(torch.tensor(labels, dtype=torch.int64), torch.tensor(bounds), align)
    assert bool(layout.valid)
    assert layout.align == align
    assert layout.token_row.tolist() == rows + [0] * (len(labels) - len(rows))
    assert layout.token_slot.tolist() == slots + [0] * (len(labels) - len(slots))
    expected = [row for table in tables for row in table]
    found = layout.slot_row.tolist()
    assert len(found) == slots_bound(len(labels), len(tables), align)
    assert len(found) % align == 0
    assert found == expected + [-1] * (len(found) - len(expected)), "slots past the last sample are pads"
    ends = [0]
    starts = [0]
    for table in tables:
        ends.append(ends[-1] + len(table))
        starts.append(starts[-1] + sum(row >= 0 for row in table))
    assert layout.slot_start.tolist() == ends
    assert layout.scored_start.tolist() == starts
    assert layout.counts.tolist() == [b - a for a, b in pairwise(starts)]
    owners = [sample for sample, table in enumerate(tables) for _ in range(len(table) // align)]
    steps = len(found) // align + 1
    assert layout.step_sample.tolist() == owners + [len(tables)] * (steps - len(owners)), "one more step ends the last"
    assert {getattr(layout, name).dtype for name in Layout.__slots__ if name not in ("align", "valid")} == {torch.int32}


@pytest.mark.parametrize(
    "bounds",
    [[1, 5], [0, 4], [0, 6], [0, 3, 2, 5], [0, -1, 5], [0, 9, 5], [5, 0], [2**40, -(2**40), 5], [0, 2**62, 5]],
    ids=str,
)
def test_invalid_bounds_are_reported_and_no_table_points_outside(bounds: list[int]) -> None:
    layout = make_layout(torch.tensor([1, 2, 3, 4, 5]), torch.tensor(bounds), 4)
    samples = len(bounds) - 1
    assert not bool(layout.valid)
    assert int(layout.token_row.min()) >= 0
    assert int(layout.token_row.max()) < 5
    assert int(layout.slot_row.min()) >= -1
    assert int(layout.slot_row.max()) < 5
    assert int(layout.token_slot.min()) >= 0
    assert int(layout.token_slot.max()) < len(layout.slot_row)
    for starts, most in ((layout.scored_start, 5), (layout.slot_start, len(layout.slot_row))):
        assert int(starts[0]) == 0
        assert bool((starts.diff() >= 0).all())
        assert int(starts[-1]) <= most
    assert bool((layout.step_sample <= samples).all())


def test_labels_of_thirty_two_bits_give_the_same_tables() -> None:
    case = make_case((3, 0, 17, 1), vocab=31, dim=1)
    wide = make_layout(case.labels, case.cu_seqlens.long(), 16)
    narrow = make_layout(case.labels.int(), case.cu_seqlens.long(), 16)
    for name in Layout.__slots__:
        assert torch.equal(torch.as_tensor(getattr(narrow, name)), torch.as_tensor(getattr(wide, name))), name


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 70), min_size=1, max_size=6))
def test_pairs_of_token_tiles_are_counted_and_stay_within_the_bound(lengths: list[int]) -> None:
    tiles = [-(-length // 16) for length in lengths]
    pairs = [sum(1 for i in range(n) for j in range(n) if j <= i) for n in tiles]
    found = pair_bounds(torch.tensor(lengths, dtype=torch.int32), TINY.gram)
    assert found.tolist() == [sum(pairs[:i]) for i in range(len(pairs) + 1)]
    slots = slots_bound(sum(lengths), len(lengths), 16)
    known = Group(0, len(lengths), sum(lengths), slots, tuple(lengths))
    unknown = Group(0, len(lengths), sum(lengths), slots)
    assert pairs_at_most(known, TINY.gram) == sum(pairs)
    assert pairs_at_most(unknown, TINY.gram) >= sum(pairs)
