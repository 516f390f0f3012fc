"""``donod-fast train``: from a subset file to a model folder, and its messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_models import save_tiny
from training_cases import question_rows
from typer.testing import CliRunner

from donod_fast.cli.train import train
from donod_fast.errors import InputError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "subset.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*question_rows(20), {"no": "row"}]))
    return file


def run(*arguments: Any) -> str:
    """Run the command; its standard output. An error of it is raised."""
    app = typer.Typer()
    app.command()(train)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


QUICK = ("--set", "train.micro_batch=8", "--set", "train.max_steps=2", "--set", "train.learning_rate=1e-3")


def test_a_subset_becomes_a_model_and_what_happened_is_said(base: Path, subset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run("--model", base, "--data", subset, "--out", out, *QUICK)
    assert "2 steps on 20 rows" in said and "21 selected, 1 left out: 1 unknown_format" in said
    assert (out / "model" / "model.safetensors").is_file()
    summary = json.loads(run("--model", base, "--data", subset, "--out", out, *QUICK, "--json"))
    assert summary["resumed"] is None and summary["steps"] == 2 and summary["skipped"] == {"unknown_format": 1}
    assert run("--model", base, "--data", subset, "--out", out, *QUICK, "-q") == ""


def test_a_recipe_is_trained_with_what_the_command_line_replaces(base: Path, subset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("tiny", "--model", base, "--data", subset, "--out", out, "--seed", 7, "--set", "train.max_steps=1", "-q")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 7 and manifest["settings"]["learning_rate"] == 5e-4
    assert manifest["model"]["name"] == str(base) and manifest["data"]["rows"] == 21


def test_a_dry_run_writes_nothing_and_counts(base: Path, subset: Path, tmp_path: Path) -> None:
    said = run("--model", base, "--data", subset, "--out", tmp_path / "out", "--dry-run")
    assert "20 rows" in said and "1 row left out" in said and "memory" in said
    plan = json.loads(run("--model", base, "--data", subset, "--dry-run", "--json"))
    assert plan["steps"] == 2 and plan["size"]["parameters"] == plan["trained_parameters"]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_the_llama_recipe_needs_neither_weights_nor_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("donod_fast.training.counting.hub_answers", lambda: False)
    said = run("llama-2-7b-code", "--dry-run")
    assert "6,738,415,616 parameters" in said and "as the recipe states" in said and "h100 hours" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a recipe, or a model"),
        (("--model", "m"), "--data FILE"),
        (("--model", "m", "--data", "d.jsonl"), "--out DIR"),
        (("tiny", "--set", "train.epoch=3", "--out", "x"), "did you mean epochs"),
        (("absent",), "no such recipe file"),
    ],
)
def test_what_is_missing_is_asked_for(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(*arguments)
