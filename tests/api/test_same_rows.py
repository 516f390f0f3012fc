"""Scores in memory, from a folder by either engine, and ``donod-fast select`` choose the same rows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from api_cases import folder_over, in_memory, written_corpus
from ranked_folders import drawn
from score_runs import invoke

import donod_fast
from donod_fast.api.scores import Scores
from donod_fast.selection.column_methods import OWN_METHODS

ROWS = 90
METHODS = [*OWN_METHODS, "tokens@low", "entropy@high"]
SHARES: list[float | int | str] = [0.3, 7, 1.0, "45%", 0.01]
BY = [None, "source", "file"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose rows are tied in many columns, and of which some have no score."""
    root = tmp_path_factory.mktemp("same")
    first, sources = written_corpus(root / "a.jsonl", 50)
    second, more = written_corpus(root / "b.jsonl", ROWS - 50, seed=1)
    columns = drawn(ROWS, 3, grid=True)
    columns["entropy"] = columns["loss"] * 2
    folder_over(root / "scores", [first, second], columns, {"source": [*sources, *more]})
    return root / "scores"


def cases() -> list[tuple[str, float | int | str, str | None]]:
    """Each method without groups and with a kind of groups, and the shares in turn."""
    pairs = [(method, by) for at, method in enumerate(METHODS) for by in (None, BY[1 + at % 2])]
    return [(method, share, by) for (method, by), share in zip(pairs, itertools.cycle(SHARES), strict=False)]


def chosen(scores: Scores, method: str, share: float | int | str, by: str | None, **more: str) -> list[int]:
    """The rows in both orders; best first, they are in order of rank."""
    if method == "don-threshold":
        given = {"don_quantile": 0.4}
        orders = [scores.select(None, method, by, order=order, **given, **more) for order in ("input", "best")]
    else:
        orders = [scores.select(share, method, by, order=order, seed=5, **more) for order in ("input", "best")]
    assert orders[0].rows.tolist() == sorted(orders[1].rows.tolist())
    return [*orders[0].rows.tolist(), -1, *orders[1].rows.tolist()]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("method", "share", "by"), cases())
def test_every_way_chooses_the_same_rows(method: str, share: float | int | str, by: str | None, place: Path) -> None:
    folder = donod_fast.load_scores(place)
    memory = in_memory(folder.folder)
    if method == "pareto" and by is not None:
        for scores in (folder, memory):
            with pytest.raises(donod_fast.errors.InputError, match="pareto"):
                scores.select(share, method, by)
        return
    wanted = chosen(memory, method, share, by)
    assert chosen(folder, method, share, by) == wanted
    if method != "pareto":
        assert chosen(folder, method, share, by, engine="duckdb") == wanted
        assert chosen(memory, method, share, by, engine="duckdb") == wanted
    if by is None:
        assert chosen(folder, method, share, by, engine="memory") == wanted


@pytest.mark.parametrize(("method", "share", "by"), cases()[::3])
def test_a_selection_is_what_the_command_writes(
    method: str, share: float | int | str, by: str | None, place: Path, tmp_path: Path
) -> None:
    if method == "pareto":
        by = None
    amount = ["--don-quantile", "0.4"] if method == "don-threshold" else ["--keep", str(share)]
    group = [] if by is None else ["--by", by]
    for order in ("input", "best"):
        out = tmp_path / f"{order}.jsonl"
        done = invoke(
            "select", place, "--method", method, *amount, *group, "--seed", 5, "--order", order, "--out", out, "--quiet"
        )
        assert done.code == 0, done
        given = {"don_quantile": 0.4} if method == "don-threshold" else {"keep": share, "seed": 5}
        selection = in_memory(donod_fast.load_scores(place).folder).select(method=method, by=by, order=order, **given)
        own = selection.write(tmp_path / f"own-{order}.jsonl")
        assert own.read_bytes() == out.read_bytes()
        assert [json.loads(line) for line in out.read_text().splitlines()] == list(selection.records())


@pytest.mark.parametrize("method", METHODS)
def test_a_ranking_is_the_same_in_memory_and_by_duckdb(method: str, place: Path) -> None:
    folder = donod_fast.load_scores(place)
    memory = in_memory(folder.folder).rank(method, seed=5)
    assert np.all(np.diff(memory.values) <= 0)
    if method != "pareto":
        large = folder.rank(method, seed=5, engine="duckdb")
        assert large.rows.tolist() == memory.rows.tolist()
        np.testing.assert_allclose(large.values, memory.values, rtol=1e-12, atol=1e-15)
        assert folder.select(9, method if method != "don-threshold" else "don", order="best", seed=5).rows.tolist() == (
            memory.rows[:9].tolist()
        )


def test_another_learning_rate_ranks_alike(place: Path) -> None:
    folder = donod_fast.load_scores(place)
    found = [scores.select(0.3, lr=1e-3).rows.tolist() for scores in (folder, in_memory(folder.folder))]
    assert found[0] == found[1] == folder.select(0.3, lr=1e-3, engine="duckdb").rows.tolist()
    assert found[0] != folder.select(0.3).rows.tolist()
