"""``donod-fast score`` with columns that are mapped, and what its summary says about the records."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from score_runs import assert_one_line_error, invoke, write_lines
from tiny_models import save_tiny

from donod_fast.data.column_map import ColumnMap
from donod_fast.data.settings import CorpusSettings, MaskSettings
from donod_fast.engines.choosing import ScoreRequest
from donod_fast.models.settings import ModelSettings
from donod_fast.scores.folder import ScoresFolder

ROWS = [{"id": at, "q": "Who?", "a": "Me.", "sys": "Be brief.", "train": at > 0} for at in range(4)]
ENTRY = {"file_name": "rows.jsonl", "columns": {"prompt": "q", "response": "a", "system": "sys"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows and a dataset_info.json."""
    place = tmp_path_factory.mktemp("columns")
    save_tiny("llama", place / "model")
    write_lines(place / "rows.jsonl", ROWS)
    (place / "dataset_info.json").write_text(json.dumps({"mine": ENTRY}), encoding="utf-8")
    return place


def test_a_data_set_of_llama_factory_is_scored_without_naming_its_file(place: Path) -> None:
    model = ("--model", place / "model", "--device", "cpu")
    info = ("--dataset-info", place / "dataset_info.json", "--dataset", "mine")
    done = invoke("score", *info, *model, "--out", place / "out")
    assert done.code == 0, done.err
    for line in ("4 rows in", "columns no score depends on: id (3 rows)", "own flags: 1 turn in 1 row"):
        assert line in done.out
    summary = json.loads(invoke("score", *info, *model, "--out", place / "out", "--json").out)
    assert summary["records"] == {
        "rows": 4,
        "unused": {"id": 3},
        "recasts": {},
        "excluded_turns": 1,
        "excluded_rows": 1,
    }
    # The same columns under another option are the same settings; other columns are not.
    same = ("--columns", "response=a,prompt=q,system=sys")
    assert invoke("score", place / "rows.jsonl", *same, *model, "--out", place / "out").code == 0
    for other in (("--columns", "prompt=q,response=a"), ()):
        done = invoke("score", place / "rows.jsonl", *other, *model, "--out", place / "out")
        assert_one_line_error(done, 5, "masks.columns")
    rows = ScoresFolder.open(place / "out").table().to_pylist()
    assert rows[0]["detail"].endswith("line 1: the record leaves itself out: train is False")

    plan = invoke("score", *info, *model, "--out", place / "plan", "--dry-run")
    assert "records  columns no score depends on: id (3 rows)" in plan.out
    assert not (place / "plan").exists()


def test_a_run_is_repeated_from_its_folder_wherever_it_is_started(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    info = ("--dataset-info", "dataset_info.json", "--dataset", "mine", "--model", "model", "--device", "cpu")
    assert invoke("score", *info, "--out", tmp_path / "a", "-q").code == 0
    monkeypatch.chdir(tmp_path)
    done = invoke("score", "--config", "a", "--out", "b", "-q")
    assert done.code == 0, done.err
    masks = [json.loads((tmp_path / name / "manifest.json").read_text())["masks"] for name in "ab"]
    assert masks[0] == masks[1]
    shown = invoke("show", "--scores", "a", "--rows", "1")
    assert shown.code == 0 and "the record leaves itself out" in shown.out, shown.err


def test_the_request_takes_the_columns_to_other_processes(place: Path) -> None:
    masks = MaskSettings(dataset_info=place / "dataset_info.json", dataset="mine")
    request = ScoreRequest(CorpusSettings(), ModelSettings(str(place / "model")), masks)
    assert request.corpus.data == (str(place / "rows.jsonl"),)
    sent = pickle.loads(pickle.dumps(request.spec())).masks
    assert sent.mapping == ColumnMap(prompt="q", response="a", system="sys")
    assert sent.dataset_info is None and sent.dataset is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--columns", "promt=q"], "did you mean 'prompt'"),
        (["--columns", "prompt=q,response=a", "--format", "alpaca"], "--columns excludes --format"),
        (["--dataset", "mine"], "belong together"),
        (["--preference", "both"], "preference is 'chosen' or 'rejected', not 'both'"),
    ],
)
def test_a_wrong_option_is_told_before_the_model_is_loaded(place: Path, options: list[str], told: str) -> None:
    done = invoke("score", place / "rows.jsonl", "--model", place / "absent", "--out", place / "none", *options)
    assert_one_line_error(done, 2, told)
    assert not (place / "none").exists()


def test_an_unknown_data_set_and_missing_rows_are_told(place: Path) -> None:
    options = ("--model", place / "absent", "--out", place / "none")
    info = ("--dataset-info", place / "dataset_info.json", "--dataset", "mina")
    assert_one_line_error(invoke("score", *info, *options), 2, "did you mean 'mine'")
    assert_one_line_error(invoke("score", *options), 2, "name the rows to read as DATA")


def test_a_mapped_column_that_no_row_has_is_told(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    from donod_fast.data.column_check import warn_of_missing_columns
    from donod_fast.data.reading import open_corpus

    corpus = open_corpus([str(place / "rows.jsonl")])
    warn_of_missing_columns(corpus, ColumnMap.parse("prompt=q,response=a,system=sys"))
    assert not caplog.records
    warn_of_missing_columns(corpus, ColumnMap.parse("prompt=q,response=a,system=sistem"))
    assert "'sistem', which is mapped to system" in caplog.text
