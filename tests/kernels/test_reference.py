"""The reference, compared with an independent program that follows the paper literally."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from head_cases import Case, assert_scores, make_bias, make_case, make_state
from torch import Tensor

from donod_fast.kernels import SGD, AdamW, don_nod, reference_don_nod


def naive(
    case: Case, *, sgd: bool, lr: float, weight_decay: float, reduction: str, state: Any = None
) -> list[list[float]]:
    """Copy W, one optimizer step on one sample, subtract the norms: [DON, NOD, loss] of each sample."""
    results = []
    ends = case.cu_seqlens.tolist()
    for start, stop in pairwise(ends):
        layer = torch.nn.Linear(case.weight.shape[1], case.weight.shape[0], bias=False, dtype=case.weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(case.weight)
        optimizer: torch.optim.Optimizer
        if sgd:
            optimizer = torch.optim.SGD(layer.parameters(), lr=lr, weight_decay=weight_decay)
        else:
            optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=weight_decay)
        if state is not None:
            optimizer.state[layer.weight] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": state.exp_avg.double().clone(),
                "exp_avg_sq": state.exp_avg_sq.double().clone(),
            }
        loss = torch.nn.functional.cross_entropy(
            layer(case.hidden[start:stop]), case.labels[start:stop], reduction=reduction
        )
        loss.backward()
        optimizer.step()
        new: Tensor = layer.weight.detach()
        don = case.weight.norm() - new.norm()
        results.append([float(don), float((case.weight - new).norm()), float(loss.detach())])
    return results


@pytest.mark.parametrize("given_state", [False, True], ids=["fresh", "given-state"])
@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_the_reference_is_the_naive_program(
    update: str, weight_decay: float, reduction: str, literal: bool, given_state: bool
) -> None:
    case = make_case((1, 2, 30), vocab=67, dim=31, dtype=torch.float64)
    state = make_state(case) if given_state and update == "adamw" else None
    options = {"lr": 1e-3, "weight_decay": weight_decay, "reduction": reduction}
    expected = naive(case, sgd=update == "sgd", state=state, **options)
    rule = SGD() if update == "sgd" else AdamW(state=state)
    found = reference_don_nod(*case, update=rule, literal=literal, **options)
    # ‖W‖ is about 5 here: a norm's rounding is 1e-15, the steps' sizes are 1e-4 and more.
    columns = torch.stack([found.don, found.nod, found.loss], 1)
    torch.testing.assert_close(columns, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_so_is_the_fast_path_directly(update: str) -> None:
    case = make_case((1, 2, 30, 150), vocab=507, dim=67, dtype=torch.float64)
    expected = naive(case, sgd=update == "sgd", lr=1e-3, weight_decay=0.1, reduction="mean")
    found = don_nod(*case, update=update, lr=1e-3, weight_decay=0.1)
    columns = torch.stack([found.don, found.nod, found.loss], 1)
    torch.testing.assert_close(columns, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-13)


def test_bias_scale_and_softcap_are_those_of_a_head_written_out() -> None:
    case = make_case((4,), vocab=67, dim=31, dtype=torch.float64, unscored=0)
    bias = make_bias(67, dtype=torch.float64)
    weight = case.weight.clone().requires_grad_(True)
    logits = 5.0 * torch.tanh(0.7 * (case.hidden @ weight.T + bias) / 5.0)
    torch.nn.functional.cross_entropy(logits, case.labels).backward()
    gradient = weight.grad
    assert gradient is not None
    probability = logits.detach().softmax(1)
    found = reference_don_nod(*case, update="sgd", bias=bias, logit_scale=0.7, softcap=5.0)
    assert float(found.update_norm) == pytest.approx(float(gradient.norm()), rel=1e-12, abs=0.0)
    assert float(found.weight_dot_update) == pytest.approx(float((gradient * case.weight).sum()), rel=1e-12, abs=0.0)
    assert float(found.entropy) == pytest.approx(
        float(-(probability * probability.log()).sum(1).mean()), rel=1e-12, abs=0.0
    )


def test_sign_descent_written_out() -> None:
    case = make_case((4,), vocab=67, dim=31, dtype=torch.float64, unscored=0)
    weight = case.weight.clone().requires_grad_(True)
    torch.nn.functional.cross_entropy(case.hidden @ weight.T, case.labels).backward()
    assert weight.grad is not None
    new = case.weight - 1e-3 * (weight.grad.sign() + 0.1 * case.weight)
    found = reference_don_nod(*case, update="sign", lr=1e-3, weight_decay=0.1)
    assert float(found.don) == pytest.approx(float(case.weight.norm() - new.norm()), rel=1e-9, abs=0.0)
    assert float(found.nod) == pytest.approx(float((case.weight - new).norm()), rel=1e-12, abs=0.0)


@pytest.mark.parametrize("storage_dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_rounded_step_written_out(storage_dtype: torch.dtype) -> None:
    case = make_case((4,), vocab=67, dim=31, dtype=storage_dtype, unscored=0)
    hidden, weight = case.hidden.double(), case.weight.double().requires_grad_(True)
    torch.nn.functional.cross_entropy(hidden @ weight.T, case.labels).backward()
    assert weight.grad is not None
    update = weight.grad / (weight.grad.abs() + 1e-8)
    new = (weight.detach() - 1e-3 * update).to(storage_dtype).double()
    old = weight.detach()
    found = reference_don_nod(hidden, old, *case[2:], lr=1e-3, storage_dtype=storage_dtype)
    assert float(found.don) == pytest.approx(float(old.norm() - new.norm()), rel=1e-9, abs=0.0)
    assert float(found.nod) == pytest.approx(float((old - new).norm()), rel=1e-9, abs=0.0)


@pytest.mark.parametrize("rows_per_slice", [1, 7, 64, 67, 500])
@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
def test_slices_of_the_gradient_make_the_whole(update: str, rows_per_slice: int) -> None:
    case = make_case((1, 0, 20), vocab=67, dim=31, dtype=torch.float64, margins=(0.0, 30.0))
    sliced = reference_don_nod(*case, update=update, weight_decay=0.1, rows_per_slice=rows_per_slice)
    assert_scores(sliced, reference_don_nod(*case, update=update, weight_decay=0.1), 1e-12)


def test_the_obvious_program_in_float32_returns_rounding_noise() -> None:
    """Why the closed form: with the norms' own rounding as large as the step, DON comes out wrong."""
    case = make_case((64,), vocab=4001, dim=256)
    wide = case._replace(hidden=case.hidden.double(), weight=case.weight.double())
    truth = reference_don_nod(*wide, update="sgd")
    literal = reference_don_nod(*case, update="sgd", literal=True)
    assert float((literal.don - truth.don).abs()) > 0.1 * float(truth.don.abs())
    found = don_nod(*case, update="sgd")
    assert float((found.don - truth.don).abs()) < 1e-4 * float(truth.don.abs())


def test_the_reference_leaves_its_arguments_alone() -> None:
    case = make_case((3, 9), vocab=31, dim=7, dtype=torch.float64)
    before = [tensor.clone() for tensor in case]
    reference_don_nod(*case, weight_decay=0.1, bias=make_bias(31))
    for tensor, copy in zip(case, before, strict=True):
        assert torch.equal(tensor, copy)
