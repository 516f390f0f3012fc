"""Tokens that the model predicts with confidence keep their precision, and logits of any size are safe."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from head_cases import BOUNDS, MIB, UPDATES, Case, assert_scores, every_update, make_bias, make_case, truth

from donod_fast.kernels import don_nod

FLOAT32 = BOUNDS[torch.float32]
WORKSPACES = {"stored": 256 * MIB, "streamed": MIB}


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("margin", [5.0, 16.0, 20.0, 37.0, 40.0, 60.0, 85.0])
@pytest.mark.parametrize("update", UPDATES)
def test_a_sample_of_equally_sure_tokens_keeps_its_bound(update: str, margin: float, workspace: str) -> None:
    case = make_case((1, 2, 150, 9), vocab=507, dim=123, margins=(margin,))
    resolved = every_update(case)[update]
    found = don_nod(*case, update=resolved, workspace_bytes=WORKSPACES[workspace])
    assert_scores(found, truth(case, update=resolved), FLOAT32)
    assert bool((found.nod > 0.0).all())


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("margin", [250.0, 400.0])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_nor_is_anything_lost_far_below_the_smallest_float32(update: str, margin: float, workspace: str) -> None:
    case = make_case((1, 2, 150, 9), vocab=507, dim=123, margins=(margin,))
    found = don_nod(*case, update=update, workspace_bytes=WORKSPACES[workspace])
    expected = truth(case, update=update)
    assert 0.0 < float(expected.loss.max()) < 1e-45, "the case should be below float32's range"
    # Here the pre-activations themselves carry the error: a float32 of 400 is good to 2e-5, and so is e to it.
    assert_scores(found, expected, 2e-4)


def test_loss_and_miss_probability_of_one_sure_token_by_hand() -> None:
    margin = 30.0
    case = Case(
        hidden=torch.tensor([[margin]]),
        weight=torch.tensor([[1.0], [0.0], [0.0]]),
        labels=torch.tensor([0]),
        cu_seqlens=torch.tensor([0, 1]),
    )
    miss = 2.0 * math.exp(-margin) / (1.0 + 2.0 * math.exp(-margin))
    found = don_nod(*case, update="sgd")
    assert float(found.loss) == pytest.approx(math.log1p(2.0 * math.exp(-margin)), rel=1e-6, abs=0.0)
    # G = miss · margin · (−1, ½, ½): a rounded p_y would leave 0.
    assert float(found.update_norm) == pytest.approx(miss * margin * math.sqrt(1.5), rel=1e-6, abs=0.0)
    assert float(found.weight_dot_update) == pytest.approx(-miss * margin, rel=1e-6, abs=0.0)
    entropy = -(1 - miss) * math.log1p(-miss) - miss * math.log(miss / 2)
    assert float(found.entropy) == pytest.approx(entropy, rel=1e-6, abs=0.0)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_an_uncertain_token_does_not_hide_a_confident_sample_next_to_it(update: str, workspace: str) -> None:
    sure = make_case((40,), vocab=507, dim=123, margins=(45.0,), unscored=0)
    unsure = make_case((3,), vocab=507, dim=123, unscored=0)
    case = Case(
        torch.cat([unsure.hidden, sure.hidden, unsure.hidden]),
        sure.weight,
        torch.cat([unsure.labels, sure.labels, unsure.labels]),
        torch.tensor([0, 3, 43, 46], dtype=torch.int32),
    )
    expected = truth(case, update=update)
    assert float(expected.nod[1]) < 1e-4 * float(expected.nod[0])
    assert_scores(don_nod(*case, update=update, workspace_bytes=WORKSPACES[workspace]), expected, FLOAT32)


def wrong_and_sure(scale: float) -> Case:
    """Tokens whose label the model excludes: logits of ±``scale`` on whole rows."""
    case = make_case((1, 2, 150, 7), vocab=507, dim=123, unscored=0)
    weight = case.weight / case.weight.norm(dim=1, keepdim=True)
    preferred = (case.labels + 1) % 507
    return case._replace(weight=weight, hidden=scale * weight[preferred])


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_huge_logits_against_the_label_do_not_overflow(update: str, workspace: str) -> None:
    case = wrong_and_sure(1e4)
    found = don_nod(*case, update=update, workspace_bytes=WORKSPACES[workspace])
    for column in (found.don, found.nod, found.loss, found.entropy):
        assert bool(column.isfinite().all())
    assert_scores(found, truth(case, update=update), FLOAT32)


@pytest.mark.parametrize("head", [{}, {"softcap": 30.0}, {"bias": make_bias(507)}], ids=["plain", "softcap", "bias"])
@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
def test_huge_logits_for_the_label_give_no_nan(update: str, workspace: str, head: dict[str, Any]) -> None:
    case = make_case((1, 2, 150, 7), vocab=507, dim=123, margins=(1e4, -1e4))
    found = don_nod(*case, update=update, **head, workspace_bytes=WORKSPACES[workspace])
    for column in (found.don, found.nod, found.loss, found.entropy):
        assert bool(column.isfinite().all())
    torch.testing.assert_close(found.loss, truth(case, update=update, **head).loss, rtol=FLOAT32, atol=1e-300)


@pytest.mark.parametrize("margin", [0.0, 1e-3, 16.0, 19.9, 20.1, 36.0, 59.9, 60.1, 87.0, 88.8, 104.0, 700.0])
def test_the_loss_has_no_seam_at_any_margin(margin: float) -> None:
    """Two logits: loss = log1p(e^−m) exactly, past every threshold of softplus and of float32's exp."""
    case = Case(torch.tensor([[margin, 0.0]]), torch.eye(2), torch.tensor([0]), torch.tensor([0, 1]))
    held = float(case.hidden[0, 0])
    found = don_nod(*case, update="sgd")
    assert float(found.loss) == pytest.approx(math.log1p(math.exp(-held)), rel=1e-9, abs=1e-305)
    wrong = don_nod(*case._replace(labels=torch.tensor([1])), update="sgd")
    assert float(wrong.loss) == pytest.approx(held + math.log1p(math.exp(-held)), rel=1e-13, abs=0.0)
