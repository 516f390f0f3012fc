"""The Triton kernels compared with float64 autograd, on every path of the plan, under Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from head_cases import BOUNDS, UPDATES, Case, assert_identical, assert_scores, every_update, make_bias, make_case, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_counts import examples
from triton_cases import PATHS, TINY, call_of, interpreted, on_path, paths_of, plan_of, scored, scores_of, workspace_for

from donod_fast.kernels import DonNod, don_nod
from donod_fast.kernels.triton_backend import configs, direct, logits, plan

pytestmark = interpreted

FLOAT32 = BOUNDS[torch.float32]
CONFIDENT = (0.0, 9.0, 18.0, 40.0)
# Past 16 tokens, 64 and 32 vocabulary rows and 16 dimensions, with remainders; tokens of confidence in turn.
LENGTHS = (0, 1, 19)
VOCAB, DIM = 131, 18
# (update, path, whether the bounds are known on the host): unknown ones cannot be cut into groups.
WAYS = [
    *((name, path, True) for name in UPDATES for path in PATHS),
    *((name, path, False) for name in ("adamw", "sgd") for path in PATHS if path != "groups"),
]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("name", "path", "on_host"), WAYS)
def test_every_update_keeps_its_bound_on_every_path(name: str, path: str, on_host: bool) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, margins=CONFIDENT)
    update = every_update(case)[name]
    call = on_path(case, path, update=update, bounds_on_host=on_host)
    assert paths_of(call) >= PATHS[path]
    assert_scores(scores_of(call), truth(case, update=update), FLOAT32)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("dtype", "margins"), [(torch.bfloat16, CONFIDENT), (torch.float16, None)], ids=str)
@pytest.mark.parametrize("name", UPDATES)
def test_inputs_of_sixteen_bits_keep_theirs(name: str, dtype: torch.dtype, margins: tuple[float, ...] | None) -> None:
    case = make_case((0, 1, 2, 17), vocab=67, dim=18, margins=margins, dtype=dtype)
    update = every_update(case)[name]
    found = scored(case, update=update)
    assert_scores(found, truth(case, update=update), BOUNDS[dtype])


HEADS: dict[str, dict[str, Any]] = {
    "bias": {"bias": make_bias(VOCAB)},
    "half-precision-bias": {"bias": make_bias(VOCAB).bfloat16()},
    "scale": {"logit_scale": 0.0625},
    "negative-scale": {"logit_scale": -1.3},
    "bias-scale": {"bias": make_bias(VOCAB), "logit_scale": -0.3},
    "softcap": {"softcap": 20.0},
    "tight-softcap": {"softcap": 2.0},
    "bias-scale-softcap": {"bias": make_bias(VOCAB), "logit_scale": -0.7, "softcap": 15.0},
}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("head", "path"), [*((head, "stored") for head in HEADS), ("bias", "chunks"), ("bias-scale-softcap", "chunks")]
)
def test_bias_scale_and_softcap_are_differentiated_right(head: str, update: str, path: str) -> None:
    case = make_case((2, 17), VOCAB, DIM, margins=CONFIDENT)
    options = {"update": update, **HEADS[head]}
    assert_scores(scores_of(on_path(case, path, **options)), truth(case, **options), FLOAT32)


@pytest.mark.parametrize("name", UPDATES)
def test_weight_decay_and_the_sum_of_losses_enter_every_update(name: str) -> None:
    case = make_case((1, 17), vocab=67, dim=18, margins=CONFIDENT)
    options = {"update": every_update(case)[name], "weight_decay": 0.1, "reduction": "sum"}
    assert_scores(scored(case, **options), truth(case, **options), FLOAT32)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["adamw", "adamw-state", "sgd", "sign"])
def test_a_step_rounded_to_the_weights_own_dtype_is_scored_as_rounded(name: str, storage: torch.dtype) -> None:
    case = make_case((0, 17), vocab=67, dim=18, margins=CONFIDENT, dtype=storage)
    options = {"update": every_update(case)[name], "weight_decay": 0.1, "storage_dtype": storage, "lr": 1e-3}
    assert_scores(scored(case, **options), truth(case, **options), 1e-4)


def test_in_one_batch_a_long_sample_uses_tiles_and_a_short_one_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "gram_limit", lambda *_: 10.0)
    case = make_case((3, 20, 2), vocab=67, dim=17)
    call = call_of(case, update="sgd")
    assert {"pairs", "tiles", "several groups"} <= paths_of(call)
    assert_scores(scores_of(call), truth(case, update="sgd"), FLOAT32)


def test_sgd_in_tiles_is_right_on_the_chunks_of_the_vocabulary_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "gram_limit", lambda *_: 0.0)
    case = make_case((20,), VOCAB, DIM, margins=CONFIDENT)
    call = on_path(case, "chunks", update="sgd")
    assert {"tiles", "chunks"} <= paths_of(call)
    assert_scores(scores_of(call), truth(case, update="sgd"), FLOAT32)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_partial_sums_that_do_not_fit_take_several_launches(update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps of 2 slots: partial sums outgrow what slots need.
    finer = replace(TINY, direct=replace(TINY.direct, vocab=16, dim=8, step=2))
    case = make_case((1, 2, 1, 0, 3), vocab=33, dim=40)
    if update == "sgd":
        monkeypatch.setattr(plan, "_by_pairs", lambda *_: False)
    wanted = {"one group", "tiles", "several launches"}
    size = workspace_for(lambda size: call_of(case, update=update, workspace_bytes=size), wanted, finer)
    call = call_of(case, update=update, workspace_bytes=size)
    held: list[int] = []
    real = direct.launch_direct

    def watched(*args: Any, **options: Any) -> None:
        held.append(next(x.nbytes for x in args if torch.is_tensor(x) and x.ndim == 3))
        real(*args, **options)

    monkeypatch.setattr(direct, "launch_direct", watched)
    assert_scores(scores_of(call, finer), truth(case, update=update), FLOAT32)
    assert len(held) > 1
    assert max(held) <= plan_of(call, finer).partial_bytes


@pytest.mark.parametrize("dim", [32, 33], ids=["packed", "looked up"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_packed_hidden_states_score_as_those_looked_up(dim: int, dtype: torch.dtype) -> None:
    case = make_case((1, 17, 0, 2), vocab=67, dim=dim, dtype=dtype)
    call = call_of(case)
    assert ("packed" in paths_of(call)) is (dim == 32)
    assert_scores(scores_of(call), truth(case), BOUNDS[dtype])


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize(
    ("name", "storage"), [("adamw", None), ("adamw-state", None), ("sgd", torch.bfloat16)], ids=str
)
def test_keeping_a_weight_tile_for_all_samples_changes_nothing(
    name: str, storage: torch.dtype | None, split: int
) -> None:
    case = make_case((1, 17), vocab=67, dim=18, dtype=torch.bfloat16)
    call = call_of(case, update=every_update(case)[name], storage_dtype=storage, lr=1e-3)
    tiles = replace(TINY, direct=replace(TINY.direct, split=split))
    kept = replace(TINY, direct=replace(tiles.direct, keep=True))
    assert_identical(scores_of(call, kept), scores_of(call, tiles))


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("flat", ["hidden", "weight"])
def test_flat_logits_are_scored_like_any_others(flat: str, update: str) -> None:
    """Every logit 0: no gradient at all for hidden states of 0, and ‖W‖ = 0 for a weight of 0."""
    case = make_case((1, 3, 17), vocab=67, dim=17)
    case = case._replace(**{flat: torch.zeros_like(getattr(case, flat))})
    options = {"update": every_update(case)[update]}
    assert_scores(scored(case, **options), truth(case, **options), FLOAT32)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("update", "margin"),
    [
        *((name, margin) for name in ("adamw", "sgd", "sign") for margin in (16.0, 40.0)),
        ("adamw", 250.0),
        ("sgd", 250.0),
    ],
)
def test_equally_sure_tokens_keep_their_digits(update: str, margin: float) -> None:
    case = make_case((1, 17), vocab=67, dim=17, margins=(margin,))
    # A float32 pre-activation of 250 is good to 1e-5, and so is e to it.
    bound = FLOAT32 if margin < 100.0 else 2e-4
    assert_scores(scored(case, update=update), truth(case, update=update), bound)


@pytest.mark.parametrize("vocab", [1, 2, 3])
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_the_smallest_heads_have_no_edge(update: str, dim: int, vocab: int) -> None:
    case = make_case((2, 1), vocab, dim, seed=vocab + dim)
    assert_scores(scored(case, update=update), truth(case, update=update), FLOAT32)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_shipped_tiles_score_right_through_the_public_door(update: str, dtype: torch.dtype) -> None:
    case = make_case((0, 1, 2, 40), vocab=300, dim=70, margins=CONFIDENT, dtype=dtype)
    found = don_nod(*case, update=update, backend="triton")
    assert_scores(found, truth(case, update=update), BOUNDS[dtype])


def test_small_tiles_are_used_where_they_are_asked_for() -> None:
    case = make_case((1, 17), vocab=67, dim=17)
    with configs.override(TINY):
        found = don_nod(*case, backend="triton")
    assert_scores(found, truth(case), FLOAT32)
    assert torch.equal(found.update_norm, scored(case).update_norm)


def assert_rounded_signals(found: DonNod, expected: DonNod, case: Case, name: str) -> None:
    """Bounds for error signals in bfloat16, each rounded by up to 2⁻⁹ of itself, independently.

    Under AdamW and sign descent about one sum in 500 changes its sign, which moves ⟨W, U⟩ by 2|w|: V·d/500 such
    changes of random sign make an error of 2 √(V d / 500) |w|, which is 0.09 NOD/√(V d) in DON; twice that with
    the 1/√3 of a rounding taken as 1, and four standard deviations of it are the bound. ‖U‖ hardly moves.
    SGD's sums do not cancel: ‖G‖² is off by 2⁻⁹ of single terms, ⟨W, G⟩ comes from unrounded statistics.
    """
    elements = case.weight.numel()
    don = 0.72 / elements**0.5 if name != "sgd" else 2.0**-9
    live = expected.scored_tokens > 0
    scale = expected.nod[live]
    assert bool(((found.don - expected.don)[live].abs() <= don * scale).all()), (found.don, expected.don)
    assert bool(((found.nod - expected.nod)[live].abs() <= 2.0**-9 * scale).all()), (found.nod, expected.nod)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=0.0, equal_nan=True)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "seed"), [("adamw", 0), ("adamw", 1), ("sgd", 0), ("sign", 0)])
def test_signals_in_bfloat16_are_off_by_their_rounding_and_no_more(
    name: str, dtype: torch.dtype, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case((0, 1, 20, 3), vocab=67, dim=35, dtype=dtype, seed=seed)
    assert call_of(case).signals == torch.float32, "a small head's signals are not rounded"
    monkeypatch.setattr(logits, "SMALL_HEAD", 0)
    call = call_of(case, update=name)
    assert call.signals == torch.bfloat16
    assert_rounded_signals(scores_of(call), truth(case, update=name), case, name)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Case, dict[str, Any], str]:
    """Any shape, head, update and path; the values follow from a seed."""
    lengths = draw(st.lists(st.sampled_from([0, 0, 1, 2, 3, 15, 16, 17, 33]), min_size=1, max_size=4))
    vocab = draw(st.sampled_from([2, 5, 31, 32, 33, 63, 64, 65, 97, 130]))
    dim = draw(st.sampled_from([1, 3, 15, 16, 17, 31, 33]))
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16]))
    margins = draw(st.sampled_from([None, CONFIDENT, (0.0,), (12.0, -3.0)]))
    case = make_case(
        lengths,
        vocab,
        dim,
        margins=margins,
        dtype=dtype,
        unscored=draw(st.integers(0, 3)),
        seed=draw(st.integers(0, 99)),
    )
    options = {
        "update": every_update(case)[draw(st.sampled_from(UPDATES))],
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "reduction": draw(st.sampled_from(["mean", "sum"])),
        "bias": make_bias(vocab) if draw(st.booleans()) else None,
        "logit_scale": draw(st.sampled_from([1.0, 1.0, 0.5, -0.8])),
        "softcap": draw(st.sampled_from([None, None, 12.0])),
    }
    return case, options, draw(st.sampled_from(["host", "device", "small"]))


# The same examples every time: an element of G that cancels to 1e-7 of its terms (one in some 10⁵ draws of a small
# head) has another sign in float32 than in float64, in every backend.
@settings(max_examples=examples(12, 40), deadline=None, derandomize=True)
@given(drawn=calls())
def test_any_shape_head_and_path_keeps_its_bound(drawn: tuple[Case, dict[str, Any], str]) -> None:
    case, options, way = drawn
    size = 1 << 26
    if way == "small":
        size = workspace_for(lambda size: call_of(case, workspace_bytes=size, **options), set())
    found = scored(case, bounds_on_host=way != "device", workspace_bytes=size, **options)
    assert_scores(found, truth(case, **options), BOUNDS[case.hidden.dtype])
