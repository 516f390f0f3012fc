"""Every example of the guide of the Python interface runs, in order, with the model and corpus of the package."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import donod_fast
from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "python.md"
HUB_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the guide names; the small model of the package stands in for it."""

ROWS = 40


def blocks(page: str) -> list[str]:
    """The Python examples of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the examples define, and the folder that they ran in."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("polars")
    pytest.importorskip("duckdb")
    place = tmp_path_factory.mktemp("guide")
    lines = CORPUS_FILE.read_text(encoding="utf-8").splitlines()[:ROWS]
    lines[7] = json.dumps({"instruction": "Say hello.", "output": ""})
    (place / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for at, block in enumerate(blocks(PAGE.read_text(encoding="utf-8"))):
            code = block.replace(f'"{HUB_MODEL}"', repr(str(MODEL_FOLDER)))
            exec(compile(code, f"{PAGE.name}, example {at + 1}", "exec"), names)
    return {**names, "place": place}


def test_every_example_runs_and_leaves_what_it_says(ran: dict[str, Any]) -> None:
    place = ran["place"]
    for name in ("plane.png", "report.html", "subset.jsonl", "subset.png", "scored.parquet", "constants.json"):
        assert (place / name).stat().st_size > 0
    assert len((place / "subset.jsonl").read_text(encoding="utf-8").splitlines()) == len(ran["selection"])
    assert isinstance(ran["scores"], donod_fast.Scores) and isinstance(ran["selection"], donod_fast.Selection)
    assert ran["first"] in ran["dataset"].to_list()
    assert ran["result"].don.shape == (2,)


def test_plain_arguments_are_the_settings_that_they_name(ran: dict[str, Any]) -> None:
    update = ran["by_sgd"].update
    assert (update.update, update.lr, ran["by_sgd"].masks.max_length) == ("sgd", 1e-5, 512)
    assert (ran["by_adamw"].update.eps, ran["by_adamw"].update.weight_decay) == (1e-6, 0.1)


def test_the_guide_names_every_method(ran: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind in (donod_fast.Scores, donod_fast.Selection):
        for name in vars(kind):
            assert name.startswith("_") or name in ("folder", "schema") or name in page, name


def test_the_guide_and_the_package_have_the_same_names() -> None:
    page = PAGE.read_text(encoding="utf-8")
    used = set(re.findall(r"(?<!from )donod_fast\.(\w+)", "\n".join(blocks(page))))
    assert used <= set(donod_fast.__all__)
    assert {"Scorer", "load_scores", "don_nod", "don_nod_padded", "topsis", "AdamW"} <= used
