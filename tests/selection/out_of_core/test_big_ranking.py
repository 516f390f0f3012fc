"""Ranking larger than memory gives the same rows as ranking in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ranked_folders import columns_of, drawn, folder_of

from donod_fast.errors import InputError, StoreError
from donod_fast.kernels.topsis import DEFAULT_NORMALISE, NORMALISATIONS, column_constants, topsis_from_constants
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import SCORE_COLUMNS, schema
from donod_fast.selection.column_methods import OWN_METHODS
from donod_fast.selection.keeping import keep
from donod_fast.selection.out_of_core import cutting, loading, rank_parts, ranked
from donod_fast.selection.ranking import merit, rank

BIG_METHODS = [method for method in OWN_METHODS if method not in ("pareto", "don-threshold")]
PARTS = [7, 1000, 1, 400, 92]
WEIGHTS = (0.3, 0.7)


def folder_with(place: Path, columns: dict[str, Any]) -> ScoresFolder:
    rows = len(columns["don"])
    return folder_of(place / "scores", columns, PARTS if rows == sum(PARTS) else [rows])


@pytest.fixture(params=["tied", "skewed"], scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    return folder_with(tmp_path_factory.mktemp(request.param), drawn(sum(PARTS), grid=request.param == "tied"))


def assert_same_as_in_memory(folder: ScoresFolder, method: str, keeps: Sequence[float | int], **options: Any) -> None:
    """Same rows in the same order, by both engines."""
    how = {"normalise": options.get("normalise", DEFAULT_NORMALISE)}
    in_memory = rank(columns_of(folder, options.get("lr")), method, weights=WEIGHTS, seed=3, **how)
    with rank_parts(folder, method, weights=WEIGHTS, seed=3, temp_dir=folder.path, **options) as big:
        assert big.scored == len(in_memory.order) and big.total == in_memory.total
        for share in keeps:
            chosen = big.keep(keep=share, best_first=True)
            wanted = keep(in_memory, keep=share).tolist()
            assert chosen.best_first == wanted, (method, share)
            assert list(chosen.rows) == sorted(wanted)
            assert [group.kept for group in chosen.groups] == [len(wanted)]
    assert not list(folder.path.glob(".donod-fast-rank*"))


@pytest.mark.parametrize("method", BIG_METHODS)
def test_every_method_keeps_the_same_rows_in_the_same_order(folder: ScoresFolder, method: str) -> None:
    assert_same_as_in_memory(folder, method, [1, 2, 0.05, 0.3, 777, 1.0])


@pytest.mark.parametrize("lr", [None, 0.1])
@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("method", ["topsis", "nodon"])
def test_every_normalisation_keeps_the_rows_that_it_keeps_in_memory(
    folder: ScoresFolder, method: str, normalise: str, lr: float | None
) -> None:
    assert_same_as_in_memory(folder, method, [1, 0.05, 0.3, 777], normalise=normalise, lr=lr)


def test_an_unknown_normalisation_is_refused_by_every_method(folder: ScoresFolder) -> None:
    for method in ("topsis", "random", "loss", "scored_tokens@low"):
        with pytest.raises(InputError, match="normalise must be one of vector, range, sum"):
            rank_parts(folder, method, normalise="max")
        with pytest.raises(InputError, match="normalise must be one of vector, range, sum"):
            rank(columns_of(folder), method, normalise="max")


@pytest.mark.parametrize("method", BIG_METHODS)
def test_another_learning_rate_gives_the_same_rows_as_in_memory(folder: ScoresFolder, method: str) -> None:
    assert_same_as_in_memory(folder, method, [0.3], lr=0.1)


def test_batches_and_windows_and_bins_do_not_matter(folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_BATCH_ROWS", 1)
    monkeypatch.setattr(ranked, "_MARKED", 64)
    monkeypatch.setattr(cutting, "_BINS", 1)
    monkeypatch.setattr(cutting, "_FEWEST", 2)
    for method in ("topsis", "nodon", "random"):
        assert_same_as_in_memory(folder, method, [1, 0.3])


@pytest.mark.parametrize("quantile", [0, 0.3, 0.5, 1 / 3, 1])
def test_a_quantile_of_don_keeps_what_it_keeps_in_memory(folder: ScoresFolder, quantile: float) -> None:
    in_memory = rank(columns_of(folder), "don-threshold")
    with rank_parts(folder, "don-threshold") as big:
        wanted = keep(in_memory, don_quantile=quantile).tolist()
        assert big.keep(don_quantile=quantile, best_first=True).best_first == wanted


def test_a_threshold_of_don_keeps_what_it_keeps_in_memory(folder: ScoresFolder) -> None:
    in_memory = rank(columns_of(folder), "don-threshold")
    with rank_parts(folder, "don-threshold") as big:
        assert big.highest == float(in_memory.value.max())
        for threshold in (-1e9, 0.0, -0.0, 1e-5, 0.25, big.highest):
            wanted = keep(in_memory, don_threshold=threshold).tolist()
            assert big.keep(don_threshold=threshold, best_first=True).best_first == wanted
        assert len(big.keep(don_threshold=1e9).rows) == 0


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("method", ["topsis", "weighted", "nodon", "don", "nod"])
@pytest.mark.parametrize(
    ("don", "nod"),
    [
        ([1.0] * 20, [2.0] * 20),  # nothing but ties
        ([0.0, -0.0] * 10, [5e-324 * k for k in range(20)]),  # zeros of both signs; the least numbers there are
        (
            [(k - 9.5) * 1.6e307 for k in range(20)],
            [1e-300 * k for k in range(20)],
        ),  # a range beyond the largest number
        ([math.nan] * 19 + [3.0], [math.nan] * 19 + [1.0]),  # one scored row
    ],
)
def test_extreme_columns_rank_as_in_memory(
    tmp_path: Path, method: str, don: list[float], nod: list[float], normalise: str
) -> None:
    if normalise != DEFAULT_NORMALISE and method not in ("topsis", "nodon"):
        pytest.skip("the method has no normalisation")
    folder = folder_with(tmp_path, {"don": don, "nod": nod})
    assert_same_as_in_memory(folder, method, [1, 7, 1.0] if don[0] == don[0] else [1], normalise=normalise)


@pytest.mark.parametrize("method", ["topsis", "weighted"])
def test_the_value_of_a_row_does_not_depend_on_other_rows_bit_for_bit(method: str) -> None:
    columns = drawn(30_000, seed=2)
    scored = ~np.isnan(columns["don"])
    don, nod = (torch.from_numpy(columns[name][scored]) for name in ("don", "nod"))
    constants = column_constants(don), column_constants(nod)

    def value(don: torch.Tensor, nod: torch.Tensor) -> torch.Tensor:
        return merit(method, don, nod, None, weights=WEIGHTS, constants=constants, draw=None)

    whole = value(don, nod)
    pieces = [value(*piece) for piece in zip(don.split(5), nod.split(5), strict=True)]  # ends of vectors elsewhere
    assert torch.cat(pieces).numpy().tobytes() == whole.numpy().tobytes()


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("lr", [None, 0.1])
def test_values_equal_the_kernels_bit_for_bit_with_footer_constants(
    folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch, lr: float | None, normalise: str
) -> None:
    monkeypatch.setattr(loading, "_BATCH_ROWS", 300)
    columns = columns_of(folder, lr)
    scored = ~columns.don.isnan()
    don, nod = columns.don[scored] + 0.0, columns.nod[scored] + 0.0
    constants = folder.constants() if lr is None else (column_constants(don), column_constants(nod))
    wanted = topsis_from_constants(don, nod, *constants, weights=WEIGHTS, normalise=normalise)
    with rank_parts(folder, weights=WEIGHTS, normalise=normalise, lr=lr) as big:
        found = big._database.columns("SELECT row, value FROM merit ORDER BY row")
    assert found["row"].tolist() == columns.row[scored].tolist()
    if lr is None:
        assert found["value"].tobytes() == wanted.numpy().tobytes()
    else:  # sums in another order
        np.testing.assert_allclose(found["value"], wanted, rtol=1e-14)


def test_a_ranking_larger_than_memory_uses_disk_and_keeps_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, limit = 1_300_000, 8 << 20
    monkeypatch.setattr(ranked, "_LEAST", limit)
    monkeypatch.setattr(loading, "_BATCH_ROWS", 1 << 16)
    monkeypatch.setattr(cutting, "_BINS", 1 << 12)
    folder = folder_of(tmp_path / "scores", drawn(rows), [rows // 13] * 13)
    in_memory = rank(columns_of(folder), "random")
    with rank_parts(folder, "random", memory=1, temp_dir=tmp_path, threads=1) as big:
        on_disk = sum(file.stat().st_size for file in tmp_path.glob(".donod-fast-rank*/*"))
        (held,) = big._database.one("SELECT sum(memory_usage_bytes) FROM duckdb_memory()")
        assert on_disk > limit >= held
        chosen = big.keep(keep=0.3, best_first=True)  # sorts more than fits
        wanted = keep(in_memory, keep=0.3)
        assert chosen.best_first == wanted.tolist()
        assert list(chosen.rows) == wanted.sort().values.tolist()
        monkeypatch.setattr(cutting, "_BINS", 1 << 18)
        with pytest.raises(StoreError, match="raise --memory"):
            big.keep(keep=0.3)


@pytest.mark.parametrize("method", ["topsis", "don", "nodon"])
def test_the_ends_are_the_best_and_the_worst_rows_in_memory(folder: ScoresFolder, method: str) -> None:
    columns = columns_of(folder)
    in_memory = rank(columns, method)
    with rank_parts(folder, method) as big:
        for count in (1, 4, 10**6):
            ranking, scores, ranks = big.ends(count)
            places = torch.tensor(ranks) - 1
            assert ranks == sorted({*range(1, big.scored + 1)[:count], *range(1, big.scored + 1)[-count:]})
            assert torch.equal(ranking.order, in_memory.order[places])
            torch.testing.assert_close(ranking.value, in_memory.value[places], rtol=1e-12, atol=0)
            if count < 10:
                assert torch.equal(scores.don, columns.don[ranking.order])
                assert torch.equal(scores.loss, columns.loss[ranking.order])


def test_what_cannot_be_ranked_is_refused_with_the_reason(folder: ScoresFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pareto compares all rows"):
        rank_parts(folder, "pareto")
    with pytest.raises(InputError, match="unknown method"):
        rank_parts(folder, "best")
    with pytest.raises(InputError, match="not both be zero"):
        rank_parts(folder, "don", weights=(0, 0))
    with pytest.raises(InputError, match="seed must be"):
        rank_parts(folder, "random", seed=-1)
    with pytest.raises(InputError, match="lr must be finite"):
        rank_parts(folder, lr=math.inf)
    with pytest.raises(StoreError, match="its folder does not exist"):
        rank_parts(folder, temp_dir=tmp_path / "absent")
    with rank_parts(folder, "don") as big:
        with pytest.raises(InputError, match="takes keep; don_threshold"):
            big.keep(don_quantile=0.5)
        with pytest.raises(InputError, match="100 rows in the order best first do not fit"):
            big.keep(keep=100, best_first=True, most=99)


@pytest.mark.parametrize(
    ("don", "nod", "told"),
    [
        ([1.0, math.inf], [1.0, 1.0], "column don has an infinite score, at row 1"),
        ([1.0, 1.0, math.nan], [1.0, 1.0, 2.0], "row 2 has only one of don and nod"),
    ],
)
def test_scores_that_are_none_are_refused_by_row(tmp_path: Path, don: list[float], nod: list[float], told: str) -> None:
    folder = folder_with(tmp_path, {"don": don, "nod": nod})
    for method in ("topsis", "don"):
        with pytest.raises(InputError, match=told):
            rank_parts(folder, method, temp_dir=tmp_path)
    assert not list(tmp_path.glob(".donod-fast-rank*"))


def test_rows_without_any_score_are_nothing_to_select_from(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, dict.fromkeys(SCORE_COLUMNS, [math.nan] * 3))
    for lr in (None, 0.1):
        with rank_parts(folder, lr=lr) as big, pytest.raises(InputError, match="none of the 3 rows has scores"):
            big.keep(keep=0.5)


def test_a_damaged_and_an_absent_part_are_found(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, drawn(sum(PARTS)))
    file = folder.path / folder.part_name(1)
    whole = file.read_bytes()
    place = pq.read_metadata(file).row_group(0).column(schema().get_field_index("nod")).data_page_offset
    damaged = bytearray(whole)
    damaged[place + 200] ^= 4
    file.write_bytes(damaged)
    for method in ("topsis", "don", "random"):
        with pytest.raises(StoreError, match=rf"{file.name} is damaged"):
            rank_parts(folder, method, temp_dir=tmp_path)
    file.write_bytes(whole)
    rank_parts(folder).close()
    file.unlink()
    with pytest.raises(StoreError, match="unfinished"):
        rank_parts(folder)
    assert not list(tmp_path.glob(".donod-fast-rank*"))
