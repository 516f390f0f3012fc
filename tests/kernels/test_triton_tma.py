"""Tiles loaded by descriptors, and the reciprocal of the direct kernel's epilogue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from head_cases import BOUNDS, assert_identical, assert_scores, every_update, make_case, truth
from torch import Tensor
from triton_cases import PATHS, TINY, call_of, interpreted, paths_of, scored, scores_of, workspace_for

from donod_fast.kernels import AdamW
from donod_fast.kernels.triton_backend import direct, tma
from donod_fast.kernels.triton_backend.configs import Configs

pytestmark = interpreted

BY_DESCRIPTORS = replace(TINY, direct=replace(TINY.direct, tma=True))


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Blocks of the descriptors that were made."""
    found: list[tuple[int, int]] = []

    def watched(tensor: Tensor, block: tuple[int, int], used: bool) -> Any:
        if used:
            found.append(block)
        return tma.described(tensor, block, used)

    monkeypatch.setattr(direct, "described", watched)
    return found


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "storage"), [("adamw", None), ("adamw-state", None), ("sgd", torch.bfloat16)], ids=str
)
def test_descriptors_and_pointers_give_the_same_bits(
    name: str, storage: torch.dtype | None, dtype: torch.dtype, blocks: list[tuple[int, int]]
) -> None:
    # Ragged in every dimension: 67 rows in tiles of 32, 24 columns in tiles of 16, samples in steps of 16.
    case = make_case((0, 1, 17, 3), vocab=67, dim=24, margins=(0.0, 9.0, 40.0), dtype=dtype)
    call = call_of(case, update=every_update(case)[name], storage_dtype=storage, lr=1e-3, weight_decay=0.1)
    assert "packed" in paths_of(call)
    pointers = scores_of(call)
    assert not blocks
    assert_identical(scores_of(call, BY_DESCRIPTORS), pointers)
    assert blocks == [(16, 32), (16, 16), (32, 16)]


def test_signs_are_summed_in_another_order_by_descriptors(blocks: list[tuple[int, int]]) -> None:
    case = make_case((0, 1, 17, 3), vocab=67, dim=24, margins=(0.0, 9.0, 40.0))
    call = call_of(case, update="sign")
    assert_scores(scores_of(call, BY_DESCRIPTORS), scores_of(call), 1e-6)
    assert blocks


@pytest.mark.parametrize("path", ["groups", "kept", "chunks"])
def test_descriptors_find_the_place_of_a_group_and_of_a_chunk(path: str, blocks: list[tuple[int, int]]) -> None:
    case = make_case((3, 20, 2), vocab=131, dim=12)
    wanted = PATHS[path] | {"packed"}
    size = workspace_for(lambda size: call_of(case, workspace_bytes=size), wanted)
    call = call_of(case, workspace_bytes=size)
    assert_identical(scores_of(call, BY_DESCRIPTORS), scores_of(call))
    assert blocks


@pytest.mark.parametrize("step", [1, 2])
def test_an_unaligned_weight_is_loaded_by_pointers(step: int, blocks: list[tuple[int, int]]) -> None:
    case = make_case((2, 17), vocab=67, dim=24)
    wide = torch.zeros(67, 24 + step)
    wide[:, step:] = case.weight
    expected = scored(case)
    # Rows of 100 or 104 bytes that begin 4 or 8 bytes past an aligned address.
    assert_identical(scores_of(call_of(case._replace(weight=wide[:, step:])), BY_DESCRIPTORS), expected)
    assert not blocks
    aligned = torch.zeros(67, 28)
    aligned[:, 4:] = case.weight
    assert_identical(scores_of(call_of(case._replace(weight=aligned[:, 4:])), BY_DESCRIPTORS), expected)
    assert blocks


def test_hidden_states_that_are_looked_up_are_loaded_by_pointers(blocks: list[tuple[int, int]]) -> None:
    case = make_case((2, 17), vocab=67, dim=40)
    call = call_of(case)
    assert "looked up" in paths_of(call)
    assert_identical(scores_of(call, BY_DESCRIPTORS), scores_of(call))
    assert not blocks


MATRIX = torch.zeros(8, 24)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (MATRIX, True),
        (MATRIX[1:, 4:], True),
        (MATRIX[:, 1:], False),
        (MATRIX.T, False),
        (MATRIX[:0], False),
        (MATRIX[:, :0], False),
        (MATRIX[:1].expand(8, 24), False),
        (torch.zeros(8, 22), False),
        (torch.zeros(8, 24).bfloat16(), True),
        (torch.zeros(8, 20).bfloat16(), False),
    ],
    ids=["whole", "aligned part", "address", "columns first", "no row", "no column", "one row", "88 bytes", "48", "40"],
)
def test_only_aligned_matrices_have_descriptors(matrix: Tensor, expected: bool) -> None:
    assert tma.describable(MATRIX, matrix) is expected


def test_an_older_triton_has_none(monkeypatch: pytest.MonkeyPatch, blocks: list[tuple[int, int]]) -> None:
    monkeypatch.setattr(tma, "TensorDescriptor", None)
    case = make_case((2, 17), vocab=67, dim=24)
    assert_identical(scored(case), scores_of(call_of(case), BY_DESCRIPTORS))
    assert not blocks


@triton.jit
def one_ulp_above(x, HOW: tl.constexpr):
    """Add the documented error of rcp.approx.ftz, always in one direction; a subnormal x counts as 0."""
    y = (1.0 / tl.where(tl.abs(x) < 2.0**-126, 0.0, x)).to(tl.float32)
    return tl.where(tl.abs(y) < 3e38, (y.to(tl.int32, bitcast=True) + 1).to(tl.float32, bitcast=True), y)


@triton.jit
def one_ulp_below(x, HOW: tl.constexpr):
    y = (1.0 / tl.where(tl.abs(x) < 2.0**-126, 0.0, x)).to(tl.float32)
    return tl.where(tl.abs(y) < 3e38, (y.to(tl.int32, bitcast=True) - 1).to(tl.float32, bitcast=True), y)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("reciprocal", [one_ulp_above, one_ulp_below], ids=["above", "below"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["adamw", "adamw-state"])
def test_the_approximate_reciprocal_keeps_the_bounds(
    name: str, dtype: torch.dtype, reciprocal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case((1, 2, 17), vocab=67, dim=24, margins=(0.0, 9.0, 40.0), dtype=dtype)
    update = every_update(case)[name]
    exact = scored(case, update=update)
    monkeypatch.setattr(direct, "reciprocal", reciprocal)
    found = scored(case, update=update)
    assert not torch.equal(found.nod, exact.nod), "the approximation is in use"
    assert_scores(found, truth(case, update=update), BOUNDS[dtype])


@pytest.mark.parametrize("configs", [TINY, BY_DESCRIPTORS], ids=["pointers", "descriptors"])
def test_no_denominator_is_subnormal(configs: Configs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient 10⁴⁰ times as large as eps: where it is 0, a subnormal denominator would give 0 · ∞."""
    monkeypatch.setattr(direct, "reciprocal", one_ulp_above)
    case = make_case((1, 17), vocab=67, dim=24)
    case = case._replace(hidden=case.hidden * 1e-10)
    options = {"update": AdamW(eps=1e-30), "logit_scale": 1e10, "reduction": "sum"}
    assert_scores(scores_of(call_of(case, **options), configs), truth(case, **options), BOUNDS[torch.float32])


@pytest.mark.parametrize("eps", [1e-8, 1e-30])
def test_denominators_are_normal_for_every_scale(eps: float) -> None:
    scale = torch.tensor([0.0, 1e-300, 1e-30, 1e-8, 1.0, 1e30, 1e38, 1e300, torch.inf], dtype=torch.float64)
    numbers, unit = direct.update_numbers(AdamW(eps=eps), scale)
    k1, k0 = numbers[:, 0], numbers[:, 1]
    assert bool((k0 >= torch.finfo(torch.float32).tiny).all())
    assert bool(((k1 <= 1.0) & (k0 <= 1.0)).all())
    assert bool(torch.maximum(k1, k0).eq(1.0).all())
    assert torch.equal(numbers[:, 3], torch.zeros(9)), "the start of every g"
    assert torch.equal(unit.float(), k1)
