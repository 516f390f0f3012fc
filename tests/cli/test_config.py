"""``score --config``: options from a file, and a run repeated from its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from scored_folders import without_checksum
from tiny_models import save_tiny

from donod_fast.cli.config import checked
from donod_fast.engines.choosing import ScoreRequest
from donod_fast.scores.folder import ScoresFolder
from donod_fast.system import options


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "rows.jsonl", short_rows(24, seed=7))


@pytest.fixture(scope="module")
def scores(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made with options that are not the defaults."""
    out = tmp_path_factory.mktemp("scores") / "out"
    options = ["--lr", "3e-4", "--update", "sgd", "--max-length", 40, "--part-rows", 10, "--token-budget", 300]
    done = invoke(
        "score", data, "--model", model, "--out", out, "--device", "cpu", "--signals", "perplexity", *options, "-q"
    )
    assert done.code == 0, done.err
    return out


def parts(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("part-*"))}


def options_of(folder: Path) -> dict[str, Any]:
    """What the manifest records."""
    options: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["options"]
    return options


def config(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["manifest.json", ""])
def test_a_run_repeated_from_its_folder_gives_the_same_bits(scores: Path, tmp_path: Path, name: str) -> None:
    done = invoke("score", "--config", scores / name, "--out", tmp_path / "again", "-q")
    assert done.code == 0, done.err
    assert len(parts(scores)) == 3
    assert parts(tmp_path / "again") == parts(scores)
    recorded = [
        json.loads((folder / "manifest.json").read_text())["options"] for folder in (scores, tmp_path / "again")
    ]
    assert recorded[0] == recorded[1]


def test_the_manifest_records_options_by_their_names(scores: Path, data: Path, model: Path) -> None:
    options = options_of(scores)
    assert options["data"] == [str(data)] and options["model"] == str(model)
    assert (options["lr"], options["update"], options["max_length"], options["part_rows"]) == (3e-4, "sgd", 40, 10)
    assert options["signals"] == "perplexity" and options["device"] == "cpu" and options["carry"] is None
    assert not {"out", "overwrite", "quiet", "json", "trace", "profile", "config"} & options.keys()


def test_the_settled_part_size_and_token_budget_are_repeated(model: Path, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert invoke("score", data, "--model", model, "--out", first, "--device", "cpu", "-q").code == 0
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["options"]["token_budget"] is None
    manifest["token_budget"], manifest["part_rows"] = 77, 9
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(manifest))
    assert invoke("score", "--config", changed, "--out", second, "-q").code == 0
    found = json.loads((second / "manifest.json").read_text())
    assert (found["token_budget"], found["part_rows"]) == (77, 9)


def test_a_run_with_relative_paths_is_repeated_from_another_folder(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    options = ["--out", tmp_path / "a", "--device", "cpu", "--signals", "influence", "--reference", data.name]
    options.append("--allow-overlap")
    assert invoke("score", "row*.jsonl", "--model", os.path.relpath(model), *options, "-q").code == 0
    monkeypatch.chdir(tmp_path)
    done = invoke("score", "--config", "a", "--out", "b", "-q")
    assert done.code == 0, done.err
    again, before = (ScoresFolder.open(tmp_path / name).table() for name in "ba")
    assert again.num_rows == 24 and set(before["status"].to_pylist()) > {"scored"}
    for name in set(before.column_names) - {"detail"}:  # which names the file of a row that is not scored
        assert str(again[name].to_pylist()) == str(before[name].to_pylist()), name  # as text, since NaN != NaN


def test_the_command_line_overrides_the_file(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke("score", "--config", scores, "--out", out, "--lr", "1e-3", "-q").code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["update"]["lr"], manifest["update"]["update"]) == (1e-3, "sgd")


def test_yaml_holds_any_option(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = f"data: {data}\nmodel: {model}\nout: {out}\nquiet: true\n"
    text += "lr: 1e-4\nmax-length: 30\nsignals: [perplexity, el2n]\n"
    done = invoke("score", "--config", config(tmp_path, text), "--device", "cpu")
    assert (done.code, done.out) == (0, ""), done.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["update"]["lr"] == 1e-4 and manifest["masks"]["max_length"] == 30
    assert [entry["name"] for entry in manifest["signals"]] == ["perplexity", "el2n"]


def test_on_and_off_of_yaml_are_the_choices_of_that_name() -> None:
    known = {field.name: field for field in options.options_of(ScoreRequest)}
    found = yaml.safe_load("packing: on\ncompile: off")
    assert found == {"packing": True, "compile": False}
    assert checked(found, known, "run.yaml") == {"packing": "on", "compile": "off"}


def test_a_yaml_file_with_the_keys_of_a_manifest_ends_in_one_line(tmp_path: Path) -> None:
    text = "version: 2\ninput: {}\nmodel: name\noptions: {lrr: 1}"
    done = invoke("score", "x.jsonl", "--out", tmp_path / "out", "--config", config(tmp_path, text))
    assert_one_line_error(done, 2, "unknown option 'lrr'")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_lenght: 5", "unknown option 'max_lenght'; did you mean 'max_length'?"),
        ("config: other.yaml", "unknown option 'config'"),
        ("lr: much", "lr must be a number, got 'much'"),
        ("lr: [1]", "lr must be a number"),
        ("lr: true", "lr must be a number, got True"),
        ("max_length: 2.5", "max_length must be a whole number"),
        ("max_length: .inf", "max_length must be a whole number, got inf"),
        ("max_length: .nan", "max_length must be a whole number, got nan"),
        ("backend: on", "backend must be a text, got True"),
        ("overwrite: sure", "overwrite must be true or false"),
        ("data: {a: 1}", "data must be a string or a list of strings"),
        ("model: {a: 1}", "model must be a text"),
        ("update: adamv", "update must be one of adamw, sgd, sign"),
        ("just words", "must hold one option per line"),
        ("a: [", "is not valid YAML"),
        ("lr: 1e-5\nlr: 1e-4", "the key 'lr' is given twice"),
        ("max-length: 5\nmax_length: 6", "the option 'max_length' is given twice"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    file = config(tmp_path, text)
    done = invoke("score", "x.jsonl", "--model", "m", "--out", tmp_path / "out", "--config", file)
    assert_one_line_error(done, 2, told)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = invoke("score", "--config", tmp_path / "none.yaml")
    assert_one_line_error(done, 2, "none.yaml cannot be read")


def test_what_neither_file_nor_command_line_gives_is_missing(tmp_path: Path) -> None:
    done = invoke("score", "--config", config(tmp_path, "lr: 1.0e-5"))
    assert done.code == 2 and "Missing" in done.err


def test_a_folder_without_options_is_resumed_but_not_repeated(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["score", data, "--model", model, "--out", out, "--device", "cpu", "-q"]
    assert invoke(*options).code == 0
    wanted = parts(out)
    without_checksum(out)
    assert_one_line_error(invoke("score", "--config", out, "--out", tmp_path / "b"), 2, "records no options")
    (out / "part-000000.parquet").unlink()
    assert invoke(*options).code == 0
    assert parts(out) == wanted
    assert options_of(out)["data"] == [str(data)]


def test_criteria_of_earlier_runs_stay_recorded(model: Path, data: Path, tmp_path: Path) -> None:
    options = ["score", data, "--model", model, "--out", tmp_path / "out", "--device", "cpu", "-q"]
    for more in (["--signals", "perplexity"], ["--signals", "el2n"], []):
        assert invoke(*options, *more).code == 0
    assert options_of(tmp_path / "out")["signals"] == "perplexity,el2n"
