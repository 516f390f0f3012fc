"""The noise study: results compared with a separate computation, cached cells, and refused inputs."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from demo_parts import MODEL, clean_rows
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels import topsis
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.cells import Cell
from donod_fast.studies.core.corruptions import corrupt
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.noise.result import NoiseResult
from donod_fast.studies.noise.run import SCORES, run_noise
from donod_fast.studies.noise.settings import UPDATES, NoiseSettings

SHARED = Path(__file__).parents[2].parent / "shared"
ROWS = 40


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(MODEL)


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, Any]]:
    return clean_rows(ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(scope="module", params=["vector", "range"])
def result(
    folder: Path, loaded: LoadedModel, corpus: list[dict[str, Any]], request: pytest.FixtureRequest
) -> NoiseResult:
    """One seed over the whole corpus, so that its rows are known: all of them, in order."""
    torch.set_num_threads(1)
    updates = {name: UPDATES[name] for name in ("adamw", "sgd")}
    settings = NoiseSettings(rows=ROWS, seeds=1, kinds=["masked", "shuffled"], updates=updates, normalise=request.param)
    return run_noise(folder, loaded, StudyData(corpus), settings)


def whole(loaded: LoadedModel, rows: Sequence[dict[str, Any]], update: str) -> tuple[Tensor, Tensor, Tensor]:
    """DON, NOD and loss of a corpus that is scored as a whole."""
    table = Scorer(loaded, update=UpdateSettings(update)).score_table(list(rows))
    don, nod, loss = (torch.tensor(table.column(n).to_pylist(), dtype=torch.float64) for n in ("don", "nod", "loss"))
    return don, nod, loss


def best(merit: Tensor, count: int) -> list[int]:
    return [int(i) for i in merit.argsort(descending=True, stable=True)[:count]]


def brute_auc(higher: Tensor, lower: Tensor) -> float:
    above = higher[:, None] - lower[None, :]
    return float(((above > 0).double() + 0.5 * (above == 0)).mean())


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_overlap_equals_rescoring_the_whole_corpus_with_the_best_damaged(
    result: NoiseResult, loaded: LoadedModel, corpus: list[dict[str, Any]], update: str
) -> None:
    first = best(topsis(*whole(loaded, corpus, update)[:2], normalise=result.settings["normalise"]), 8)
    mixed = [
        corrupt(row, "masked", Random(f"0/masked/{i}"), corpus) if i in first else row for i, row in enumerate(corpus)
    ]
    second = best(topsis(*whole(loaded, mixed, update)[:2], normalise=result.settings["normalise"]), 8)
    found = next(one for one in result.overlaps if (one.update, one.kind) == (update, "masked"))
    assert found.estimate.value == len(set(first) & set(second)) / 8


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_separation_equals_that_of_a_corpus_with_the_damage_planted(
    result: NoiseResult, loaded: LoadedModel, corpus: list[dict[str, Any]], update: str
) -> None:
    bad = Random("0/planted").sample(range(ROWS), ROWS)[:8]
    mixed = [
        corrupt(row, "shuffled", Random(f"0/shuffled/{i}"), corpus) if i in bad else row for i, row in enumerate(corpus)
    ]
    assert all(mixed[i] != corpus[i] for i in bad)
    don, nod, loss = whole(loaded, mixed, update)
    is_bad = torch.tensor([i in bad for i in range(ROWS)])
    closeness = topsis(don, nod, normalise=result.settings["normalise"])
    for score, merit in {"topsis": closeness, "don": don, "nod": -nod, "loss": -loss}.items():
        found = next(
            one for one in result.separations if (one.update, one.kind, one.score) == (update, "shuffled", score)
        )
        assert found.auc.value == pytest.approx(brute_auc(merit[~is_bad], merit[is_bad]), abs=1e-12)
        assert found.kept.value == len(set(best(merit, 12)) & set(bad)) / 8


def test_loss_finds_masked_words_and_nodon_is_the_reverse_of_topsis(result: NoiseResult) -> None:
    found = {(one.kind, one.score): one.auc.value for one in result.separations if one.update == "adamw"}
    assert found["masked", "loss"] > 0.95
    assert found["masked", "nodon"] == pytest.approx(1 - found["masked", "topsis"])


def test_a_second_run_scores_nothing_and_another_kind_only_what_is_new(
    tmp_path: Path, folder: Path, result: NoiseResult, loaded: LoadedModel, corpus: list[dict[str, Any]]
) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "copy"))
    updates = {name: UPDATES[name] for name in ("adamw", "sgd")}
    cells: list[Cell] = []
    how = result.settings["normalise"]
    settings = NoiseSettings(rows=ROWS, seeds=1, kinds=["masked", "shuffled"], updates=updates, normalise=how)
    again = run_noise(folder, loaded, StudyData(corpus), settings, on_cell=cells.append)
    assert again == result
    assert cells and all(cell.cached for cell in cells)
    cells.clear()
    one = {"adamw": UPDATES["adamw"]}
    settings = NoiseSettings(rows=ROWS, seeds=1, kinds=["masked", "truncated"], updates=one)
    run_noise(folder, loaded, StudyData(corpus), settings, on_cell=cells.append)
    assert [cell.cached for cell in cells] == [True, True, False]


def test_each_seed_has_its_own_rows_and_the_interval_is_over_seeds(
    tmp_path: Path, loaded: LoadedModel, corpus: list[dict[str, Any]]
) -> None:
    updates = {"adamw": UPDATES["adamw"]}
    settings = NoiseSettings(rows=20, seeds=2, kinds=["masked"], updates=updates)
    found = run_noise(tmp_path, loaded, StudyData(corpus), settings)
    assert found.settings["disjoint"] is True
    (one,) = found.overlaps
    assert len(one.by_seed) == 2
    assert one.estimate.value == pytest.approx(sum(one.by_seed) / 2)
    assert 0 <= one.estimate.low <= one.estimate.value <= one.estimate.high <= 1


def test_rows_that_a_kind_cannot_damage_stay_clean_and_are_counted(tmp_path: Path, loaded: LoadedModel) -> None:
    numbers = clean_rows(6, digits=True)
    words = [row for row in clean_rows(60) if not any(c.isdigit() for c in row["output"])][:14]
    assert len(words) == 14
    updates = {"sgd": UPDATES["sgd"]}
    settings = NoiseSettings(rows=20, seeds=1, kinds=["wrong_numbers"], updates=updates, planted=0.9)
    found = run_noise(tmp_path, loaded, StudyData([*numbers, *words]), settings)
    assert found.unchanged == {"wrong_numbers": 14}
    assert "14 rows by wrong_numbers" in (tmp_path / "report.md").read_text()
    with pytest.raises(InputError, match="damaged"):
        run_noise(tmp_path, loaded, StudyData(words), replace(settings, rows=14, planted=0.2))


def test_the_report_has_every_figure_and_the_files_agree(folder: Path, result: NoiseResult) -> None:
    report = (folder / "report.md").read_text()
    with (folder / "separation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * len(SCORES) == len(result.separations)
    kept = json.loads((folder / "result.json").read_text())
    for row, one, plain in zip(rows, result.separations, kept["separations"], strict=True):
        assert (row["update"], row["kind"], row["score"]) == (one.update, one.kind, one.score)
        assert float(row["auc"]) == pytest.approx(one.auc.value, rel=1e-5) == pytest.approx(plain["auc"][0], rel=1e-5)
        assert one.auc.text(2) in report
    assert (folder / "noise.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"rows": 9}, "rows"),
        ({"rows": 41}, "41"),
        ({"seeds": 0}, "seeds"),
        ({"kinds": ["masked", "burnt"]}, "burnt"),
        ({"top": 1.0}, "top"),
        ({"keep": 0.0}, "keep"),
    ],
)
def test_a_wrong_option_is_named(
    tmp_path: Path, loaded: LoadedModel, corpus: list[dict[str, Any]], options: dict[str, Any], name: str
) -> None:
    with pytest.raises(InputError, match=name):
        run_noise(tmp_path, loaded, StudyData(corpus), NoiseSettings(**{"rows": ROWS, **options}))


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the real data of ../shared is absent")
def test_on_real_rows_sgd_prefers_masked_words_and_adamw_does_not(tmp_path: Path) -> None:
    # The reason why AdamW is the default (design of the scores, "Which optimizer").
    updates = {name: UPDATES[name] for name in ("adamw", "sgd")}
    found = run_noise(
        tmp_path,
        SHARED / "models" / "tiny-instruct",
        StudyData(SHARED / "data" / "gsm8k" / "test.jsonl"),
        NoiseSettings(rows=30, seeds=1, kinds=["masked"], updates=updates),
    )
    auc = {(one.update, one.score): one.auc.value for one in found.separations}
    assert auc["sgd", "topsis"] < 0.3 < auc["adamw", "topsis"]
    assert auc["sgd", "don"] < 0.3
