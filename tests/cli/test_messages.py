"""Messages of the commands: about the model, the rows, the template, and the next step."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

import pytest
import torch
from score_runs import assert_one_line_error, command, invoke, write_lines
from tiny_models import save_tiny

from donod_fast.models.weight_files import weights_bytes
from donod_fast.scores.folder import ScoresFolder
from donod_fast.system.wording import byte_size

ROWS = [{"question": f"red {number}", "answer": "green blue"} for number in range(6)]
BROKEN = b'{"question": "cut o\n' * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def scores(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished scores folder, which no test changes."""
    out = tmp_path_factory.mktemp("scores") / "out"
    done = invoke("score", data, "--model", model, "--out", out, "--device", "cpu")
    assert done.code == 0, done.err
    return out


# --- score


def test_the_model_and_its_size_are_named_before_it_is_loaded(model: Path, data: Path, tmp_path: Path) -> None:
    found = weights_bytes(str(model))
    assert found is not None
    said = f"loading model {model} ({byte_size(found)})"
    options = ["--model", model, "--device", "cpu"]
    done = invoke("score", data, *options, "--out", tmp_path / "a")
    assert done.err.splitlines()[0] == said and said not in done.out
    assert invoke("score", data, *options, "--out", tmp_path / "b", "--dry-run").err.splitlines()[0] == said
    assert invoke("check", *options, "--no-naive").err.splitlines()[0] == said
    for silence in ("--quiet", "--json"):
        assert invoke("score", data, *options, "--out", tmp_path / "c", silence).err == ""


def test_a_model_that_is_not_here_is_named_with_an_unknown_size(data: Path, tmp_path: Path) -> None:
    done = command(
        "score", data, "--model", "no/such", "--out", tmp_path / "out", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf")
    )
    assert_one_line_error(done, 4, "no/such", "HF_HUB_OFFLINE is set", "path of a local model folder")
    assert "loading model no/such (size unknown)" in done.err
    assert "Retrying" not in done.err and "thrown while" not in done.err


def test_the_summary_names_the_chat_template_and_the_mask(model: Path, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}")
    cases = [
        ([], "chat template: the tokenizer's own; mask: all assistant turns, found by "),
        (["--template", "chatml", "--train-on", "last"], "chat template: chatml (built in); mask: the last assistant"),
        (["--template", "chatml"], "turns, found by the template's generation marks"),
        (["--template", own], f"chat template: {own} (file); mask: all assistant turns, found by the tokens of the"),
    ]
    for number, (options, text) in enumerate(cases):
        done = invoke("score", data, "--model", model, "--device", "cpu", "--out", tmp_path / f"out{number}", *options)
        assert done.code == 0, done.err
        assert text in done.out
    summary = json.loads(
        invoke(
            "score", data, "--model", model, "--device", "cpu", "--out", tmp_path / "out1", *cases[1][0], "--json"
        ).out
    )
    assert (summary["template"], summary["mask"]) == ("chatml", "generation")


def test_the_summary_says_why_rows_are_not_scored(model: Path, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(data.read_bytes() + BROKEN)
    options = ["score", broken, "--model", model, "--device", "cpu", "--out", tmp_path / "out"]
    done = invoke(*options)
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("not scored: "))
    assert line.startswith(f"not scored: 3 not_parsable, for example {broken}, line 7: ")
    assert "repair or remove these rows" in line
    assert json.loads(invoke(*options, "--json").out)["commonest_cause"]["rows"] == 3


def test_nothing_comes_next_if_no_row_was_scored(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "broken.jsonl"
    data.write_bytes(BROKEN)
    done = invoke("score", data, "--model", model, "--device", "cpu", "--out", tmp_path / "out")
    assert_one_line_error(done, 1, "no row could be scored", "3 not_parsable", "line 1", "repair or remove")
    assert "next:" not in done.out
    assert (done.out + done.err).count("3 not_parsable, for example") == 1


def test_the_command_that_comes_next_can_be_pasted(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "the scores"
    done = invoke("score", data, "--model", model, "--device", "cpu", "--out", out)
    words = shlex.split(done.out.partition("next: ")[2])
    assert words[:3] == ["donod-fast", "select", str(out)]


def test_one_row_is_one_row(model: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ROWS[:1])
    done = invoke("score", data, "--model", model, "--device", "cpu", "--out", tmp_path / "out")
    assert f"1 row in {tmp_path / 'out'}: 1 scored" in done.out and "1 rows" not in done.out + done.err
    done = invoke("select", tmp_path / "out", "--keep", "1.0", "--out", tmp_path / "s.jsonl")
    assert "1 of 1 scored row by topsis" in done.out
    done = invoke("export", tmp_path / "out", "--out", tmp_path / "s.csv")
    assert done.out.startswith("1 row →")


def test_a_run_without_a_terminal_prints_lines_of_progress(model: Path, data: Path, tmp_path: Path) -> None:
    done = command("score", data, "--model", model, "--device", "cpu", "--out", tmp_path / "out")
    assert done.code == 0 and "6 of 6 rows (100%)" in done.err
    assert "\r" not in done.err + done.out


@pytest.mark.parametrize(
    ("build", "said"),
    [(None, f"this PyTorch build has no CUDA support ({torch.__version__})"), ("13.0", "no CUDA device is visible")],
)
def test_a_missing_cuda_device_is_explained(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str | None, said: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.version.cuda", build)
    monkeypatch.setattr("torch.version.hip", None)
    for option in (["--device", "cuda"], ["--devices", "all"]):
        done = invoke("score", data, "--model", model, "--out", tmp_path / "out", *option)
        assert_one_line_error(done, 2, said, "cpu")


# --- select


def test_keep_1_warns_that_one_row_is_kept(scores: Path, tmp_path: Path) -> None:
    done = invoke("select", scores, "--keep", "1", "--out", tmp_path / "one.jsonl")
    assert done.code == 0 and "--keep 1 keeps ONE row; --keep 1.0 or --keep 100% keeps all" in done.err
    for number, keep in enumerate(("1.0", "100%", "2")):
        assert invoke("select", scores, "--keep", keep, "--out", tmp_path / f"{number}.jsonl").err == ""


def test_out_dash_writes_the_subset_to_stdout_and_the_summary_to_stderr(scores: Path, tmp_path: Path) -> None:
    assert invoke("select", scores, "--keep", "3", "--out", tmp_path / "s.jsonl").code == 0
    done = command("select", scores, "--keep", "3", "--out", "-", "--explain", "--count", "1")
    assert done.code == 0, done.err
    assert done.out.encode() == (tmp_path / "s.jsonl").read_bytes()
    assert "3 of 6 scored rows by topsis → standard output" in done.err and "DON" in done.err
    done = command("select", scores, "--keep", "3", "--out", "-", "--order", "best", "--json")
    assert len(done.out.splitlines()) == 3 and json.loads(done.err)["kept"] == 3


def test_a_target_that_exists_names_the_option_that_replaces_it(scores: Path, tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        target = tmp_path / f"s{suffix}"
        target.write_text("there")
        for arguments in (["select", scores, "--keep", "2"], ["export", scores]):
            assert_one_line_error(invoke(*arguments, "--out", target), 5, "exists already", "add --overwrite")


# --- export


def test_a_csv_export_holds_every_row_with_its_scores(model: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": 'red "one",\ntwo'}, {"role": "assistant", "content": "green"}]
    rows = [{"messages": turns, "n": 3, "ok": True}, {"question": "red", "answer": "é, blue", "n": None}]
    data = write_lines(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "scores"
    assert invoke("score", data, "--model", model, "--device", "cpu", "--out", out).code == 0
    assert invoke("export", out, "--out", tmp_path / "all.csv").code == 0
    found = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_bytes().decode(), newline="")))
    assert json.loads(found[0]["messages"]) == turns
    assert (found[0]["n"], found[0]["ok"], found[1]["n"], found[1]["answer"]) == ("3", "true", "", "é, blue")
    for row, scored in zip(found, ScoresFolder.open(out).table().to_pylist(), strict=True):
        assert row["donod.status"] == "scored" and float(row["donod.nod"]) == scored["nod"]
    assert invoke("export", out, "--out", tmp_path / "json.csv", "--records", "json").code == 0
    found = list(csv.DictReader((tmp_path / "json.csv").open(encoding="utf-8", newline="")))
    assert [json.loads(row["record"]) for row in found] == rows


def test_an_export_as_json_lines_holds_the_scores_too(scores: Path, tmp_path: Path) -> None:
    assert invoke("export", scores, "--out", tmp_path / "all.jsonl").code == 0
    found = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    table = ScoresFolder.open(scores).table().to_pylist()
    assert [row["question"] for row in found] == [row["question"] for row in ROWS]
    assert [row["donod.don"] for row in found] == [row["don"] for row in table]


@pytest.mark.parametrize("name", ["x.yaml", "x.tsv", "x.xlsx", "x.csv.gz", "x.Arrow"])
def test_an_export_to_another_kind_of_file_is_refused(scores: Path, tmp_path: Path, name: str) -> None:
    done = invoke("export", scores, "--out", tmp_path / name)
    assert_one_line_error(done, 2, f"cannot write {Path(name).suffix} files", ".parquet, .csv, .jsonl", "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_version_number_is_a_folder(scores: Path, tmp_path: Path) -> None:
    assert invoke("export", scores, "--out", tmp_path / "corpus-1.0").code == 0
    assert (tmp_path / "corpus-1.0" / "dataset_info.json").is_file()


def test_text_that_csv_cannot_hold_is_named(model: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"question": "red", "answer": "blue", "bad": "\ud800"}])
    out = tmp_path / "scores"
    assert invoke("score", data, "--model", model, "--device", "cpu", "--out", out).code == 0
    done = invoke("export", out, "--out", tmp_path / "all.csv")
    assert_one_line_error(done, 2, "row 0", "line 1", "column 'bad'", ".parquet")
    assert not (tmp_path / "all.csv").exists()
