"""Files of samples in both formats; no sample is dropped silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eval_cases import human_eval_record, mbpp_record, write_records

from donod_fast.errors import CorpusError
from donod_fast.evaluation import Problem, Sample, canonical_samples, load_problems, read_samples
from donod_fast.evaluation.samples import check_samples, sample_line
from donod_fast.evaluation.stored import sample_of


@pytest.fixture
def problems(tmp_path: Path) -> list[Problem]:
    return load_problems("humaneval", write_records(tmp_path / "p.jsonl", [human_eval_record(at) for at in range(3)]))


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz", "s.json"])
def test_completions_are_appended_to_prompts_and_solutions_are_not(
    problems: list[Problem], tmp_path: Path, name: str
) -> None:
    file = write_records(
        tmp_path / name,
        [
            {"task_id": "Fam/1", "solution": "whole"},
            {"task_id": "Fam/0", "completion": "    return 1"},
            {"task_id": "Fam/0", "completion": "    return 2", "extra": 1},
            {"task_id": "Fam/2", "completion": "body", "solution": "counts"},
        ],
    )
    found = read_samples(file, problems)
    assert found.samples == [
        Sample("Fam/0", 0, problems[0].prompt + "    return 1"),
        Sample("Fam/0", 1, problems[0].prompt + "    return 2"),
        Sample("Fam/1", 0, "whole"),
        Sample("Fam/2", 0, "counts"),
    ]
    assert found.others == 0


@pytest.mark.parametrize("task_id", [11, "11", "Mbpp/11", "MBPP/11", "mbpp/011"])
def test_mbpps_tasks_are_known_by_every_harness_name(tmp_path: Path, task_id: str | int) -> None:
    problems = load_problems("mbpp", write_records(tmp_path / "p.jsonl", [mbpp_record(11)]))
    file = write_records(tmp_path / "s.jsonl", [{"task_id": task_id, "completion": "def add_11(x): return 1"}])
    assert read_samples(file, problems).samples == [Sample("Mbpp/11", 0, "def add_11(x): return 1")]


def test_samples_of_tasks_past_the_limit_are_counted(problems: list[Problem], tmp_path: Path) -> None:
    file = write_records(tmp_path / "s.jsonl", [{"task_id": f"Fam/{at}", "completion": "x"} for at in (0, 1, 2, 2)])
    found = read_samples(file, problems[:1], problems)
    assert len(found.samples) == 1 and found.others == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"task_id": "Fam/9", "completion": "x"}', r"line 2: this benchmark has no task 'Fam/9'.*it has Fam/0, Fam/1"),
        ('{"task_id": "Fam/0"}', r"line 2: .*'completion' is missing"),
        ('{"task_id": "Fam/0", "completion": 3}', r"'completion' is a int"),
        ('{"task_id": "Fam/0", "solution": null}', r"'solution' is a NoneType"),
        ('{"completion": "x"}', r"'task_id' is missing"),
        ('{"task_id": "Fam/0", "comp', r"line 2: not valid JSON"),
        ("[]", r"line 2: a list instead of a JSON object"),
    ],
)
def test_a_broken_line_is_named(problems: list[Problem], tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text('{"task_id": "Fam/0", "completion": "x"}\n' + line + "\n")
    with pytest.raises(CorpusError, match=message):
        read_samples(file, problems)


def test_written_samples_are_read_back_equal_in_all_formats(problems: list[Problem], tmp_path: Path) -> None:
    text = "    return 1  # \u2028 \ud800 é"
    sample = Sample("Fam/0", 0, problems[0].prompt + text, text, 7, "stop")
    (tmp_path / "s.jsonl").write_bytes(sample_line(sample))
    assert sample_of(json.loads(sample_line(sample))) == sample
    assert read_samples(tmp_path / "s.jsonl", problems).samples[0].program == sample.program


def test_reference_solutions_are_samples(problems: list[Problem]) -> None:
    assert [one.program for one in canonical_samples(problems)] == [one.canonical for one in problems]


def test_samples_of_no_task_and_twins_are_refused(problems: list[Problem]) -> None:
    with pytest.raises(CorpusError, match="'X/1', which is not among the 3"):
        check_samples(problems, [Sample("X/1", 0, "")])
    with pytest.raises(CorpusError, match="has 2 samples numbered 0"):
        check_samples(problems, [Sample("Fam/1", 0, "a"), Sample("Fam/1", 0, "b")])
