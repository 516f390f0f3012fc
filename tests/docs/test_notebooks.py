"""The notebooks of ``examples/`` run offline, and their outputs are from a run of what they hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import shape

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MOST_BYTES = 200_000


def kinds(output: Any) -> list[str]:
    """The kinds of content of an output of a cell."""
    return sorted(output.get("data", {})) or [output["output_type"]]


def texts(cell: Any) -> str:
    """The text that the outputs of a cell show."""
    return "".join("".join(output.get("data", {}).get("text/plain", "")) for output in cell.get("outputs", []))


def test_there_is_a_notebook() -> None:
    assert [path.name for path in NOTEBOOKS] == ["look-at-a-corpus.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    shown = json.loads(text)
    assert not re.search(r"/(?:home|root|work|tmp|usr|Users|opt)/", text)
    assert [cell["execution_count"] for cell in shown["cells"] if cell["cell_type"] == "code"] == list(
        range(1, 1 + sum(cell["cell_type"] == "code" for cell in shown["cells"]))
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_holds(path: Path, tmp_path: Path) -> None:
    for package in ("nbclient", "nbformat", "ipykernel", "matplotlib"):
        pytest.importorskip(package)
    from notebooks import run_notebook

    held = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for before, now in zip(held, run_notebook(path, tmp_path).cells, strict=True):
        assert [kinds(output) for output in before.get("outputs", [])] == [
            kinds(output) for output in now.get("outputs", [])
        ]
        first = texts(before).splitlines()[:1]
        assert [shape(line) for line in first] == [shape(line) for line in texts(now).splitlines()[:1]]
    assert (tmp_path / "subset.jsonl").is_file() and (tmp_path / "report.html").is_file()
