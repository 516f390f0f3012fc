"""TOPSIS in Triton equals the plain-PyTorch reference, also on columns longer than one block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_cases import interpreted

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import topsis
from donod_fast.kernels.topsis import NORMALISATIONS
from donod_fast.kernels.triton_backend.topsis import BLOCK

on_the_interpreter = interpreted[0]
FINITE = st.floats(-1e300, 1e300) | st.just(0.0) | st.just(float("nan"))


def columns(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    don = torch.randn(n, generator=generator, dtype=torch.float64) * 1e-3
    return don, torch.rand(n, generator=generator, dtype=torch.float64)


@on_the_interpreter
@pytest.mark.parametrize("n", [1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.0, 0.0), (1.0, 9.0)])
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_it_equals_the_reference(n: int, weights: tuple[float, float], normalise: str) -> None:
    don, nod = columns(n)
    don[n // 2 :: 17] = torch.nan
    nod[n // 3 :: 23] = torch.nan
    found = topsis(don, nod, weights=weights, normalise=normalise, backend="triton")
    expected = topsis(don, nod, weights=weights, normalise=normalise, backend="torch")
    torch.testing.assert_close(found, expected, rtol=0.0, atol=4e-15, equal_nan=True)


@on_the_interpreter
@given(rows=st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=9), normalise=st.sampled_from(NORMALISATIONS))
@settings(max_examples=60, deadline=None)
def test_it_equals_the_reference_at_any_scale(rows: list[tuple[float, float]], normalise: str) -> None:
    don, nod = torch.tensor(rows, dtype=torch.float64).unbind(1)
    found = topsis(don.contiguous(), nod.contiguous(), normalise=normalise, backend="triton")
    expected = topsis(don, nod, normalise=normalise, backend="torch")
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12, equal_nan=True)


@on_the_interpreter
def test_equal_samples_get_a_half_and_unscored_ones_nothing() -> None:
    same = torch.full((2000,), 3.0, dtype=torch.float64)
    assert topsis(same, same, backend="triton").tolist() == [0.5] * 2000
    assert bool(topsis(same * torch.nan, same, backend="triton").isnan().all())


@on_the_interpreter
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_two_runs_give_the_same_bits(normalise: str) -> None:
    don, nod = columns(5 * BLOCK + 3)
    first, second = (topsis(don, nod, normalise=normalise, backend="triton") for _ in range(2))
    assert torch.equal(first, second)


@on_the_interpreter
def test_what_it_cannot_serve_is_said() -> None:
    don, nod = columns(10)
    with pytest.raises(BackendError, match="contiguous"):
        topsis(don[::2], nod[::2], backend="triton")
    with pytest.raises(InputError, match="backend"):
        topsis(don, nod, backend="gpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_on_a_device_it_equals_the_reference_on_the_host(normalise: str) -> None:
    don, nod = columns(1_000_003)
    found = topsis(don.cuda(), nod.cuda(), normalise=normalise)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), topsis(don, nod, normalise=normalise), rtol=0.0, atol=4e-15)
