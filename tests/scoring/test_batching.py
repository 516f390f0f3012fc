"""Batches: every sample once, within the budget, and predictors that point at the tokens before the targets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from donod_fast.batching import collate, group_by_length
from donod_fast.samples import Status, TokenizedSample


def sample(length: int, scored: set[int], first: int = 1) -> TokenizedSample:
    ids = tuple(range(first, first + length))
    return TokenizedSample(0, "", Status.SCORED, "", ids, tuple(t in scored for t in range(length)), length)


@given(lengths=st.lists(st.integers(2, 40), max_size=30), budget=st.integers(1, 200))
def test_groups_hold_every_sample_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = group_by_length([sample(length, {1}) for length in lengths], budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
    order = [i for group in groups for i in group]
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    # No group could have taken the next one's first sample
    for group, following in pairwise(groups):
        assert (len(group) + 1) * lengths[group[0]] > budget
        assert following


def test_a_batch_locates_its_targets_by_what_predicts_them() -> None:
    samples = [sample(3, {2}, first=10), sample(9, {1}), sample(5, {1, 3, 4}, first=50)]
    batch = collate(samples, (2, 0))
    assert batch.members == (2, 0)
    assert batch.input_ids.tolist() == [[50, 51, 52, 53, 54], [10, 11, 12, 0, 0]]
    assert batch.labels.tolist() == [51, 53, 54, 12]
    assert batch.cu_seqlens.tolist() == [0, 3, 4]
    flat = batch.input_ids.reshape(-1)
    assert flat[batch.predictors].tolist() == [50, 52, 53, 11]
    assert batch.tokens == 10
