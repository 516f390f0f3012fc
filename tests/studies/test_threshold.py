"""The threshold study's grid, table and resumption, with fakes that train nothing (see ``threshold_fakes``)."""

from __future__ import annotations

import csv
import json
import random
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from threshold_fakes import TASKS, TOKENS_A_ROW, FakeParts, SlowParts, demo_recipe, demo_rows, measure_all_units

from donod_fast.errors import InputError, StoreError
from donod_fast.studies.core.grid import MODEL, measure_all
from donod_fast.studies.core.statistics import Estimate, mean_interval
from donod_fast.studies.threshold.findings import Costs, findings
from donod_fast.studies.threshold.plan import plan_threshold
from donod_fast.studies.threshold.run import Outcome, run_threshold, selections_of
from donod_fast.studies.threshold.table import Line, Measure, pass_shares
from donod_fast.training import load_recipe

ROWS = 80


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Ran:
    outcome: Outcome
    out: Path
    log: Path
    parts: FakeParts

    @property
    def done(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A whole study, run once."""
    folder = tmp_path_factory.mktemp("study")
    parts = FakeParts(ROWS, folder / "log")
    outcome = run_threshold(demo_recipe(folder), folder / "out", make_parts=parts, jobs=1, command="the command")
    return Ran(outcome, folder / "out", folder / "log", parts)


def line(ran: Ran, method: str, amount: str) -> Line:
    return next(one for one in ran.outcome.study.lines if (one.method, one.amount) == (method, amount))


def without_times(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def test_the_table_holds_the_base_and_every_selection_in_order(ran: Ran) -> None:
    assert [(one.method, one.amount) for one in ran.outcome.study.lines] == [
        ("base", "0 %"),
        ("all", "100 %"),
        *((method, amount) for method in ("random", "nod", "topsis", "loss") for amount in ("25 %", "50 %")),
        ("don-threshold", "DON ≥ q0.5"),
        ("don-threshold", "DON ≥ q0.75"),
    ]


def test_pass_rates_are_those_of_the_trained_rows_and_seeds(ran: Ran) -> None:
    rows = list(range(ROWS))
    expected = []
    for seed in (0, 1, 2):  # the fake's rule, computed here
        draw = random.Random(f"{rows} {seed}")
        expected.append(sum(draw.random() < 0.2 + 0.5 for _ in range(TASKS)) / TASKS)
    measure = line(ran, "all", "100 %").measures[0]
    assert measure.name == "humaneval pass@1"
    assert measure.by_seed == pytest.approx(expected)
    assert measure.over_seeds == pytest.approx(mean_interval(expected))
    assert measure.pooled.value == pytest.approx(sum(expected) / 3)


def test_tokens_saved_are_against_everything(ran: Ran) -> None:
    whole = 2 * TOKENS_A_ROW * ROWS
    quarter = line(ran, "nod", "25 %")
    assert (quarter.tokens, quarter.saved, quarter.share_saved) == (whole / 4, whole * 3 / 4, 0.75)
    assert line(ran, "base", "0 %").share_saved == 1.0
    assert line(ran, "all", "100 %").saved == 0.0


def test_differences_are_paired_with_random_and_with_all_rows(ran: Ran) -> None:
    nod, rand, everything = line(ran, "nod", "50 %"), line(ran, "random", "50 %"), line(ran, "all", "100 %")
    loss = nod.measures[1]
    assert loss.name == "held-out loss"
    for other, theirs in (("random", rand), ("all", everything)):
        gaps = [a - b for a, b in zip(loss.by_seed, theirs.measures[1].by_seed, strict=True)]
        assert loss.versus[other] == pytest.approx(mean_interval(gaps))
    assert set(rand.measures[0].versus) == {"all"}
    assert set(line(ran, "don-threshold", "DON ≥ q0.5").measures[0].versus) == {"all"}
    assert everything.measures[0].versus == {}


def test_planted_corruptions_are_counted_in_what_is_kept(ran: Ran) -> None:
    bad = [row["corruption"] != "none" for row in demo_rows(ROWS)]
    assert line(ran, "all", "100 %").corrupted == pytest.approx(sum(bad) / ROWS)
    assert set(line(ran, "all", "100 %").kept_of.values()) == {1.0}
    assert {one.kind for one in ran.outcome.study.separations} >= {"all kinds"}
    assert all(0 <= one.auc.low <= one.auc.value <= one.auc.high <= 1 for one in ran.outcome.study.separations)


def test_every_training_runs_once_and_its_model_is_deleted_after(ran: Ran) -> None:
    trained = [text for text in ran.done if text.startswith("train")]
    assert len(trained) == ran.outcome.study.trainings
    assert not list(ran.out.glob(f"cells/*/{MODEL}"))


def test_a_rerun_trains_nothing_and_writes_the_same_numbers(ran: Ran) -> None:
    before, done = without_times(ran.out / "results.csv"), ran.done
    recipe = demo_recipe(ran.log.parent)
    again = run_threshold(recipe, ran.out, make_parts=ran.parts, jobs=1, command="the command")
    assert again.computed == 0
    assert ran.done == done
    assert without_times(ran.out / "results.csv") == before


class Stop(BaseException):
    """An interruption."""


@dataclass(frozen=True)
class Interrupted(FakeParts):
    """Does one step, and stops in the middle of the second."""

    def __call__(self) -> Interrupted:
        object.__setattr__(self, "die_after", (len(self.log.read_text().splitlines()) if self.log.exists() else 0) + 1)
        return self

    def _note(self, text: str) -> None:
        if len(self.log.read_text().splitlines() if self.log.exists() else []) >= (self.die_after or 0):
            raise Stop
        with self.log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def test_a_study_stopped_at_every_step_gives_the_same_report(ran: Ran, tmp_path: Path) -> None:
    recipe = demo_recipe(tmp_path)
    parts = Interrupted(ROWS, tmp_path / "log")
    stops = 0
    while True:
        try:
            run_threshold(recipe, tmp_path / "out", make_parts=parts, jobs=1, command="the command")
            break
        except Stop:
            stops += 1
    assert stops > 80
    assert sorted((tmp_path / "log").read_text().splitlines()) == sorted(ran.done), "no step was done twice"
    assert without_times(tmp_path / "out" / "results.csv") == without_times(ran.out / "results.csv")
    ours, theirs = (_sentences(out / "report.md") for out in (tmp_path / "out", ran.out))
    assert ours == theirs


def _sentences(path: Path) -> list[str]:
    """A report's lines, but for those with a time, a date or a path in them."""
    text = path.read_text(encoding="utf-8").replace("scoring + training, s", "")
    kept = [part for part in text.splitlines() if not part.startswith(("- Date", "- Scoring", "- **Wall time", "| "))]
    return [part for part in kept if "/tmp/" not in part and "corpus.jsonl" not in part]


def test_a_later_measure_retrains_and_keeps_the_other_measures(tmp_path: Path) -> None:
    from donod_fast.studies.core.grid import Unit

    @dataclass(frozen=True)
    class More(FakeParts):
        def __call__(self) -> More:
            return self

        @property
        def measures(self) -> Mapping[str, Mapping[str, Any]]:
            return {**super().measures, "mbpp": {"problems": "fake"}}

    log, units = tmp_path / "log", [Unit((1, 2, 3), 0)]
    (first,) = measure_all(tmp_path, FakeParts(ROWS, log), units)
    (second,) = measure_all(tmp_path, More(ROWS, log), units)
    assert list(second.measures) == ["humaneval", "heldout", "mbpp"]
    assert second.measures["humaneval"] == first.measures["humaneval"]
    assert [text.split()[:2] for text in log.read_text().splitlines()] == [
        ["train", "3"],
        ["measure", "humaneval"],
        ["measure", "heldout"],
        ["train", "3"],
        ["measure", "mbpp"],
    ]


def test_two_processes_come_to_the_numbers_of_one(ran: Ran, tmp_path: Path) -> None:
    parts = FakeParts(ROWS, tmp_path / "log")
    run_threshold(demo_recipe(tmp_path), tmp_path / "out", make_parts=parts, jobs=2, command="the command")
    assert without_times(tmp_path / "out" / "results.csv") == without_times(ran.out / "results.csv")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
def test_processes_end_with_a_study_that_was_killed(tmp_path: Path) -> None:
    from donod_fast.studies.core.grid import Unit

    log = tmp_path / "log"
    log.touch()
    study = get_context("spawn").Process(
        target=measure_all_units, args=(tmp_path, SlowParts(ROWS, log), [Unit((1,), 0), Unit((2,), 0)]), daemon=False
    )
    study.start()
    deadline = time.monotonic() + 120
    while len(log.read_text().splitlines()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert len(workers) == 2
    study.kill()
    study.join()
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, workers))


def _alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_results_are_json_with_everything_that_decides_them(ran: Ran) -> None:
    found = json.loads((ran.out / "results.json").read_text(encoding="utf-8"))
    assert found["settings"]["train"]["epochs"] == 2
    assert found["seeds"] == [0, 1, 2]
    assert found["machine"]["versions"]["torch"]
    assert found["command"] == "the command"
    assert len(found["lines"]) == len(ran.outcome.study.lines)
    assert found["findings"] == ran.outcome.study.findings


def test_tokens_saved_are_estimated_without_a_training_on_all_rows(
    tmp_path: Path,
) -> None:
    recipe = demo_recipe(tmp_path, "study.methods=[nod, random]", "study.seeds=[0]", "study.don_quantiles=[]", rows=40)
    data = tmp_path / "corpus.jsonl"
    rows = [{name: row[name] for name in ("instruction", "input", "output")} for row in demo_rows(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    study = run_threshold(recipe, tmp_path / "out", make_parts=FakeParts(40, tmp_path / "log"), jobs=1).study
    assert [round(one.share_saved, 1) for one in study.lines[1:]] == pytest.approx([0.7, 0.5, 0.7, 0.5], abs=0.15)
    assert study.separations == ()
    assert all(one.corrupted is None for one in study.lines)
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "corrupt" not in text
    assert "nan" not in text
    assert "inf" not in text
    assert "from one seed and therefore without an interval" in text


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(StoreError, match="another study runs in it"):
        run_threshold(demo_recipe(tmp_path), tmp_path, make_parts=FakeParts(ROWS, tmp_path / "log"), jobs=1)


def test_a_recipe_without_cells_or_with_an_unknown_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the study has no cells"):
        selections_of(demo_recipe(tmp_path, "study.methods=[]", "study.don_quantiles=[]"))
    with pytest.raises(InputError, match="unknown method 'best'"):
        selections_of(demo_recipe(tmp_path, "study.methods=[best]"))


def test_pass_at_k_is_the_share_of_draws_with_a_solution() -> None:
    for samples, passed in ((5, 0), (5, 2), (5, 5), (7, 1)):
        for k in range(1, samples + 1):
            outcomes = [True] * passed + [False] * (samples - passed)
            expected = [any(draw) for draw in combinations(outcomes, k)]
            assert pass_shares({"t": [passed, samples]}, k)["t"] == pytest.approx(sum(expected) / len(expected))
    with pytest.raises(InputError, match="needs 3 samples of task t, got 2"):
        pass_shares({"t": [1, 2]}, 3)


def made_line(ran: Ran, method: str, value: float, gap: Sequence[float], saved: float) -> Line:
    estimate = Estimate(value, value - 0.02, value + 0.02)
    versus = {"random": Estimate(*gap), "all": Estimate(gap[0] - 0.1, gap[1] - 0.1, gap[2] - 0.1)}
    measure = Measure("humaneval pass@1", True, (value,), estimate, estimate, versus)
    return replace(line(ran, "nod", "25 %"), method=method, share_saved=saved, measures=(measure,))


def test_findings_follow_the_intervals(ran: Ran) -> None:
    lines = [
        ran.outcome.study.lines[0],
        made_line(ran, "nod", 0.7, (0.2, 0.15, 0.25), 0.75),
        made_line(ran, "topsis", 0.5, (0.01, -0.02, 0.04), 0.7),
        made_line(ran, "nodon", 0.3, (-0.2, -0.25, -0.15), 0.8),
    ]
    text = "\n".join(findings(lines, (), Costs(1.0, 2.0)))
    assert "best first by humaneval pass@1: nod 0.700 [0.680, 0.720], topsis 0.500" in text
    assert "Better than random: nod (+0.200 [+0.150, +0.250])." in text
    assert "Worse than random: nodon (-0.200 [-0.250, -0.150])." in text
    assert "No significant difference from random: topsis (+0.010 [-0.020, +0.040])." in text
    assert "of 3 selections 1 are better, 2 worse, and 0 show no significant difference" in text
    assert "The cheapest selection that is not significantly worse than everything is nod at 25 %: 75%" in text


def offline(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_the_plan_of_llama_2_7b_needs_neither_weights_nor_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", offline)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    recipe = load_recipe("llama-2-7b-code")
    plan = plan_threshold(recipe, rows=20_022, row_tokens=100)
    assert plan.training.size.parameters == 6_738_415_616
    study = recipe.study
    assert len(plan.selections) == 1 + (len(study.methods) - 1) * len(study.keeps) + len(study.don_quantiles)
    # DON's quantile q keeps what don keeps at 1 - q: those of the recipe are trained already.
    same = [round(1 - quantile, 6) in study.keeps for quantile in study.don_quantiles]
    assert plan.trainings == len(study.seeds) * (len(plan.selections) - sum(same))
    assert plan.measures == {"humaneval": plan.trainings + 1, "mbpp": plan.trainings + 1}
    whole = plan.selections[0]
    assert (whole.rows, whole.tokens) == (20_022, round(2_002_200 * recipe.train.epochs))
    assert plan.train_hours == pytest.approx(sum(one.trainings * (one.hours or 0) for one in plan.selections))
    text = plan.text()
    assert "6,738,415,616 parameters" in text
    assert "h100 hours" in text
    json.dumps(plan.as_dict())


def test_the_plan_says_what_it_had_to_assume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", offline)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    recipe = load_recipe("llama-2-7b-code")
    stated = plan_threshold(recipe)
    assert stated.counts.rows == recipe.score.stated_rows
    assert "as the recipe states them" in stated.text()
    assert not any("corpus" in line for line in stated.unknown)
    plan = plan_threshold(load_recipe("llama-2-7b-code", ["score.stated_rows=null"]))
    text = "\n".join(plan.unknown)
    assert "the hub cannot be reached" in text
    assert "rows 20,000 (assumed; say how many there are)" in text
    assert "40% of the peak" in text


def test_the_plan_counts_an_available_corpus(tmp_path: Path) -> None:
    recipe = demo_recipe(tmp_path)
    plan = plan_threshold(recipe)
    assert plan.counts.rows == ROWS
    assert plan.counts.how.startswith("counted")
    assert plan.selections[0].tokens == round(plan.counts.tokens * recipe.train.epochs)


def test_plan_names_the_share_above_a_don_threshold_as_unknown(tmp_path: Path) -> None:
    plan = plan_threshold(demo_recipe(tmp_path, "study.don_thresholds=[0.0]"))
    shares = {one.selection.don_threshold: one.share for one in plan.selections}
    assert shares[0.0] is None
    assert any("DON ≥ 0: only the scores can tell" in line for line in plan.unknown)
