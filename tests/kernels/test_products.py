"""⟨G_i, G_j⟩ of two sets of samples equals the inner products of their float64 autograd gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_cases import MIB, Case, gradients, make_bias, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trial_counts import examples
from triton_cases import interpreted

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import don_nod, gradient_products
from donod_fast.kernels.triton_backend import configs, logits
from donod_fast.kernels.triton_backend.configs import Configs, DirectConfig, GramConfig, LogitsConfig

pytestmark = interpreted

VOCAB, DIM = 131, 37
_TILES = LogitsConfig(tokens=32, vocab=64, dim=32, warps=4, stages=2, group=2)
SMALL = Configs(
    _TILES,
    _TILES,
    DirectConfig(vocab=32, dim=16, step=16, split=2, warps=4, stages=2),
    GramConfig(tokens=32, columns=64, dim=32, warps=4, stages=2),
)
# Of ‖G_i‖ ‖G_j‖.
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"logit_scale": -0.7},
    "bias": {"bias": make_bias(VOCAB)},
    "softcap": {"bias": make_bias(VOCAB), "softcap": 5.0, "logit_scale": 0.7},
}


def two_sets(dtype: torch.dtype = torch.float32, margins: tuple[float, ...] | None = None) -> tuple[Case, Case]:
    """A set with samples of 0, 1 and more tokens than a tile, and another on the same output layer."""
    left = make_case((3, 0, 20, 1, 40), VOCAB, DIM, dtype=dtype, margins=margins)
    right = make_case((7, 18), VOCAB, DIM, dtype=dtype, margins=margins, seed=3)
    return left, right._replace(weight=left.weight)


def products(left: Case, right: Case, **options: Any) -> Tensor:
    with configs.override(SMALL):
        return gradient_products(
            left.hidden,
            left.labels,
            left.cu_seqlens,
            right.hidden,
            right.labels,
            right.cu_seqlens,
            left.weight,
            **options,
        )


def assert_products(found: Tensor, left: Tensor, right: Tensor, bound: float) -> None:
    wanted = left @ right.t()
    scale = left.norm(dim=1).unsqueeze(1) * right.norm(dim=1)
    assert found.dtype == torch.float64
    assert torch.equal(found.isnan(), wanted.isnan())
    error = ((found - wanted).abs() / scale).nan_to_num(0.0)
    assert float(error.max()) <= bound, f"off by {float(error.max()):.1e} of the norms"


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(
    ("head", "dtype"),
    [*((head, torch.float32) for head in HEADS), ("softcap", torch.bfloat16), ("plain", torch.float16)],
    ids=str,
)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_products_are_those_of_autograd(backend: str, head: str, dtype: torch.dtype) -> None:
    left, right = two_sets(dtype)
    found = products(left, right, backend=backend, **HEADS[head])
    assert_products(found, gradients(left, **HEADS[head]), gradients(right, **HEADS[head]), BOUNDS[dtype])


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_confident_tokens_keep_their_digits(backend: str) -> None:
    left, right = two_sets(margins=(15.0, 30.0, 4.0))
    # The truth is exact only while 1 − p_y is, so the limit follows from log(1 − p_y) with 13 digits.
    found = products(left, right, backend=backend)
    assert_products(found, gradients(left), gradients(right), 1e-5)
    alone = products(right, right, backend=backend).diagonal().sqrt()
    sgd = don_nod(*right, update="sgd").update_norm
    torch.testing.assert_close(alone, sgd, rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_the_sum_is_the_mean_times_the_counts(backend: str) -> None:
    left, right = two_sets()
    mean, total = (products(left, right, backend=backend, reduction=r) for r in ("mean", "sum"))
    counts = torch.tensor([3.0, torch.nan, 20.0, 1.0, 40.0]).unsqueeze(1) * torch.tensor([7.0, 18.0])
    torch.testing.assert_close(total, mean * counts.double(), rtol=1e-12, atol=0.0, equal_nan=True)


@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=3),
    others=st.lists(st.integers(0, 35), min_size=1, max_size=2),
    vocab=st.integers(1, 150),
    dim=st.integers(1, 40),
)
@settings(max_examples=examples(2, 8), deadline=None)
def test_any_shapes_agree_between_backends(lengths: list[int], others: list[int], vocab: int, dim: int) -> None:
    left = make_case(lengths, vocab, dim)
    right = make_case(others, vocab, dim, seed=5)._replace(weight=left.weight)
    if vocab == 1:  # one column is always right
        assert bool((products(left, right, backend="triton").nan_to_num(0.0) == 0.0).all())
        return
    found = products(left, right, backend="triton")
    wanted = products(left, right, backend="torch")
    assert torch.equal(found.isnan(), wanted.isnan())
    norms = [products(case, case, backend="torch").diagonal().clamp_min(0.0).sqrt() for case in (left, right)]
    error = (found - wanted).abs() - 1e-5 * norms[0].unsqueeze(1) * norms[1]
    assert bool((error.nan_to_num(0.0) <= 0.0).all())


def test_signals_in_bfloat16_lose_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits, "SMALL_HEAD", 0)
    left, right = two_sets(torch.bfloat16)
    assert_products(products(left, right, backend="triton"), gradients(left), gradients(right), 2e-4)


@pytest.mark.nightly
def test_sets_past_the_workspace_are_cut_between_samples() -> None:
    # Sixteen tiles of the vocabulary in addition to both sets would need more than a MiB.
    left = make_case((60, 0, 90, 33), vocab=1001, dim=19)
    right = make_case((50, 20), vocab=1001, dim=19, seed=3)._replace(weight=left.weight)
    found = products(left, right, backend="triton", workspace_bytes=MIB)
    assert_products(found, gradients(left), gradients(right), 1e-6)


def test_a_workspace_that_holds_no_tile_says_what_would() -> None:
    left = make_case((3000,), vocab=200, dim=2)
    with pytest.raises(BackendError, match=r"workspace_bytes = 1048576 .*at least (\d+)"):
        products(left, left, backend="triton", workspace_bytes=MIB)


def test_a_broken_sample_breaks_its_own_row_only() -> None:
    left, right = two_sets()
    whole = products(left, right, backend="triton")
    left.hidden[6:8] = torch.nan  # of the third sample
    broken = products(left, right, backend="triton")
    assert broken.isnan().all(1).tolist() == [False, True, True, False, False]
    assert torch.equal(broken[[0, 3, 4]], whole[[0, 3, 4]])


def test_the_operator_passes_torchs_own_check() -> None:
    left, right = two_sets()
    from donod_fast.kernels.triton_backend.products import gradient_products_op

    arguments = (*left[:1], *left[2:], *right[:1], *right[2:], left.weight, None, True, 1.0, None, 1 << 26)
    with configs.override(SMALL):
        torch.library.opcheck(gradient_products_op, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("other_hidden", {"hidden": torch.zeros(27, DIM + 1)}),
        ("other_hidden", {"hidden": torch.zeros(27, DIM, dtype=torch.float64)}),
        ("labels", {"labels": torch.full((27,), VOCAB)}),
        ("cu_seqlens", {"cu_seqlens": torch.tensor([0, 30, 27], dtype=torch.int32)}),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_wrong_arguments_are_refused_by_name(backend: str, name: str, change: dict[str, Tensor]) -> None:
    left, right = two_sets()
    with pytest.raises(InputError, match=name):
        products(left, right._replace(**change), backend=backend)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InputError, match="backend"):
        products(*two_sets(), backend="cuda")
