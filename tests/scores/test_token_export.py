"""The tokens that were scored are exported as they were scored, and scoring them again gives the same numbers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from host_cases import MODEL, TOLERANCE, rows, write_rows
from score_runs import assert_one_line_error, invoke

from donod_fast.scores.folder import ScoresFolder

NUMBERS = ("don", "nod", "loss")


def score(data: Path, out: Path, *options: object, model: Path = MODEL) -> list[dict[str, Any]]:
    done = invoke("score", data, "--model", model, "--device", "cpu", "--out", out, "--part-rows", "7", *options)
    assert done.code == 0, done.err
    return read(out)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which three cannot be scored and many are truncated, and their scores."""
    folder = tmp_path_factory.mktemp("tokens")
    score(write_rows(folder / "rows.jsonl", rows(24, unscorable=(3, 17))), folder / "scores", "--max-length", "48")
    return folder


def read(out: Path) -> list[dict[str, Any]]:
    folder = ScoresFolder.open(out)
    return [row for part in range(folder.parts) for row in folder.read_part(part).to_pylist()]  # type: ignore[union-attr]


def scored(place: Path) -> list[dict[str, Any]]:
    return [row for row in read(place / "scores") if row["status"] == "scored"]


def assert_equal_numbers(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one["status"] == "scored" and one["scored_tokens"] == other["scored_tokens"]
        for name in NUMBERS:
            assert one[name] == pytest.approx(other[name], rel=TOLERANCE), name


def test_scores_of_exported_tokens_are_those_of_the_records(place: Path, tmp_path: Path) -> None:
    done = invoke("export", place / "scores", "--tokenized", tmp_path / "tokens")
    assert done.code == 0 and "3 rows without a score left out" in done.out, done
    wanted = scored(place)
    saved = datasets.load_from_disk(tmp_path / "tokens")
    assert saved.column_names == ["input_ids", "attention_mask", "labels"]
    assert any(row["truncated"] for row in wanted)
    for row, right in zip(saved, wanted, strict=True):
        assert len(row["input_ids"]) == min(right["tokens"], 48) == sum(row["attention_mask"])
        assert sum(label != -100 for label in row["labels"]) == right["scored_tokens"]
        assert all(label in (-100, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))
    assert_equal_numbers(score(tmp_path / "tokens", tmp_path / "again"), wanted)
    split = datasets.DatasetDict(train=saved.add_column("images", [None] * len(saved)))  # LLaMA-Factory's layout
    split.save_to_disk(str(tmp_path / "split"))
    assert_equal_numbers(score(tmp_path / "split", tmp_path / "third"), wanted)


def test_a_subset_has_the_tokens_of_its_rows(place: Path, tmp_path: Path) -> None:
    out, tokens = tmp_path / "kept.jsonl", tmp_path / "tokens"
    options = ("--keep", "9", "--order", "best", "--method", "nod")
    done = invoke("select", place / "scores", *options, "--out", out, "--tokenized", tokens, "--json")
    assert done.code == 0 and json.loads(done.out)["tokenized"] == str(tokens)
    best = sorted(scored(place), key=lambda row: row["nod"])[:9]
    assert_equal_numbers(score(tokens, tmp_path / "again"), sorted(best, key=lambda row: row["row"]))
    again = invoke("select", place / "scores", *options, "--out", tmp_path / "k2.jsonl", "--tokenized", tokens)
    assert_one_line_error(again, 5, "exists already")
    assert not (tmp_path / "k2.jsonl").exists()
    assert invoke("select", place / "scores", *options, "--out", out, "--tokenized", tokens, "--overwrite").code == 0


def test_both_exports_at_once_and_neither(place: Path, tmp_path: Path) -> None:
    both = ("--out", tmp_path / "all.jsonl", "--tokenized", tmp_path / "tokens")
    assert invoke("export", place / "scores", *both).code == 0
    assert (tmp_path / "all.jsonl").exists() and (tmp_path / "tokens").is_dir()
    assert_one_line_error(invoke("export", place / "scores"), 2, "--tokenized FOLDER for tokens")
    same = ("--out", tmp_path / "x", "--tokenized", tmp_path / "x")
    assert_one_line_error(invoke("export", place / "scores", *same), 2, "a name of its own")


@pytest.mark.parametrize(
    ("name", "code", "message"), [("t.parquet", 2, "omit the suffix"), ("mine", 5, "exists already"),
                                  ("s3://b/t", 2, "to this machine only")]
)  # fmt: skip
def test_a_target_that_cannot_be_written_is_refused(
    place: Path, tmp_path: Path, name: str, code: int, message: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    target = name if "://" in name else tmp_path / name
    assert_one_line_error(invoke("export", place / "scores", "--tokenized", target), code, message)
    if name == "mine":
        done = invoke("export", place / "scores", "--tokenized", target, "--overwrite")
        assert_one_line_error(done, 5, "is not a saved dataset")
        assert (tmp_path / "mine" / "notes").exists()


@pytest.mark.parametrize("changed", ["template", "tokenizer", "record"])
def test_what_has_changed_since_is_not_exported(tmp_path: Path, changed: str) -> None:
    model = Path(shutil.copytree(MODEL, tmp_path / "model"))
    data = write_rows(tmp_path / "rows.jsonl", rows(6))
    score(data, tmp_path / "scores", model=model)
    if changed == "template":
        file = model / "chat_template.jinja"
        file.write_text(file.read_text().replace("<|end|>", "<|end|>\n"))
        code, message = 5, "template_sha256"
    elif changed == "tokenizer":
        file = model / "tokenizer.json"
        content = json.loads(file.read_text())
        content["model"]["merges"] = content["model"]["merges"][:-1]
        file.write_text(json.dumps(content))
        code, message = 5, "tokenizer_sha256"
    else:
        stamp = data.stat()
        data.write_text(data.read_text().replace("kitchen", "Kitchen"))
        os.utime(data, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        code, message = 3, "not the record that was scored"
    done = invoke("export", tmp_path / "scores", "--tokenized", tmp_path / "tokens")
    assert done.code == code and message in done.err, done
    assert not (tmp_path / "tokens").exists()


def test_a_row_of_several_packed_samples_is_not_scored_as_one(place: Path, tmp_path: Path) -> None:
    tokens = [{"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, 8], "position_ids": at} for at in (
        [0, 1, 2, 3], [0, 1, 0, 1], [0, 1, 2, 0], [0, 1, 2]
    )]  # fmt: skip
    found = score(write_rows(tmp_path / "packed.jsonl", tokens), tmp_path / "scores")
    assert [row["status"] for row in found] == ["scored"] + ["invalid_tokens"] * 3
    assert "several samples are packed" in found[1]["detail"] and "3 values" in found[3]["detail"]


def test_a_folder_of_saved_datasets_names_them(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list([{"input_ids": [5, 6], "labels": [5, 6]}])
    saved.save_to_disk(str(tmp_path / "prepared" / "0d6c"))
    done = invoke("score", tmp_path / "prepared", "--model", MODEL, "--out", tmp_path / "scores")
    assert_one_line_error(done, 3, "name one: ")
    assert "prepared/0d6c" in done.err
