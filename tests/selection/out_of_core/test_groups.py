"""A share of each group: by a carried column or by input file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ranked_folders import columns_of, drawn, folder_of

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.keeping import kept_count
from donod_fast.selection.out_of_core import GroupCount, loading, rank_parts
from donod_fast.selection.out_of_core.groups import groups_by
from donod_fast.selection.out_of_core.shares import shares
from donod_fast.selection.ranking import rank

PARTS = [5, 600, 3, 392]
ROWS = sum(PARTS)
NAMES = ("web", None, "code", "", "never scored")
METHODS = ("topsis", "don", "nod", "weighted", "nodon", "loss", "random")


def source_of(row: int) -> str | None:
    """Groups of unequal size, in no order; the last one has no scored row."""
    return NAMES[(row * row + 3 * row) % 11 % 4] if row % 97 else NAMES[4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    columns = drawn(ROWS, seed=5, grid=True)
    sources = [source_of(row) for row in range(ROWS)]
    for column in columns.values():
        column[[source == NAMES[4] for source in sources]] = np.nan
    place = tmp_path_factory.mktemp("groups") / "scores"
    return folder_of(place, columns, PARTS, {"source": sources, "file": sources}, [("a.jsonl", 605), ("b.jsonl", 395)])


def in_memory(folder: ScoresFolder, method: str, groups: list[str | None]) -> dict[str | None, list[int]]:
    """The rows of each group, best first."""
    order = rank(columns_of(folder), method, seed=2).order.tolist()
    return {name: [row for row in order if groups[row] == name] for name in dict.fromkeys(groups)}


@pytest.mark.parametrize("method", METHODS)
def test_the_best_of_each_group_are_kept(folder: ScoresFolder, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_BATCH_ROWS", 100)
    sources = [source_of(row) for row in range(ROWS)]
    best = in_memory(folder, method, sources)
    scored = [len(rows) for rows in best.values()]
    ranks = rank(columns_of(folder), method, seed=2).order.tolist()
    with rank_parts(folder, method, by="source", seed=2) as big:
        for share in (0.01, 0.3, 1.0, 1, 7, 400):
            wanted = shares(share, scored)
            chosen = big.keep(keep=share, best_first=True)
            expected = {row for rows, count in zip(best.values(), wanted, strict=True) for row in rows[:count]}
            assert set(chosen.rows) == expected and len(chosen.rows) == sum(wanted)
            # by rank over all groups
            assert chosen.best_first == [row for row in ranks if row in expected]
            assert chosen.groups == tuple(
                GroupCount(name, sources.count(name), rows, count)
                for name, rows, count in zip(best, scored, wanted, strict=True)
            )


def test_a_group_with_a_scored_row_keeps_one_and_one_without_keeps_none(folder: ScoresFolder) -> None:
    with rank_parts(folder, by="source") as big:
        kept = {group.name: group.kept for group in big.keep(keep=1e-6).groups}
    assert kept == {"web": 1, None: 1, "code": 1, "": 1, "never scored": 0}


def test_a_quantile_is_of_each_group_and_a_threshold_of_all(folder: ScoresFolder) -> None:
    sources = [source_of(row) for row in range(ROWS)]
    don = columns_of(folder).don.numpy()
    with rank_parts(folder, "don-threshold", by="source") as big:
        expected = set()
        for name in NAMES[:4]:
            rows = [row for row in range(ROWS) if sources[row] == name and don[row] == don[row]]
            bound = np.quantile(don[rows], 0.6, method="higher")
            expected |= {row for row in rows if don[row] >= bound}
        assert set(big.keep(don_quantile=0.6).rows) == expected
        assert set(big.keep(don_threshold=0.25).rows) == set(np.flatnonzero(don >= 0.25).tolist())


def test_inputs_are_groups_by_the_name_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "scores", drawn(ROWS), PARTS, inputs=[("a.jsonl", 605), ("b.jsonl", 395)])
    columns = columns_of(folder)
    order = rank(columns).order
    with rank_parts(folder, by="file") as big:
        chosen = big.keep(keep=0.3)
    for group, inside in zip(chosen.groups, (order < 605, order >= 605), strict=True):
        rows = order[inside]
        assert group.scored == len(rows) and group.kept == kept_count(0.3, len(rows))
        assert all(row in chosen.rows for row in rows[: group.kept].tolist())
    assert [(group.name, group.rows) for group in chosen.groups] == [("a.jsonl", 605), ("b.jsonl", 395)]
    assert len(chosen.rows) == sum(group.kept for group in chosen.groups)


def test_many_groups_of_a_few_rows_are_cut_one_by_one(tmp_path: Path) -> None:
    names = [f"g{row % 3001}" for row in range(9000)]
    folder = folder_of(tmp_path / "scores", drawn(9000, seed=1), [9000], {"source": names})
    best = in_memory(folder, "topsis", names)
    with rank_parts(folder, by="source") as big:
        chosen = big.keep(keep=0.5)
    assert set(chosen.rows) == {row for rows in best.values() for row in rows[: kept_count(0.5, len(rows) or 1)]}


def test_a_carried_column_comes_before_the_files_of_that_name(folder: ScoresFolder) -> None:
    assert groups_by(folder, "file").column == "record.file"
    assert groups_by(folder, None).names == [None]


def test_a_column_that_is_not_carried_is_refused_with_the_remedy(folder: ScoresFolder) -> None:
    with pytest.raises(InputError, match=r"--by lang: .* does not carry .*carries source, file.*--carry lang"):
        rank_parts(folder, by="lang")
