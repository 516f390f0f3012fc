"""``study which``: the plan fits its budget, the verdict follows from the trainings, and bad input is one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_parts import MODEL, clean_rows
from evidence_fakes import FakeTrainings
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from score_runs import assert_one_line_error, invoke

from donod_fast.data.types import TokenizedSample
from donod_fast.errors import InputError
from donod_fast.studies.evidence.plan import LEAST_DRAWS, LEAST_SEEDS
from donod_fast.studies.which import probing
from donod_fast.studies.which.planning import Limits, Speeds, in_time, plan_study
from donod_fast.studies.which.run import default_methods
from donod_fast.studies.which.settings import WhichSettings, parse_budget

SHARED = Path(__file__).parents[2].parent / "shared"

SECONDS = st.floats(1e-4, 30.0)
SPEEDS = st.builds(Speeds, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
LIMITS = st.builds(
    Limits,
    st.integers(20, 5000),
    st.integers(2, 1000),
    st.integers(1, 10),
    st.floats(0.1, 0.9),
    st.floats(0.5, 4.0),
    st.none() | st.integers(2, 5),
    st.booleans(),
    st.integers(1, 4),
)


@settings(deadline=None, max_examples=50)
@given(SPEEDS, LIMITS, st.floats(1.0, 1e6))
def test_a_plan_is_honest_and_fits_its_budget(speeds: Speeds, limits: Limits, budget: float) -> None:
    try:
        plan = plan_study(budget, speeds, limits)
    except InputError:
        assume(False)
    assert plan.seconds <= 0.9 * budget
    assert plan.seeds >= (limits.seeds or LEAST_SEEDS) and plan.draws >= LEAST_DRAWS and "rows" in plan.kinds
    assert 2 <= plan.selected <= limits.keep * limits.rows + 1e-6 and plan.pool <= limits.rows
    assert abs(plan.selected - limits.keep * plan.pool) <= 1
    assert 2 <= plan.heldout <= limits.heldout
    assert limits.seeds is None or plan.seeds == limits.seeds
    matched = len(plan.kinds) - 1
    removed = (plan.seeds * limits.methods + plan.draws + plan.seeds) if limits.removal else 0
    assert plan.trainings == limits.methods * (plan.seeds + matched * plan.draws) + plan.draws + removed


@settings(deadline=None, max_examples=50)
@given(SPEEDS, LIMITS)
def test_the_budget_that_an_error_names_is_enough(speeds: Speeds, limits: Limits) -> None:
    try:
        plan_study(1e-6, speeds, limits)
        raise AssertionError("no study fits into a microsecond")
    except InputError as error:
        said = str(error)
    assume("a budget of" in said.partition("which need ")[2])
    named = said.partition("which need a budget of ")[2].partition(" ")[0]
    plan = plan_study(parse_budget(named), speeds, limits)
    assert plan.trainings >= limits.methods * LEAST_SEEDS + LEAST_DRAWS


@settings(deadline=None, max_examples=50)
@given(SPEEDS, LIMITS, st.floats(1.0, 1e6), st.floats(1.0, 4.0))
def test_more_time_is_never_a_smaller_study(speeds: Speeds, limits: Limits, budget: float, factor: float) -> None:
    try:
        plan = plan_study(budget, speeds, limits)
    except InputError:
        assume(False)
    longer = plan_study(factor * budget, speeds, limits)
    # More kinds of draws may take the place of larger selections, above a good size.
    assert len(longer.kinds) >= len(plan.kinds) and longer.seconds >= min(plan.seconds, 0.5 * plan.seconds)
    if longer.kinds == plan.kinds:
        assert longer.selected >= plan.selected and longer.seeds >= plan.seeds


def test_too_few_rows_are_refused_whatever_the_budget() -> None:
    fast = Speeds(1e-3, 1e-3, 0, 1e-3, 0)
    for rows, heldout in ((4, 50), (100, 1)):
        with pytest.raises(InputError, match="at least 2 rows and 2 held-out rows"):
            plan_study(1e6, fast, Limits(rows, heldout, 3, 0.3))


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1.5 H", 5400), (" 5m ", 300)]
)
def test_budgets_are_read_with_their_units(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0m", "-5m", "5 minutes", "nan", "1e3s", "9999h", "5m!", "five m"])
def test_a_budget_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        parse_budget(text)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.5, 1e6))
def test_a_printed_time_is_never_less_than_it_says(seconds: float) -> None:
    assert parse_budget(in_time(seconds, up=True)) >= seconds


@settings(deadline=None, max_examples=50)
@given(st.floats(0.001, 5), st.floats(0, 20), st.integers(1, 40))
def test_a_probe_tells_the_start_from_the_rows(row: float, start: float, most: int) -> None:
    now = 0.0

    def work(count: int) -> None:
        nonlocal now
        now += start + count * row

    found_row, found_start = probing._line(lambda: now, work, most)
    if most > probing._FEW:
        assert found_row == pytest.approx(row, rel=1e-3) and found_start == pytest.approx(start, abs=1e-2)
    # Never too little for as many rows as were tried.
    tried = min(most, probing._MANY)
    assert found_start + tried * found_row >= (start + tried * row) * 0.999


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"keep": 1.0}, "--keep"),
        ({"keep": 0.0}, "--keep"),
        ({"seeds": 1}, "no spread"),
        ({"tuning": "half"}, "half"),
        ({"methods": ("random",)}, "always compared"),
        ({"lora_rank": 0, "tuning": "lora"}, "rank"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _ = WhichSettings(**wrong).lora


def test_methods_by_a_reference_need_one() -> None:
    plain = default_methods(())
    assert "tokens@high" in plain and not any("influence" in method for method in plain)
    assert "influence_cos:b" in default_methods(("a.jsonl", "b.jsonl"))
    assert set(plain) < set(default_methods(("file",)))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    rows = clean_rows(160)
    for name, some in (("data", rows[:100]), ("held", rows[100:])):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return str(tmp_path / "data.jsonl"), str(tmp_path / "held.jsonl")


def quick(monkeypatch: pytest.MonkeyPatch, fake: FakeTrainings) -> FakeTrainings:
    """No training, and a probe that measures nothing."""
    speeds = Speeds(1e-3, 1e-3, 0.0, 1e-3, 0.0)
    monkeypatch.setattr("donod_fast.studies.which.run.probe", lambda *_: speeds)
    monkeypatch.setattr("donod_fast.studies.core.paired.REPLICATES", 100)
    return fake.install(monkeypatch)


def by_tokens(samples: Sequence[TokenizedSample], tokens: int) -> float:
    return 2.0 - tokens / 2_000


def test_the_command_gives_a_verdict_and_resumes_the_same_study(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    fake = quick(monkeypatch, FakeTrainings(by_tokens))
    out = tmp_path / "out"
    command = ("study", "which", files[0], "--model", str(MODEL), "--heldout", files[1], "--out", str(out))
    command = (*command, "--methods", "loss,tokens@high", "--budget", "30m")
    done = invoke(*command)
    assert done.code == 0, done.err
    assert "tokens@high beats random, same rows on held-out" in done.out and "**To show more**" in done.out
    assert (out / "report.md").read_text(encoding="utf-8") in done.out
    assert "plan: 2 methods" in done.err and f"training {len(fake.done)} of at most" in done.err
    trained = len(fake.done)
    # Another speed would plan another study; the folder keeps the first one.
    slower = Speeds(1.0, 0.2, 0.0, 1e-3, 0.0)
    monkeypatch.setattr("donod_fast.studies.which.run.probe", lambda *_: slower)
    again = invoke(*command, "--quiet")
    assert again.code == 0 and len(fake.done) == trained and again.err == ""
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert len(result["settings"]["seeds"]) >= 2 and result["settings"]["random"]["draws"] >= 5


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = quick(monkeypatch, FakeTrainings(by_tokens))
    arguments = ("--model", str(MODEL), "--heldout", files[1], "--out", str(tmp_path / "out"), "--methods", "loss")
    done = invoke("study", "which", files[0], *arguments, "--dry-run")
    assert done.code == 0, done.err
    assert "plan: 1 method with" in done.out and "expected time" in done.out
    assert not fake.done and not (tmp_path / "out").exists()
    small = invoke("study", "which", files[0], *arguments, "--dry-run", "--budget", "1s", "--seeds", "3")
    if small.code:
        assert_one_line_error(small, 2, "3 training seeds and 5 random draws")


def test_bad_input_is_one_line_that_names_it(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick(monkeypatch, FakeTrainings(by_tokens))
    data, held = files
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "one.jsonl").write_text(json.dumps(clean_rows(161)[160]) + "\n")
    model = ("--model", str(MODEL))
    wrong: list[tuple[tuple[str, ...], int, str]] = [
        ((data, *model, "--heldout", data), 2, "--allow-overlap"),
        ((data, *model, "--heldout", held, "--reference", held, "--methods", "influence_cos"), 2, "reference"),
        ((data, *model, "--heldout", held, "--methods", "influence_cos"), 2, "reference"),
        ((data, *model, "--heldout", str(tmp_path / "one.jsonl"), "--methods", "loss"), 2, "held-out"),
        ((data, *model, "--heldout", str(tmp_path / "empty.jsonl")), 3, "empty.jsonl"),
        ((data, *model, "--heldout", held, "--heldout-skip", "60"), 3, "skip"),
        ((data, *model, "--heldout", str(tmp_path / "none.jsonl")), 3, "none.jsonl"),
        ((data, *model, "--heldout", held, "--budget", "soon"), 2, "--budget"),
        ((data, *model, "--heldout", held, "--methods", "luck"), 2, "luck"),
        ((data, *model, "--heldout", held, "--methods", "kmeans-ifd"), 2, "kmeans-ifd"),
        ((data, *model, "--heldout", held, "--seeds", "1"), 2, "no spread"),
        ((data, *model, "--heldout", held, "--seeds", "many"), 2, "--seeds"),
        ((data, *model, "--heldout", held, "--keep", "1"), 2, "--keep"),
    ]
    for arguments, code, words in wrong:
        assert_one_line_error(invoke("study", "which", *arguments, "--quiet"), code, words)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the real data of ../shared is absent")
def test_a_real_model_is_trained_and_judged_within_a_plan(tmp_path: Path) -> None:
    # Few and short rows; the budget is generous, so that a busy machine still plans the smallest study.
    rows = [json.loads(line) for line in (SHARED / "data/gsm8k/train.jsonl").open(encoding="utf-8")][6000:]
    short = sorted(rows, key=lambda row: len(row["question"] + row["answer"]))[:60]
    for name, some in (("data", short[::2][:20]), ("held", short[1::2][:6])):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    model = str(SHARED / "models/tiny-instruct")
    done = invoke(
        "study", "which", str(tmp_path / "data.jsonl"), "--model", model, "--heldout", str(tmp_path / "held.jsonl"),
        "--methods", "loss", "--seeds", "2", "--budget", "2h", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "**Shown**" in done.out and "Δ vs random, same rows" in done.out
