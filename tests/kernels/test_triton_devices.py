"""Devices: which tiles an architecture gets, and what happens if the tiles do not fit a device."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from head_cases import assert_identical, make_case, truth
from triton.runtime.errors import OutOfResources
from triton_cases import TINY, call_of, interpreted

from donod_fast.errors import BackendError
from donod_fast.kernels import DonNod, dispatch, don_nod, gradient_products, products
from donod_fast.kernels.triton_backend import architectures, autotune, configs, logits, op, resources
from donod_fast.kernels.triton_backend import products as triton_products

pytestmark = interpreted

CASE = make_case((2, 5), vocab=67, dim=18)
CUDA = torch.device("cuda")
TOO_LARGE = OutOfResources(250_000, 101_376, "shared memory")
REASON = r"needs more than this device has of shared memory \(required: 250000, limit: 101376\)"
NVIDIA = {
    (8, 0): "sm_80",
    (8, 6): "sm_89",
    (8, 7): "sm_89",
    (8, 9): "sm_89",
    (9, 0): "sm_90",
    (10, 0): "sm_100",
    (10, 3): "sm_100",
    (12, 0): "sm_89",
    (12, 1): "sm_89",
}
AMD = {"gfx942:sramecc+:xnack-": "gfx942", "gfx940": "gfx942", "gfx950:sramecc+:xnack-": "gfx942"}


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """No architecture was warned of, and no call has failed."""
    architectures._warn_once.cache_clear()
    resources._refused.clear()
    yield
    architectures._warn_once.cache_clear()
    resources._refused.clear()


def be_nvidia(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


def be_amd(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: SimpleNamespace(gcnArchName=name))


@pytest.mark.parametrize(("capability", "row"), NVIDIA.items(), ids=str)
def test_every_known_capability_has_a_row_of_the_table(
    capability: tuple[int, int], row: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    be_nvidia(monkeypatch, capability)
    assert configs.architecture_of(CUDA) == row
    assert row in configs.ARCHITECTURES
    assert not caplog.records


@pytest.mark.parametrize(("name", "row"), AMD.items())
def test_so_has_every_amd_target_with_these_matrix_cores(
    name: str, row: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    be_amd(monkeypatch, name)
    assert configs.architecture_of(CUDA) == row
    assert not caplog.records


def chosen() -> configs.Configs:
    """What a call with 16-bit input gets on the device that a test pretends to have."""
    return configs.configs_for(
        CUDA, torch.bfloat16, torch.bfloat16, mapped=False, heavy=False, tokens=1000, samples=9, dim=2048
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ((11, 0), "compute capability 11.0"),
        ((13, 0), "compute capability 13.0"),
        ("gfx1100", "gfx1100 (waves of 32)"),
        ("gfx1201", "gfx1201 (waves of 32)"),
        ("gfx90a:sramecc+:xnack-", "gfx90a (waves of 64)"),
    ],
    ids=str,
)
def test_an_unknown_architecture_gets_small_tiles_and_one_warning(
    name: Any, shown: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if isinstance(name, str):
        be_amd(monkeypatch, name)
    else:
        be_nvidia(monkeypatch, name)
    small = configs.fixed_configs("sm_80", torch.float32, torch.float32, mapped=False, direct="short")
    assert chosen() == chosen() == small
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    message = caplog.messages[0]
    assert shown in message
    assert "\n" not in message


def test_consumer_blackwell_gets_tiles_that_fit_99_kib(monkeypatch: pytest.MonkeyPatch) -> None:
    be_nvidia(monkeypatch, (12, 0))
    found = chosen()
    be_nvidia(monkeypatch, (8, 9))
    assert found == chosen()
    be_nvidia(monkeypatch, (10, 0))
    assert found != chosen()


def out_of_resources(*_: Any, **__: Any) -> Any:
    raise TOO_LARGE


def on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` treats the tensors of the CPU as those of an accelerator."""
    for module in (dispatch, products):
        monkeypatch.setattr(module, "prefers_torch", lambda device: False)


def test_auto_takes_torch_where_the_tiles_do_not_fit_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_an_accelerator(monkeypatch)
    tried: list[None] = []

    def fails(*_: Any, **__: Any) -> Any:
        tried.append(None)
        raise TOO_LARGE

    monkeypatch.setattr(op, "head_sums", fails)
    expected = don_nod(*CASE, backend="torch")
    assert_identical(don_nod(*CASE), expected)
    assert_identical(don_nod(*CASE), expected)
    assert len(tried) == 1, "the second call does not launch again"
    assert_identical(don_nod(*CASE, update="sgd"), don_nod(*CASE, update="sgd", backend="torch"))
    assert len(tried) == 2, "another kind of call has other kernels"
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.messages[0].startswith("the Triton kernels are not used for some calls, because a kernel needs")


@pytest.mark.parametrize("calls", [1, 2])
def test_a_call_that_asked_for_triton_is_refused_with_a_remedy(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "head_sums", out_of_resources)
    for _ in range(calls):
        with pytest.raises(
            BackendError, match=rf"'triton' does not support this call: .*{REASON}; use 'torch' or 'auto'"
        ):
            don_nod(*CASE, backend="triton")


def test_a_kernel_that_fails_at_its_launch_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised where Triton raises it, below the operator."""
    on_an_accelerator(monkeypatch)
    monkeypatch.setattr(logits, "launch_logits", out_of_resources)
    with configs.override(TINY):
        assert_identical(don_nod(*CASE), don_nod(*CASE, backend="torch"))


def test_the_norm_of_a_gradient_falls_back_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW's kernels fit, those of the call with SGD that gives the extra do not."""
    on_an_accelerator(monkeypatch)
    real = op.head_sums

    def fails(call: Any, *rest: Any) -> Any:
        return out_of_resources() if call.linear else real(call, *rest)

    monkeypatch.setattr(op, "head_sums", fails)
    with configs.override(TINY):
        found = don_nod(*CASE, extras=("gradient_norm",))
    assert found.gradient_norm is not None
    torch.testing.assert_close(found.gradient_norm, truth(CASE, update="sgd").update_norm, rtol=1e-5, atol=0.0)
    assert len(resources._refused) == 1


def test_products_fall_back_and_refuse_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_an_accelerator(monkeypatch)
    monkeypatch.setattr(triton_products, "triton_products", out_of_resources)
    sides = (CASE.hidden, CASE.labels, CASE.cu_seqlens)
    found = gradient_products(*sides, *sides, CASE.weight)
    assert torch.equal(found, gradient_products(*sides, *sides, CASE.weight, backend="torch"))
    for _ in range(2):
        with pytest.raises(BackendError, match=rf"{REASON}; use 'torch' or 'auto'"):
            gradient_products(*sides, *sides, CASE.weight, backend="triton")
    assert len(caplog.records) == 1


def test_scores_of_other_calls_still_come_from_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(op, "head_sums", out_of_resources)
        with pytest.raises(BackendError):
            don_nod(*CASE, backend="triton")
    with configs.override(TINY):
        found: DonNod = don_nod(*CASE, backend="triton")
    assert bool(found.don.isfinite().all())


def test_tuning_starts_from_a_choice_that_does_not_fit() -> None:
    *_, wanted = autotune.candidates("direct", TINY)

    def seconds(found: configs.Configs) -> float:
        if found == TINY:
            raise TOO_LARGE
        return 1.0 if found.direct == wanted else 2.0

    assert autotune.tune(call_of(CASE), TINY, seconds).direct == wanted
