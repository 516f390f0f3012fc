"""The Python snippets of the guide of inputs run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import pandas
import pyarrow
import pytest
from score_runs import assert_same_bits, write_lines
from tiny_models import save_tiny

import donod_fast

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
RECORDS = [{"question": "How many?", "answer": "Three."}, {"question": "Which?", "answer": "This one."}]


def blocks(text: str) -> list[str]:
    """The Python snippets of a page, in order."""
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def section(text: str, heading: str) -> str:
    """A page's text from a heading of the second level to the next one."""
    return text[text.index(heading) :].split("\n## ", 1)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


def test_every_input_of_the_guide_gives_the_scores_of_its_records(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_lines(tmp_path / "data.jsonl", RECORDS)
    (tmp_path / "shards").mkdir()
    write_lines(tmp_path / "shards" / "a.jsonl", RECORDS[:1])
    write_lines(tmp_path / "shards" / "b.jsonl", RECORDS[1:])
    scorer = donod_fast.Scorer.from_pretrained(model, device="cpu")
    wanted = scorer.score_table(RECORDS)
    names = {"scorer": scorer, "records": RECORDS, "Path": Path}
    names |= {"datasets": datasets, "pandas": pandas, "pyarrow": pyarrow, "polars": pytest.importorskip("polars")}
    (block,) = blocks(section((GUIDES / "inputs.md").read_text(encoding="utf-8"), "## From Python"))
    scored = [(line, eval(line, dict(names))) for line in block.splitlines()]
    found = [(line, one.table) for line, one in scored]
    assert len(found) == 11
    for line, table in found:
        if "texts" in line:
            assert table.column("status").to_pylist() == ["scored"] * 2
        else:
            assert_same_bits(table.drop_columns("detail"), wanted.drop_columns("detail"))
