"""With the Triton kernels a sample's scores do not depend on its neighbours or on earlier contents of memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from head_cases import BOUNDS, UPDATES, Case, assert_identical, assert_scores, every_update, make_case, only, truth
from torch import Tensor
from triton_cases import call_of, interpreted, on_path, plan_of, scored, scores_of

from donod_fast.kernels import IGNORE_INDEX, DonNod

pytestmark = interpreted

FLOAT32 = BOUNDS[torch.float32]
LENGTHS = (2, 0, 17, 1)
VOCAB = 131
# (path, whether bounds are known on the host)
WAYS = [("stored", True), ("groups", True), ("kept", False), ("chunks", False)]


def picked(scores: DonNod, samples: list[int]) -> DonNod:
    return DonNod(*(column[samples] for column in scores if column is not None))


def row_of(case: Case, sample: int) -> int:
    """The first scored row of a sample."""
    first, last = case.cu_seqlens.tolist()[sample : sample + 2]
    return first + int((case.labels[first:last] != IGNORE_INDEX).nonzero()[0])


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize(
    ("update", "value", "path", "on_host"),
    [
        ("adamw", math.nan, "stored", True),
        ("adamw", math.inf, "chunks", False),
        ("sgd", math.nan, "kept", False),
        ("sgd", -math.inf, "groups", True),
        ("sgd", math.nan, "chunks", False),
        ("sign", -math.inf, "stored", False),
    ],
)
def test_a_broken_sample_shows_and_keeps_to_itself(update: str, value: float, path: str, on_host: bool) -> None:
    case = make_case(LENGTHS, VOCAB, 17)
    call = on_path(case, path, update=update, bounds_on_host=on_host)
    hidden = case.hidden.clone()
    hidden[row_of(case, 2), 5] = value
    options = {"update": update, "bounds_on_host": on_host, "workspace_bytes": call.workspace_bytes}
    found, whole = scored(case._replace(hidden=hidden), **options), scores_of(call)
    for name in ("don", "nod", "loss"):
        assert not math.isfinite(float(getattr(found, name)[2])), f"{name} should show that something broke"
    assert_identical(picked(found, [0, 1, 3]), picked(whole, [0, 1, 3]))


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_a_broken_sample_does_not_affect_others_in_a_packed_batch(update: str) -> None:
    case = make_case(LENGTHS, vocab=67, dim=17)
    hidden = case.hidden.clone()
    hidden[row_of(case, 2), 5] = math.nan
    call = call_of(case, update=update)
    assert all(part.pack is (update == "adamw") for part in plan_of(call).groups)
    others = [0, 1, 3]
    assert_identical(
        picked(scored(case._replace(hidden=hidden), update=update), others), picked(scores_of(call), others)
    )


@pytest.mark.parametrize(("update", "dim"), [("adamw", 17), ("adamw", 33), ("sgd", 17)])
def test_rows_that_are_not_scored_may_hold_anything(update: str, dim: int) -> None:
    """The first row of all included, which a look-up of a pad could fall back to."""
    bare = make_case((3, 18), vocab=67, dim=dim, unscored=0)
    assert all(part.pack is ((update, dim) == ("adamw", 17)) for part in plan_of(call_of(bare, update=update)).groups)
    rubbish = torch.tensor([math.nan, math.inf, -math.inf]).unsqueeze(1).expand(3, dim)
    hidden, labels, bounds = [], [], [0]
    for start, stop in pairwise(bare.cu_seqlens.tolist()):
        hidden += [rubbish, bare.hidden[start : start + 2], rubbish[:1], bare.hidden[start + 2 : stop]]
        ignored = torch.full((3,), IGNORE_INDEX)
        labels += [ignored, bare.labels[start : start + 2], ignored[:1], bare.labels[start + 2 : stop]]
        bounds.append(bounds[-1] + stop - start + 4)
    padded = Case(torch.cat(hidden), bare.weight, torch.cat(labels), torch.tensor(bounds, dtype=torch.int32))
    assert_identical(scored(padded, update=update), scored(bare, update=update))


# In the padding of the vocabulary, past it, before it, and past every tensor: reading there would crash.
WRONG = (VOCAB, VOCAB + 1, 191, 192, 10**12, -1, -7, -(10**12))


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(("update", "path"), [("adamw", "stored"), ("sgd", "stored"), ("sgd", "chunks")])
def test_labels_outside_the_vocabulary_affect_only_their_own_samples(update: str, path: str) -> None:
    """As on a device, where labels are not looked at before the launch."""
    case = make_case((1, 18, *([2] * len(WRONG)), 1), VOCAB, 5)
    call = on_path(case, path, update=update, bounds_on_host=False)
    labels = case.labels.clone()
    spoiled = list(range(2, 2 + len(WRONG)))
    for sample, label in zip(spoiled, WRONG, strict=True):
        labels[row_of(case, sample)] = label
    wrong = case._replace(labels=labels)
    found = scored(wrong, update=update, bounds_on_host=False, workspace_bytes=call.workspace_bytes)
    for name in ("don", "nod", "loss", "entropy", "weight_dot_update", "update_norm"):
        assert getattr(found, name).isnan().nonzero().squeeze(1).tolist() == spoiled, name
    others = [0, 1, len(case.cu_seqlens) - 2]
    assert_identical(picked(found, others), picked(scores_of(call), others))


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", ["adamw", "adamw-state", "sgd", "sign"])
@pytest.mark.parametrize("storage", [None, torch.bfloat16], ids=str)
def test_so_does_one_under_every_update_and_with_rounding(name: str, storage: torch.dtype | None) -> None:
    case = make_case((2, 1), vocab=31, dim=5)
    labels = case.labels.clone()
    labels[row_of(case, 0)] = 31
    options: dict[str, Any] = {"update": every_update(case)[name], "storage_dtype": storage, "lr": 1e-3}
    found = scored(case._replace(labels=labels), **options)
    assert found.don.isnan().tolist() == [True, False]
    assert found.nod.isnan().tolist() == [True, False]
    assert_identical(picked(found, [1]), picked(scored(case, **options), [1]))


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    "bounds", [[1, 4, 22], [0, 4, 21], [0, 4, 23], [0, 25, 22], [0, -3, 22], [0, 10**12, 22], [22, 4, 0]], ids=str
)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_bounds_on_a_device_that_are_none_give_no_scores_at_all(update: str, bounds: list[int]) -> None:
    case = make_case((3, 17), vocab=31, dim=5)
    assert len(case.labels) == 22
    wrong = case._replace(cu_seqlens=torch.tensor(bounds))
    found = scored(wrong, update=update, bounds_on_host=False)
    for name in ("don", "nod", "loss", "entropy"):
        assert bool(getattr(found, name).isnan().all()), name


def poison(real: Callable[..., Tensor], value: float) -> Callable[..., Tensor]:
    """An allocator whose memory holds ``value``, or a number past everything where it holds integers."""

    def allocate(*args: Any, **kwargs: Any) -> Tensor:
        out = real(*args, **kwargs)
        if out.dtype == torch.uint8:  # the workspace: read as floats, its bytes are NaN or 3e38
            return out.fill_(0xFF if math.isnan(value) else 0x7F)
        return out.fill_(value if out.is_floating_point() else 0x7FFFFFFF)

    return allocate


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("name", "path", "on_host", "value"),
    [
        *(("adamw", path, on_host, math.nan) for path, on_host in WAYS if path != "kept"),
        *(("sgd", path, on_host, math.nan) for path, on_host in WAYS if path != "stored"),
        ("adamw", "stored", True, 3e38),
        ("sgd", "chunks", False, 3e38),
    ],
)
def test_what_memory_held_before_is_no_part_of_the_result(
    name: str, path: str, on_host: bool, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(LENGTHS, VOCAB, 17)
    call = on_path(case, path, update=every_update(case)[name], bounds_on_host=on_host, softcap=20.0)
    expected = scores_of(call)
    for allocator in ("empty", "empty_like"):
        monkeypatch.setattr(torch, allocator, poison(getattr(torch, allocator), value))
    assert bool(torch.empty(3).ne(0.0).all()), "the poison is in place"
    found = scores_of(call)
    monkeypatch.undo()
    assert_identical(found, expected)


@pytest.mark.parametrize("name", UPDATES)
def test_two_runs_are_equal_bit_by_bit(name: str) -> None:
    case = make_case(LENGTHS, vocab=67, dim=5, dtype=torch.bfloat16)
    call = call_of(case, update=every_update(case)[name])
    assert_identical(scores_of(call), scores_of(call))


@pytest.mark.parametrize(("update", "path"), [("adamw", "stored"), ("sgd", "chunks")])
def test_alone_packed_or_in_another_order_is_the_same(update: str, path: str) -> None:
    case = make_case(LENGTHS, VOCAB, 17, margins=(0.0, 12.0, 45.0))
    call = on_path(case, path, update=update)
    packed = scores_of(call)
    options: dict[str, Any] = {"update": update, "workspace_bytes": call.workspace_bytes}
    for sample in (0, 2):
        assert_scores(scored(only(case, [sample]), **options), picked(packed, [sample]), FLOAT32)
    order = [3, 1, 0, 2]
    assert_scores(scored(only(case, order), **options), picked(packed, order), FLOAT32)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_bounds_known_on_the_host_or_not_give_the_same_scores(update: str) -> None:
    case = make_case(LENGTHS, VOCAB, 5, margins=(0.0, 12.0))
    known, unknown = scored(case, update=update), scored(case, update=update, bounds_on_host=False)
    assert_scores(unknown, known, FLOAT32)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize("on_host", [True, False], ids=["host", "device"])
def test_a_batch_in_which_nothing_is_scored_is_all_nan(update: str, on_host: bool) -> None:
    case = make_case((0, 0), vocab=31, dim=5, unscored=3)
    found = scored(case, update=update, bounds_on_host=on_host)
    empty = Case(torch.zeros(0, 5), case.weight, torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0, 0]))
    for scores in (found, scored(empty, update=update, bounds_on_host=on_host)):
        assert scores.scored_tokens.tolist() == [0, 0]
        for name in ("don", "nod", "loss", "entropy", "weight_dot_update", "update_norm"):
            assert getattr(scores, name).isnan().tolist() == [True, True], name


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_every_row_may_be_a_sample_of_its_own(update: str) -> None:
    case = make_case((9,), vocab=31, dim=5, unscored=3)
    single = case._replace(cu_seqlens=torch.arange(13, dtype=torch.int32))
    found = scored(single, update=update)
    assert found.scored_tokens.tolist() == (case.labels != IGNORE_INDEX).int().tolist()
    assert_scores(found, truth(single, update=update), FLOAT32)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_labels_of_either_integer_width_give_the_same_bits(update: str) -> None:
    case = make_case((3, 9), vocab=31, dim=7)
    assert_identical(scored(case._replace(labels=case.labels.int()), update=update), scored(case, update=update))


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_rows_that_lie_apart_in_memory_give_the_same_bits(update: str) -> None:
    case = make_case((3, 9), vocab=31, dim=7)
    wide = torch.full((31, 12), math.nan)
    wide[:, 3:10] = case.weight
    tall = torch.full((len(case.labels), 11), math.nan)
    tall[:, :7] = case.hidden
    strided = case._replace(weight=wide[:, 3:10], hidden=tall[:, :7])
    assert not strided.weight.is_contiguous()
    assert_identical(scored(strided, update=update), scored(case, update=update))
