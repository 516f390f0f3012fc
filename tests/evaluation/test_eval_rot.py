"""Damage to an evaluation's folder is an error, or changes nothing that is shown or computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from attack_counts import Attacks
from eval_cases import fake_judge
from flips import attack_files
from rotting_results import Evaluation

from donod_fast.errors import StoreError
from donod_fast.evaluation import sandbox
from donod_fast.evaluation.browser import read_entries
from donod_fast.system.checked_json import checked_line


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluation]:
    isolation = sandbox.find_isolation()  # its probes take most of the time of an evaluation with a fake judge
    with fake_judge(), mock.patch.object(sandbox, "find_isolation", lambda **_: isolation):
        yield Evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.mark.attack
def test_damage_to_an_evaluation_folder_is_noticed(evaluation: Evaluation, attacks: Attacks) -> None:
    found = attack_files(evaluation.files, evaluation.readers(), attacks.number(40, 1500), 5)
    attacks.count("folders", "evaluation folder", tried=found.tried, got_through=len(found.through))
    assert found.errors and not found.through, "\n".join(found.through[:20])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "pased"),
        ("status", None),
        ("base", 1),
        ("plus", "yes"),
        ("seconds", -1.0),
        ("seconds", float("nan")),
        ("detail", 3),
        ("key", None),
        ("base", False),
    ],
)
def test_a_verdict_that_cannot_be_is_refused_by_its_field(evaluation: Evaluation, field: str, value: object) -> None:
    lines = evaluation.kept["verdicts.jsonl"].splitlines(keepends=True)
    at = next(at for at, line in enumerate(lines) if json.loads(line)["status"] == "passed")
    line = json.loads(lines[at])
    line.pop("sha256")
    lines[at] = checked_line({**line, field: value})
    assert_refused(evaluation, "verdicts.jsonl", b"".join(lines), "status" if value is False else field)


@pytest.mark.parametrize(
    ("field", "value"), [("ended", "never"), ("sample", -1), ("sample", "0"), ("solution", None), ("tokens", 1.5)]
)
def test_a_sample_that_cannot_be_is_refused_by_its_field(evaluation: Evaluation, field: str, value: object) -> None:
    lines = evaluation.kept["samples.jsonl"].splitlines(keepends=True)
    line = json.loads(lines[3])
    line.pop("sha256")
    lines[3] = checked_line({**line, field: value})
    assert_refused(evaluation, "samples.jsonl", b"".join(lines), field)


def assert_refused(evaluation: Evaluation, name: str, content: bytes, told: str) -> None:
    file, result = evaluation.out / name, evaluation.out / "result.json"
    file.write_bytes(content)
    try:
        with pytest.raises(StoreError, match="changed or cut afterwards"):
            evaluation.browse()
        result.unlink()  # as in an evaluation that is not finished
        with pytest.raises(StoreError, match=rf"{name}, record \d+ is damaged \({told}"):
            evaluation.browse()
        with pytest.raises(StoreError, match=rf"{name}, record \d+ is damaged \({told}"):
            evaluation.evaluate(evaluation.out)
    finally:
        for kept, before in evaluation.kept.items():
            (evaluation.out / kept).write_bytes(before)


def test_a_cut_line_is_made_again_and_a_damaged_one_is_named(evaluation: Evaluation, tmp_path: Path) -> None:
    for name, content in evaluation.kept.items():
        if name not in ("result.json", "problems.jsonl"):
            (tmp_path / name).write_bytes(content)
    for name in ("samples.jsonl", "verdicts.jsonl"):
        for cut in (1, 9, 60):
            (tmp_path / name).write_bytes(evaluation.kept[name][:-cut])
            evaluation.evaluate(tmp_path)
            stored = [json.loads(line) for line in (tmp_path / name).read_bytes().splitlines()]
            wanted = [json.loads(line) for line in evaluation.kept[name].splitlines()]
            assert [one.get("key") for one in stored] == [one.get("key") for one in wanted]
    lines = evaluation.kept["samples.jsonl"].splitlines(keepends=True)
    lines[2] = lines[2][:30] + b"\n"
    (tmp_path / "samples.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match=r"samples\.jsonl, line 3 is damaged .* remove this line"):
        evaluation.evaluate(tmp_path)


def test_a_folder_of_an_earlier_release_is_read_and_resumed(evaluation: Evaluation, tmp_path: Path) -> None:
    for name, content in evaluation.kept.items():
        lines = []
        for line in content.splitlines() if name.endswith("l") else [content]:
            old = json.loads(line)
            for key in ("sha256", "version", "files"):
                old.pop(key, None)
            lines.append(json.dumps(old) + "\n")
        (tmp_path / name).write_text("".join(lines))
    wanted = read_entries(evaluation.out)
    assert read_entries(tmp_path) == wanted
    torn = (tmp_path / "samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "samples.jsonl").write_text("".join([*torn[:3], torn[3][:20] + "\n", *torn[4:]]))
    (tmp_path / "result.json").unlink()
    evaluation.evaluate(tmp_path)
    assert read_entries(tmp_path) == wanted
