"""``don_nod`` against float64 autograd and a real optimizer step: the bounds of the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_cases import (
    BOUNDS,
    FLOATS,
    MIB,
    UPDATES,
    Case,
    assert_scores,
    bound_of,
    every_update,
    make_bias,
    make_case,
    truth,
)

from donod_fast.kernels import don_nod, torch_backend
from donod_fast.kernels.workspace import gram_is_cheaper

LENGTHS = (0, 1, 2, 37, 3, 150, 0, 20)
CONFIDENT = (0.0, 3.0, 9.0, 18.0, 40.0, 70.0)
# Stored signals: everything fits. Streamed: at 1 MiB, 150 tokens × 507 columns do not.
WORKSPACES = {"stored": 256 * MIB, "streamed": MIB}


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", UPDATES)
def test_every_update_and_dtype_keeps_its_bound(
    name: str, dtype: torch.dtype, margins: tuple[float, ...] | None, workspace: str
) -> None:
    case = make_case(LENGTHS, vocab=507, dim=123, margins=margins, dtype=dtype)
    update = every_update(case)[name]
    found = don_nod(*case, update=update, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, update=update), BOUNDS[dtype])


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize(
    ("hidden_dtype", "weight_dtype"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.bfloat16),
        (torch.float64, torch.float32),
        (torch.bfloat16, torch.float64),
    ],
    ids=str,
)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_hidden_states_and_weight_may_differ_in_dtype(
    update: str,
    hidden_dtype: torch.dtype,
    weight_dtype: torch.dtype,
    margins: tuple[float, ...] | None,
    workspace: str,
) -> None:
    case = make_case(LENGTHS, vocab=507, dim=67, margins=margins, dtype=hidden_dtype, weight_dtype=weight_dtype)
    found = don_nod(*case, update=update, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, update=update), bound_of(case))


@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("workspace", WORKSPACES)
def test_sgds_don_in_float32_keeps_four_digits_of_itself(workspace: str, margins: tuple[float, ...] | None) -> None:
    case = make_case((1, 2, 37, 3, 150, 20), vocab=507, dim=123, margins=margins)
    found = don_nod(*case, update="sgd", workspace_bytes=WORKSPACES[workspace])
    torch.testing.assert_close(found.don, truth(case, update="sgd").don, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("workspace", [MIB, 4 * MIB])
@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
@pytest.mark.parametrize("dim", [1, 2, 67])
@pytest.mark.parametrize("vocab", [1, 2, 3, 67, 2049])
def test_odd_sizes_have_no_edge(vocab: int, dim: int, update: str, workspace: int) -> None:
    case = make_case((2, 1, 130, 7), vocab, dim, seed=vocab + dim)
    found = don_nod(*case, update=update, workspace_bytes=workspace)
    assert_scores(found, truth(case, update=update), BOUNDS[torch.float32])


def many_samples() -> Case:
    """More samples and tokens than a stored group takes, and one sample of more than a block."""
    return make_case((*range(24), 1400, *([1] * 40), 90), vocab=123, dim=33)


def long_wide() -> Case:
    """Gram matrices and gradient tiles each win for one of the long samples."""
    return make_case((3, 100, 240, 300, 60), vocab=1201, dim=599)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize("workspace", [MIB, 2 * MIB, 256 * MIB])
def test_many_samples_past_every_token_block(workspace: int, update: str) -> None:
    case = many_samples()
    found = don_nod(*case, update=update, workspace_bytes=workspace)
    assert_scores(found, truth(case, update=update), BOUNDS[torch.float32])


@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize("workspace", [MIB, 3 * MIB, 256 * MIB])
def test_long_samples_of_a_wide_head(workspace: int, update: str) -> None:
    case = long_wide()
    found = don_nod(*case, update=update, workspace_bytes=workspace)
    assert_scores(found, truth(case, update=update), BOUNDS[torch.float32])


def test_the_shapes_above_take_both_ways_to_the_squared_norm() -> None:
    assert gram_is_cheaper(240, vocab=1201, dim=599)
    assert not gram_is_cheaper(150, vocab=507, dim=123)
    assert gram_is_cheaper(1, vocab=507, dim=123)


@pytest.mark.parametrize("way", ["gram", "tiles"])
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("workspace", WORKSPACES)
def test_both_ways_to_the_squared_norm_are_right_for_any_shape(
    way: str, margins: tuple[float, ...] | None, workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "gram_is_cheaper", lambda *_: way == "gram")
    case = make_case((*LENGTHS, 290), vocab=507, dim=123, margins=margins)
    bias = make_bias(507)
    found = don_nod(*case, update="sgd", bias=bias, softcap=20.0, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, update="sgd", bias=bias, softcap=20.0), BOUNDS[torch.float32])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
@pytest.mark.parametrize("workspace", WORKSPACES)
def test_a_cuda_device_keeps_the_same_bounds(
    workspace: str, update: str, dtype: torch.dtype, margins: tuple[float, ...] | None
) -> None:
    case = make_case(LENGTHS, vocab=507, dim=123, margins=margins, dtype=dtype, device="cuda")
    options: dict[str, Any] = {"update": update, "bias": make_bias(507).cuda(), "logit_scale": 0.7}
    found = don_nod(*case, **options, workspace_bytes=WORKSPACES[workspace])
    assert found.don.device == case.hidden.device
    assert_scores(found, truth(case, **options), BOUNDS[dtype])
