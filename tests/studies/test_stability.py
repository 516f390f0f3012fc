"""The stability study: each point is a plain training on the selected rows, cached and compared seed by seed."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_parts import MODEL, clean_rows

from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.keeping import keep
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.studies.core.cells import Cell
from donod_fast.studies.core.finetune import fine_tune, tokenized
from donod_fast.studies.core.heldout import heldout_loss
from donod_fast.studies.core.settings import EpochTraining
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.stability.result import StabilityResult
from donod_fast.studies.stability.run import LOSS, run_stability
from donod_fast.studies.stability.settings import StabilitySettings

ROWS = 20
TRAINING = EpochTraining(epochs=1.0, learning_rate=1e-3, step_tokens=200)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(MODEL)


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, Any]]:
    return clean_rows(2 * ROWS)


@pytest.fixture(scope="module")
def heldout() -> list[dict[str, Any]]:
    return clean_rows(12, skip=60)


OPTIONS: dict[str, Any] = {
    "rows": ROWS,
    "seeds": 2,
    "proportions": (0.25, 1.0),
    "methods": ("topsis", "random", "loss"),
    "training": TRAINING,
    "planted": {"masked": 0.25},
}


def data(corpus: list[dict[str, Any]], heldout: list[dict[str, Any]]) -> StudyData:
    return StudyData(corpus, heldout=heldout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stability")


@pytest.fixture(scope="module")
def first(
    folder: Path, loaded: LoadedModel, corpus: list[dict[str, Any]], heldout: list[dict[str, Any]]
) -> tuple[StabilityResult, list[Cell]]:
    torch.set_num_threads(1)
    cells: list[Cell] = []
    settings = StabilitySettings(**OPTIONS)
    return run_stability(folder, loaded, data(corpus, heldout), settings, on_cell=cells.append), cells


def test_everything_kept_is_one_training_for_all_methods(first: tuple[StabilityResult, list[Cell]]) -> None:
    result, cells = first
    whole = [one for one in result.points if one.proportion == 1.0]
    assert len(whole) == 3 and len({one.by_seed for one in whole}) == 1
    trained = {str(cell.folder) for cell in cells if cell.kind == "trained"}
    assert len(trained) == 2 * (3 + 1)
    difference = next(one for one in whole if one.method == "topsis").against_random
    assert difference is not None and difference.value == difference.low == difference.high == 0.0


def test_a_point_is_a_training_on_the_selected_rows(
    tmp_path: Path, loaded: LoadedModel, corpus: list[dict[str, Any]], heldout: list[dict[str, Any]]
) -> None:
    # One seed over all rows, so that the rows are known.
    rows = corpus[:ROWS]
    result = run_stability(
        tmp_path,
        loaded,
        data(rows, heldout),
        StabilitySettings(rows=ROWS, seeds=1, proportions=(0.25,), methods=("nod",), training=TRAINING),
    )
    columns = ScoreColumns.from_table(Scorer(loaded).score_table(rows))
    chosen = sorted(keep(rank(columns, "nod"), keep=0.25).tolist())
    tuned = fine_tune(loaded, tokenized(loaded, [rows[i] for i in chosen]), replace(TRAINING, seed=0))
    loss = heldout_loss(tuned.model, heldout, tokenizer=loaded.tokenizer).loss
    (point,) = result.points
    assert point.by_seed == (pytest.approx(loss, rel=1e-6),)
    assert point.tokens == tuned.tokens
    assert result.base[LOSS] == pytest.approx(heldout_loss(loaded.model, heldout, tokenizer=loaded.tokenizer).loss)


def test_methods_are_compared_with_random_seed_by_seed(
    first: tuple[StabilityResult, list[Cell]],
) -> None:
    result, _ = first
    points = {(one.method, one.proportion): one for one in result.points}
    ours, random = points["loss", 0.25], points["random", 0.25]
    assert ours.against_random is not None and random.against_random is None
    expected = sum(a - b for a, b in zip(ours.by_seed, random.by_seed, strict=True)) / 2
    assert ours.against_random.value == pytest.approx(expected)
    assert ours.damaged == 0.0  # loss drops masked words on this model
    assert points["random", 1.0].damaged == 0.25


def test_a_second_run_trains_nothing(
    folder: Path,
    first: tuple[StabilityResult, list[Cell]],
    loaded: LoadedModel,
    corpus: list[dict[str, Any]],
    heldout: list[dict[str, Any]],
) -> None:
    cells: list[Cell] = []
    settings = StabilitySettings(**OPTIONS)
    assert run_stability(folder, loaded, data(corpus, heldout), settings, on_cell=cells.append) == first[0]
    assert cells and all(cell.cached for cell in cells)
    report = (folder / "report.md").read_text()
    assert "Δ vs random" in report and "25% masked" in report
    with (folder / "stability.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    assert (folder / "stability.png").is_file()


def test_another_measure_is_a_curve_of_its_own(
    tmp_path: Path, loaded: LoadedModel, corpus: list[dict[str, Any]], heldout: list[dict[str, Any]]
) -> None:
    def size(model: Any, tokenizer: Any) -> float:
        assert tokenizer is loaded.tokenizer
        return float(model.lm_head.weight.norm())

    result = run_stability(
        tmp_path,
        loaded,
        data(corpus, heldout),
        StabilitySettings(rows=10, seeds=1, proportions=(0.5,), methods=("random",), training=TRAINING),
        measures={"size": size},
    )
    assert list(result.base) == [LOSS, "size"]
    assert result.base["size"] == pytest.approx(float(loaded.model.lm_head.weight.norm()))
    (point,) = [one for one in result.points if one.measure == "size"]
    assert point.by_seed[0] != result.base["size"]
    assert "## size" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"methods": ("topsis", "luck")}, "luck"),
        ({"proportions": (0.0,)}, "proportions"),
        ({"rows": 41}, "41"),
        ({"planted": {"masked": 0.7, "dropped": 0.7}}, "dropped"),
    ],
)
def test_a_wrong_option_is_named(
    tmp_path: Path,
    loaded: LoadedModel,
    corpus: list[dict[str, Any]],
    heldout: list[dict[str, Any]],
    wrong: dict[str, Any],
    name: str,
) -> None:
    with pytest.raises(InputError, match=name):
        run_stability(tmp_path, loaded, data(corpus, heldout), StabilitySettings(**{**OPTIONS, **wrong}))
