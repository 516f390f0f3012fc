"""``donod-fast eval`` from the command line."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from eval_cases import (
    COMMAND,
    ENVIRONMENT,
    FakeJudge,
    code_tokenizer,
    fake_judge,
    human_eval_record,
    mbpp_record,
    run_eval,
    write_records,
)
from score_runs import assert_one_line_error
from tiny_models import tiny_model

from donod_fast.errors import SandboxError
from donod_fast.evaluation.prompts import STOPS


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama", max_position_embeddings=2048).save_pretrained(folder)
    code_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_records(tmp_path / "p.jsonl", [human_eval_record(at) for at in range(4)])


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with fake_judge() as fake:
        yield fake


def test_reference_solutions_pass_in_the_real_sandbox(problems: Path, tmp_path: Path) -> None:
    done = run_eval("humaneval", "--problems", problems, "--canonical", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "humaneval  4 of 4 passed: 4 passed"
    assert "pass@1     1.0000 (95 %: 0.510 to 1.000, wilson)" in done.out
    assert f"next: donod-fast eval browse {tmp_path / 'out'}" in done.out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["settings"]["samples"] == "canonical" and result["settings"]["benchmark"] == "humaneval"
    assert result["settings"]["problems_file"] == "p.jsonl"
    assert result["settings"]["problems_file_sha256"] == hashlib.sha256(problems.read_bytes()).hexdigest()


def test_a_model_writes_programs_and_the_run_resumes(
    problems: Path, model: Path, judge: FakeJudge, tmp_path: Path
) -> None:
    arguments = ["humaneval", "--problems", problems, "--model", model, "--device", "cpu", "--max-new-tokens", 12]
    out = tmp_path / "out"
    done = run_eval(*arguments, "--out", out, "--json")
    assert done.code == 0, done.err
    first = json.loads(done.out)
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [line["task_id"] for line in lines] == [f"Fam/{at}" for at in range(4)]
    assert all(line["solution"].endswith(line["completion"]) and line["tokens"] <= 12 for line in lines)
    generation = first["settings"]["generation"]
    assert generation["style"] == "completion" and generation["stops"] == list(STOPS["completion"])
    assert first["settings"]["model"]["fingerprint"].startswith("local:")
    assert {"torch", "transformers"} <= set(first["settings"]["engine_versions"])
    count = len(judge.programs)
    with mock.patch("donod_fast.evaluation.generation._generate_batch", side_effect=AssertionError):
        again = run_eval(*arguments, "--out", out, "--json")
    assert again.code == 0 and json.loads(again.out)["judged"] == 0 and len(judge.programs) == count
    other = run_eval(*arguments, "--out", out, "--temperature", 0.5, "--samples-per-task", 2, "--top-p", 0.9)
    assert_one_line_error(other, 5, "generation.temperature: 0.0 in the folder, 0.5 requested", "--overwrite")
    sampled = run_eval(
        *arguments, "--out", out, "--temperature", 0.5, "--samples-per-task", 2, "--top-p", 0.9, "--overwrite", "--json"
    )
    assert sampled.code == 0 and json.loads(sampled.out)["total"] == 8


def test_the_chat_style_is_recorded_and_judges_the_extracted_code(
    problems: Path, model: Path, judge: FakeJudge, tmp_path: Path
) -> None:
    done = run_eval(
        "humaneval", "--problems", problems, "--model", model, "--style", "chat", "--max-new-tokens", 4,
        "--limit", 1, "--json", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["settings"]["generation"]["style"] == "chat"
    assert judge.programs[0].startswith("def add_0")


def test_mbpp_uses_the_test_split_and_takes_shots_from_the_whole_file(
    model: Path, judge: FakeJudge, tmp_path: Path
) -> None:
    file = write_records(tmp_path / "m.jsonl", [mbpp_record(at) for at in (2, 3, 4, 11, 12, 601)])
    arguments = ["mbpp", "--problems", file, "--model", model, "--max-new-tokens", 4, "--json"]
    result = json.loads(run_eval(*arguments).out)
    assert result["total"] == 2 and set(result["per_task"]) == {"Mbpp/11", "Mbpp/12"}
    assert result["settings"]["split"] == "test" and result["settings"]["generation"]["style"] == "3-shot"
    assert json.loads(run_eval(*arguments, "--split", "all", "--style", "0-shot").out)["total"] == 6
    canonical = json.loads(run_eval("mbpp", "--problems", file, "--canonical", "--json").out)
    assert canonical["total"] == 6 and canonical["settings"]["split"] == "all"
    few = write_records(tmp_path / "few.jsonl", [mbpp_record(11)])
    lacking = run_eval("mbpp", "--problems", few, "--model", model)
    assert_one_line_error(lacking, 2, "tasks 2, 3 and 4", "lacks 2, 3, 4")
    elsewhere = write_records(tmp_path / "e.jsonl", [mbpp_record(601)])
    assert_one_line_error(run_eval("mbpp", "--problems", elsewhere, "--canonical", "--split", "test"), 2, "--split all")


def test_samples_of_a_file_are_judged_and_the_others_said(problems: Path, judge: FakeJudge, tmp_path: Path) -> None:
    samples = write_records(
        tmp_path / "s.jsonl",
        [{"task_id": f"Fam/{at}", "completion": "    return x + 1"} for at in (0, 1, 3)],
    )
    done = run_eval("humaneval", "--problems", problems, "--samples", samples, "--limit", 3)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "humaneval  1 of 3 passed: 1 passed, 1 failed, 1 missing"
    assert "tasks without a sample, which count as failed: 1" in done.out
    assert "samples of tasks outside this split or limit, not judged: 1" in done.out


def test_a_cache_is_shared_by_commands(problems: Path, judge: FakeJudge, tmp_path: Path) -> None:
    arguments = ["humaneval", "--problems", problems, "--canonical", "--cache", tmp_path / "c.jsonl", "--json"]
    assert json.loads(run_eval(*arguments).out)["judged"] == 4
    assert json.loads(run_eval(*arguments).out)["judged"] == 0


def test_wrong_use_is_one_line_with_the_remedy(problems: Path, model: Path, tmp_path: Path) -> None:
    start = ["humaneval", "--problems", problems]
    for arguments, code, parts in (
        (["apps", "--canonical"], 2, ("known are humaneval",)),
        (start, 2, ("--model, --samples, --canonical", "none was given")),
        ([*start, "--canonical", "--model", model], 2, ("--model and --canonical were given",)),
        ([*start, "--canonical", "--split", "test"], 2, ("--split is for mbpp",)),
        ([*start, "--model", model, "--style", "0-shot"], 2, ("its styles are completion, chat",)),
        ([*start, "--model", model, "--engine", "ggml"], 2, ("engine must be one of",)),
        ([*start, "--model", model, "--engine", "vllm"], 2, ("needs vLLM",)),
        ([*start, "--model", tmp_path / "no"], 4, ("no such folder",)),
        ([*start, "--samples", tmp_path / "no.jsonl"], 3, ("cannot be read",)),
        ([*start, "--model", model, "--samples-per-task", 3], 2, ("temperature 0 are all equal",)),
        (["humaneval", "--problems", tmp_path / "no.jsonl", "--canonical"], 3, ("cannot be read",)),
        (["humaneval+", "--canonical"], 2, ("--problems FILE",)),
        ([*start, "--canonical", "--show", "1"], 2, ("go with browse",)),
        (["browse"], 2, ("donod-fast eval browse DIR",)),
        (["browse", tmp_path], 5, ("contains no settings.json",)),
        ([*start, "--canonical", "--seconds", 0], 2, ("seconds must be > 0",)),
    ):
        assert_one_line_error(run_eval(*arguments), code, *parts)


def test_without_isolation_it_refuses_unless_told(problems: Path, judge: FakeJudge) -> None:
    from donod_fast.evaluation.sandbox import Isolation

    def none_here(unsafe: bool = False) -> Isolation:
        if unsafe:
            return Isolation.NONE
        raise SandboxError("no isolation: install bubblewrap, or --unsafe-exec")

    with mock.patch("donod_fast.evaluation.sandbox.find_isolation", none_here):
        assert_one_line_error(run_eval("humaneval", "--problems", problems, "--canonical"), 7, "--unsafe-exec")
        assert not judge.programs
        done = run_eval("humaneval", "--problems", problems, "--canonical", "--unsafe-exec")
    assert done.code == 0 and "UNSAFE: the programs ran without isolation" in done.out


def test_an_interrupt_ends_soon_with_130_and_says_how_to_resume(tmp_path: Path) -> None:
    records = [human_eval_record(at) for at in range(2)]
    problems = write_records(tmp_path / "p.jsonl", records)
    body = "    import time\n    time.sleep(50)\n"
    samples = write_records(tmp_path / "s.jsonl", [{"task_id": f"Fam/{at}", "completion": body} for at in range(2)])
    out = tmp_path / "out"
    arguments = ["eval", "humaneval", "--problems", problems, "--samples", samples, "--out", out, "--seconds", 40]
    running = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the suite itself runs in the background, a child would inherit that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (out / "verdicts.jsonl").exists():  # opened just before the first program starts
        assert running.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    start = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert time.monotonic() - start < 30, err  # not the 60 that the programs would have had
    assert "interrupted; run the same command again to resume in" in err and "Traceback" not in err
