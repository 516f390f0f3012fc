"""The command line starts quickly: modules that help texts and light commands import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from donod_fast.cli.app import Commands
from donod_fast.cli.study import Studies

SCORED = Path(__file__).parents[1] / "scores" / "data" / "release-0.1.0" / "scores"
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "numpy", "pydantic", "rich", "yaml", "tqdm")
REPORT = """
import json, sys
sys.argv = ["donod-fast", *{arguments}]
from donod_fast.cli import main
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})), file=sys.stderr)
"""


def modules_after(*arguments: str) -> tuple[set[str], str]:
    """Top-level modules that a fresh process has imported after ``donod-fast ARGUMENTS``, and its standard output."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", REPORT.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        cwd=os.sep,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
    )
    return set(json.loads(done.stderr.splitlines()[-1])), done.stdout


COMMANDS = [[name] for name in Commands.table if name != "study"] + [["study", name] for name in Studies.table]


def test_version_imports_not_even_the_command_line_library() -> None:
    modules, out = modules_after("--version")
    assert out.startswith("donod-fast ")
    assert not modules & {*HEAVY, "typer", "click"}


def test_the_list_of_commands_imports_nothing_heavy() -> None:
    modules, out = modules_after("--help")
    assert "score" in out and not modules & set(HEAVY)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    modules, out = modules_after(*command, "--help")
    assert out.startswith("Usage: donod-fast " + " ".join(command))
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("command", ["status", "merge", "export"])
def test_commands_on_folders_do_without_torch(command: str, tmp_path: Path) -> None:
    arguments = {
        "status": [str(tmp_path / "gone")],
        "merge": [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")],
        "export": [str(tmp_path / "gone"), "--out", str(tmp_path / "out.parquet")],
    }
    modules, _ = modules_after(command, *arguments[command])
    assert not modules & {"torch", "transformers", "datasets"}


def test_the_status_of_a_scored_folder_does_without_torch() -> None:
    modules, out = modules_after("status", str(SCORED))
    assert "20 scored" in out and "NOD" in out
    assert not modules & {"torch", "transformers", "datasets"}
