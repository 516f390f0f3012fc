"""A sample's scores do not depend on its neighbours, on the order of samples, or on earlier calls."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from head_cases import BOUNDS, MIB, Case, assert_identical, assert_scores, make_case, only, truth

from donod_fast.kernels import IGNORE_INDEX, DonNod, don_nod

FLOAT32 = BOUNDS[torch.float32]
WORKSPACES = {"stored": 256 * MIB, "streamed": MIB}
LENGTHS = (5, 0, 1, 40, 150, 2, 17, 0, 90)
UPDATES = ("adamw", "sgd", "sign")


def picked(scores: DonNod, samples: list[int]) -> DonNod:
    return DonNod(*(column[samples] for column in scores if column is not None))


@pytest.fixture(params=[None, (0.0, 12.0, 45.0)], ids=["random", "confident"])
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(LENGTHS, vocab=507, dim=67, margins=request.param)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", UPDATES)
def test_alone_packed_or_in_another_order_is_the_same(case: Case, update: str, workspace: str) -> None:
    options = {"update": update, "workspace_bytes": WORKSPACES[workspace]}
    packed = don_nod(*case, **options)
    for sample in range(len(LENGTHS)):
        assert_scores(don_nod(*only(case, [sample]), **options), picked(packed, [sample]), FLOAT32)
    order = [8, 3, 1, 0, 7, 2, 4, 6, 5]
    assert_scores(don_nod(*only(case, order), **options), picked(packed, order), FLOAT32)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", UPDATES)
def test_two_runs_are_equal_bit_by_bit(case: Case, update: str, workspace: str) -> None:
    options = {"update": update, "workspace_bytes": WORKSPACES[workspace]}
    assert_identical(don_nod(*case, **options), don_nod(*case, **options))


@pytest.mark.parametrize("update", UPDATES)
def test_an_earlier_call_leaves_no_trace(case: Case, update: str) -> None:
    small = make_case((2, 1), vocab=31, dim=7, dtype=torch.float64)
    expected, wanted = don_nod(*case, update=update), don_nod(*small, update=update)
    don_nod(*case._replace(hidden=torch.full_like(case.hidden, math.nan)), update=update)
    with torch.inference_mode():
        don_nod(*make_case((300,), vocab=2003, dim=7), update=update)
    assert_identical(don_nod(*small, update=update), wanted)
    assert_identical(don_nod(*case, update=update), expected)


@pytest.mark.parametrize("update", UPDATES)
def test_threads_do_not_get_in_each_others_way(update: str) -> None:
    cases = [make_case(LENGTHS, vocab=507, dim=67, seed=seed) for seed in range(4)]
    expected = [don_nod(*case, update=update) for case in cases]

    def score(case: Case) -> DonNod:
        torch.set_num_threads(1)
        return don_nod(*case, update=update)

    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(threads.map(score, cases * 4), expected * 4, strict=True):
            assert_identical(found, wanted)


@pytest.mark.parametrize("workspace", [MIB, 2 * MIB, 5 * MIB, 64 * MIB])
@pytest.mark.parametrize("update", UPDATES)
def test_the_workspace_is_no_part_of_the_result(case: Case, update: str, workspace: int) -> None:
    assert_scores(don_nod(*case, update=update, workspace_bytes=workspace), don_nod(*case, update=update), FLOAT32)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", UPDATES)
def test_rows_that_are_not_scored_change_nothing(update: str, workspace: str) -> None:
    """Scored rows at any place among unscored ones, which hold rubbish, NaN included."""
    bare = make_case((5, 1, 40, 150), vocab=507, dim=67, unscored=0)
    ends = bare.cu_seqlens.tolist()
    hidden, labels, bounds = [], [], [0]
    rubbish = torch.full((3, 67), math.nan)
    rubbish[1] = math.inf
    for start, stop in pairwise(ends):
        middle = (start + stop) // 2
        hidden += [rubbish, bare.hidden[start:middle], rubbish[:1], bare.hidden[middle:stop], rubbish]
        ignored = torch.full((3,), IGNORE_INDEX)
        labels += [ignored, bare.labels[start:middle], ignored[:1], bare.labels[middle:stop], ignored]
        bounds.append(bounds[-1] + stop - start + 7)
    padded = Case(torch.cat(hidden), bare.weight, torch.cat(labels), torch.tensor(bounds, dtype=torch.int32))
    options = {"update": update, "workspace_bytes": WORKSPACES[workspace]}
    assert_identical(don_nod(*padded, **options), don_nod(*bare, **options))


@pytest.mark.parametrize("update", UPDATES)
def test_a_sample_without_a_scored_token_has_no_scores(update: str) -> None:
    case = make_case((0, 4, 0), vocab=31, dim=7)
    ends = [0, 0, *case.cu_seqlens.tolist()[1:]]  # and one without any row at all
    case = case._replace(cu_seqlens=torch.tensor(ends, dtype=torch.int32))
    found = don_nod(*case, update=update)
    assert found.scored_tokens.tolist() == [0, 0, 4, 0]
    assert found.scored_tokens.dtype == torch.int32
    for name in ("don", "nod", "loss", "entropy", "weight_dot_update", "update_norm"):
        column = getattr(found, name)
        assert column.isnan().tolist() == [True, True, False, True], name
        assert column.dtype == torch.float64, name


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_batch_in_which_nothing_is_scored_is_all_nan(weight_decay: float) -> None:
    case = make_case((0, 0), vocab=31, dim=7, unscored=3)
    found = don_nod(*case, weight_decay=weight_decay)
    assert found.don.isnan().all()
    assert found.nod.isnan().all()
    empty = don_nod(torch.zeros(0, 7), case.weight, torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0]))
    assert empty.don.isnan().tolist() == [True]
    assert empty.scored_tokens.tolist() == [0]


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("broken", [3, 4], ids=["short", "long"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("update", UPDATES)
def test_a_broken_sample_shows_and_keeps_to_itself(update: str, value: float, broken: int, workspace: str) -> None:
    case = make_case(LENGTHS, vocab=507, dim=67)
    scored = case.labels != IGNORE_INDEX
    first = int(case.cu_seqlens[broken])
    row = first + int(scored[first : int(case.cu_seqlens[broken + 1])].nonzero()[1])
    hidden = case.hidden.clone()
    hidden[row, 5] = value
    options = {"update": update, "workspace_bytes": WORKSPACES[workspace]}
    found, whole = don_nod(*case._replace(hidden=hidden), **options), don_nod(*case, **options)
    for name in ("don", "nod", "loss"):
        assert not math.isfinite(float(getattr(found, name)[broken])), f"{name} should show that something broke"
    others = [i for i in range(len(LENGTHS)) if i != broken]
    assert_identical(picked(found, others), picked(whole, others))


@pytest.mark.parametrize("update", UPDATES)
def test_every_row_may_be_a_sample_of_its_own(update: str) -> None:
    case = make_case((60,), vocab=131, dim=33, unscored=6)
    single = case._replace(cu_seqlens=torch.arange(67, dtype=torch.int32))
    found = don_nod(*single, update=update)
    assert found.scored_tokens.tolist() == (case.labels != IGNORE_INDEX).int().tolist()
    assert_scores(found, truth(single, update=update), FLOAT32)


def test_repeating_a_token_changes_neither_its_mean_gradient_nor_its_score() -> None:
    case = make_case((1,), vocab=131, dim=33, unscored=0)
    repeated = Case(
        case.hidden.repeat(300, 1), case.weight, case.labels.repeat(300), torch.tensor([0, 300], dtype=torch.int32)
    )
    assert_scores(
        don_nod(*repeated)._replace(scored_tokens=torch.tensor([1], dtype=torch.int32)), don_nod(*case), FLOAT32
    )


@pytest.mark.parametrize("labels_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("bounds_dtype", [torch.int32, torch.int64], ids=str)
def test_labels_and_bounds_of_either_integer_width(labels_dtype: torch.dtype, bounds_dtype: torch.dtype) -> None:
    case = make_case((3, 9), vocab=31, dim=7)
    cast = case._replace(labels=case.labels.to(labels_dtype), cu_seqlens=case.cu_seqlens.to(bounds_dtype))
    assert_identical(don_nod(*cast), don_nod(*case))
