"""Bias, scale, soft-cap, weight decay, reduction and storage dtype: each alone, and all together."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
import torch
from head_cases import BOUNDS, MIB, UPDATES, assert_scores, every_update, make_bias, make_case, truth
from torch import Tensor

from donod_fast.kernels import don_nod

FLOAT32 = BOUNDS[torch.float32]
CONFIDENT = (0.0, 3.0, 9.0, 18.0, 40.0, 70.0)
LENGTHS = (1, 2, 0, 150, 11)
BIAS = make_bias(507)
HEADS: dict[str, dict[str, Any]] = {
    "bias": {"bias": BIAS},
    "half-precision-bias": {"bias": BIAS.bfloat16()},
    "double-scale": {"logit_scale": 2.0},
    "cohere-scale": {"logit_scale": 0.0625},
    "negative-scale": {"logit_scale": -1.3},
    "tiny-scale": {"logit_scale": 1e-9},
    "softcap": {"softcap": 30.0},
    "tight-softcap": {"softcap": 2.0},
    "bias-scale": {"bias": BIAS, "logit_scale": 0.3},
    "bias-negative-scale": {"bias": BIAS, "logit_scale": -0.3},
    "scale-softcap": {"logit_scale": -0.5, "softcap": 30.0},
    "bias-scale-softcap": {"bias": BIAS, "logit_scale": 1.7, "softcap": 15.0},
}
WORKSPACES = {"stored": 256 * MIB, "streamed": MIB}


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_the_maps_of_real_heads_are_differentiated_right(
    update: str, head: str, margins: tuple[float, ...] | None, workspace: str
) -> None:
    case = make_case(LENGTHS, vocab=507, dim=67, margins=margins)
    found = don_nod(*case, update=update, **HEADS[head], workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, update=update, **HEADS[head]), FLOAT32)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("update", UPDATES)
def test_weight_decay_and_reduction_enter_every_update(
    update: str, weight_decay: float, reduction: str, workspace: str
) -> None:
    case = make_case(LENGTHS, vocab=507, dim=67, margins=CONFIDENT)
    options = {"update": every_update(case)[update], "weight_decay": weight_decay, "reduction": reduction}
    found = don_nod(*case, **options, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, **options), FLOAT32)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("storage_dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("update", "weight_decay"), [*product(UPDATES, [0.0]), ("adamw", 0.1), ("sgd", 0.1)])
def test_a_step_rounded_to_the_weights_own_dtype_is_scored_as_rounded(
    update: str, weight_decay: float, storage_dtype: torch.dtype, workspace: str
) -> None:
    case = make_case(LENGTHS, vocab=507, dim=67, margins=CONFIDENT, dtype=storage_dtype)
    options: dict[str, Any] = {
        "update": every_update(case)[update],
        "weight_decay": weight_decay,
        "storage_dtype": storage_dtype,
        "lr": 1e-3,
    }
    found = don_nod(*case, **options, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, **options), 1e-4)


def test_weights_of_a_finer_dtype_are_rounded_whole_not_only_their_step() -> None:
    case = make_case((5, 40), vocab=507, dim=67)
    options: dict[str, Any] = {"storage_dtype": torch.bfloat16, "lr": 1e-3}
    # A float32 W′ on the border of two bfloat16 values may fall to either side.
    assert_scores(don_nod(*case, **options), truth(case, **options), 1e-3)


def test_a_step_too_small_for_the_storage_dtype_does_nothing() -> None:
    case = make_case((9,), vocab=67, dim=33, dtype=torch.bfloat16)
    case = case._replace(weight=case.weight.sign())
    found = don_nod(*case, lr=1e-5, storage_dtype=torch.bfloat16)
    assert found.don.tolist() == [0.0]
    assert found.nod.tolist() == [0.0]
    assert float(don_nod(*case, lr=1e-5).nod) > 1e-5


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", UPDATES)
def test_everything_at_once(update: str, workspace: str) -> None:
    case = make_case(LENGTHS, vocab=507, dim=67, margins=CONFIDENT, dtype=torch.bfloat16)
    options = {
        "update": every_update(case)[update],
        "weight_decay": 0.05,
        "reduction": "sum",
        "bias": BIAS.bfloat16(),
        "logit_scale": 0.5,
        "softcap": 25.0,
        "lr": 3e-4,
    }
    found = don_nod(*case, **options, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, **options), BOUNDS[torch.bfloat16])


@pytest.mark.parametrize("dim", [1, 16, 64, 65, 128, 300, 4097])
@pytest.mark.parametrize("workspace", WORKSPACES)
def test_the_bias_is_added_once_whatever_the_dim(dim: int, workspace: str) -> None:
    case = make_case((3, 1, 70), vocab=129, dim=dim)
    bias = 4.0 * make_bias(129)
    found = don_nod(*case, bias=bias, update="sgd", workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, bias=bias, update="sgd"), FLOAT32)
    ends = case.cu_seqlens.tolist()
    # The loss in one line of torch, for independence.
    logits = case.hidden.double() @ case.weight.double().T + bias.double()
    for i, (start, stop) in enumerate(pairwise(ends)):
        loss = torch.nn.functional.cross_entropy(logits[start:stop], case.labels[start:stop])
        torch.testing.assert_close(found.loss[i], loss, rtol=FLOAT32, atol=0.0)


def masked_vocabulary(vocab: int, labels: Tensor) -> Tensor:
    """True for two thirds of the rows, the first and last included, and for no label."""
    masked = torch.arange(vocab) % 3 != 1
    masked[labels[labels >= 0]] = False
    return masked


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
def test_rows_masked_by_a_bias_of_minus_infinity_are_as_if_absent(
    margins: tuple[float, ...] | None, update: str, workspace: str
) -> None:
    case = make_case((1, 2, 150, 11), vocab=507, dim=67, margins=margins)
    masked = masked_vocabulary(507, case.labels)
    masked[[0, 506]] = True
    labels = torch.where(masked[case.labels.clamp_min(0)], -100, case.labels)
    case = case._replace(labels=labels)
    bias = BIAS.masked_fill(masked, -torch.inf)
    found = don_nod(*case, bias=bias, update=update, workspace_bytes=WORKSPACES[workspace])
    kept = ~masked
    renumbered = torch.where(labels < 0, labels, (kept.cumsum(0) - 1)[labels.clamp_min(0)])
    smaller = case._replace(weight=case.weight[kept], labels=renumbered)
    expected = truth(smaller, bias=bias[kept], update=update)
    assert not bool(found.don.isnan().any())
    # ‖W‖ still counts the masked rows: NOD and the sums are those of the smaller head, DON is rescaled.
    ratio = float(case.weight[kept].double().norm() / case.weight.double().norm())
    expected = expected._replace(don=truth(case, bias=bias, update=update).don)
    assert_scores(found, expected, FLOAT32)
    # To first order DON = η⟨W,U⟩/‖W‖, so the smaller head's DON is ours over the ratio of the norms.
    smaller_don = truth(smaller, bias=bias[kept], update=update).don
    assert bool(((smaller_don * ratio - found.don).abs() <= 2e-3 * found.nod).all())


def test_a_label_masked_by_the_bias_has_infinite_loss_only() -> None:
    case = make_case((3, 5), vocab=67, dim=33, unscored=0)
    bias = make_bias(67)
    bias[case.labels[0]] = -torch.inf
    found, expected = don_nod(*case, bias=bias), truth(case, bias=bias)
    assert float(found.loss[0]) == torch.inf
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=FLOAT32, atol=0.0)
    assert bool(((found.don - expected.don).abs() <= FLOAT32 * expected.nod).all())


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("padding", [1, 5, 64])
def test_padded_vocabulary_rows_take_their_share_of_the_softmax(padding: int, workspace: str) -> None:
    case = make_case((1, 2, 150, 11), vocab=507, dim=67, margins=(8.0, 2.0))
    padded = case._replace(weight=torch.cat([case.weight, torch.zeros(padding, 67)]))
    found = don_nod(*padded, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(padded), FLOAT32)
    without = don_nod(*case)
    assert bool((found.loss > without.loss).all()), "exp(0) of each padded row belongs in the normaliser"


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("position", [0, 265, 266, 506])
def test_a_dominant_row_counts_wherever_it_stands(position: int, workspace: str) -> None:
    case = make_case((1, 2, 150, 11), vocab=507, dim=67, margins=(1.0,))
    weight = case.weight.clone()
    weight[position] *= 12.0
    case = case._replace(weight=weight)
    assert_scores(don_nod(*case, workspace_bytes=WORKSPACES[workspace]), truth(case), FLOAT32)
