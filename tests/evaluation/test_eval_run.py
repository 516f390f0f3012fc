"""From samples to a result: counting, caching, resuming, refusing. Most tests use a fake judge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from eval_cases import ENVIRONMENT, FakeJudge, fake_judge, human_eval_record, write_records

from donod_fast.errors import CorpusError, InputError, SandboxError, SettingsMismatchError, StoreError
from donod_fast.evaluation import JudgeSettings, Problem, Sample, canonical_samples, evaluate_samples, load_problems
from donod_fast.evaluation.folder import SAMPLES, VERDICTS
from donod_fast.evaluation.judging import Verdict
from donod_fast.evaluation.judging.relay import SECONDS
from donod_fast.evaluation.passk import BOOTSTRAP
from donod_fast.evaluation.run import evaluate
from donod_fast.evaluation.sandbox import Limits

COUNT = 6


@pytest.fixture
def problems(tmp_path: Path) -> list[Problem]:
    records = [human_eval_record(at) for at in range(COUNT)]
    return load_problems("humaneval", write_records(tmp_path / "p.jsonl", records))


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with fake_judge() as fake:
        yield fake


def some_samples(problems: list[Problem], per_task: int = 1) -> list[Sample]:
    """Of each task's samples number i passes if i + task is even; the last task's hang."""
    samples = []
    for at, problem in enumerate(problems):
        for index in range(per_task):
            body = f"    return x + {at}" if (at + index) % 2 == 0 else f"    return {index}"
            body = "    while True: pass" if at == COUNT - 1 else body
            samples.append(Sample(problem.task_id, index, problem.prompt + body))
    return samples


def test_the_result_counts_by_task_and_status(problems: list[Problem], judge: FakeJudge) -> None:
    result = evaluate_samples(problems, some_samples(problems))
    assert (result.passed, result.total, result.pass_at) == (3, 6, {1: 0.5})
    assert result.by_status == {"passed": 3, "failed": 2, "timeout": 1}
    assert result.interval_method == "wilson" and result.intervals[1][0] < 0.5 < result.intervals[1][1]
    assert [one.task_id for one in result.per_task] == [one.task_id for one in problems]
    assert result.judged == 6


def test_several_samples_give_pass_at_k_as_far_as_every_task_has_k(problems: list[Problem], judge: FakeJudge) -> None:
    samples = some_samples(problems, per_task=12)
    result = evaluate_samples(problems, samples)
    assert result.total == 72 and set(result.pass_at) == {1, 10}
    assert result.pass_at[1] == pytest.approx(5 / 6 * 0.5)
    assert result.pass_at[10] == pytest.approx(5 / 6)  # of 12 with 6 passing, 10 hold one for sure
    assert result.interval_method == BOOTSTRAP
    fewer = evaluate_samples(problems, samples[:-3])
    assert set(fewer.pass_at) == {1}


def test_a_task_without_samples_counts_as_failed_and_is_said(problems: list[Problem], judge: FakeJudge) -> None:
    result = evaluate_samples(problems, some_samples(problems)[:3])
    assert (result.passed, result.total) == (2, 6) and result.by_status["missing"] == 3
    assert result.per_task[-1].statuses == {"missing": 1}
    many = evaluate_samples(problems, some_samples(problems, 10)[:30])
    assert many.total == 60 and many.pass_at[10] == pytest.approx(0.5)


def test_equal_programs_are_judged_once(problems: list[Problem], judge: FakeJudge) -> None:
    samples = [Sample("Fam/0", at, "same") for at in range(5)] + [Sample("Fam/1", 0, "same")]
    result = evaluate_samples(problems[:2], samples)
    assert len(judge.programs) == 2 == result.judged and result.total == 6


def test_a_shared_cache_distinguishes_tests_limits_and_isolation(
    problems: list[Problem], judge: FakeJudge, tmp_path: Path
) -> None:
    samples, cache = some_samples(problems), tmp_path / "cache.jsonl"
    first = evaluate_samples(problems, samples, judging=JudgeSettings(cache=cache))
    again = evaluate_samples(problems, samples, judging=JudgeSettings(cache=cache))
    assert len(judge.programs) == 6 and again.judged == 0
    assert again.by_status == first.by_status and again.per_task == first.per_task
    evaluate_samples(problems, samples, judging=JudgeSettings(cache=cache, seconds=9.0))
    assert len(judge.programs) == 12
    evaluate_samples(problems, samples, judging=JudgeSettings(cache=cache, limits=Limits(memory=1 << 29)))
    assert len(judge.programs) == 18
    changed = write_records(tmp_path / "q.jsonl", [human_eval_record(0) | {"test": "def check(candidate): pass"}])
    evaluate_samples(load_problems("humaneval", changed), samples[:1], judging=JudgeSettings(cache=cache))
    assert len(judge.programs) == 19


def test_a_cache_that_a_kill_cut_short_and_others_write_to_is_read(
    problems: list[Problem], judge: FakeJudge, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.jsonl"
    evaluate_samples(problems, some_samples(problems), judging=JudgeSettings(cache=cache))
    lines = cache.read_bytes().splitlines(keepends=True)
    cache.write_bytes(b"".join(lines[:3]) + b'{"key": 1}\n[1]\n' + lines[3][:20])
    evaluate_samples(problems, some_samples(problems), judging=JudgeSettings(cache=cache))
    assert len(judge.programs) == 9
    evaluate_samples(problems, some_samples(problems), judging=JudgeSettings(cache=cache))
    assert len(judge.programs) == 9

    def judge_one(at: int) -> None:
        evaluate_samples(problems, [Sample("Fam/0", 0, f"# {at}")], judging=JudgeSettings(cache=cache))

    threads = [threading.Thread(target=judge_one, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(judge.programs) == 17
    evaluate_samples(problems, [Sample("Fam/0", at, f"# {at}") for at in range(8)], judging=JudgeSettings(cache=cache))
    assert len(judge.programs) == 17


def test_result_json_holds_figures_settings_and_tasks(
    problems: list[Problem], judge: FakeJudge, tmp_path: Path
) -> None:
    result = evaluate_samples(problems, some_samples(problems), tmp_path / "out", settings={"benchmark": "fam"})
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert stored.pop("files").keys() == {
        "samples.jsonl",
        "verdicts.jsonl",
        "problems.jsonl",
        "settings.json",
    } and stored.pop("sha256")
    assert stored == json.loads(json.dumps(result.as_dict()))
    assert (stored["passed"], stored["total"], stored["pass@1"]) == (3, 6, 0.5)
    assert stored["intervals"]["pass@1"] == list(result.intervals[1]) and stored["interval_method"] == "wilson"
    assert stored["per_task"]["Fam/1"] == {"samples": 1, "passed": 0, "statuses": {"failed": 1}}
    settings = stored["settings"]
    assert settings["benchmark"] == "fam" and settings["judging"]["seconds"] == SECONDS["human-eval"]
    assert settings["judging"]["memory"] == Limits().memory and len(settings["problems"]) == 64
    assert settings["isolation"] in ("bubblewrap", "namespaces") and "python" in settings["versions"]
    assert set(stored["seconds"]) == {"generate", "judge"}


def test_files_do_not_depend_on_the_order_of_completion(
    problems: list[Problem], judge: FakeJudge, tmp_path: Path
) -> None:
    samples = some_samples(problems, 3)
    evaluate_samples(problems, samples, tmp_path / "a", settings={}, judging=JudgeSettings(workers=1))
    evaluate_samples(problems, samples[::-1], tmp_path / "b", settings={}, judging=JudgeSettings(workers=4))
    for name in (SAMPLES, VERDICTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_base_and_plus_are_counted_apart(tmp_path: Path) -> None:
    plus = {"base_input": [[1]], "plus_input": [[2]], "atol": 0}
    file = write_records(tmp_path / "p.jsonl", [human_eval_record(at) | plus for at in range(4)])
    problems = load_problems("humaneval+", file)

    def judge(check: Any, program: str, sandbox: Any, *, seconds: float) -> Verdict:
        base, both = {"0": (True, True), "1": (True, False)}.get(check.task_id[-1], (False, False))
        return Verdict("passed" if both else "failed", "", base, both, 0.0)

    with mock.patch("donod_fast.evaluation.judging.judge", judge):
        stored = evaluate_samples(problems, canonical_samples(problems)).as_dict()
    assert stored["settings"]["judging"]["memory"] == 4 << 30  # as EvalPlus
    assert (stored["passed"], stored["plus_passed"], stored["base_passed"], stored["total"]) == (1, 1, 2, 4)
    assert (stored["pass@1"], stored["plus_pass@1"], stored["base_pass@1"]) == (0.25, 0.25, 0.5)
    assert stored["per_task"]["Fam/1"]["base_passed"] == 1


def test_an_interrupted_folder_is_resumed(problems: list[Problem], judge: FakeJudge, tmp_path: Path) -> None:
    samples, made = some_samples(problems, 2), []

    def source(done: set[tuple[str, int]]) -> Iterator[Sample]:
        for at, sample in enumerate(one for one in samples if (one.task_id, one.index) not in done):
            if not made and at == 5:
                raise KeyboardInterrupt
            yield sample

    with pytest.raises(KeyboardInterrupt):
        evaluate(problems, source, 12, tmp_path / "out", settings={"a": 1})
    torn = tmp_path / "out" / SAMPLES
    assert len(torn.read_bytes().splitlines()) == 5
    torn.write_bytes(torn.read_bytes()[:-10])  # and the last line was cut
    made.append(True)
    asked: list[int] = []

    def rest(done: set[tuple[str, int]]) -> Iterator[Sample]:
        asked.append(len(done))
        return source(done)

    result = evaluate(problems, rest, 12, tmp_path / "out", settings={"a": 1})
    assert asked == [4] and result.total == 12
    whole = evaluate_samples(problems, samples, tmp_path / "whole", settings={"a": 1})
    assert (tmp_path / "out" / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()
    assert result.per_task == whole.per_task
    before = len(judge.programs)
    assert evaluate(problems, rest, 12, tmp_path / "out", settings={"a": 1}).judged == 0
    assert len(judge.programs) == before and asked == [4, 12]


def test_verdicts_of_an_interrupted_run_are_kept(problems: list[Problem], tmp_path: Path) -> None:
    samples = some_samples(problems)
    with fake_judge() as fake:
        calls = iter(range(100))

        def stops(*arguments: Any, **options: Any) -> Verdict:
            if next(calls) == 3:
                raise KeyboardInterrupt
            return fake(*arguments, **options)

        # The main thread reads late, so that the interrupt arrives together with verdicts, and before them.
        def late(running: Any, **options: Any) -> Any:
            time.sleep(0.2)
            done, rest = wait(running, **options)
            return sorted(done, key=lambda one: one.exception() is None), rest

        with (
            mock.patch("donod_fast.evaluation.judging.judge", stops),
            mock.patch("donod_fast.evaluation.verdicts.wait", late),
            pytest.raises(KeyboardInterrupt),
        ):
            evaluate_samples(problems, samples, tmp_path / "out", judging=JudgeSettings(workers=1))
        assert len(fake.programs) >= 3
        kept = len((tmp_path / "out" / VERDICTS).read_bytes().splitlines())
        assert kept >= 3
        before = len(fake.programs)
        evaluate_samples(problems, samples, tmp_path / "out", judging=JudgeSettings(workers=1))
        assert len(fake.programs) - before == COUNT - kept


KILLED = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from unittest import mock
    from donod_fast.evaluation.judging import Verdict
    from donod_fast.evaluation import Sample, evaluate_samples, load_problems
    problems = load_problems("humaneval", sys.argv[1])
    from donod_fast.evaluation.run import evaluate
    def source(done):
        for one in problems:
            if (one.task_id, 0) not in done:
                time.sleep(float(sys.argv[3]))
                print("made", one.task_id, flush=True)
                yield Sample(one.task_id, 0, one.canonical)
    with mock.patch("donod_fast.evaluation.judging.judge", lambda *_, **__: Verdict("passed", "", True, None, 0.1)):
        result = evaluate(problems, source, len(problems), Path(sys.argv[2]), settings={})
    print("passed", result.passed, flush=True)
    """
)


def test_a_killed_run_resumes_to_the_same_files(problems: list[Problem], judge: FakeJudge, tmp_path: Path) -> None:
    file, out = tmp_path / "p.jsonl", tmp_path / "out"

    def start(pause: float) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-P", "-c", KILLED, str(file), str(out), str(pause)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)

    first = start(0.3)
    assert first.stdout is not None
    for _ in range(3):
        assert first.stdout.readline().startswith("made")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = start(0.0).communicate(timeout=60)[0].splitlines()
    assert second[-1] == "passed 6" and 1 <= len(second) - 1 <= 4  # not all of them once more
    evaluate_samples(problems, canonical_samples(problems), tmp_path / "whole", settings={})
    for name in (SAMPLES, VERDICTS):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_settings_in_the_same_folder_are_refused_by_name(
    problems: list[Problem], judge: FakeJudge, tmp_path: Path
) -> None:
    out, samples = tmp_path / "out", some_samples(problems)
    evaluate_samples(problems, samples, out, settings={"generation": {"seed": 1, "style": "chat"}})
    with pytest.raises(SettingsMismatchError) as raised:
        settings = {"generation": {"seed": 2, "style": "chat"}}
        evaluate_samples(problems, samples, out, JudgeSettings(seconds=3.0), settings=settings)
    message = str(raised.value)
    assert "generation.seed: 1 in the folder, 2 requested" in message
    assert "judging.seconds: 5.0 in the folder, 3.0 requested" in message and "--overwrite" in message
    assert "style" not in message
    with pytest.raises(SettingsMismatchError, match="problems"):
        evaluate_samples(problems[:2], samples[:2], out, settings={"generation": {"seed": 1, "style": "chat"}})
    again = evaluate_samples(problems, samples[:1], out, settings={"new": 1}, overwrite=True)
    assert again.total == 6 and again.by_status["missing"] == 5


def test_a_folder_in_use_or_of_something_else_is_refused(
    problems: list[Problem], judge: FakeJudge, tmp_path: Path
) -> None:
    from donod_fast.scores.folder import locked

    with locked(tmp_path / "held"), pytest.raises(StoreError, match="in use"):
        evaluate_samples(problems, [], tmp_path / "held")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / SAMPLES).write_text("mine\n")
    with pytest.raises(StoreError, match="use another folder"):
        evaluate_samples(problems, [], tmp_path / "other")
    assert (tmp_path / "other" / SAMPLES).read_text() == "mine\n"


def test_without_isolation_nothing_is_run_and_no_folder_made(
    problems: list[Problem], judge: FakeJudge, tmp_path: Path
) -> None:
    with (
        mock.patch("donod_fast.evaluation.sandbox.find_isolation", side_effect=SandboxError("none here")),
        pytest.raises(SandboxError),
    ):
        evaluate_samples(problems, some_samples(problems), tmp_path / "out")
    assert not judge.programs and not (tmp_path / "out").exists()


def test_what_makes_no_sense_is_refused(problems: list[Problem], judge: FakeJudge) -> None:
    with pytest.raises(InputError, match="no problems"):
        evaluate_samples([], [])
    with pytest.raises(InputError, match="seconds"):
        evaluate_samples(problems, [], judging=JudgeSettings(seconds=0))
    with pytest.raises(InputError, match="workers"):
        evaluate_samples(problems, [], judging=JudgeSettings(workers=0))
    with pytest.raises(CorpusError, match="not among the 6 problems"):
        evaluate_samples(problems, [Sample("Other/1", 0, "")])


def test_the_real_judge_runs_the_programs(problems: list[Problem]) -> None:
    start = time.perf_counter()
    samples = [
        Sample("Fam/0", 0, problems[0].canonical),
        Sample("Fam/1", 0, problems[1].prompt + "    return x + 2"),
        Sample("Fam/2", 0, problems[2].prompt + "    return x +"),
        Sample("Fam/3", 0, problems[3].prompt + "    import os\n    os._exit(0)"),
    ]
    result = evaluate_samples(problems[:4], samples)
    assert [one.passed for one in result.per_task] == [1, 0, 0, 0]
    assert result.by_status["passed"] == 1 and result.seconds["judge"] < time.perf_counter() - start


def test_judging_loads_no_torch() -> None:
    text = "import sys, donod_fast.evaluation.run, donod_fast.evaluation.sandbox; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
