"""The Python snippets of the guides run as they are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pytest
import torch
from score_runs import assert_same_bits, tiny_scorer, write_lines
from tiny_models import save_tiny

import donod_fast

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
RECORDS = [{"question": "How many?", "answer": "Three."}, {"question": "Which?", "answer": "This one."}]

HEADING = "## Arguments as you write them"
PART = Path(__file__).with_name("python_arguments.md")
"""The sections from this heading on, until they are on the page."""


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
    scorer = tiny_scorer(model)
    wanted = scorer.score(RECORDS)
    names = {"scorer": scorer, "records": RECORDS, "Path": Path}
    names |= {"datasets": datasets, "pandas": pandas, "pyarrow": pyarrow, "polars": pytest.importorskip("polars")}
    (block,) = blocks(section((GUIDES / "inputs.md").read_text(encoding="utf-8"), "## From Python"))
    found = [(line, eval(line, dict(names))) for line in block.splitlines()]
    assert len(found) == 11
    for line, table in found:
        if "texts" in line:
            assert table.column("status").to_pylist() == ["scored"] * 2
        else:
            assert_same_bits(table.drop_columns("detail"), wanted.drop_columns("detail"))


def test_the_arguments_of_the_guide_are_taken(model: Path) -> None:
    page = (GUIDES / "python.md").read_text(encoding="utf-8")
    text = page[page.index(HEADING) :] if HEADING in page else PART.read_text(encoding="utf-8")
    names: dict[str, Any] = {"donod_fast": donod_fast, "torch": torch, "model": model}
    first, second, padded, columns = blocks(text)[:4]
    exec(first.replace("512", "100"), names)  # the tiny model takes 128 tokens
    scores = names["scorer"].score(RECORDS)
    assert names["scorer"].update.update == "sgd" and names["scorer"].update.lr == 1e-5
    assert {"ifd_loss", "el2n", "record.question"} <= {*scores.column_names}
    exec(second, names)
    assert names["scorer"].update.eps == 1e-6 and names["scorer"].update.weight_decay == 0.1
    assert names["scorer"].score(RECORDS).column("status").to_pylist() == ["scored"] * 2
    ids = torch.tensor([[3, 4, 5, 6], [5, 6, 7, 0]])
    labels = torch.tensor([[-100, 4, 5, 6], [-100, 6, 7, -100]])
    exec(
        padded, names | {"hf_model": names["scorer"].loaded.model, "input_ids": ids, "mask": ids != 0, "labels": labels}
    )
    names["frame"] = pandas.DataFrame({"don": [1.0, 2.0, None], "nod": [1.0, 0.5, None]})
    exec(columns, names)
    assert names["closeness"].tolist()[:2] == [0.0, 1.0]
