"""The whole demonstration: its files are consistent, and the commands that it prints run."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from donod_fast.cli.app import app
from donod_fast.demo.corpus import CORPUS_FILE
from donod_fast.demo.run import DEFAULT, METHODS, next_commands, run_demo


@pytest.mark.slow
def test_the_demo_scores_selects_reports_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(tmp_path / "out", keep=0.3)
    first = capsys.readouterr().out
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    table, conclusion = (part.splitlines() for part in report.split("\n\n"))
    assert report in first
    assert [line for line in table for name, _, _ in METHODS if line.startswith(name + " ")] == table[3:-2]
    assert table[-1].startswith("chance (70%)")
    assert DEFAULT in conclusion[0]
    assert "Not shown: which rows train a better model." in conclusion[-2]
    assert (tmp_path / "out" / "plane.png").exists() is (find_spec("matplotlib") is not None)

    corpus = CORPUS_FILE.read_bytes().splitlines()
    subset = (tmp_path / "out" / "subset.jsonl").read_bytes().splitlines()
    assert len(subset) == 300
    assert set(subset) <= set(corpus)
    corrupted = sum(b'"corruption": "none"' not in line for line in subset)
    all_kinds = next(line for line in table if line.startswith(DEFAULT)).split("of 300")[0].split()[-1]
    assert int(all_kinds) == 300 - corrupted

    run_demo(tmp_path / "out", keep=0.3, quiet=True)
    assert capsys.readouterr().out == report


@pytest.mark.slow
def test_the_commands_that_the_demo_prints_run_offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a folder"
    run_demo(out)
    printed = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if "donod-fast " in line]
    commands = [command for command in printed if command[0].endswith("donod-fast")]
    assert [command[1] for command in commands] == ["score", "select", "compare"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in commands:
        result = CliRunner().invoke(app, command[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert len((out / "my-subset.jsonl").read_bytes().splitlines()) == 300


def test_a_program_that_is_not_on_the_path_is_printed_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "donod-fast"
    script.touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert {command[0] for command in next_commands(tmp_path)} == {str(script)}
    script.unlink()
    assert {command[0] for command in next_commands(tmp_path)} == {"donod-fast"}
