"""Meaning of an update's scalars: other learning rates, identities, limits, inequalities."""

from __future__ import annotations

import pytest
import torch
from head_cases import (
    BOUNDS,
    MIB,
    UPDATES,
    assert_identical,
    assert_scores,
    every_update,
    make_bias,
    make_case,
    make_state,
    truth,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.errors import InputError
from donod_fast.kernels import SGD, AdamState, AdamW, Sign, don_and_nod, don_nod, frobenius_norm

FLOAT32 = BOUNDS[torch.float32]
HEADS = st.tuples(st.integers(2, 60), st.integers(1, 40), st.lists(st.integers(1, 12), min_size=1, max_size=4))


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("lr", [1e-7, 3e-4, 0.5])
@pytest.mark.parametrize("name", UPDATES)
def test_another_learning_rate_needs_no_second_look_at_the_model(name: str, lr: float, weight_decay: float) -> None:
    case = make_case((1, 0, 5, 40), vocab=131, dim=67)
    update = every_update(case)[name]
    first = don_nod(*case, update=update, weight_decay=weight_decay, lr=2e-5)
    norm = float(case.weight.double().norm())
    don, nod = don_and_nod(first.weight_dot_update, first.update_norm, norm, lr)
    fresh = don_nod(*case, update=update, weight_decay=weight_decay, lr=lr)
    torch.testing.assert_close(don, fresh.don, rtol=1e-9, atol=0.0, equal_nan=True)
    torch.testing.assert_close(nod, fresh.nod, rtol=1e-9, atol=0.0, equal_nan=True)
    expected = truth(case, update=update, weight_decay=weight_decay, lr=lr)
    assert_scores(fresh._replace(don=don, nod=nod), expected, FLOAT32)


def test_the_step_is_zero_at_a_learning_rate_of_zero() -> None:
    found = don_nod(*make_case((5,), vocab=31, dim=7), lr=0.0)
    assert found.don.tolist() == found.nod.tolist() == [0.0]
    assert float(found.update_norm) > 0.0


@given(head=HEADS, seed=st.integers(0, 1000), reduction=st.sampled_from(["mean", "sum"]))
@settings(max_examples=40, deadline=None)
def test_sgds_weight_dot_update_is_loss_minus_entropy_on_a_plain_head(
    head: tuple[int, int, list[int]], seed: int, reduction: str
) -> None:
    vocab, dim, lengths = head
    case = make_case(lengths, vocab, dim, dtype=torch.float64, seed=seed)
    found = don_nod(*case, update="sgd", reduction=reduction)
    torch.testing.assert_close(found.weight_dot_update, found.loss - found.entropy, rtol=1e-9, atol=1e-12)


def test_under_a_softcap_it_is_not() -> None:
    found = don_nod(*make_case((5, 40), vocab=131, dim=67), update="sgd", softcap=1.0)
    assert bool(((found.weight_dot_update - (found.loss - found.entropy)).abs() > 1e-3 * found.loss).all())


@given(
    head=HEADS,
    seed=st.integers(0, 1000),
    update=st.sampled_from(["adamw", "sgd", "sign"]),
    lr=st.floats(1e-9, 10.0),
    weight_decay=st.sampled_from([0.0, 0.1, 5.0]),
    margin=st.sampled_from([None, (0.0,), (25.0,), (-30.0, 60.0)]),
)
@settings(max_examples=60, deadline=None)
def test_don_never_exceeds_nod(
    head: tuple[int, int, list[int]],
    seed: int,
    update: str,
    lr: float,
    weight_decay: float,
    margin: tuple[float, ...] | None,
) -> None:
    vocab, dim, lengths = head
    case = make_case(lengths, vocab, dim, margins=margin, seed=seed)
    found = don_nod(*case, update=update, lr=lr, weight_decay=weight_decay)
    assert bool((found.don.abs() <= found.nod * (1.0 + FLOAT32)).all())


def test_names_and_objects_are_the_same_update() -> None:
    case = make_case((3, 20), vocab=131, dim=67)
    for name, update in (("adamw", AdamW()), ("sgd", SGD()), ("sign", Sign())):
        assert_identical(don_nod(*case, update=name), don_nod(*case, update=update))
    assert_identical(don_nod(*case), don_nod(*case, update="adamw", lr=2e-5, weight_decay=0.0, reduction="mean"))


def test_adamw_from_fresh_state_does_not_depend_on_the_betas() -> None:
    case = make_case((3, 20), vocab=131, dim=67)
    assert_identical(don_nod(*case, update=AdamW(betas=(0.0, 0.0))), don_nod(*case, update=AdamW(betas=(0.99, 0.5))))


@pytest.mark.parametrize("margins", [None, (30.0, 2.0)], ids=["random", "confident"])
def test_a_given_state_of_zeros_before_the_first_step_is_fresh(margins: tuple[float, ...] | None) -> None:
    case = make_case((3, 20), vocab=131, dim=67, margins=margins)
    zeros = torch.zeros_like(case.weight)
    found = don_nod(*case, update=AdamW(state=AdamState(zeros, zeros, 0)))
    assert_scores(found, don_nod(*case), FLOAT32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_a_given_state_may_be_of_any_dtype_and_is_left_as_it_was(step: int, dtype: torch.dtype) -> None:
    case = make_case((3, 150), vocab=507, dim=67)
    state = make_state(case, step=step, dtype=dtype)
    before = state.exp_avg.clone(), state.exp_avg_sq.clone()
    update = AdamW(betas=(0.8, 0.95), eps=1e-6, state=state)
    found = don_nod(*case, update=update, weight_decay=0.1, workspace_bytes=MIB)
    assert_scores(found, truth(case, update=update, weight_decay=0.1), FLOAT32)
    assert torch.equal(state.exp_avg, before[0])
    assert torch.equal(state.exp_avg_sq, before[1])


def test_sign_is_adamw_with_a_vanishing_eps() -> None:
    case = make_case((3, 20), vocab=131, dim=67, dtype=torch.float64)
    sign, adamw = don_nod(*case, update="sign"), don_nod(*case, update=AdamW(eps=1e-30))
    assert_scores(adamw, sign, 1e-9)
    assert sign.update_norm.tolist() == pytest.approx([(131 * 67) ** 0.5] * 2, rel=1e-12, abs=0.0)


def test_a_large_eps_makes_adamw_a_scaled_sgd() -> None:
    case = make_case((3, 20), vocab=131, dim=67, dtype=torch.float64)
    adamw, sgd = don_nod(*case, update=AdamW(eps=1e6)), don_nod(*case, update="sgd")
    torch.testing.assert_close(adamw.update_norm * 1e6, sgd.update_norm, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
def test_the_sum_over_one_token_is_its_mean_and_sgd_scales_with_the_count(update: str) -> None:
    case = make_case((1, 6), vocab=131, dim=67)
    mean, total = don_nod(*case, update=update), don_nod(*case, update=update, reduction="sum")
    assert float(mean.nod[0]) == pytest.approx(float(total.nod[0]), rel=1e-12, abs=0.0)
    assert float(total.loss[1]) == pytest.approx(6 * float(mean.loss[1]), rel=1e-12, abs=0.0)
    if update == "sgd":
        assert float(total.nod[1]) == pytest.approx(6 * float(mean.nod[1]), rel=1e-6, abs=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (123, 67), (5000, 1001)])
def test_frobenius_norm_is_the_float64_norm_and_leaves_the_weight_alone(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = weight.clone()
    assert frobenius_norm(weight) == pytest.approx(float(weight.double().norm()), rel=1e-12, abs=0.0)
    assert torch.equal(weight, before)
    assert frobenius_norm(weight.t()) == pytest.approx(frobenius_norm(weight), rel=1e-12, abs=0.0)


@pytest.mark.parametrize("name", UPDATES)
def test_a_known_norm_of_the_weight_gives_the_same_scores(name: str) -> None:
    case = make_case((1, 0, 5, 40), vocab=131, dim=67)
    update = every_update(case)[name]
    known = don_nod(*case, update=update, weight_decay=0.1, weight_norm=frobenius_norm(case.weight))
    assert_identical(known, don_nod(*case, update=update, weight_decay=0.1))


def test_a_head_of_zeros_grows_by_the_whole_step() -> None:
    case = make_case((4, 1), vocab=31, dim=7)
    zeros = case._replace(weight=torch.zeros_like(case.weight))
    found = don_nod(*zeros, bias=make_bias(31))
    torch.testing.assert_close(found.don, -found.nod, rtol=1e-9, atol=0.0)
    assert_scores(found, truth(zeros, bias=make_bias(31)), FLOAT32)


def test_don_and_nod_keep_digits_that_the_difference_of_norms_loses() -> None:
    dot, norm = torch.tensor([1e-6], dtype=torch.float64), torch.tensor([1e-5], dtype=torch.float64)
    don, nod = don_and_nod(dot, norm, 1e4, 1e-6)
    assert float(don) == pytest.approx(1e-16, rel=1e-9, abs=0.0)
    assert float(nod) == pytest.approx(1e-11, rel=1e-12, abs=0.0)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: AdamW(betas=(1.0, 0.9)), "betas"),
        (lambda: AdamW(betas=(-0.1, 0.9)), "betas"),
        (lambda: AdamW(betas=(0.9, float("nan"))), "betas"),
        (lambda: AdamW(eps=0.0), "eps"),
        (lambda: AdamW(eps=-1e-8), "eps"),
        (lambda: AdamW(eps=float("nan")), "eps"),
        (lambda: AdamW(state=AdamState(torch.zeros(2, 2), torch.zeros(2, 2), -1)), "step"),
    ],
)
def test_an_impossible_adamw_is_refused_when_it_is_made(build: object, word: str) -> None:
    with pytest.raises(InputError, match=word):
        build()  # type: ignore[operator]
