"""Greedy k-centre and equal shares of clusters against literal programs, in any order of rows; round-robin by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked_folders import columns_of, drawn, folder_of
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.column_methods import check_known, signals_of
from donod_fast.selection.coverage import cluster_balanced, even_shares, k_center
from donod_fast.selection.keeping import keep
from donod_fast.selection.out_of_core import rank_parts
from donod_fast.selection.rankers import RankOptions, ranked
from donod_fast.selection.ranking import ScoreColumns, rank

pytest.importorskip("sklearn", reason="the extra `criteria` is not installed")

NAN = math.nan


def made(count: int = 120, size: int = 5, seed: int = 0) -> tuple[Any, Any]:
    """Rows in any order, and embeddings of any length with copies and some that are missing."""
    draw = np.random.default_rng(seed)
    embeddings = draw.normal(size=(count, size)) * draw.uniform(0.1, 9, (count, 1))
    embeddings[draw.integers(0, count, 9)] = embeddings[draw.integers(0, count, 9)]
    embeddings[draw.integers(0, count, 3)] = NAN
    embeddings[7] = 0.0
    return draw.permutation(count) * 3, embeddings.astype(np.float32)


def literal_centres(rows: Any, embeddings: Any, count: int, first: int) -> list[int]:
    """Each time the row whose nearest chosen row is farthest, the first of equals, starting with ``first``."""
    unit = {
        int(row): vector / np.linalg.norm(vector)
        for row, vector in sorted(zip(rows, embeddings.astype(np.float64), strict=True), key=lambda pair: pair[0])
        if np.linalg.norm(vector) > 0
    }
    chosen = [first]
    while len(chosen) < count:
        rest = [row for row in unit if row not in chosen]
        nearest = {row: min(np.linalg.norm(unit[row] - unit[other]) for other in chosen) for row in rest}
        chosen.append(max(rest, key=lambda row: (round(nearest[row], 5), -row)))
    return chosen


@pytest.mark.parametrize("seed", [0, 1])
def test_centres_are_those_of_the_literal_rule_in_any_order(seed: int) -> None:
    rows, embeddings = made(seed=seed)
    found = k_center(rows, embeddings, 40, seed=seed)
    assert found.rows.tolist() == literal_centres(rows, embeddings, 40, int(found.rows[0]))
    assert found.value[0] == 2.0 and (np.diff(found.value) <= 0).all()
    assert found.candidates + found.without_embedding == len(rows) and found.without_embedding >= 2
    turned = np.random.default_rng(1).permutation(len(rows))
    again = k_center(rows[turned], embeddings[turned], 40, seed=seed)
    assert again.rows.tolist() == found.rows.tolist()
    assert k_center(rows, embeddings, 10, seed=seed).rows.tolist() == found.rows[:10].tolist()
    assert len({int(k_center(rows, embeddings, 1, seed=at).rows[0]) for at in range(9)}) > 3
    everything = k_center(rows, embeddings, 1.0, seed=seed)
    assert (
        sorted(everything.rows.tolist()) == sorted(set(everything.rows.tolist()))
        and len(everything.rows) == found.candidates
    )


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6), count=st.integers(0, 80))
def test_shares_are_as_even_as_the_sizes_allow(sizes: list[int], count: int) -> None:
    shares = even_shares(sizes, count)
    assert sum(shares) == min(count, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    most = max(shares)
    for share, size in zip(shares, sizes, strict=True):
        assert share == size or share >= most - 1


@pytest.mark.parametrize("by_value", [True, False])
def test_each_cluster_gives_its_best_rows_in_any_order(by_value: bool) -> None:
    draw = np.random.default_rng(3)
    embeddings = np.repeat(np.eye(4, dtype=np.float32), [30, 8, 3, 19], axis=0) + draw.normal(size=(60, 4)) * 0.01
    rows = draw.permutation(60)
    value = draw.integers(0, 6, 60).astype(float)
    value[draw.integers(0, 60, 4)] = NAN
    given_value = value if by_value else None
    found = cluster_balanced(rows, embeddings, 26, clusters=4, value=given_value, seed=5)
    owner = dict(zip(rows.tolist(), np.repeat(range(4), [30, 8, 3, 19]).tolist(), strict=True))
    of_row = dict(zip(rows.tolist(), value.tolist(), strict=True))
    chosen = [[row for row in found.rows.tolist() if owner[row] == group] for group in range(4)]
    usable = [
        [row for row in of_row if owner[row] == group and not (by_value and math.isnan(of_row[row]))]
        for group in range(4)
    ]
    assert sorted(map(len, chosen)) == sorted(even_shares([len(one) for one in usable], 26))
    if by_value:
        for kept, all_of_it in zip(chosen, usable, strict=True):
            assert kept == sorted(all_of_it, key=lambda row: (-of_row[row], row))[: len(kept)]
        assert found.without_value == int(np.isnan(value).sum())
    assert sum(one.kept for one in found.clusters) == 26 == len(set(found.rows.tolist()))
    assert (np.diff(found.value) <= 0).all()
    turned = draw.permutation(60)
    again = cluster_balanced(
        rows[turned], embeddings[turned], 26, clusters=4, value=value[turned] if by_value else None, seed=5
    )
    assert again.rows.tolist() == found.rows.tolist()
    other = cluster_balanced(rows, embeddings, 26, clusters=4, value=given_value, seed=6)
    assert (set(other.rows.tolist()) == set(found.rows.tolist())) == by_value


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: k_center(range(3), np.full((3, 2), NAN), 1), "none of the 3 rows has an embedding"),
        (lambda: k_center(range(3), np.ones((2, 2)), 1), "n rows and"),
        (lambda: k_center(range(3), np.eye(3), 1.5), "must be in"),
        (lambda: k_center(range(3), np.eye(3), 1, seed=-1), "seed must be"),
        (lambda: cluster_balanced(range(3), np.eye(3), 1, clusters=4), "at most --clusters 3"),
        (lambda: cluster_balanced(range(3), np.eye(3), 1, clusters=0), "at least 1"),
        (lambda: cluster_balanced(range(3), np.eye(3), 1, clusters=1, value=[NAN] * 3), "no row has an embedding and"),
    ],
)
def test_what_cannot_be_covered_is_refused(call: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        call()


def literal_turns(columns: dict[str, list[float]]) -> list[int]:
    order: list[int] = []
    while True:
        before = len(order)
        for values in columns.values():
            left = [row for row in range(len(values)) if row not in order and not math.isnan(values[row])]
            if left:
                order.append(max(left, key=lambda row: (values[row], -row)))
        if len(order) == before:
            return order


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rows=st.integers(1, 12), sets=st.integers(1, 3))
def test_sets_take_turns_as_by_hand(data: Any, rows: int, sets: int) -> None:
    values = st.one_of(st.just(NAN), st.integers(-2, 2).map(float))
    columns = {f"rds:{at}": data.draw(st.lists(values, min_size=rows, max_size=rows)) for at in range(sets)}
    more = {name: torch.tensor(one, dtype=torch.float64) for name, one in columns.items()}
    base = torch.zeros(rows, dtype=torch.float64)
    found = rank(ScoreColumns(torch.arange(rows), base, base, base, more), "rds-round-robin")
    assert found.order.tolist() == literal_turns(columns)
    assert bool((found.value.diff() <= 0).all())


@pytest.fixture(scope="module")
def with_sets(tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    draw = np.random.default_rng(2)
    found = {f"rds:{name}": draw.normal(size=60).tolist() for name in "ab"}
    return folder_of(tmp_path_factory.mktemp("turns") / "scores", drawn(60, 1), [40, 20], signals={"rds": found})


def test_turns_need_all_rows_in_memory_and_say_so(with_sets: ScoresFolder) -> None:
    assert len(keep(rank(columns_of(with_sets), "rds-round-robin"), keep=10)) == 10
    with pytest.raises(InputError, match="take turns; a turn depends on all before it"):
        rank_parts(with_sets, "rds-round-robin")
    done = invoke("rank", with_sets.name, "--method", "rds-round-robin", "--engine", "duckdb")
    assert_one_line_error(done, 2, "raise --memory, or rank in memory")
    with pytest.raises(InputError, match="needs columns bm25:SET"):
        rank(columns_of(with_sets), "bm25-round-robin")
    done = invoke("compare", with_sets.name, "--columns", "rds-round-robin,rds:a,rds:b,don")
    assert done.code == 0 and "rds-round-robin" in done.out


def test_turns_are_known_before_anything_is_scored() -> None:
    check_known("less_head-round-robin")
    assert signals_of(["rds-round-robin", "bm25", "loss@high"]) == ("rds", "bm25")
    for name in ("loss-round-robin", "nothing-round-robin", "-round-robin"):
        with pytest.raises(InputError):
            check_known(name)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("coverage")
    data = write_lines(place / "a.jsonl", short_rows(60, seed=5))
    options = ["--model", save_tiny("llama", place / "model"), "--device", "cpu", "--part-rows", "16"]
    done = invoke("score", data, *options, "--signals", "embedding,length", "--out", place / "out")
    assert done.code == 0, done.err
    return place / "out"


def selected(scores: Path, out: Path, *options: Any) -> tuple[list[str], dict[str, Any]]:
    done = invoke("select", scores, "--out", out, "--overwrite", "--json", "--order", "best", *options)
    assert done.code == 0, done.err
    return [json.loads(line)["id"] for line in out.read_bytes().splitlines()], json.loads(done.out)


def test_select_covers_by_the_folders_embeddings(scores: Path, tmp_path: Path) -> None:
    table = [row for row in ScoresFolder.open(scores).table().to_pylist() if row["embedding"] is not None]
    rows = [row["row"] for row in table]
    embeddings = np.array([row["embedding"] for row in table], np.float32)
    ids = {row["row"]: row["id"] for row in table}
    kept, told = selected(scores, tmp_path / "s.jsonl", "--method", "kcenter", "--keep", "12", "--seed", "4")
    assert kept == [ids[row] for row in k_center(rows, embeddings, 12, seed=4).rows.tolist()]
    assert (told["method"], told["kept"], told["scored"]) == ("kcenter", 12, len(rows))
    options = ["--method", "cluster-balanced", "--keep", "0.4", "--clusters", "5", "--within", "length@low"]
    kept, told = selected(scores, tmp_path / "s.jsonl", *options)
    value = [-row["length"] for row in table]
    wanted = cluster_balanced(rows, embeddings, 0.4, clusters=5, value=value)
    assert kept == [ids[row] for row in wanted.rows.tolist()]
    assert [one["kept"] for one in told["groups"]] == [one.kept for one in wanted.clusters]
    done = invoke("select", scores, "--out", tmp_path / "s.jsonl", "--overwrite", *options, "--explain")
    assert done.code == 0 and "cluster  kept  usable  rows" in done.out
    done = invoke("compare", scores, "--columns", "don,kcenter,cluster-balanced")
    assert done.code == 0 and "cluster-balanced" in done.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "kcenter"), "say how much to keep"),
        (("--method", "kcenter", "--keep", "3", "--by", "file"), "remove --by"),
        (("--method", "kcenter", "--keep", "3", "--engine", "duckdb"), "each choice depends on all others"),
        (("--method", "kcenter", "--keep", "3", "--memory", "10KB"), "kcenter holds all embeddings in memory"),
        (("--method", "kcenter", "--keep", "3", "--prefer", "high"), "remove --prefer"),
        (("--method", "kcenter", "--keep", "3", "--within", "length@low"), "--within is for --method cluster-balanced"),
        (("--method", "cluster-balanced", "--keep", "3", "--within", "length"), "which end"),
        (("--method", "cluster-balanced", "--keep", "3", "--within", "topsis"), "topsis is a method"),
        (("--method", "cluster-balanced", "--keep", "3", "--within", "el2n"), "add it with"),
        (("--method", "cluster-balanced", "--keep", "3", "--clusters", "99"), "fewer than --clusters 99"),
        (("--method", "kcentre", "--keep", "3"), "did you mean 'kcenter'"),
        (("--method", "rds-round-robin", "--keep", "3"), "needs columns rds:SET"),
        (("--method", "length", "--keep", "3"), "add --prefer high or --prefer low"),
    ],
)
def test_bad_options_are_refused_in_one_line(scores: Path, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    assert_one_line_error(invoke("select", scores, "--out", tmp_path / "s.jsonl", *options), 2, told)


def test_without_embeddings_the_signal_is_named(with_sets: ScoresFolder) -> None:
    for method in ("kcenter", "cluster-balanced"):
        with (
            pytest.raises(InputError, match=f"{method} needs embeddings of the questions: .*--signals embedding"),
            ranked(with_sets, RankOptions(method=method)),
        ):
            pass
    assert_one_line_error(invoke("rank", with_sets.name, "--method", "kcenter"), 2, "chooses rows and does not rank")
