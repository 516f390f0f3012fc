"""TOPSIS compared with the formula in numpy, with pymcdm and with scikit-criteria."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.topsis import (
    DEFAULT_NORMALISE,
    NORMALISATIONS,
    ColumnConstants,
    column_constants,
    topsis,
    topsis_from_constants,
)
from donod_fast.selection.frozen_constants import topsis_constants

any_normalise = pytest.mark.parametrize("normalise", NORMALISATIONS)


def scores(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Signed DON and positive NOD of the magnitudes that real runs give."""
    generator = torch.Generator().manual_seed(seed)
    don = 1e-4 * torch.randn(count, generator=generator, dtype=torch.float64)
    nod = 1e-2 * torch.rand(count, generator=generator, dtype=torch.float64)
    return don, nod


def literal(
    don: np.ndarray, nod: np.ndarray, weights: tuple[float, float] = (0.5, 0.5), normalise: str = DEFAULT_NORMALISE
) -> np.ndarray:
    """Eq. 8 to 12 of the paper, line by line; the size of a column as each normalisation defines it."""

    def size(column: np.ndarray) -> float:
        sizes = {
            "vector": lambda: np.sqrt(np.sum(column**2)),
            "range": lambda: column.max() - column.min(),
            "sum": lambda: np.sum(np.abs(column)),
        }
        return float(sizes[normalise]()) or 1.0  # a constant column has no influence

    x = weights[0] * don / size(don)
    y = weights[1] * nod / size(nod)
    to_ideal = np.sqrt((x - x.max()) ** 2 + (y - y.min()) ** 2)
    to_worst = np.sqrt((x - x.min()) ** 2 + (y - y.max()) ** 2)
    closeness: np.ndarray = to_worst / (to_ideal + to_worst)
    return closeness


def assert_equal(found: Tensor, expected: object, tolerance: float = 1e-12) -> None:
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("count", [2, 3, 10, 1000])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (1.0, 0.0), (0.0, 1.0)])
@any_normalise
def test_it_is_the_formula_of_the_paper(count: int, weights: tuple[float, float], normalise: str) -> None:
    don, nod = scores(count)
    found = topsis(don, nod, weights=weights, normalise=normalise)
    assert_equal(found, literal(don.numpy(), nod.numpy(), weights, normalise))


@any_normalise
def test_the_default_is_one_of_the_normalisations_by_name(normalise: str) -> None:
    don, nod = scores(50)
    same = torch.equal(topsis(don, nod), topsis(don, nod, normalise=normalise))
    assert same == (normalise == DEFAULT_NORMALISE)


@pytest.mark.parametrize("normalise", ["ranges", "", "VECTOR", None, ["vector"], 1, b"sum"])
def test_an_unknown_normalisation_is_refused_with_the_known_ones(normalise: object) -> None:
    with pytest.raises(InputError, match="normalise must be one of vector, range, sum"):
        topsis(*scores(3), normalise=normalise)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7)])
@pytest.mark.parametrize("normalise", ["vector", "range"])
def test_it_agrees_with_pymcdm(weights: tuple[float, float], normalise: str) -> None:
    don, nod = scores(500)
    expected = pymcdm_topsis(don.numpy(), nod.numpy(), weights, normalise, (1, -1))
    assert_equal(topsis(don, nod, weights=weights, normalise=normalise), expected)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7)])
def test_by_sums_it_agrees_with_pymcdm_but_for_its_costs(weights: tuple[float, float]) -> None:
    """A cost y is to pymcdm (1/y) / Σ(1/y), which is not linear, and it refuses values that are not positive.

    DON has both signs, so we divide every column by Σ|x|, costs too. For benefits that is pymcdm's.
    """
    don, nod = scores(500)
    don = don.abs() + 1e-9
    both_benefits = pymcdm_topsis(don.numpy(), nod.numpy(), weights, "sum", (1, 1))
    assert_equal(topsis(don, -nod, weights=weights, normalise="sum"), both_benefits)
    with_costs = pymcdm_topsis(don.numpy(), nod.numpy(), weights, "sum", (1, -1))
    assert np.abs(topsis(don, nod, weights=weights, normalise="sum").numpy() - with_costs).max() > 1e-3


def pymcdm_topsis(
    don: np.ndarray, nod: np.ndarray, weights: tuple[float, float], normalise: str, types: tuple[int, int]
) -> np.ndarray:
    methods = pytest.importorskip("pymcdm.methods")
    normalizations = pytest.importorskip("pymcdm.normalizations")
    names = {"vector": "vector_normalization", "range": "minmax_normalization", "sum": "sum_normalization"}
    peer = methods.TOPSIS(getattr(normalizations, names[normalise]))
    closeness: np.ndarray = peer(np.stack([don, nod], axis=1), np.array(weights), np.array(types))
    return closeness


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7)])
def test_it_agrees_with_scikit_criteria(weights: tuple[float, float]) -> None:
    skcriteria = pytest.importorskip("skcriteria")
    topsis_module = pytest.importorskip("skcriteria.agg.topsis")
    scalers = pytest.importorskip("skcriteria.preprocessing.scalers")
    don, nod = scores(500)
    matrix = np.stack([don.numpy(), nod.numpy()], axis=1)
    decision = skcriteria.mkdm(matrix, [max, min], weights=list(weights))
    result = topsis_module.TOPSIS().evaluate(scalers.VectorScaler(target="matrix").transform(decision))
    assert_equal(topsis(don, nod, weights=weights, normalise="vector"), result.e_.similarity)


# Quarters are exact, so that two values are equal or well apart and the literal formula loses nothing
quarters = st.integers(-40, 40).map(lambda number: number / 4)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(quarters, quarters), min_size=2, max_size=30),
    st.floats(0.01, 0.99),
    st.sampled_from(NORMALISATIONS),
)
def test_any_columns_follow_the_formula_and_stay_in_the_unit_interval(
    pairs: list[tuple[float, float]], weight: float, normalise: str
) -> None:
    don, nod = np.array(pairs).T
    closeness = topsis(torch.tensor(don), torch.tensor(nod), weights=(weight, 1 - weight), normalise=normalise)
    assert ((closeness >= 0) & (closeness <= 1)).all()
    if len(set(pairs)) > 1:
        assert_equal(closeness, literal(don, nod, (weight, 1 - weight), normalise))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=1, max_size=20),
    st.sampled_from(NORMALISATIONS),
)
def test_no_finite_input_gives_nan_or_leaves_the_unit_interval(
    pairs: list[tuple[float, float]], normalise: str
) -> None:
    don, nod = torch.tensor(pairs, dtype=torch.float64).T
    closeness = topsis(don, nod, normalise=normalise)
    assert ((closeness >= 0) & (closeness <= 1)).all()


@any_normalise
def test_unscored_samples_are_nan_and_do_not_touch_the_others(normalise: str) -> None:
    don, nod = scores(50)
    with_gaps_don, with_gaps_nod = don.clone(), nod.clone()
    with_gaps_don[[3, 10]] = math.nan
    with_gaps_nod[[10, 20]] = math.nan
    unscored = torch.zeros(50, dtype=torch.bool)
    unscored[[3, 10, 20]] = True
    closeness = topsis(with_gaps_don, with_gaps_nod, normalise=normalise)
    assert closeness[unscored].isnan().all()
    assert_equal(closeness[~unscored], topsis(don[~unscored], nod[~unscored], normalise=normalise), 1e-15)


@any_normalise
def test_all_samples_unscored_gives_all_nan(normalise: str) -> None:
    nothing = torch.full((3,), math.nan)
    assert topsis(nothing, nothing, normalise=normalise).isnan().all()


@any_normalise
def test_equal_samples_are_all_one_half(normalise: str) -> None:
    assert_equal(topsis(torch.full((4,), -2e-5), torch.full((4,), 3e-3), normalise=normalise), [0.5] * 4, 0)


@any_normalise
def test_one_sample_is_one_half(normalise: str) -> None:
    assert_equal(topsis(torch.tensor([1.0]), torch.tensor([2.0]), normalise=normalise), [0.5], 0)
    assert_equal(topsis(torch.tensor([0.0]), torch.tensor([0.0]), normalise=normalise), [0.5], 0)
    assert_equal(
        topsis(torch.tensor([1.0, math.nan]), torch.tensor([2.0, 1.0]), normalise=normalise), [0.5, math.nan], 0
    )


def test_no_sample_gives_no_closeness() -> None:
    closeness = topsis(torch.empty(0), torch.empty(0))
    assert closeness.shape == (0,) and closeness.dtype == torch.float64


@any_normalise
@pytest.mark.parametrize("constant", [0.0, 7e-3, -1.0])
def test_a_constant_column_has_no_say(constant: float, normalise: str) -> None:
    other = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    flat = torch.full((3,), constant, dtype=torch.float64)
    assert_equal(topsis(other, flat, normalise=normalise), [0.0, 0.25, 1.0])
    assert_equal(topsis(flat, other, normalise=normalise), [1.0, 0.75, 0.0])


@any_normalise
def test_the_ideal_sample_is_one_and_the_worst_is_zero(normalise: str) -> None:
    assert_equal(
        topsis(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([9.0, 5.0, 1.0]), normalise=normalise)[[0, 2]],
        [0.0, 1.0],
        0,
    )


@any_normalise
def test_permuting_the_samples_permutes_the_closeness(normalise: str) -> None:
    don, nod = scores(300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert_equal(
        topsis(don[order], nod[order], normalise=normalise), topsis(don, nod, normalise=normalise)[order], 1e-15
    )


@any_normalise
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-25, 3.0, 1e25, 1e160, 1e300])
def test_the_scale_of_a_column_does_not_matter(scale: float, normalise: str) -> None:
    don, nod = scores(300)
    assert_equal(topsis(don * scale, nod, normalise=normalise), topsis(don, nod, normalise=normalise), 1e-14)
    assert_equal(topsis(don, nod * scale, normalise=normalise), topsis(don, nod, normalise=normalise), 1e-14)


def test_only_the_ratio_of_the_weights_counts() -> None:
    don, nod = scores(50)
    assert_equal(topsis(don, nod, weights=(3, 1)), topsis(don, nod, weights=(0.75, 0.25)), 0)
    assert_equal(topsis(don, nod, weights=(1e308, 1e308)), topsis(don, nod), 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_every_real_dtype_is_computed_in_float64(dtype: torch.dtype) -> None:
    don, nod = torch.tensor([1, -3, 2, 0]).to(dtype), torch.tensor([4, 1, 2, 2]).to(dtype)
    assert_equal(topsis(don, nod), literal(don.double().numpy(), nod.double().numpy()))


@any_normalise
def test_float32_columns_of_tiny_values_do_not_vanish(normalise: str) -> None:
    don, nod = (column.float() for column in scores(50))
    expected = topsis(don * 1e-30, nod * 1e-30, normalise=normalise)
    assert_equal(expected, literal((don * 1e-30).double().numpy(), (nod * 1e-30).double().numpy(), normalise=normalise))


@any_normalise
def test_constants_of_parts_combine_to_those_of_the_whole(normalise: str) -> None:
    don, nod = scores(1000)
    nod[5] = don[5] = math.nan

    def combined(column: Tensor) -> ColumnConstants:
        parts = [column_constants(part) for part in torch.split(column, 300)]
        scale = torch.stack([part.scale for part in parts]).amax()
        squares = sum((part.squares * (part.scale / scale) ** 2 for part in parts), start=torch.zeros(()))
        absolutes = sum((part.absolutes * (part.scale / scale) for part in parts), start=torch.zeros(()))
        low = torch.stack([part.low for part in parts]).amin()
        return ColumnConstants(scale, squares, low, torch.stack([part.high for part in parts]).amax(), absolutes)

    found = topsis_from_constants(don[300:600], nod[300:600], combined(don), combined(nod), normalise=normalise)
    assert_equal(found, topsis(don, nod, normalise=normalise)[300:600], 1e-14)


@pytest.mark.parametrize(
    "weights", [(-0.1, 1.1), (0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0), (1.0,), (1, 1, 1), ("a", 1), None]
)
def test_bad_weights_are_refused(weights: object) -> None:
    with pytest.raises(InputError, match="weights"):
        topsis(*scores(3), weights=weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_infinite_entries_are_refused_by_name(bad: float) -> None:
    don, nod = scores(4)
    nod[2] = bad
    with pytest.raises(InputError, match="nod has infinite"):
        topsis(don, nod)
    with pytest.raises(InputError, match="don has infinite"):
        topsis(nod, don)


def test_columns_that_do_not_fit_are_refused() -> None:
    don, nod = scores(4)
    with pytest.raises(InputError, match="the same length"):
        topsis(don, nod[:3])
    with pytest.raises(InputError, match="shape"):
        topsis(don[None], nod[None])
    with pytest.raises(InputError, match="real"):
        topsis(don.to(torch.complex128), nod)
    with pytest.raises(InputError, match="same length"):
        topsis([1.0], nod)
    with pytest.raises(InputError, match="the same device"):
        topsis(don, nod.to("meta"))


def test_closeness_needs_no_gradient() -> None:
    don, nod = scores(4)
    assert not topsis(don.requires_grad_(), nod).requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_closeness_stays_on_the_device_of_the_columns() -> None:
    don, nod = scores(1000)
    closeness = topsis(don.cuda(), nod.cuda())
    assert closeness.is_cuda
    assert_equal(closeness.cpu(), topsis(don, nod), 1e-14)


COLUMNS: dict[str, Callable[[list[float | None]], Any]] = {
    "list": list,
    "tuple": tuple,
    "numpy": lambda values: np.array(values, float),
    "numpy, every second": lambda values: np.repeat(np.array(values, float), 2)[::2],
    "numpy of objects": lambda values: np.array(values, object),
    "pandas": pd.Series,
    "pandas, with an index": lambda values: pd.Series(values, index=range(5, 5 + len(values))),
    "pandas, nullable": lambda values: pd.Series(values, dtype="Float64"),
    "pandas of Arrow": lambda values: pd.Series(values, dtype=pd.ArrowDtype(pa.float64())),
    "Arrow": lambda values: pa.array(values, pa.float64()),
    "Arrow in chunks": lambda values: pa.chunked_array([pa.array(values[:3]), pa.array(values[3:])]),
    "polars": lambda values: pytest.importorskip("polars").Series(values),
    "torch": lambda values: torch.tensor(
        [math.nan if value is None else value for value in values], dtype=torch.double
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
@any_normalise
def test_every_kind_of_column_gives_the_bits_of_tensors(kind: str, normalise: str) -> None:
    don, nod = scores(11, seed=4)
    lists: list[list[float | None]] = [don.tolist(), nod.tolist()]
    lists[0][2] = lists[1][7] = None
    wanted = topsis(*map(COLUMNS["torch"], lists), normalise=normalise)
    found = topsis(*map(COLUMNS[kind], lists), normalise=normalise)
    assert isinstance(found, Tensor if kind == "torch" else np.ndarray)
    np.testing.assert_array_equal(np.asarray(found), wanted.numpy())
    assert np.flatnonzero(np.isnan(np.asarray(found))).tolist() == [2, 7]
    frozen = topsis_constants({"don": lists[0], "nod": lists[1]}, normalise=normalise)
    applied = frozen.apply(*map(COLUMNS[kind], lists))
    assert type(applied) is type(found)
    np.testing.assert_array_equal(np.asarray(applied), np.asarray(found))
    mixed = topsis(COLUMNS["torch"](lists[0]), COLUMNS[kind](lists[1]), normalise=normalise)
    assert isinstance(mixed, Tensor)
    np.testing.assert_array_equal(mixed.numpy(), wanted.numpy())


@pytest.mark.parametrize(
    "column",
    ["ab", {"a": 1}, {1, 2}, [1, "x"], [True, False], np.ones((2, 2)), 3, None, pd.DataFrame({"a": [1.0]})],
    ids=repr,
)
def test_what_is_no_column_of_numbers_is_refused_by_name(column: Any) -> None:
    for call in (topsis, topsis_constants({"don": [1.0, 2.0], "nod": [1.0, 2.0]}).apply):
        with pytest.raises(InputError, match=r"^nod must"):
            call([1.0, 2.0], column)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, object])
def test_a_masked_value_is_not_scored(dtype: type) -> None:
    masked = np.ma.MaskedArray(np.array([9, 1, 2, 3], dtype), mask=[True, False, False, False])
    nod = [1.0, 3.0, 2.0, 1.0]
    np.testing.assert_array_equal(topsis(masked, nod), topsis([None, 1.0, 2.0, 3.0], nod))
    np.testing.assert_array_equal(topsis(nod, masked), topsis(nod, [None, 1.0, 2.0, 3.0]))


def test_columns_of_pandas_in_two_orders_are_refused() -> None:
    """Rows are paired by place; pandas would pair them by index, so one of the two would be wrong unseen."""
    frame = pd.DataFrame({"don": [1.0, 2.0, 3.0], "nod": [3.0, 1.0, 2.0]}, index=["a", "b", "c"])
    np.testing.assert_array_equal(topsis(frame["don"], frame["nod"]), topsis([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]))
    with pytest.raises(InputError, match="different indexes"):
        topsis(frame["don"], frame["nod"].sort_values())
    topsis(frame["don"], frame["nod"].sort_values().to_numpy())


def test_a_table_is_no_column() -> None:
    with pytest.raises(InputError, match="one column"):
        topsis(pa.table({"don": [1.0]}), [1.0])
