"""The ``inductor`` backend: compiled passes of AdamW over a gradient tile give the same scores."""

from __future__ import annotations

import pytest
import torch
from head_cases import BOUNDS, MIB, assert_scores, make_case, truth

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import SGD, AdamW, DonNod, don_nod, fused

FLOAT32 = BOUNDS[torch.float32]
compiles = pytest.mark.skipif(
    fused.why_not_inductor() is not None, reason=f"Inductor cannot compile here: {fused.why_not_inductor()}"
)


@pytest.mark.sampled(every=2)
@compiles
@pytest.mark.parametrize("margins", [None, (30.0, 2.0), (85.0,)], ids=["random", "sure", "certain"])
def test_compiled_passes_keep_the_bound(margins: tuple[float, ...] | None) -> None:
    case = make_case((1, 2, 150, 0, 9), vocab=507, dim=123, margins=margins)
    found = don_nod(*case, backend="inductor")
    assert_scores(found, truth(case), FLOAT32)
    assert int(found.scored_tokens[3]) == 0
    assert bool(found.don[3].isnan())


@compiles
@pytest.mark.parametrize("eps", [1e-8, 1e-3, 10.0])
def test_whatever_eps_is_beside_the_gradient(eps: float) -> None:
    case = make_case((3, 40), vocab=300, dim=64, margins=(1.0, 12.0))
    assert_scores(
        don_nod(*case, update=AdamW(eps=eps), backend="inductor"), truth(case, update=AdamW(eps=eps)), FLOAT32
    )


@compiles
def test_sums_over_a_large_tile_lose_nothing() -> None:
    # U is ±1 nearly everywhere: NOD = lr √(V d) to within eps, which a float32 sum of a tile would miss by 1e-5.
    case = make_case((120,), vocab=8192, dim=512)
    plain, compiled = (don_nod(*case, backend=backend) for backend in ("torch", "inductor"))
    torch.testing.assert_close(compiled.nod, plain.nod, rtol=2e-7, atol=0.0)
    assert float((compiled.don - plain.don).abs() / plain.nod) < 1e-7


@compiles
@pytest.mark.parametrize("workspace", [MIB, 256 * MIB], ids=["streamed", "stored"])
def test_a_sample_scores_the_same_in_any_company(workspace: int) -> None:
    case = make_case((40, 7, 150), vocab=2000, dim=64)
    together = don_nod(*case, backend="inductor", workspace_bytes=workspace)
    bounds = case.cu_seqlens.tolist()
    for i in range(3):
        rows = slice(bounds[i], bounds[i + 1])
        ends = torch.tensor([0, bounds[i + 1] - bounds[i]], dtype=torch.int32)
        alone = don_nod(case.hidden[rows], case.weight, case.labels[rows], ends, backend="inductor")
        assert abs(float(alone.don[0] - together.don[i])) <= FLOAT32 * float(together.nod[i])
        assert abs(float(alone.nod[0] - together.nod[i])) <= FLOAT32 * float(together.nod[i])


@compiles
@pytest.mark.parametrize("update", ["sgd", "sign"])
def test_updates_without_a_compiled_pass_are_the_torch_backend(update: str) -> None:
    case = make_case((5, 20), vocab=200, dim=48)
    assert_same(don_nod(*case, update=update, backend="inductor"), don_nod(*case, update=update, backend="torch"))


@compiles
def test_so_are_rounded_weights_and_float64() -> None:
    case = make_case((5, 20), vocab=200, dim=48)
    rounded = [don_nod(*case, storage_dtype=torch.bfloat16, backend=backend) for backend in ("inductor", "torch")]
    assert_same(*rounded)
    wide = make_case((5, 20), vocab=200, dim=48, dtype=torch.float64)
    assert_same(don_nod(*wide, backend="inductor"), don_nod(*wide, backend="torch"))


@compiles
def test_the_compiled_pass_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(tensors[0].shape)
        return fused.adamw_row_sums(*tensors)

    monkeypatch.setattr("donod_fast.kernels.torch_backend.compiled_row_sums", lambda: counted)
    case = make_case((5, 20), vocab=200, dim=48)
    assert_scores(don_nod(*case, backend="inductor"), truth(case), FLOAT32)
    assert calls == [(200, 48)] * 2
    don_nod(*case, backend="torch")
    don_nod(*case, update=SGD(), backend="inductor")
    assert len(calls) == 2


def test_without_a_compiler_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "why_not_inductor", lambda: "there is no C++ compiler")
    case = make_case((5,), vocab=20, dim=8)
    with pytest.raises(
        BackendError, match="'inductor' does not support this call: there is no C\\+\\+ compiler; use 'torch'"
    ):
        don_nod(*case, backend="inductor")
    assert_same(don_nod(*case), don_nod(*case, backend="torch"))


def test_an_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="inductor"):
        don_nod(*make_case((5,), vocab=20, dim=8), backend="indutor")


def assert_same(a: DonNod, b: DonNod) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0.0, atol=0.0, equal_nan=True)
