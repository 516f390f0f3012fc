"""Gradient products in float8 in plain PyTorch: exact roundings, small errors, and who is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_cases import MIB, Case, make_case, make_state, truth
from torch import Tensor

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import AdamW, DonNod, Sign, don_nod, float8
from donod_fast.kernels.triton_backend import logits

LONG = 24
LENGTHS = (3, 40, 0, 30)
DTYPE = torch.bfloat16


@pytest.fixture(autouse=True)
def _small_cases_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "LEAST_TOKENS", LONG)
    monkeypatch.setattr(float8, "SMALL_HEAD", 0)


def scored(case: Case, **options: Any) -> DonNod:
    return don_nod(*case, backend="torch", precision="float8", **options)


def errors(found: DonNod, expected: DonNod) -> Tensor:
    """(2, samples) of DON and NOD over NOD."""
    return torch.stack([(found.don - expected.don).abs(), (found.nod - expected.nod).abs()]) / expected.nod


@pytest.mark.parametrize("update", ["adamw", "sign", AdamW(eps=1e-3)], ids=str)
@pytest.mark.parametrize("margins", [None, (0.0, 6.0, 25.0)], ids=["random", "confident"])
def test_long_samples_are_rounded_and_stay_within_the_limit(update: Any, margins: Any) -> None:
    # Signs that flip are a walk of random steps: an error of some 0.3 / √(V d) of NOD.
    case = make_case(LENGTHS, 6000, 256, margins=margins, dtype=DTYPE)
    expected = truth(case, update=update)
    found, full = scored(case, update=update), don_nod(*case, backend="torch", update=update)
    live = [0, 1, 3]
    assert bool((errors(found, expected)[:, live] <= float8.ERROR_LIMIT).all()), errors(found, expected)
    for name in ("don", "nod"):
        same = getattr(found, name) == getattr(full, name)
        assert same.tolist()[0] is True, "a short sample is as without float8"
        assert name == "nod" or not bool(same[1] | same[3]), "a long sample is rounded"
    assert torch.equal(found.loss[live], full.loss[live])
    assert bool(found.don[2].isnan())


def test_the_product_is_that_of_the_rounded_operands() -> None:
    generator = torch.Generator().manual_seed(1)
    signals = torch.randn(30, 50, generator=generator) * torch.exp(3.0 * torch.randn(30, 50, generator=generator))
    states = torch.randn(30, 20, generator=generator) * torch.logspace(-6, 6, 30).unsqueeze(1)
    signals[:, 7] = 0.0
    h, b = float8.rounded_states(states)
    a = float8.row_scales(signals, b)
    assert float(h.abs().max()) == 448.0 and a[7] == 0.0
    # Every value is one of float8, within half a step of what it stands for.
    assert torch.equal(h.to(torch.float8_e4m3fn).float(), h)
    assert bool(((h * b.unsqueeze(1) - states).abs() <= states.abs() / 16 + b.unsqueeze(1) * 2.0**-10).all())
    total = torch.zeros(50, 20)
    float8.add_product(total, signals, (h, b), a)
    scaled = torch.where(a > 0, signals.double() * b.double().unsqueeze(1) / a.double(), 0.0)
    exact = (scaled.float().to(torch.float8_e4m3fn).double().T @ h.double()) * a.double().unsqueeze(1)
    torch.testing.assert_close(total.double(), exact, rtol=1e-3, atol=1e-5 * float(exact.abs().max()))
    truth = signals.double().T @ states.double()
    assert 1e-3 < float((total - truth).norm() / truth.norm()) < 0.05


def test_nan_stays_in_its_row_of_the_product() -> None:
    signals, states = torch.ones(4, 3), torch.ones(4, 5)
    signals[1, 2] = torch.nan
    rounded = float8.rounded_states(states)
    total = torch.zeros(3, 5)
    float8.add_product(total, signals, rounded, float8.row_scales(signals, rounded[1]))
    assert bool(total[2].isnan().all()) and not bool(total[:2].isnan().any())
    states[0, 0] = torch.inf
    assert bool(float8.rounded_states(states)[0][0].isnan().any())


def test_a_streamed_sample_has_the_scales_of_all_its_tokens() -> None:
    case = make_case((300,), 4000, 64, dtype=DTYPE)
    stored, streamed = (scored(case, workspace_bytes=size * MIB) for size in (64, 1))
    assert float(errors(streamed, stored).max()) < 2e-5
    full = don_nod(*case, backend="torch", workspace_bytes=MIB)
    assert float(errors(streamed, full).max()) > 2e-5


def test_the_gradient_norm_is_not_rounded() -> None:
    case = make_case((40,), 100, 32, dtype=DTYPE)
    extras = ("gradient_norm", "error_norm", "token_loss")
    found, full = scored(case, extras=extras), don_nod(*case, backend="torch", extras=extras)
    for name in extras:
        torch.testing.assert_close(getattr(found, name), getattr(full, name), rtol=1e-6, atol=0.0, equal_nan=True)


CASE = make_case((LONG,), 64, 32, dtype=DTYPE)
REFUSED: dict[str, tuple[Case, dict[str, Any], str]] = {
    "sgd": (CASE, {"update": "sgd"}, "update 'sgd' is linear in the gradient"),
    "state": (CASE, {"update": AdamW(state=make_state(CASE))}, "AdamW with a given state"),
    "storage": (CASE, {"storage_dtype": DTYPE}, "a rounded step"),
    "float32": (make_case((LONG,), 64, 32), {}, "the output layer is float32"),
    "two dtypes": (CASE._replace(hidden=CASE.hidden.float()), {}, "hidden is torch.float32 but weight is"),
    "unaligned": (make_case((LONG,), 64, 33, dtype=DTYPE), {}, "rows of 33 elements"),
    "inductor": (CASE, {"backend": "inductor"}, "backend 'inductor' has no float8 product"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_float8_product_is_refused_by_name(name: str) -> None:
    case, options, reason = REFUSED[name]
    for backend in ("auto", "torch", "triton"):
        with pytest.raises(BackendError, match=f"precision 'float8' is not supported here: .*{reason}"):
            don_nod(*case, **{"backend": backend, "precision": "float8", **options})


def test_a_small_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert float8.SMALL_HEAD == logits.SMALL_HEAD
    with pytest.raises(BackendError, match="an output layer of 2,048 elements is multiplied in float32"):
        don_nod(*CASE, precision="float8", update=Sign())


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="precision must be one of"):
        don_nod(*CASE, precision="fp8")
