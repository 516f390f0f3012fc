"""``select --dataset-info`` writes the subset together with its entry, or neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from score_runs import assert_one_line_error, invoke, write_lines
from scored_folders import scored

from donod_fast.scoring.scorer import Scorer

ROWS = [
    {"instruction": f"Say {word}.", "output": f"It is {word}."} for word in ("red", "blue", "one", "two", "the river")
]


@pytest.fixture
def scores(scorer: Scorer, tmp_path: Path) -> Path:
    return Path(scored(scorer, tmp_path / "scores", [write_lines(tmp_path / "rows.jsonl", ROWS)]).path)


def test_a_subset_is_registered_under_its_own_name_or_another(scores: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "dataset_info.json").write_text('{"mine": {"hf_hub_url": "a/b"}}')
    done = invoke("select", scores, "--keep", "2", "--out", data / "kept.jsonl", "--dataset-info", data)
    assert done.code == 0 and "data set kept in" in done.out, done
    options = ("--out", tmp_path / "k.parquet", "--dataset-info", data / "dataset_info.json", "--dataset", "best")
    done = invoke("select", scores, "--keep", "2", *options, "--json")
    assert json.loads(done.out)["entry"]["columns"] == {"prompt": "instruction", "response": "output"}
    content = json.loads((data / "dataset_info.json").read_text())
    assert list(content) == ["mine", "kept", "best"] and content["mine"] == {"hf_hub_url": "a/b"}
    assert (content["kept"]["file_name"], content["best"]["file_name"]) == ("kept.jsonl", "../k.parquet")
    assert len((data / "kept.jsonl").read_text().splitlines()) == 2
    assert not [path for path in (*tmp_path.iterdir(), *data.iterdir()) if path.name.startswith(".")]


def test_a_subset_that_no_entry_describes_is_not_written(scorer: Scorer, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": turns}, {"messages": [*turns, {"role": "user", "content": "c"}]}]
    scored(scorer, tmp_path / "scores", [write_lines(tmp_path / "rows.jsonl", rows)])
    options = ("--keep", "100%", "--out", tmp_path / "kept.jsonl", "--dataset-info", tmp_path)
    assert_one_line_error(invoke("select", tmp_path / "scores", *options), 2, "row 1", "must be an answer")
    assert not (tmp_path / "kept.jsonl").exists() and not (tmp_path / "dataset_info.json").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--out", "k.csv", "--dataset-info", "."), 2, "CSV|only rows of .csv"),
        (("--out", "k.jsonl.gz", "--dataset-info", "."), 2, "does not read such files"),
        (("--out", "-", "--dataset-info", "."), 2, "needs a file"),
        (("--out", "k.jsonl", "--dataset", "x"), 2, "give that file too"),
        (("--out", "k.jsonl", "--dataset-info", "mine.json"), 2, "only files named"),
        (("--out", "k.jsonl", "--dataset-info", ".", "--dataset", "there"), 5, "has a data set 'there' already"),
        (("--out", "rows.jsonl", "--overwrite", "--dataset-info", "."), 5, "one of the inputs"),
    ],
)
def test_what_cannot_be_registered_is_refused(
    scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = '{"there": {"file_name": "x"}}'
    Path("dataset_info.json").write_text(before)
    done = invoke("select", "scores", "--keep", "2", *options)
    assert done.code == code and any(part in done.err for part in message.split("|")), done
    assert Path("dataset_info.json").read_text() == before and not Path("k.jsonl").exists()
    assert len(Path("rows.jsonl").read_text().splitlines()) == len(ROWS)
