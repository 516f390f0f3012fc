"""Filters: graph-cut against brute force and a recorded order, random draws, and quality by a score column."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from ranked_folders import folder_of

from donod_fast.errors import InputError, ModelError
from donod_fast.studies.damoc import graph_cut as module
from donod_fast.studies.damoc.filters import graph_cut, quality_filter, random_filter
from donod_fast.studies.damoc.graph_cut import graph_cut_value

SUBMODLIB_ORDER = (
    *(359, 130, 363, 117, 149, 155, 304, 299, 394, 127),
    *(266, 353, 301, 259, 334, 356, 62, 205, 202, 235),
)


def some_vectors(rows: int, dim: int = 4, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(rows, dim)) * 3.0


def objective(vectors: npt.NDArray[np.float64], chosen: list[int], trade_off: float) -> float:
    """The formula, term by term."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = [[max(0.0, float(a @ b)) for b in unit] for a in unit]
    covered = sum(alike[i][j] for i in range(len(vectors)) for j in chosen)
    return covered - trade_off * sum(alike[i][j] for i in chosen for j in chosen)


def greedy(vectors: npt.NDArray[np.float64], count: int, trade_off: float) -> tuple[int, ...]:
    chosen: list[int] = []
    for _ in range(count):
        left = [row for row in range(len(vectors)) if row not in chosen]
        chosen.append(max(left, key=lambda row: objective(vectors, [*chosen, row], trade_off)))
    return tuple(chosen)


@pytest.mark.parametrize("trade_off", [0.0, 0.2, 0.49])
def test_graph_cut_is_the_greedy_maximum_of_the_formula(trade_off: float) -> None:
    vectors = some_vectors(11, seed=1)
    wanted = greedy(vectors, 11, trade_off)
    found = graph_cut(vectors, len(wanted), trade_off)
    assert found == wanted
    assert graph_cut_value(vectors, found[:5], trade_off) == pytest.approx(
        objective(vectors, list(found[:5]), trade_off)
    )


def test_graph_cut_reaches_its_share_of_the_best_value() -> None:
    for seed in range(5):
        vectors = some_vectors(9, seed=seed)
        best = max(objective(vectors, list(rows), 0.45) for rows in combinations(range(9), 4))
        reached = objective(vectors, list(graph_cut(vectors, 4, 0.45)), 0.45)
        assert (1 - 1 / math.e) * best <= reached <= best * (1 + 1e-9)


def test_a_smaller_count_gives_a_prefix_and_copies_of_a_row_come_late() -> None:
    vectors = np.concatenate([np.eye(3), np.eye(3)[:1]])  # the fourth is the first again
    assert graph_cut(vectors, 4, 0.4) == (0, 3, 1, 2)  # 2 − λ, then 2 − 3λ = 0.8 against 1 − λ = 0.6
    assert graph_cut(vectors, 4, 0.49) == (0, 3, 1, 2)
    crowd = np.concatenate([np.tile([[1.0, 0.1, 0.0]], (3, 1)), np.eye(3)[1:]])
    assert graph_cut(crowd, 2, 0.4) == graph_cut(crowd, 5, 0.4)[:2]


def test_opposite_rows_count_as_unlike_and_no_less() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.01], [-1.0, 0.0]])
    assert graph_cut_value(vectors, [0, 2], 0.4) == pytest.approx(objective(vectors, [0, 2], 0.4))
    # Without the clip row 2 would lower the cover by two rows and be worth less than nothing.
    assert graph_cut_value(vectors, [0, 2], 0.4) > graph_cut_value(vectors, [0], 0.4)


def test_graph_cut_keeps_the_order_that_submodlib_gave() -> None:
    # Recorded from submodlib-py 0.0.3 (GraphCutFunction, LazyGreedy, dense, separate_rep False) on the same vectors.
    vectors = some_vectors(400, dim=24, seed=3)
    assert graph_cut(vectors, 20) == SUBMODLIB_ORDER


def test_blocks_of_similarities_do_not_change_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = some_vectors(50, dim=8, seed=4)
    whole = graph_cut(vectors, 20)
    few = module.similarity_blocks
    monkeypatch.setattr(module, "similarity_blocks", lambda a, b: few(a, b, workspace_bytes=4 * 50 * 7))
    assert graph_cut(vectors, 20) == whole


def test_many_rows_are_divided_into_parts_that_give_their_share() -> None:
    vectors = some_vectors(60, dim=6, seed=5)
    found = graph_cut(vectors, 20, part_rows=25, seed=7)
    assert len(set(found)) == 20
    assert found == graph_cut(vectors, 20, part_rows=25, seed=7) != graph_cut(vectors, 20, part_rows=25, seed=8)
    parts = [np.sort(part) for part in np.array_split(np.random.default_rng(7).permutation(60), 3)]
    counts = sorted(sum(row in part for row in found) for part in parts)
    assert counts == [6, 7, 7]
    for part in parts:
        chosen = [row for row in found if row in part]
        assert chosen == part[list(greedy(vectors[part], len(chosen), 0.4))].tolist()


def test_a_bad_argument_of_graph_cut_is_named() -> None:
    vectors = some_vectors(5)
    for trade_off in (0.5, -0.1, math.nan):
        with pytest.raises(InputError, match=r"below 0\.5"):
            graph_cut(vectors, 2, trade_off)
    for count in (0, 6):
        with pytest.raises(InputError, match=f"cannot choose {count} of 5"):
            graph_cut(vectors, count)
    with pytest.raises(InputError, match="shape"):
        graph_cut(vectors[0], 2)
    for wrong in (0.0, math.nan, math.inf):
        broken = vectors.copy()
        broken[3] = wrong
        with pytest.raises(ModelError, match="embedding 3 has no direction"):
            graph_cut(broken, 2)


def test_a_random_draw_is_of_its_seed_and_grows() -> None:
    found = random_filter(100, 20, seed=3)
    assert len(set(found)) == 20 and set(found) <= set(range(100))
    assert random_filter(100, 50, seed=3)[:20] == found != random_filter(100, 20, seed=4)
    with pytest.raises(InputError, match="cannot choose 101 of 100"):
        random_filter(100, 101)


def test_quality_takes_the_best_rows_and_skips_missing_values() -> None:
    table = pa.table(
        {
            "row": [4, 0, 1, 2, 3],
            "el2n": [0.5, math.nan, 0.9, 0.5, None],
            "flag": [True, False, True, None, False],
            "status": ["scored"] * 5,
        }
    )
    assert quality_filter(table, "el2n", 3) == (1, 2, 4)
    assert quality_filter(table, "el2n", 2, better="low") == (2, 4)
    assert quality_filter(table, "flag", 2) == (1, 4)
    for column, count, better, said in (
        ("el2n", 4, "high", "3 of the 5 rows"),
        ("el2n", 0, "high", "cannot choose 0"),
        ("ifd_ppl", 1, "high", "--signals"),
        ("status", 1, "high", "not numbers"),
        ("el2n", 1, "best", "'high' or 'low'"),
    ):
        with pytest.raises(InputError, match=said):
            quality_filter(table, column, count, better)


def test_quality_reads_a_scores_folder(tmp_path: Path) -> None:
    folder_of(tmp_path / "scores", {"loss": [0.5, 0.1, math.nan, 0.3, 0.1]}, [2, 3])
    assert quality_filter(tmp_path / "scores", "loss", 3, better="low") == (1, 4, 3)
    assert quality_filter(str(tmp_path / "scores"), "loss", 1) == (0,)
    with pytest.raises(InputError, match=r"scores has no column 'el2n'"):
        quality_filter(tmp_path / "scores", "el2n", 1)
