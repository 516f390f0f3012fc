"""Runs of AGIEval and IFEval: canonical answers, resuming, folders, statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from eval_cases import DATA
from harness_cases import Oracle, write_agieval, write_ifeval

from donod_fast.errors import DonodError, InputError, SettingsMismatchError, StoreError
from donod_fast.evaluation.harness.agieval import SETS, Question
from donod_fast.evaluation.harness.folder import ITEMS, item_of
from donod_fast.evaluation.harness.groups import GROUPS, averages
from donod_fast.evaluation.harness.ifeval import read_prompts
from donod_fast.evaluation.harness.measuring import question_tasks
from donod_fast.evaluation.harness.result import LEVELS, prompt_result, question_result
from donod_fast.evaluation.harness.run import run_tasks
from donod_fast.evaluation.harness.settings import STYLES, QuestionSettings
from donod_fast.evaluation.harness.statistics import Share, averages_interval, ratio_interval
from donod_fast.evaluation.harness.tasks import prompt_task
from donod_fast.system.checked_json import DamagedError

Run = Callable[..., dict[str, Any]]


def questions_run(folder: Path, style: str = "loglikelihood", **more: Any) -> Run:
    tasks = question_tasks(QuestionSettings(problems=folder, style=style, **more))

    def run(model: Oracle, out: Path | None = None, **given: Any) -> dict[str, Any]:
        model.tasks = {task.name: task for task in tasks}
        settings = {"style": style, **given.pop("settings", {})}
        return run_tasks(tasks, model, partial(question_result, style=style), out, settings=settings, **given)

    return run


def prompts_run(file: Path) -> Run:
    task = prompt_task(read_prompts(file), max_new_tokens=9)

    def run(model: Oracle, out: Path | None = None, **given: Any) -> dict[str, Any]:
        model.tasks = {task.name: task}
        return run_tasks([task], model, prompt_result, out, settings={}, **given)

    return run


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("few_shot", [0, 2])
def test_right_answers_score_all_and_wrong_ones_nothing(style: str, few_shot: int, tmp_path: Path) -> None:
    run = questions_run(write_agieval(tmp_path / "agieval"), style, few_shot=few_shot)
    right, wrong = run(Oracle()), run(Oracle(lambda item: False))
    assert list(right["sets"]) == list(SETS) and right["items"] == 35 and right["cut"] == 14
    for name in SETS:
        assert right["sets"][name]["acc"] == 1.0 and wrong["sets"][name]["acc"] == 0.0
        assert right["sets"][name].get("unanswered", 0) == 0
    assert set(right["averages"]["groups"].values()) == {1.0}
    assert set(right["averages"]["non_target"]) == {"logic", "reading", "math"}
    assert right["averages"]["all_groups"] is None  # without IFEval


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "agieval").is_dir(), reason="AGIEval's files are absent")
@pytest.mark.parametrize("style", STYLES)
def test_right_answers_to_all_real_questions_score_all(style: str) -> None:
    result = questions_run(DATA / "agieval", style)(Oracle())
    assert result["items"] == 2340 and {one["acc"] for one in result["sets"].values()} == {1.0}


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "ifeval").is_dir(), reason="IFEval's file is absent")
def test_responses_that_follow_score_all_and_blank_ones_nothing(tmp_path: Path) -> None:
    lines = (DATA / "ifeval" / "input_data.jsonl").read_text().splitlines()
    file = tmp_path / "single.jsonl"
    file.write_text("\n".join(line for line in lines if len(json.loads(line)["kwargs"]) == 1))
    right = prompts_run(file)(Oracle())
    assert right["items"] == 305 and all(right[level] == 1.0 for level in LEVELS) and len(right["kinds"]) > 20
    wrong = prompts_run(file)(Oracle(lambda item: False))
    assert all(wrong[level] == 0.0 for level in LEVELS)


def test_solved_questions_stand_in_front_with_their_answers(tmp_path: Path) -> None:
    folder = write_agieval(tmp_path / "agieval")
    for style, answer in (("loglikelihood", "(C)92 birds"), ("generate", "C")):
        task = question_tasks(QuestionSettings(problems=folder, style=style, few_shot=2, sets=("sat-en",)))[0]
        prompt = task.requests(0, None)[0].args[0]
        first, second, asked = prompt.split("\n\n")
        assert first.endswith(f"(D)93 birds\nA: Among A through D, the answer is {answer}")
        assert "91" in second and asked == task.items[0].prompt
        chat = task.requests(0, lambda messages, add_generation_prompt=True: json.dumps(messages))[0].args[0]
        turns = [(turn["role"], turn["content"]) for turn in json.loads(chat)]
        assert [role for role, _ in turns] == ["user", "assistant", "user", "assistant", "user"]
        assert turns[1][1] == answer and turns[4][1] == task.items[0].prompt


@pytest.mark.parametrize("stop", [0, 1, 2])
@pytest.mark.parametrize("style", STYLES)
def test_a_stopped_run_resumes_to_the_same_result(style: str, stop: int, tmp_path: Path) -> None:
    folder, out = write_agieval(tmp_path / "agieval"), tmp_path / "out"
    half: Callable[[Any], bool] = lambda item: item.index % 2 == 0  # noqa: E731
    run = questions_run(folder, style)
    whole = run(Oracle(half), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Oracle(half, stop_after=stop), out)
    with (out / ITEMS).open("ab") as file:
        file.write(b'{"set": "lsat-ar", "item": 0, "acc"')  # a kill in the middle of a line
    seen: list[tuple[int, int]] = []
    model = Oracle(half)
    resumed = run(model, out, progress=lambda some, total: seen.append((some, total)))
    assert len(model.asked) == 35 - 16 * stop and sum(some for some, _ in seen) == 35
    for name in whole.keys() - {"seconds"}:
        assert resumed[name] == whole[name]
    assert (out / ITEMS).read_bytes() == (tmp_path / "whole" / ITEMS).read_bytes()
    again = Oracle(half)
    assert run(again, out)["sets"] == whole["sets"] and not again.asked


def test_a_folder_of_other_settings_or_questions_is_refused(tmp_path: Path) -> None:
    folder, out = write_agieval(tmp_path / "agieval"), tmp_path / "out"
    questions_run(folder)(Oracle(), out)
    with pytest.raises(SettingsMismatchError, match="style: 'loglikelihood' in the folder, 'generate' requested"):
        questions_run(folder, "generate")(Oracle(), out)
    file = folder / "sat-en.jsonl"
    file.write_text(file.read_text().replace('"label": "B"', '"label": "C"', 1))
    with pytest.raises(SettingsMismatchError, match="prompts_sha256"):
        questions_run(folder)(Oracle(), out)
    model = Oracle()
    assert questions_run(folder)(model, out, overwrite=True)["items"] == 35 and len(model.asked) == 35


def test_a_changed_line_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    folder, out = write_agieval(tmp_path / "agieval"), tmp_path / "out"
    run = questions_run(folder)
    run(Oracle(lambda item: False), out)
    good = (out / ITEMS).read_text()
    (out / ITEMS).write_text(good.replace('"acc": 0', '"acc": 1', 1))
    model = Oracle()
    with pytest.raises(StoreError, match=r"items\.jsonl, line 1 is damaged .*remove this line"):
        run(model, out)
    assert not model.asked


def test_every_field_of_a_stored_item_is_checked(tmp_path: Path) -> None:
    folder = write_agieval(tmp_path / "agieval")
    questions_run(folder)(Oracle(), tmp_path / "a")
    questions_run(folder, "generate")(Oracle(), tmp_path / "b")
    prompts_run(write_ifeval(tmp_path / "i.jsonl"))(Oracle(), tmp_path / "c")
    for name in "abc":
        line = json.loads((tmp_path / name / ITEMS).read_text().splitlines()[0])
        del line["sha256"]
        assert item_of(line) == line
        wrong = [{**line, "more": 1}, *({key: value for key, value in line.items() if key != one} for one in line)]
        wrong += [{**line, one: value} for one in line for value in ({}, 2.5, -1, [None]) if type(line[one]) is not int]
        wrong += [{**line, one: 2} for one in ("acc", "acc_norm") if one in line]
        for record in wrong:
            with pytest.raises(DamagedError):
                item_of(record)


def test_the_paper_s_averages() -> None:
    sets = {name: at / 10 for at, name in enumerate(member for some in GROUPS.values() for member in some)}
    found = averages(sets)
    groups = found["groups"]
    assert groups == pytest.approx({"logic": 0.1, "reading": 0.35, "math": 0.55, "ifeval": 0.7})
    assert found["non_target"]["math"] == pytest.approx(fmean((0.1, 0.35, 0.7)))
    assert found["all_groups"] == pytest.approx(fmean(groups.values()))
    assert found["all_sets"] == pytest.approx(fmean(sets.values())) != found["all_groups"]
    del sets["sat-en"]
    assert "reading" not in averages(sets)["groups"] and averages(sets)["all_sets"] is None
    assert averages({"sat-en": 0.5}) == {"groups": {}, "non_target": {}, "all_groups": None, "all_sets": None}


def test_intervals_cover_what_they_should() -> None:
    shares = {name: Share(30, 100) for some in GROUPS.values() for name in some}
    found = averages_interval(shares)
    low, high = found["groups"]["logic"]
    spread = 1.96 * (0.3 * 0.7 / 100 / 3) ** 0.5
    assert (0.3 - low, high - 0.3) == pytest.approx((spread, spread), rel=0.1)
    low, high = averages_interval({name: Share(10, 10) for name in shares})["non_target"]["math"]
    assert high == 1.0 and low == pytest.approx(Share(10, 10).interval[0])
    assert ratio_interval([0, 0], [3, 2]) == Share(0, 5).interval
    rng = np.random.default_rng(1)
    passed = rng.binomial(2, 0.4, 400).tolist()
    low, high = ratio_interval(passed, [2] * 400)
    assert low < sum(passed) / 800 < high and high - low == pytest.approx(2 * 1.96 * (0.24 / 800) ** 0.5, rel=0.15)


def test_nothing_to_ask_is_an_error() -> None:
    with pytest.raises(InputError, match="no questions"):
        run_tasks([], Oracle(), prompt_result, settings={})


def test_an_error_of_the_model_keeps_what_was_answered(tmp_path: Path) -> None:
    class Failing(Oracle):
        def answers(self, requests: Any, style: str, longest: int) -> list[Any]:
            if len(self.asked) >= 16:
                raise DonodError("no more")
            return super().answers(requests, style, longest)

    out = tmp_path / "out"
    run = questions_run(write_agieval(tmp_path / "agieval"))
    with pytest.raises(DonodError, match="no more"):
        run(Failing(), out)
    assert len((out / ITEMS).read_text().splitlines()) == 16 and not (out / "result.json").exists()


def test_the_longest_come_first_and_results_keep_the_order(tmp_path: Path) -> None:
    out = tmp_path / "out"
    model = Oracle()
    questions_run(write_agieval(tmp_path / "agieval", 12))(model, out)
    lengths = [len(model.tasks[name].requests(place, None)[0].args[0]) for name, place in model.asked]
    assert lengths == sorted(lengths, reverse=True)
    lines = [json.loads(line) for line in (out / ITEMS).read_text().splitlines()]
    assert [(one["set"], one["item"]) for one in lines] == [(name, place) for name in SETS for place in range(12)]
    assert isinstance(model.tasks["lsat-ar"].items[0], Question)
