"""Norms of scaled gradients and sums of their squares equal those of float64 autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_cases import MIB, Case, gradients, make_bias, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels import don_nod, scaled_norms, scaled_products, squared_sums

VOCAB, DIM = 507, 123
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"logit_scale": -0.7},
    "bias": {"bias": make_bias(VOCAB)},
    "softcap": {"bias": make_bias(VOCAB), "softcap": 5.0, "logit_scale": 0.7},
}
LENGTHS = (3, 0, 150, 1, 600, 20)  # shorter and longer than DIM, and than a block of tokens


def scales(vocab: int, dim: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Positive scales over six orders of magnitude, as of an optimizer's state."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = (10.0 ** (6 * torch.rand(size, generator=draw) - 3) for size in (vocab, dim))
    return rows, columns


def _side(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    return case.hidden, case.labels, case.cu_seqlens


def assert_both(case: Case, bound: float, **options: Any) -> None:
    vocab, dim = case.weight.shape
    rows, columns = scales(vocab, dim)
    call = (case.hidden, case.weight, case.labels, case.cu_seqlens)
    plain = {name: value for name, value in options.items() if name != "workspace_bytes"}
    own = gradients(case, **plain).unflatten(1, (vocab, dim))
    wanted = (own * rows.double().unsqueeze(1) * columns.double()).flatten(1).norm(dim=1)
    torch.testing.assert_close(
        scaled_norms(*call, rows, columns, **options), wanted, rtol=bound, atol=0, equal_nan=True
    )
    products = scaled_products(*_side(case), *_side(case), case.weight, rows, columns, **options)
    scaled = (own * rows.double().unsqueeze(1) * columns.double()).flatten(1)
    expected = scaled @ own.flatten(1).t()
    size = scaled.norm(dim=1).unsqueeze(1) * own.flatten(1).norm(dim=1)
    assert torch.equal(products.isnan(), expected.isnan())
    assert float(((products - expected).abs() / size).nan_to_num(0.0).max()) <= bound
    squares = own.nan_to_num(0.0).square().sum(0)
    for found, axis in zip(squared_sums(*call, **options), (1, 0), strict=True):
        torch.testing.assert_close(found, squares.sum(axis), rtol=bound, atol=1e-30)


@pytest.mark.parametrize("workspace", [256 * MIB, MIB])
@pytest.mark.parametrize("head", HEADS)
def test_both_are_those_of_autograd(head: str, workspace: int) -> None:
    assert_both(make_case(LENGTHS, VOCAB, DIM), 2e-5, **HEADS[head], workspace_bytes=workspace)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_dtypes_and_reductions(dtype: torch.dtype, reduction: str) -> None:
    bound = 1e-11 if dtype == torch.float64 else 2e-5
    assert_both(make_case((4, 0, 30), 300, 40, dtype=dtype), bound, reduction=reduction)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    vocab=st.integers(2, 40),
    dim=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_any_shape(lengths: list[int], vocab: int, dim: int, seed: int) -> None:
    assert_both(make_case(lengths, vocab, dim, dtype=torch.float64, seed=seed), 1e-9)


def test_scales_of_one_give_the_gradients_own_norm() -> None:
    case = make_case(LENGTHS, VOCAB, DIM, margins=(4.0, 30.0))
    found = scaled_norms(*case, torch.ones(VOCAB), torch.ones(DIM))
    torch.testing.assert_close(found, don_nod(*case, update="sgd").update_norm, rtol=1e-5, atol=0, equal_nan=True)


def test_a_sample_does_not_depend_on_the_others() -> None:
    case = make_case((5, 9), VOCAB, DIM, dtype=torch.float64)
    cut = int(case.cu_seqlens[1])
    alone = Case(case.hidden[:cut], case.weight, case.labels[:cut], torch.tensor([0, cut], dtype=torch.int32))
    rows, columns = scales(VOCAB, DIM)
    together = scaled_norms(*case, rows, columns)
    torch.testing.assert_close(scaled_norms(*alone, rows, columns), together[:1], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("rows", "columns", "name"),
    [(torch.ones(5), torch.ones(DIM), "row_scale"), (torch.ones(VOCAB), torch.ones(DIM).long(), "column_scale")],
)
def test_wrong_scales_are_named(rows: Tensor, columns: Tensor, name: str) -> None:
    with pytest.raises(InputError, match=name):
        scaled_norms(*make_case((2,), VOCAB, DIM), rows, columns)
