"""Batches: every sample once, within the budget, with predictors that point at the tokens before the targets."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.models.batching import (
    batch_slots,
    collate,
    fill_in_order,
    group_by_length,
    make_batches,
    packing_efficiency,
    used_tokens,
)


def sample(length: int, scored: set[int], first: int = 1) -> TokenizedSample:
    ids = tuple(range(first, first + length))
    return TokenizedSample(0, "", Status.SCORED, "", ids, tuple(t in scored for t in range(length)), length)


def run_whole(length: int) -> TokenizedSample:
    """A sample of which so many tokens are run."""
    return sample(length + 1, {length})


LENGTHS = st.lists(st.integers(1, 40), max_size=30)


@given(lengths=LENGTHS, budget=st.integers(1, 200))
def test_groups_hold_every_sample_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = group_by_length([run_whole(length) for length in lengths], budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
    order = [i for group in groups for i in group]
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    # No group could have taken the next one's first sample
    for group, following in pairwise(groups):
        assert (len(group) + 1) * lengths[group[0]] > budget
        assert following


@given(lengths=LENGTHS, budget=st.integers(1, 200))
def test_packed_groups_are_filled_in_input_order(lengths: list[int], budget: int) -> None:
    groups = fill_in_order([run_whole(length) for length in lengths], budget)
    assert [i for group in groups for i in group] == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget
    for group, following in pairwise(groups):
        assert sum(lengths[i] for i in group) + lengths[following[0]] > budget


def test_the_form_chooses_the_grouping() -> None:
    samples = [run_whole(length) for length in (3, 9, 4, 8)]
    assert make_batches(samples, 18, packs=False) == group_by_length(samples, 18) == [(1, 3), (2, 0)]
    assert make_batches(samples, 18, packs=True) == fill_in_order(samples, 18) == [(0, 1, 2), (3,)]


def test_a_batch_locates_its_targets_by_what_predicts_them() -> None:
    samples = [sample(3, {2}, first=10), sample(9, {1}), sample(5, {1, 3, 4}, first=50)]
    batch = collate(samples, (2, 0))
    assert batch.members == (2, 0)
    # The last token of each is a label only: nothing that is scored comes after it.
    assert batch.input_ids.tolist() == [[50, 51, 52, 53], [10, 11, 0, 0]]
    assert batch.labels.tolist() == [51, 53, 54, 12]
    assert batch.cu_seqlens.tolist() == [0, 3, 4]
    flat = batch.input_ids.reshape(-1)
    assert flat[batch.predictors].tolist() == [50, 52, 53, 11]
    assert batch.tokens == 8 and batch.longest == 4
    assert batch.position_ids is None and batch.sample_bounds is None


def test_a_packed_batch_is_one_row_with_bounds_and_positions() -> None:
    samples = [sample(3, {2}, first=10), sample(9, {1}), sample(5, {1, 3, 4}, first=50)]
    batch = collate(samples, (2, 1, 0), packed=True)
    assert batch.input_ids.tolist() == [[50, 51, 52, 53, 1, 10, 11]]
    assert batch.position_ids is not None and batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 0, 1]]
    assert batch.sample_bounds is not None and batch.sample_bounds.tolist() == [0, 4, 5, 7]
    assert batch.labels.tolist() == [51, 53, 54, 2, 12]
    assert batch.input_ids[0, batch.predictors].tolist() == [50, 52, 53, 1, 11]
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 5]
    assert batch.tokens == 7 and batch.longest == 4


@given(
    flags=st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=6),
    packed=st.booleans(),
)
def test_batches_of_any_masks_hold_what_one_finds_token_by_token(flags: list[list[bool]], packed: bool) -> None:
    samples = [
        sample(len(mask) + 1, {t + 1 for t, flag in enumerate(mask) if flag}, first=100 * i)
        for i, mask in enumerate(flags)
    ]
    batch = collate(samples, range(len(samples)), packed=packed)
    labels, predicted_from, counts = [], [], [0]
    for one in samples:
        targets = [t for t, flag in enumerate(one.scored) if flag]
        labels += [one.input_ids[t] for t in targets]
        predicted_from += [one.input_ids[t - 1] for t in targets]
        counts.append(counts[-1] + len(targets))
    assert batch.labels.tolist() == labels
    assert batch.input_ids.reshape(-1)[batch.predictors].tolist() == predicted_from
    assert batch.cu_seqlens.tolist() == counts
    assert batch.tokens == batch_slots(samples, range(len(samples)), packed)
    assert batch.longest == max(map(used_tokens, samples))
    assert batch.input_ids.dtype == batch.predictors.dtype == batch.labels.dtype == torch.int64
    assert batch.cu_seqlens.dtype == torch.int32


@pytest.mark.parametrize(
    ("scored", "used"), [({9}, 9), ({1}, 1), ({4, 6}, 6), (set(), 10), ({0}, 1)], ids=["last", "1", "6", "none", "0"]
)
def test_tokens_after_the_last_predictor_are_not_run(scored: set[int], used: int) -> None:
    assert used_tokens(sample(10, scored)) == used


def test_efficiency_counts_tokens_that_are_run_over_slots() -> None:
    samples = [run_whole(length) for length in (3, 9, 4, 8)]
    assert packing_efficiency(samples, [(1, 3), (2, 0)], packed=False) == 24 / 26
    assert packing_efficiency(samples, [(0, 1, 2), (3,)], packed=True) == 1.0
    assert packing_efficiency(samples, [], packed=False) == 1.0


def test_pinning_changes_no_value() -> None:
    samples = [run_whole(length) for length in (3, 9)]
    for packed in (False, True):
        plain, pinned = (collate(samples, (0, 1), packed=packed, pin=pin) for pin in (False, True))
        assert torch.equal(plain.input_ids, pinned.input_ids) and torch.equal(plain.predictors, pinned.predictors)
        assert pinned.input_ids.is_pinned() == torch.cuda.is_available()
