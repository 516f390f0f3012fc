"""Subsets without duplicates and spread subsets, by both engines, against a literal greedy rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranked_folders import columns_of, drawn, folder_of

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.dedupe import record_texts
from donod_fast.selection.keeping import kept_count
from donod_fast.selection.out_of_core.shares import shares
from donod_fast.selection.rankers import Kept, RankOptions, ranked
from donod_fast.selection.ranking import rank

COUNT = 90
SOURCES: list[str | None] = [("web", "code", None)[at * 7 % 3] for at in range(COUNT)]


@pytest.fixture(params=[False, True], ids=["values", "ties"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScoresFolder:
    """Scores whose records have texts of :func:`text_of`, and embeddings of a few directions."""

    def texts(folder: ScoresFolder, wanted: Callable[[int], bool] | None = None) -> Iterator[tuple[int, str]]:
        yield from ((row, text_of(row)) for row in range(COUNT) if wanted is None or wanted(row))

    monkeypatch.setattr(record_texts, "record_texts", texts)
    return folder_of(
        tmp_path / "scores",
        drawn(COUNT, 3, grid=request.param),
        (40, 30, 20),
        {"source": SOURCES},
        signals={"embedding": {"embedding": vectors()}},
    )


def text_of(row: int) -> str:
    """One of some texts, most of them shared by rows; a few are empty."""
    return "" if row % 17 == 5 else f"text {np.random.default_rng(row).integers(40)}"


def vectors() -> Any:
    """Rows of a few directions, with noise that decides little; some are zero."""
    draw = np.random.default_rng(1)
    found = draw.normal(size=(25, 6))[draw.integers(0, 25, COUNT)] + draw.normal(size=(COUNT, 6)) * 0.05
    found[::19] = 0
    return found.astype(np.float32)


def chosen(folder: ScoresFolder, keep: float | int | None, quantile: float | None = None, **options: Any) -> Kept:
    with ranked(folder, RankOptions(**options)) as engine:
        return engine.keep(keep, None, quantile, True)


def literal(folder: ScoresFolder, method: str, key: Callable[[int], Any]) -> tuple[list[int], dict[int, int]]:
    """The order of all ranked rows, and of each dropped row the better row with the same key."""
    order = rank(columns_of(folder), method, seed=4).order.tolist()
    first: dict[Any, int] = {}
    dropped = {}
    for row in order:
        if key(row) and first.setdefault(key(row), row) != row:
            dropped[row] = first[key(row)]
    return order, dropped


METHODS = ("topsis", "nodon", "don", "loss", "random", "weighted")


@pytest.mark.parametrize("keep", [0.3, 20, 0.9, 10**6])
@pytest.mark.parametrize("engine", ["memory", "duckdb"])
def test_the_best_of_each_set_fills_the_share(folder: ScoresFolder, engine: str, keep: float | int) -> None:
    for method in METHODS:
        order, dropped = literal(folder, method, text_of)
        single = [row for row in order if row not in dropped]
        wanted = kept_count(keep, len(order))
        found = chosen(folder, keep, method=method, seed=4, dedupe="exact", engine=engine)
        assert list(found.rows) == single[:wanted]
        last = order.index(single[:wanted][-1])
        assert found.passed_over == sum(row in dropped for row in order[:last])
        assert found.missing == wanted - len(single[:wanted])
        (sets,) = found.sets
        pairs = {row: one.kept for one in sets for row in one.dropped}
        assert pairs == dropped and sets.rows == len(sets) + len(dropped)
        assert sets.without == sum(text_of(row) == "" for row in order) and sets.compared == len(order)


@pytest.mark.parametrize("keep", [0.4, 25])
def test_groups_fill_their_shares_and_share_their_duplicates(folder: ScoresFolder, keep: float | int) -> None:
    for method in METHODS:
        order, dropped = literal(folder, method, text_of)
        names = list(dict.fromkeys(SOURCES))
        members = {name: [row for row in order if SOURCES[row] == name] for name in names}
        given = dict(zip(names, shares(keep, [len(members[name]) for name in names]), strict=True))
        expected = {name: [row for row in rows if row not in dropped][: given[name]] for name, rows in members.items()}
        found = chosen(folder, keep, method=method, seed=4, dedupe="exact", by="source")
        rows = {row for one in expected.values() for row in one}
        assert list(found.rows) == [row for row in order if row in rows]
        assert {group.name: group.kept for group in found.groups} == {name: len(one) for name, one in expected.items()}
        assert [group.rows for group in found.groups] == [SOURCES.count(name) for name in names]
        assert found.missing == sum(given.values()) - len(rows)


@pytest.mark.parametrize("engine", ["memory", "duckdb"])
def test_a_threshold_keeps_what_is_above_it_and_no_duplicate(folder: ScoresFolder, engine: str) -> None:
    plain = list(map(int, chosen(folder, None, 0.4, method="don-threshold", engine=engine).rows))
    _, dropped = literal(folder, "don", text_of)
    found = chosen(folder, None, 0.4, method="don-threshold", engine=engine, dedupe="exact")
    assert list(found.rows) == [row for row in plain if row not in dropped]
    assert found.passed_over == len(plain) - len(found.rows) > 0 == found.missing


@pytest.mark.parametrize("kind", ["exact", "minhash", "embedding"])
def test_both_engines_drop_the_same_rows(folder: ScoresFolder, kind: str) -> None:
    memory, large = (chosen(folder, 0.5, dedupe=kind, engine=engine) for engine in ("memory", "duckdb"))
    assert list(memory.rows) == list(large.rows) and list(memory.sets[0]) == list(large.sets[0]) != []
    assert memory.as_json() == large.as_json()


def test_kept_questions_are_not_near_to_each_other(folder: ScoresFolder) -> None:
    found = chosen(folder, 1.0, dedupe="embedding", dedupe_threshold=0.9)
    (sets,) = found.sets
    unit = vectors() / np.maximum(np.linalg.norm(vectors(), axis=1), 1e-9)[:, None]
    kept = np.array(list(found.rows))
    cosines = unit[kept] @ unit[kept].T
    assert (cosines[np.triu_indices(len(kept), 1)] < 0.9 + 1e-6).all()
    for one in sets:
        for row, similarity in zip(one.dropped, one.similarity, strict=True):
            assert similarity == pytest.approx(float(unit[row] @ unit[one.kept]), abs=1e-5) and similarity >= 0.9
    assert len(kept) + len(sets.dropped) == sets.compared


@pytest.mark.parametrize("kind", ["kcenter", "kmeans", "facility"])
@pytest.mark.parametrize("by", [None, "source"])
def test_spread_rows_come_from_the_best_of_their_group(folder: ScoresFolder, kind: str, by: str | None) -> None:
    pytest.importorskip("sklearn", reason="the extra `criteria` is not installed")
    order, dropped = literal(folder, "topsis", text_of)
    found = chosen(folder, 15, diversify=kind, pool=2.5, by=by, dedupe="exact")
    names = list(dict.fromkeys(SOURCES)) if by else ["all"]
    of = {row: SOURCES[row] if by else "all" for row in order}
    members = {name: [row for row in order if of[row] == name and row not in dropped] for name in names}
    given = dict(zip(names, shares(15, [sum(of[row] == name for row in order) for name in names]), strict=True))
    pools = {name: members[name][: math.ceil(2.5 * given[name])] for name in names}
    rows = list(found.rows)
    assert rows == [row for row in order if row in set(rows)] and len(rows) == 15 == len(set(rows))
    for name in names:
        assert sum(row in pools[name] for row in rows) == given[name]
    spread = found.sets[1]
    assert spread.kind == kind and spread.compared == sum(map(len, pools.values()))
    for one in spread:
        assert one.kept in rows and not set(one.dropped) & set(rows)
    if by is None:
        assert (rows[0] == pools["all"][0]) or kind == "facility"


def test_one_candidate_for_each_row_is_the_plain_selection(folder: ScoresFolder) -> None:
    pytest.importorskip("sklearn", reason="the extra `criteria` is not installed")
    plain = list(map(int, chosen(folder, 20).rows))
    for kind in ("kcenter", "kmeans", "facility"):
        assert list(chosen(folder, 20, diversify=kind, pool=1.0).rows) == plain


def test_what_cannot_be_combined_is_refused(folder: ScoresFolder) -> None:
    for options, said in (
        ({"method": "kcenter", "dedupe": "exact"}, "needs a ranking of all rows"),
        ({"method": "kmeans-ifd", "diversify": "kmeans"}, "needs a ranking of all rows"),
        ({"dedupe": "exactly"}, "did you mean 'exact'"),
        ({"dedupe": "exact", "dedupe_threshold": 0.5}, "has no threshold"),
        ({"dedupe": "minhash", "dedupe_threshold": 1.5}, "above 0 and at most 1"),
        ({"dedupe_threshold": 0.5}, "is for --dedupe"),
        ({"pool": 2.0}, "is for --diversify"),
        ({"diversify": "kmeans", "pool": 0.5}, "at least 1 candidate"),
        ({"diversify": "k-means"}, "did you mean 'kmeans'"),
        ({"dedupe": "exact", "embedding_model": "m"}, "--embedding-model is for"),
        ({"dedupe": "exact", "memory": 100}, "raise --memory"),
        ({"diversify": "kcenter", "memory": 100, "engine": "memory"}, "raise --memory"),
    ):
        with pytest.raises(InputError, match=said):
            chosen(folder, 0.3, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--method don with --keep"):
        chosen(folder, None, 0.5, method="don-threshold", diversify="kcenter")


def test_without_embeddings_the_remedy_is_named(tmp_path: Path) -> None:
    bare = folder_of(tmp_path / "bare", drawn(30), (30,))
    for options in ({"dedupe": "embedding"}, {"diversify": "kcenter"}):
        with pytest.raises(InputError, match="--signals embedding"):
            chosen(bare, 0.3, **options)  # type: ignore[arg-type]
