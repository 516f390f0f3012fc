"""The sensitivity study: each setting has its meaning, and work is done once."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER
from donod_fast.errors import InputError
from donod_fast.kernels import topsis
from donod_fast.kernels.topsis import NORMALISATIONS
from donod_fast.models.loading import load_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.core.finetune import (
    RowLosses,
    fine_tune,
    planned_course,
    row_losses,
    tokenized,
)
from donod_fast.studies.core.heldout import heldout_loss
from donod_fast.studies.core.settings import FineTuneSettings, TokenTraining
from donod_fast.studies.core.statistics import Estimate
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.core.tables import read_rows
from donod_fast.studies.sensitivity.measures import ANY, Measures, damaged_corpus, separation
from donod_fast.studies.sensitivity.outcome import Measured, Outcome, training_noise
from donod_fast.studies.sensitivity.report import findings
from donod_fast.studies.sensitivity.run import run_sensitivity
from donod_fast.studies.sensitivity.settings import (
    ALL,
    CLEAN,
    DEFAULT,
    EVERY,
    NOD_HIGH,
    RANDOM,
    Scoring,
    Setting,
    settings_of,
)
from donod_fast.studies.sensitivity.spread import balanced_weights, ranked, spread
from donod_fast.studies.sensitivity.study_settings import SensitivitySettings

TRAINING = TokenTraining(tokens=200, step_tokens=100, learning_rate=1e-3)
SHARES = {"shuffled": 0.15, "masked": 0.1}


@pytest.fixture(scope="module")
def measures(tmp_path_factory):
    data = StudyData(CORPUS_FILE, rows=40, heldout=CORPUS_FILE, heldout_skip=800, heldout_rows=8)
    corpus = damaged_corpus(data, SHARES)
    return Measures(CellStore(tmp_path_factory.mktemp("cells")), MODEL_FOLDER, corpus, TRAINING)


def columns(don, nod):
    numbers = [torch.tensor(column, dtype=torch.float64) for column in (don, nod)]
    return ScoreColumns(torch.arange(len(don)), *numbers, torch.zeros(len(don), dtype=torch.float64))


@pytest.mark.parametrize(
    ("update", "changes"),
    [("adamw", {"lr": 2e-3}), ("adamw", {"lr": 1e-3, "weight_decay": 0.01}), ("sgd", {"weight_decay": 0.1})],
)
def test_another_rate_or_decay_by_arithmetic_equals_scoring_anew(measures, update, changes):
    settings = UpdateSettings(update, **changes)
    scoring = Scoring(settings)
    assert scoring.base() != scoring
    table = Scorer(measures.loaded, update=settings).score_table(measures.corpus.records)
    nod = torch.tensor(table["nod"].to_pylist(), dtype=torch.float64)
    derived = measures.columns(scoring)
    torch.testing.assert_close(derived.nod, nod, rtol=1e-9, atol=0)
    don = torch.tensor(table["don"].to_pylist(), dtype=torch.float64)
    assert ((derived.don - don).abs() <= 1e-9 * nod).all()


def test_where_the_step_is_rounded_the_rate_is_not_derived():
    rounded = Scoring(UpdateSettings(lr=1e-4, storage_dtype="bfloat16"))
    assert rounded.base() == rounded


def test_with_the_prompt_scored_the_loss_is_that_of_every_token(measures):
    table = measures.columns(Scoring(scope=EVERY))
    for row in (0, 7):
        ids = torch.tensor([measures.samples[row].input_ids])
        with torch.no_grad():
            logits = measures.loaded.model(input_ids=ids).logits
        expected = torch.nn.functional.cross_entropy(logits[0, :-1].double(), ids[0, 1:])
        assert float(table.loss[row]) == pytest.approx(float(expected), rel=1e-4)


def test_a_model_in_bfloat16_is_scored_in_bfloat16(measures):
    lowered, full = measures.columns(Scoring(dtype="bfloat16")), measures.columns(Scoring())
    assert not torch.equal(lowered.loss, full.loss)
    torch.testing.assert_close(lowered.loss, full.loss, rtol=0.2, atol=0.05)


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_balanced_weights_rank_as_topsis_on_columns_in_standard_deviations(normalise):
    generator = torch.Generator().manual_seed(0)
    don = (3e-4 * torch.randn(50, generator=generator, dtype=torch.float64)).tolist()
    nod = (0.02 + 1e-4 * torch.randn(50, generator=generator, dtype=torch.float64)).tolist()
    table = columns(don, nod)
    x, y = table.don / table.don.std(), table.nod / table.nod.std()
    to_ideal, to_worst = torch.hypot(x - x.max(), y - y.min()), torch.hypot(x - x.min(), y - y.max())
    expected = to_worst / (to_ideal + to_worst)
    found = topsis(table.don, table.nod, weights=balanced_weights(table, normalise), normalise=normalise)
    torch.testing.assert_close(found, expected)
    own = ranked(table, Setting("weights", "balanced", weights=None, normalise=normalise))
    assert own.order.tolist() == expected.argsort(descending=True, stable=True).tolist()


def test_a_column_that_hardly_varies_has_no_say():
    found = spread(columns([1.0, -1.0, 2.0, -2.0], [100.0, 101.0, 99.0, 100.0]), "vector")
    assert found.don == math.inf and found.nod == pytest.approx(math.sqrt(0.5) / 100)
    assert found.nod_say == pytest.approx(0.00707 / 1.00707, rel=1e-3)  # DON has mean 0: its whole size is spread
    assert found.topsis_don == pytest.approx(1.0)
    assert spread(columns([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])).nod_say == pytest.approx(0.5)
    assert balanced_weights(columns([1.0, 2.0], [5.0, 5.0])) == (0.5, 0.5)
    assert balanced_weights(columns([1.0, 2.0], [5.0, 5.0000001])) == (0.5, 0.5)


def test_the_axis_of_normalisation_has_every_other_one():
    table = columns([0.0, 1.0, 2.0, 0.5], [100.0, 101.0, 101.5, 99.0])
    settings = {setting.normalise: setting for setting in settings_of(("normalise",))}
    assert sorted(settings) == sorted(NORMALISATIONS)
    for name, setting in settings.items():
        value = topsis(table.don, table.nod, normalise=name)
        assert ranked(table, setting).order.tolist() == value.argsort(descending=True, stable=True).tolist()


def test_nod_is_taken_in_both_directions():
    table = columns([0.0, 0.0, 0.0], [2.0, 1.0, 3.0])
    assert ranked(table, Setting("direction", "low", method="nod")).order.tolist() == [1, 0, 2]
    assert ranked(table, Setting("direction", "high", method=NOD_HIGH)).order.tolist() == [2, 0, 1]


def test_damaged_rows_are_known_and_held_out_rows_are_not_damaged():
    rows = [{"question": f"Question {i}?", "answer": f"it is {i + 10000}"} for i in range(20)]
    data = StudyData(rows, skip=5, rows=10, heldout=rows, heldout_skip=15)
    corpus = damaged_corpus(data, {"wrong_numbers": 0.4})
    changed = [record != row for record, row in zip(corpus.records, rows[5:15], strict=True)]
    assert [bool(kind) for kind in corpus.kinds] == changed and sum(changed) == 4
    assert corpus.damaged_share(range(10)) == 0.4
    assert corpus.heldout == rows[15:]


def test_separation_is_the_share_of_pairs_in_order():
    score = torch.tensor([3.0, 1.0, 2.0, 0.0, math.nan, 2.0], dtype=torch.float64)
    found = separation(score, ["", "masked", "", "shuffled", "", "masked"])
    assert found["masked"].value == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert found["shuffled"].value == 1.0
    assert found[ANY].value == pytest.approx((1 + 1 + 1 + 1 + 1 + 0.5) / 6)
    assert list(found) == [ANY, "masked", "shuffled"]
    assert separation(score, [""] * 6) == {}


def test_selections_that_look_at_no_score(measures):
    whole = measures.select(Setting("b", "all", method=ALL), 0.3)
    assert whole == tuple(range(40))
    clean = measures.select(Setting("b", "clean", method=CLEAN), 0.3, seed=1)
    assert len(clean) == 12 and not measures.corpus.damaged_share(clean)
    draws = {measures.select(Setting("b", "random", method=RANDOM), 0.3, seed) for seed in (0, 0, 1)}
    assert len(draws) == 2 and {len(draw) for draw in draws} == {12}
    with pytest.raises(InputError, match="undamaged"):
        measures.select(Setting("b", "clean", method=CLEAN), 0.9)


def test_training_visits_all_rows_equally_until_the_budget_is_spent():
    samples = tokenized(load_model(MODEL_FOLDER), read_rows(CORPUS_FILE, count=12))
    lengths = {sample.row: len(sample.input_ids) for sample in samples}
    for budget in range(400, 500, 9):
        course = planned_course(samples, FineTuneSettings(tokens=budget, seed=3))
        counts = [sum(sample.row == row for sample in course) for row in lengths]
        assert max(counts) - min(counts) <= 1
        assert abs(sum(lengths[sample.row] for sample in course) - budget) <= max(lengths.values()) / 2
    course = planned_course(samples, FineTuneSettings(tokens=2000, seed=3))
    assert course == planned_course(samples, FineTuneSettings(tokens=2000, seed=3))
    assert course != planned_course(samples, FineTuneSettings(tokens=2000, seed=4))
    assert sorted(sample.row for sample in planned_course(samples, FineTuneSettings())) == sorted(lengths)


def test_fine_tuning_learns_and_leaves_the_model_as_it_was():
    loaded = load_model(MODEL_FOLDER, dtype="float32")
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    records = [{"instruction": "Say it.", "output": "river stone lamp"}] * 4
    samples = tokenized(loaded, records)
    tuned = fine_tune(loaded, samples, FineTuneSettings(tokens=400, step_tokens=80, learning_rate=3e-3))
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.model.state_dict().items())
    old, new = (row_losses(model, loaded.tokenizer, records) for model in (loaded.model, tuned.model))
    assert new.loss < old.loss
    assert abs(tuned.tokens - 400) <= len(samples[0].input_ids) / 2 and tuned.steps >= 4
    with pytest.raises(InputError, match="can be trained"):
        fine_tune(loaded, [], FineTuneSettings())


def test_losses_by_row_add_up_to_the_held_out_loss_and_pair():
    loaded, rows = load_model(MODEL_FOLDER), read_rows(CORPUS_FILE, count=8)
    found, known = row_losses(loaded.model, loaded.tokenizer, rows), heldout_loss(loaded, rows)
    assert (found.loss, found.error) == pytest.approx((known.loss, known.error))
    assert found.less(found) == (0.0, 0.0)
    shifted = RowLosses(tuple(x + 0.5 * n for x, n in zip(found.sums, found.tokens, strict=True)), found.tokens)
    assert shifted.less(found) == pytest.approx((0.5, 0.0), abs=1e-9)  # the same on every row: no error
    assert RowLosses.mean([found, shifted]).loss == pytest.approx(found.loss + 0.25)
    with pytest.raises(InputError, match="same held-out rows"):
        found.less(RowLosses((1.0,), (1,)))


def run(out, *, on_cell=None, **changes):
    data = StudyData(CORPUS_FILE, rows=24, heldout=CORPUS_FILE, heldout_skip=800, heldout_rows=4)
    options = {"shares": SHARES, "axes": ("optimizer", "rate"), "seeds": 1, "training": TRAINING, **changes}
    return run_sensitivity(out, MODEL_FOLDER, data, SensitivitySettings(**options), on_cell=on_cell)


def test_a_study_run_again_does_no_work_and_writes_the_same_report(tmp_path):
    cells: list = []
    study = run(tmp_path / "study", on_cell=cells.append)
    trained = [cell for cell in cells if cell.kind == "train" and not cell.cached]
    selections = len({tuple(json.dumps(c.settings["rows"])) for c in trained})
    assert len(trained) == selections  # equal selections are one cell: those of other rates are the default's
    by_name = {outcome.setting.name: outcome for outcome in study.outcomes}
    assert by_name["2e-06"].loss == by_name["AdamW, TOPSIS"].loss
    assert by_name["AdamW, TOPSIS"].overlap == 1.0 and math.isnan(by_name["all rows"].overlap)
    assert by_name["random"].against_random is None and by_name["SGD"].against_random is not None
    assert by_name["random of the clean rows"].damaged == 0.0
    assert by_name["SGD"].ranking_auc("shuffled").value < 0.5  # the study's own point
    written = {path.name: path.read_bytes() for path in (tmp_path / "study").iterdir() if path.is_file()}
    assert set(written) == {"report.md", "settings.csv", "separation.csv", "spreads.csv", "result.json"}
    again: list = []
    assert run(tmp_path / "study", on_cell=again.append) == study
    assert again and all(cell.cached for cell in again)
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "study").iterdir() if path.is_file()}
    lines = list(csv.DictReader(written["settings.csv"].decode().splitlines()))
    assert [line["setting"] for line in lines] == list(by_name)


def test_without_training_the_study_is_of_overlap_and_separation(tmp_path):
    study = run(tmp_path, seeds=0, setting_seeds=0, axes=("weights",))
    assert study.base is None and all(outcome.loss is None for outcome in study.outcomes)
    text = (tmp_path / "report.md").read_text()
    assert "held-out" not in text and "Separation" in text


@pytest.mark.parametrize(
    ("changes", "names"),
    [({"axes": ("colour",)}, "colour"), ({"keep": 1.0}, "keep"), ({"seeds": 0}, "setting_seeds")],
)
def test_wrong_options_are_refused_by_name(tmp_path, changes, names):
    with pytest.raises(InputError, match=names):
        run(Path(tmp_path), **changes)


def test_training_noise_is_the_larger_of_the_two_spreads():
    assert training_noise([1.0, 1.0], [2.0]) == 0.0  # one training each: not known
    assert training_noise([1.0, 1.0, 1.2], [2.0, 2.01]) == pytest.approx(0.1 * math.sqrt(2))
    assert training_noise([1.0], [2.0, 2.3]) == pytest.approx(0.15 * math.sqrt(2))


def outcome(name, *, auc=0.5, loss=0.0, error=0.01, method="topsis", overlap=1.0):
    estimate = Estimate(auc, auc - 0.05, auc + 0.05)
    random = method == RANDOM
    return Outcome(
        setting=replace(DEFAULT, name=name, method=method),
        keep=0.3,
        rows=3,
        overlap=overlap,
        damaged=0.1,
        row_tokens=10.0,
        separation={} if random else {"ranking": {ANY: estimate}},
        seeds=1,
        tokens=10,
        steps=1,
        loss=Measured(1.0 + loss, 0.1),
        against_random=None if random else Measured(loss, error),
    )


def test_the_findings_report_results_against_the_method_as_well():
    lines = [
        outcome("default", auc=0.5, loss=0.05),
        outcome("bad", auc=0.2, overlap=0.1),
        outcome("good", auc=0.9, loss=-0.05),
        outcome("drawn", method=RANDOM),
    ]
    text = "\n".join(findings(lines, []))
    assert "separated best by good: 0.90" in text and "the default has 0.50" in text
    assert "*preferred* (AUC below 0.5, interval too) by: bad." in text
    assert "Less than half of them are kept by: bad (0.10)" in text
    assert "lower than random's by more than 2 standard errors: good (−0.0500 ± 0.0100)" in text
    assert "higher than random's by more than 2 standard errors: default" in text
    assert "For 1 of 3 selections" in text
    assert "differ among themselves by up to 0.1000" in text  # "default" and "good" keep the same rows here
