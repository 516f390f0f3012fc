"""Problems of every format, by split and limit; errors in a file are reported with the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from eval_cases import human_eval_record, mbpp_record, write_records

from donod_fast.errors import CorpusError, DonodError, InputError
from donod_fast.evaluation import load_problems

PLUS = {
    **human_eval_record(1),
    "base_input": [[1], [5]],
    "plus_input": {},
    "atol": 0,
    "contract": "",
}
MBPP_PLUS = {
    "task_id": "Mbpp/6",
    "prompt": '"""\nWrite a function to add 2.\nassert add_2(1) == 3\n"""\n',
    "entry_point": "add_2",
    "canonical_solution": "\ndef add_2(x):\n  return x + 2\n",
    "base_input": [[1]],
    "plus_input": [[7], [8]],
    "atol": 0,
    "contract": "",
    "assertion": "\nassert add_2(1) == 3\nassert add_2(2) == 4\n",
}


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.json", "p.json.gz"])
def test_humaneval_files_are_read_as_lines_and_lists_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    file = write_records(tmp_path / name, [human_eval_record(at) for at in range(3)])
    problems = load_problems("humaneval", file)
    assert [one.task_id for one in problems] == ["Fam/0", "Fam/1", "Fam/2"]
    assert problems[2].canonical == 'def add_2(x):\n    """Add 2 to x."""\n    return x + 2\n'
    assert problems[2].entry_point == "add_2" and problems[2].check.kind == "human-eval"
    assert [one.task_id for one in load_problems("humaneval", file, limit=2)] == ["Fam/0", "Fam/1"]


def test_a_problems_digest_is_that_of_its_content_not_of_its_file(tmp_path: Path) -> None:
    records = [human_eval_record(at) for at in range(2)]
    lines = load_problems("humaneval", write_records(tmp_path / "a.jsonl", records))
    listed = load_problems("humaneval", write_records(tmp_path / "b.json.gz", records))
    assert [one.digest for one in lines] == [one.digest for one in listed]
    changed = load_problems("humaneval", write_records(tmp_path / "c.json", [{**records[0], "test": "x"}]))
    assert changed[0].digest != lines[0].digest


def test_mbpp_task_ids_and_line_ends_are_normalised(tmp_path: Path) -> None:
    problem = load_problems("mbpp", write_records(tmp_path / "p.jsonl", [mbpp_record(2)]))[0]
    assert problem.task_id == "Mbpp/2" and problem.entry_point == "add_2"
    assert problem.canonical == "def add_2(x):\n  return x + 2"
    assert problem.text == "Write a function to add 2." and len(problem.tests) == 2


def test_sanitized_mbpp_has_its_task_in_prompt_and_its_imports_apart(tmp_path: Path) -> None:
    record = mbpp_record(7) | {"prompt": "Add 7.", "test_imports": ["import math"]}
    del record["text"], record["test_setup_code"], record["challenge_test_list"]
    problem = load_problems("mbpp-sanitized", write_records(tmp_path / "p.json", [record]))[0]
    assert problem.text == "Add 7." and "import math" in problem.check.setup


def test_evalplus_records_bring_base_and_plus_inputs(tmp_path: Path) -> None:
    one = load_problems("humaneval+", write_records(tmp_path / "h.jsonl", [PLUS]))[0]
    assert one.check.kind == "evalplus" and len(one.check.base_inputs) == 2 and one.check.plus_inputs == ()
    two = load_problems("mbpp+", write_records(tmp_path / "m.jsonl.gz", [MBPP_PLUS]))[0]
    assert two.text == "Write a function to add 2."
    assert two.tests == ("assert add_2(1) == 3", "assert add_2(2) == 4")
    assert len(two.check.plus_inputs) == 2


def test_mbpps_splits_are_by_task_number(tmp_path: Path) -> None:
    file = write_records(tmp_path / "p.jsonl", [mbpp_record(at) for at in (2, 10, 11, 510, 511, 600, 601, 974)])

    def numbers(split: str) -> list[int]:
        return [int(one.task_id.removeprefix("Mbpp/")) for one in load_problems("mbpp", file, split=split)]

    assert numbers("prompt") == [2, 10] and numbers("test") == [11, 510]
    assert numbers("validation") == [511, 600] and numbers("train") == [601, 974]
    assert len(numbers("all")) == 8


BAD: list[tuple[str, list[Any] | bytes, str, str]] = [
    ("humaneval", b'{"task_id": 1}\n{"task_id"', "p.jsonl", "line 2: not valid JSON"),
    ("humaneval", b'[{"task_id": 1}', "p.json", "not valid JSON"),
    ("humaneval", b"", "p.jsonl", "is empty"),
    ("humaneval", b"\xff\xfe{}", "p.jsonl", "not UTF-8"),
    ("humaneval", b"\x1f\x8b\x08\x00junk", "p.jsonl.gz", "damaged gzip"),
    ("humaneval", b"[1]", "p.json", "instead of a JSON object"),
    ("humaneval", [mbpp_record(1)], "p.jsonl", "line 1: 'prompt' is missing; is it a file of humaneval"),
    ("humaneval", [human_eval_record(1) | {"test": 3}], "p.jsonl", "'test' is a int, but must be a text"),
    ("humaneval", [human_eval_record(1), human_eval_record(1)], "p.jsonl", "task Fam/1 occurs twice"),
    ("humaneval", [human_eval_record(1) | {"task_id": None}], "p.jsonl", "'task_id' is a NoneType"),
    ("humaneval+", [human_eval_record(1)], "p.jsonl", "'base_input' is missing"),
    ("humaneval+", [PLUS | {"atol": "x"}], "p.jsonl", "'atol' is a str"),
    ("mbpp", [human_eval_record(1)], "p.jsonl", "'code' is missing"),
    ("mbpp", [mbpp_record(1) | {"test_list": []}], "p.jsonl", "test_list is empty"),
    ("mbpp", [mbpp_record(1) | {"test_list": ["assert ("]}], "p.jsonl", "cannot be parsed"),
    ("mbpp", [mbpp_record(1) | {"test_list": "assert"}], "p.jsonl", "must be a list of texts"),
]


@pytest.mark.parametrize(("asked", "content", "name", "message"), BAD)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, asked: str, content: list[Any] | bytes, name: str, message: str
) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        write_records(file, content)
    with pytest.raises(CorpusError) as raised:
        load_problems(asked, file)
    assert message in str(raised.value) and "p.json" in str(raised.value)


def test_wrong_arguments_are_refused_by_name(tmp_path: Path) -> None:
    file = write_records(tmp_path / "p.jsonl", [human_eval_record(1)])
    for arguments, options, message in (
        (("apps", file), {}, "known are humaneval, humaneval"),
        (("humaneval", file), {"split": "test"}, "is for mbpp"),
        (("mbpp", file), {"split": "dev"}, "split must be one of"),
        (("humaneval", file), {"limit": 0}, "limit must be"),
        (("humaneval+", None), {}, "--problems FILE, which is HumanEvalPlus.jsonl.gz"),
    ):
        with pytest.raises(InputError, match=message):
            load_problems(*arguments, **options)  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="cannot be read"):
        load_problems("humaneval", tmp_path / "absent.jsonl")


def test_without_the_hub_the_error_names_the_file_to_give() -> None:
    with (
        mock.patch("datasets.load_dataset", side_effect=ConnectionError("offline")),
        pytest.raises(DonodError, match=r"offline.*--problems FILE, which is mbpp\.jsonl"),
    ):
        load_problems("mbpp")


def test_the_hubs_records_are_those_of_the_file(tmp_path: Path) -> None:
    splits = {"train": [mbpp_record(601)], "prompt": [mbpp_record(2)]}
    with mock.patch("datasets.load_dataset", return_value=splits):
        problems = load_problems("mbpp")
    file = write_records(tmp_path / "p.jsonl", [mbpp_record(2), mbpp_record(601)])
    assert problems == load_problems("mbpp", file)
