"""The ablation: every method and TOPSIS at the same share; work is shared with the sensitivity study."""

from __future__ import annotations

import pytest

from donod_fast.data.settings import MaskSettings
from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER
from donod_fast.errors import InputError
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.settings import TokenTraining
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.sensitivity.ablation import run_ablation
from donod_fast.studies.sensitivity.run import run_sensitivity
from donod_fast.studies.sensitivity.study_settings import AblationSettings, SensitivitySettings

ROLES = ("user", "assistant")
DATA = StudyData(CORPUS_FILE, rows=30, heldout=CORPUS_FILE, heldout_skip=800, heldout_rows=4)
OPTIONS = {
    "shares": {"shuffled": 0.15, "masked": 0.1},
    "training": TokenTraining(tokens=200, step_tokens=100, learning_rate=1e-3),
}


def run(out, *, cells=None, on_cell=None, **changes):
    options = {**OPTIONS, "keeps": (0.2, 0.4), "seeds": 0, "setting_seeds": 0, **changes}
    return run_ablation(out, MODEL_FOLDER, DATA, AblationSettings(**options), cells=cells, on_cell=on_cell)


def test_each_method_is_measured_at_each_share_and_all_rows_once(tmp_path):
    study = run(tmp_path)
    by = {(one.setting.name, one.keep): one for one in study.outcomes}
    for keep, rows in ((0.2, 6), (0.4, 12)):
        assert by["TOPSIS", keep].overlap == 1.0
        assert by["NODON (reverse of TOPSIS)", keep].overlap == 0.0
        low, high = (by[f"NOD alone, {way} first", keep] for way in ("low", "high"))
        assert low.ranking_auc("masked").value == pytest.approx(1 - high.ranking_auc("masked").value)
        assert {one.rows for one in study.outcomes if one.keep == keep} == {rows}
    assert [one.rows for one in study.outcomes if one.keep == 1.0] == [30]
    assert len(study.outcomes) == 2 * 11 + 1
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "report.md",
        "methods.csv",
        "separation.csv",
        "result.json",
    }


def test_the_update_that_scores_decides_all_lines(tmp_path):
    cells: list = []
    study = run(tmp_path, update=UpdateSettings("sgd"), keeps=(0.3,), on_cell=cells.append)
    assert {cell.settings["scoring"]["update"]["update"] for cell in cells} == {"sgd"}
    assert study.settings["update"]["update"] == "sgd"


def test_trainings_are_shared_with_the_sensitivity_study(tmp_path):
    shared, cells = tmp_path / "cells", []
    settings = SensitivitySettings(**OPTIONS, keep=0.2, axes=(), seeds=1)
    run_sensitivity(tmp_path / "s", MODEL_FOLDER, DATA, settings, cells=shared)
    study = run(tmp_path / "a", keeps=(0.2,), seeds=1, cells=shared, on_cell=cells.append)
    assert all(cell.cached for cell in cells)
    trained = {one.setting.name: one.seeds for one in study.outcomes}
    assert trained["TOPSIS"] == trained["all rows"] == 1 and trained["Pareto fronts"] == 0
    text = (tmp_path / "a" / "report.md").read_text()
    assert "At 20 %, held-out loss differs" in text


@pytest.mark.parametrize("changes", [{"keeps": ()}, {"keeps": (1.0,)}, {"setting_seeds": 1}])
def test_wrong_options_are_refused(tmp_path, changes):
    with pytest.raises(InputError):
        run(tmp_path, **changes)


def test_the_masks_of_the_data_decide_scores_and_losses(tmp_path):
    found = {}
    for train_on in ("all", "last"):
        rows = [
            {"messages": [{"role": role, "content": text} for text in (f"{n} and", f"{n} or") for role in ROLES]}
            for n in range(40)
        ]
        data = StudyData(rows, rows=12, heldout=rows[20:], heldout_rows=4, masks=MaskSettings(train_on=train_on))
        cells: list = []
        options = {**OPTIONS, "shares": {}, "keeps": (0.5,), "seeds": 0, "setting_seeds": 0}
        run_ablation(tmp_path, MODEL_FOLDER, data, AblationSettings(**options), on_cell=cells.append)
        found[train_on] = next(cell.result["don"] for cell in cells if cell.kind == "scores")
    assert found["all"] != found["last"]
