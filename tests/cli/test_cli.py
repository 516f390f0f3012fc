"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import (
    assert_one_line_error,
    assert_same_bits,
    command,
    invoke,
    short_rows,
    write_lines,
)
from tiny_models import save_tiny

import donod_fast.scoring.forward
from donod_fast.kernels import topsis
from donod_fast.kernels.topsis import DEFAULT_NORMALISE, NORMALISATIONS
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring import settings as scoring_settings
from donod_fast.selection.ranking import ScoreColumns, rank

ROWS = short_rows(40, seed=5)


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
    assert invoke("score", data, "--model", model, "--out", out, "--device", "cpu").code == 0
    return out


def rows_of(scores: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ScoresFolder.open(scores).table().to_pylist()
    return rows


def selected(scores: Path, out: Path, *options: object) -> list[int]:
    """Row numbers of what ``select`` writes, checked to be the original bytes."""
    done = invoke("select", scores, "--out", out, *options)
    assert done.code == 0, done.err
    originals = [json.dumps(row).encode() for row in ROWS]
    return [originals.index(line) for line in out.read_bytes().splitlines()]


# --- score


def test_score_reports_new_rows_existing_rows_and_the_next_command(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["score", data, "--model", model, "--out", out, "--device", "cpu", "--part-rows", 10]
    first = invoke(*options)
    assert first.code == 0, first.err
    assert f"40 rows in {out}: " in first.out and " scored, " in first.out
    assert "update: adamw, lr 2e-05" in first.out and "already done" not in first.out
    assert f"next: donod-fast select {out} --keep 0.3 --out subset.jsonl" in first.out

    (out / "part-000001.parquet").unlink()
    second = invoke(*options)
    assert second.code == 0
    assert "10 rows in" in second.out and "30 already done" in second.out
    assert "0 rows in" in invoke(*options).out


def test_progress_is_on_standard_error_and_counts_every_row(model: Path, data: Path, tmp_path: Path) -> None:
    options = ["score", data, "--model", model, "--out", tmp_path / "out", "--device", "cpu", "--part-rows", 10]
    done = invoke(*options)
    assert "40 of 40 rows (100%)" in done.err and "tokens/s" in done.err
    assert "40 of 40" not in done.out
    (tmp_path / "out" / "part-000001.parquet").unlink()
    again = invoke(*options).err
    assert "40 of 40 rows (100%)" in again and "30 of 40" not in again


def test_json_is_one_object_on_stdout_and_quiet_is_silence(model: Path, data: Path, tmp_path: Path) -> None:
    options = ["score", data, "--model", model, "--device", "cpu", "--out"]
    done = invoke(*options, tmp_path / "a", "--json")
    summary = json.loads(done.out)
    assert done.err == ""
    assert summary["rows"] == 40 == sum(summary["by_status"].values())
    assert summary["by_status"]["scored"] == sum(row["status"] == "scored" for row in rows_of(tmp_path / "a"))
    assert summary["resumed_rows"] == 0 and summary["update"]["update"] == "adamw"
    assert json.loads(invoke(*options, tmp_path / "a", "--json").out)["resumed_rows"] == 40

    quiet = invoke(*options, tmp_path / "b", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    quiet = invoke("select", tmp_path / "b", "--keep", "0.5", "--out", tmp_path / "s.jsonl", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_a_dry_run_reports_and_writes_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["score", data, "--model", model, "--device", "cpu", "--out", out, "--dry-run"]
    done = invoke(*options)
    assert done.code == 0, done.err
    for word in ("rows     40", "formats", "tokens", "memory", "MiB", "time", "tokens/s"):
        assert word in done.out
    plan = json.loads(invoke(*options, "--json").out)
    assert plan["rows"] == 40 == sum(plan["by_status"].values())
    assert plan["seconds"] > 0
    assert not out.exists() and list(tmp_path.iterdir()) == []


def test_a_corpus_without_a_row_to_score_is_stored_and_told(model: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"question": "a", "answer": " "}] * 3)
    out = tmp_path / "out"
    done = invoke("score", data, "--model", model, "--device", "cpu", "--out", out)
    assert_one_line_error(done, 1, "no row could be scored", "line 1", "answer is empty")
    assert [row["status"] for row in rows_of(out)] == ["empty_response"] * 3
    done = invoke("select", out, "--keep", "1", "--out", tmp_path / "s.jsonl")
    assert_one_line_error(done, 2, "none of the 3 rows has scores")
    plan = invoke("score", data, "--model", model, "--device", "cpu", "--out", out, "--dry-run")
    assert plan.code == 0 and "3 empty_response" in plan.out


def test_standard_input_is_kept_for_select_and_for_a_second_run(model: Path, tmp_path: Path) -> None:
    out, subset = tmp_path / "out", tmp_path / "subset.jsonl"
    content = b'{"question": "one", "answer": "two"}\n{broken\n\n{"question":"b",  "answer":"c"}\n'
    options = ["score", "-", "--model", model, "--out", out, "--device", "cpu"]
    done = command(*options, stdin=content)
    assert done.code == 0, done.err
    assert [row["status"] for row in rows_of(out)] == ["scored", "not_parsable", "scored"]
    assert (out / "stdin.jsonl").read_bytes() == content
    assert invoke("select", out, "--keep", "100%", "--out", subset).code == 0
    assert subset.read_bytes() == content.replace(b"{broken\n\n", b"")
    # Other rows are refused until --overwrite starts over
    assert_one_line_error(invoke(*options, stdin=content[:40]), 3, "has different rows")
    assert rows_of(out)[2]["status"] == "scored"
    kept = out / "stdin.jsonl"
    done = invoke("score", kept, "--model", model, "--out", out, "--device", "cpu", "--overwrite", "--lr", "1e-4")
    assert done.code == 0 and kept.read_bytes() == content
    assert invoke(*options, "--overwrite", stdin=content[:37]).code == 0
    assert len(rows_of(out)) == 1


def test_a_broken_line_costs_that_line_only(model: Path, data: Path, scores: Path, tmp_path: Path) -> None:
    lines = data.read_bytes().splitlines(keepends=True)
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b"".join([*lines[:7], b'{"question": "\xff', b"\n", *lines[7:]]))
    done = invoke("score", broken, "--model", model, "--out", tmp_path / "out", "--device", "cpu")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "out")
    bad = rows.pop(7)
    assert bad["status"] == "not_parsable"
    assert "broken.jsonl, line 8: not UTF-8" in bad["detail"]
    for found, wanted in zip(rows, rows_of(scores), strict=True):
        assert (found["id"], found["status"]) == (wanted["id"], wanted["status"])
        if wanted["status"] == "scored":
            assert found["nod"] == pytest.approx(wanted["nod"], rel=1e-5)


# --- select and rank


@pytest.mark.parametrize(("keep", "kept"), [("0.3", 0.3), ("30%", 0.3), ("5", 5), ("100%", 1.0), ("1", 1)])
def test_keep_takes_fractions_per_cents_and_counts(scores: Path, tmp_path: Path, keep: str, kept: float) -> None:
    scored = sum(row["status"] == "scored" for row in rows_of(scores))
    count = kept if isinstance(kept, int) else math.floor(kept * scored + 0.5)
    rows = selected(scores, tmp_path / "s.jsonl", "--keep", keep)
    assert len(rows) == count
    assert rows == sorted(rows)


def test_topsis_is_the_default_and_best_is_its_order(scores: Path, tmp_path: Path) -> None:
    rows = [row for row in rows_of(scores) if row["status"] == "scored"]
    don, nod = (torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in ("don", "nod"))
    wanted = [rows[i]["row"] for i in topsis(don, nod).argsort(descending=True, stable=True)]
    assert selected(scores, tmp_path / "all.jsonl", "--keep", "1.0", "--order", "best") == wanted
    assert selected(scores, tmp_path / "ten.jsonl", "--keep", "10") == sorted(wanted[:10])


@pytest.mark.parametrize("method", ["topsis", "don", "nod", "weighted", "pareto", "nodon", "random", "loss"])
def test_every_method_selects_what_it_says(scores: Path, tmp_path: Path, method: str) -> None:
    best = selected(scores, tmp_path / "s.jsonl", "--keep", "9", "--method", method, "--order", "best")
    assert len(set(best)) == 9
    by_row = {row["row"]: row for row in rows_of(scores) if row["status"] == "scored"}
    keys = {
        "don": lambda row: -row["don"],
        "nod": lambda row: row["nod"],
        "loss": lambda row: row["loss"],
    }
    if method in keys:
        assert best == sorted(by_row, key=lambda number: keys[method](by_row[number]))[:9]
    if method == "nodon":
        assert not set(best) & set(selected(scores, tmp_path / "t.jsonl", "--keep", str(len(by_row) - 9)))
    if method == "random":
        again = selected(scores, tmp_path / "t.jsonl", "--keep", "9", "--method", method, "--seed", "1")
        assert set(again) != set(best)


def test_don_threshold_and_quantile_cut_by_don(scores: Path, tmp_path: Path) -> None:
    values = sorted(row["don"] for row in rows_of(scores) if row["status"] == "scored")
    options = ["--method", "don-threshold", "--don-threshold", repr(values[-4])]
    assert len(selected(scores, tmp_path / "a.jsonl", *options)) == 4
    options = ["--method", "don-threshold", "--don-quantile", "0.5"]
    assert len(selected(scores, tmp_path / "b.jsonl", *options)) == len(values) - math.ceil((len(values) - 1) / 2)
    done = invoke(
        "select", scores, "--out", tmp_path / "c.jsonl", "--method", "don-threshold", "--don-threshold", "1e9"
    )
    assert_one_line_error(done, 2, "no row has DON", "the largest is")


def test_weights_move_the_ranking_between_don_and_nod(scores: Path, tmp_path: Path) -> None:
    def best(name: str, *options: object) -> list[int]:
        return selected(scores, tmp_path / f"{name}.jsonl", "--keep", "12", "--order", "best", *options)

    assert best("a", "--weights", "1,0") == best("b", "--method", "don")
    assert best("c", "--weights", "0,1") == best("d", "--method", "nod")


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("method", ["topsis", "nodon", "pareto"])
def test_the_normalisation_is_that_of_the_kernel_and_recorded(
    scores: Path, tmp_path: Path, method: str, normalise: str
) -> None:
    how = ["--method", method, "--normalise", normalise]
    columns = ScoreColumns.from_table(ScoresFolder.open(scores).table())
    wanted = rank(columns, method, normalise=normalise).order[:9].tolist()
    out = tmp_path / "subset.jsonl"
    assert selected(scores, out, "--keep", "9", "--order", "best", *how) == wanted
    done = invoke("select", scores, "--keep", "9", "--out", tmp_path / "b.jsonl", "--json", *how)
    assert done.code == 0 and json.loads(done.out)["normalise"] == normalise, done
    done = invoke("rank", scores, "--json", "--count", "9", *how)
    found = json.loads(done.out)
    assert found["normalise"] == normalise and [row["row"] for row in found["rows"]][:9] == wanted
    said = invoke("select", scores, "--keep", "9", "--out", tmp_path / "again.jsonl", *how).out
    assert (f"by {method} (columns by {normalise}) →" in said) == (normalise != DEFAULT_NORMALISE)


def test_help_texts_have_the_normalisations_of_the_kernel() -> None:
    assert scoring_settings.NORMALISATIONS == NORMALISATIONS
    assert scoring_settings.DEFAULT_NORMALISE == DEFAULT_NORMALISE


def test_compare_records_the_normalisation(scores: Path) -> None:
    for name in NORMALISATIONS:
        done = invoke("compare", scores, "--columns", "topsis,don,nod", "--normalise", name, "--json")
        assert done.code == 0 and json.loads(done.out)["normalise"] == name, done
        said = invoke("compare", scores, "--columns", "topsis,don,nod", "--normalise", name).out
        assert (f"TOPSIS: columns by {name}" in said) == (name != DEFAULT_NORMALISE)


@pytest.mark.parametrize("command", [["select", "--keep", "5", "--out", "x.jsonl"], ["rank"], ["compare"]])
def test_an_unknown_normalisation_is_refused(scores: Path, command: list[str]) -> None:
    done = invoke(command[0], scores, *command[1:], "--normalise", "ranges")
    assert_one_line_error(done, 2, "normalise", "range")


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_another_lr_without_the_model_equals_scoring_at_that_lr(
    model: Path, data: Path, tmp_path: Path, update: str
) -> None:
    from donod_fast.selection.rankers import load_columns

    options = ["score", data, "--model", model, "--device", "cpu", "--update", update, "--weight-decay", "0.01"]
    assert invoke(*options, "--out", tmp_path / "a").code == 0
    assert invoke(*options, "--out", tmp_path / "b", "--lr", "3e-3").code == 0
    rescaled = load_columns(ScoresFolder.open(tmp_path / "a"), 3e-3)
    fresh = load_columns(ScoresFolder.open(tmp_path / "b"))
    torch.testing.assert_close(rescaled.don, fresh.don, rtol=1e-12, atol=0, equal_nan=True)
    torch.testing.assert_close(rescaled.nod, fresh.nod, rtol=1e-12, atol=0, equal_nan=True)
    assert selected(tmp_path / "a", tmp_path / "a.jsonl", "--keep", "9", "--lr", "3e-3") == selected(
        tmp_path / "b", tmp_path / "b.jsonl", "--keep", "9"
    )
    summary = invoke("select", tmp_path / "a", "--keep", "9", "--lr", "3e-3", "--out", tmp_path / "c.jsonl", "--json")
    assert json.loads(summary.out)["update"]["lr"] == 3e-3


def test_another_lr_is_refused_where_the_weights_were_rounded(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--model", model, "--device", "cpu", "--out", out, "--storage-dtype", "bfloat16"]
    assert invoke("score", data, *options).code == 0
    done = invoke("select", out, "--keep", "9", "--lr", "1e-3", "--out", tmp_path / "s.jsonl")
    assert_one_line_error(done, 2, "--lr", "storage dtype")
    assert not (tmp_path / "s.jsonl").exists()


def test_select_prints_json_explains_and_overwrites_only_on_request(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    options = ["select", scores, "--keep", "4", "--out", out]
    summary = json.loads(invoke(*options, "--json").out)
    assert (summary["kept"], summary["rows"], summary["method"]) == (4, 40, "topsis")
    assert summary["update"]["lr"] == 2e-5
    assert_one_line_error(invoke(*options), 5, f"{out} exists already")
    done = invoke(*options, "--overwrite", "--explain", "--count", 2)
    assert done.code == 0, done.err
    assert "4 of " in done.out and "rows have no score and are left out" in done.out
    assert len([line for line in done.out.splitlines() if line.strip()[:1].isdigit()]) >= 4


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_subset_in_another_format_is_a_corpus_again(model: Path, scores: Path, tmp_path: Path, suffix: str) -> None:
    subset = tmp_path / f"s{suffix}"
    assert invoke("select", scores, "--keep", "6", "--out", subset).code == 0
    done = invoke("score", subset, "--model", model, "--device", "cpu", "--out", tmp_path / "out")
    assert done.code == 0 and len(rows_of(tmp_path / "out")) == 6


def test_rank_shows_best_and_worst(scores: Path) -> None:
    done = invoke("rank", scores, "--count", 2)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["rank", "row", "value", "DON", "NOD", "loss", "text"]
    assert lines[3].strip() == "..."
    assert lines[6:] == [] or (len(lines) == 7 and lines[6].startswith("TOPSIS follows "))
    rows = json.loads(invoke("rank", scores, "--count", 2, "--method", "loss", "--json").out)["rows"]
    assert len(rows) == 4
    losses = [row["loss"] for row in rows]
    assert losses == sorted(losses)


# --- check


def test_check_passes_on_a_sound_model_and_prints_json(model: Path) -> None:
    done = invoke("check", "--model", model, "--device", "cpu")
    assert done.code == 0, done.err
    assert "FAILED" not in done.out and done.out.count(" ok") == 6
    report = json.loads(invoke("check", "--model", model, "--device", "cpu", "--json", "--no-naive").out)
    assert report["passed"] is True and len(report["lines"]) == 6


def test_check_on_rows_of_ones_own(model: Path, data: Path) -> None:
    done = invoke("check", "--model", model, "--device", "cpu", "--data", data, "--rows", 3, "--no-naive")
    assert done.code == 0, done.err


@pytest.mark.parametrize("wrong", ["don", "nod", "loss"])
@pytest.mark.parametrize("factor", [1.001, math.nan])
def test_check_fails_on_wrong_scores(model: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, factor: float) -> None:
    real = donod_fast.scoring.forward.don_nod

    def spoiled(*arguments: Any, **options: Any) -> Any:
        scores = real(*arguments, **options)
        return scores._replace(**{wrong: getattr(scores, wrong) * factor + (wrong == "don") * 1e-3 * scores.nod})

    monkeypatch.setattr(donod_fast.scoring.forward, "don_nod", spoiled)
    done = invoke("check", "--model", model, "--device", "cpu", "--no-naive")
    assert_one_line_error(done, 1, "larger than their limits")
    assert "FAILED" in done.out


# --- errors


def test_missing_inputs_have_their_own_exit_codes(model: Path, data: Path, scores: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out", "--device", "cpu"]
    gone = tmp_path / "gone.jsonl"
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"\n \n")
    assert_one_line_error(invoke("score", data, "--model", tmp_path / "gone", *out), 4, "gone", "no such folder")
    assert_one_line_error(invoke("score", data, "--model", tmp_path, *out), 4, "config.json")
    assert_one_line_error(invoke("score", gone, "--model", model, *out), 3, str(gone), "no such file")
    assert_one_line_error(invoke("score", empty, "--model", model, *out), 3, str(empty), "contains no rows")
    assert_one_line_error(invoke("check", "--model", tmp_path / "gone"), 4)
    assert_one_line_error(invoke("check", "--model", model, "--data", gone), 3, "no such file")
    subset = ["--keep", "0.5", "--out", tmp_path / "s.jsonl"]
    assert_one_line_error(invoke("select", tmp_path, *subset), 5, "holds no manifest.json")
    assert_one_line_error(invoke("select", tmp_path / "gone", *subset), 5, "holds no manifest.json")
    assert_one_line_error(invoke("rank", tmp_path / "gone"), 5, "holds no manifest.json")


BAD_OPTIONS: list[tuple[list[str], str]] = [
    (["--update", "adam"], "update must be one of adamw, sgd, sign"),
    (["--lr", "0"], "lr must be finite and > 0"),
    (["--lr", "nan"], "lr must be"),
    (["--weight-decay", "-1"], "weight decay"),
    (["--reduction", "max"], "reduction"),
    (["--storage-dtype", "int8"], "storage dtype"),
    (["--format", "nonsense"], "format"),
    (["--train-on", "first"], "train_on"),
    (["--max-length", "1"], "max_length"),
    (["--max-length", "4096"], "more than the model's own 128"),
    (["--dtype", "int8"], "dtype"),
    (["--device", "abacus"], "device"),
    (["--token-budget", "0"], "token budget"),
    (["--workspace", "0"], "workspace"),
    (["--backend", "fast"], "backend"),
    (["--backend", "triton", "--eps", "1e-31"], "'triton' does not support this call: AdamW's eps"),
]


@pytest.mark.parametrize(("options", "told"), BAD_OPTIONS, ids=lambda value: "".join(value))
def test_a_bad_option_of_score_is_named(model: Path, data: Path, tmp_path: Path, options: list[str], told: str) -> None:
    done = invoke("score", data, "--model", model, "--out", tmp_path / "out", *options)
    assert_one_line_error(done, 2, told)
    assert not list(tmp_path.glob("out/part-*"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--format", "alpacca"], "format 'alpacca' is not known"),
        (["--template", "chatmll"], "unknown chat template 'chatmll'"),
        (["--template", "absent.jinja"], "the chat template 'absent.jinja' cannot be read"),
    ],
    ids=lambda value: "".join(value),
)
def test_names_are_checked_before_the_model_is_loaded(
    data: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    done = invoke("score", data, "--model", tmp_path / "absent", "--out", tmp_path / "out", *options)
    assert_one_line_error(done, 2, told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "--keep 0.3"),
        (["--keep", "1.5"], "1.5"),
        (["--keep", "0"], "keeps nothing"),
        (["--keep", "many"], "not a number"),
        (["--keep", "5", "--method", "best"], "unknown method"),
        (["--keep", "5", "--method", "don-threshold", "--don-threshold", "0"], "don-threshold"),
        (["--method", "don-threshold"], "don_threshold or don_quantile"),
        (["--keep", "5", "--weights", "1"], "--weights must be two numbers"),
        (["--keep", "5", "--weights", "-1,1"], "weights"),
        (["--keep", "5", "--order", "worst"], "order must be input or best"),
        (["--keep", "5", "--lr", "-1"], "lr must be"),
        (["--keep", "5", "--method", "random", "--seed", "-1"], "seed"),
    ],
    ids=lambda value: "".join(value),
)
def test_a_bad_option_of_select_is_named(scores: Path, tmp_path: Path, options: list[str], told: str) -> None:
    assert_one_line_error(invoke("select", scores, "--out", tmp_path / "s.jsonl", *options), 2, told)
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_exit_with_2_and_help_with_0(data: Path) -> None:
    for arguments in (["score", data], ["score"], ["nonsense"], ["score", data, "--lr", "much"], ["select"]):
        done = invoke(*arguments)
        assert done.code == 2 and "Usage" in done.err and "Traceback" not in done.err
    for arguments in (["--help"], ["score", "--help"], ["select", "-h"], ["--version"]):
        assert invoke(*arguments).code == 0
    assert donod_fast.__version__ in invoke("--version").out


def test_an_input_that_changed_or_went_is_refused_by_select(model: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    out = tmp_path / "out"
    assert invoke("score", data, "--model", model, "--device", "cpu", "--out", out).code == 0
    subset = ["select", out, "--keep", "5", "--out", tmp_path / "s.jsonl"]
    original = data.read_bytes()
    data.write_bytes(original.replace(b"answer", b"Answer", 1))
    assert_one_line_error(invoke(*subset), 3, str(data), "has changed since it was scored")
    data.write_bytes(original[:-5])
    assert_one_line_error(invoke(*subset), 3, str(data), "has changed")
    data.unlink()
    assert_one_line_error(invoke(*subset), 3, str(data), "is missing")
    data.write_bytes(original)
    done = invoke("select", out, "--keep", "5", "--out", data, "--overwrite")
    assert_one_line_error(done, 5, "one of the inputs")
    assert data.read_bytes() == original


def test_an_unfinished_folder_is_refused_by_select_and_rank(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(scores, out)
    (out / "part-000000.parquet").unlink()
    for arguments in (["select", out, "--keep", "5", "--out", tmp_path / "s.jsonl"], ["rank", out]):
        assert_one_line_error(invoke(*arguments), 5, "unfinished: 0 of 1 part committed")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_file_names_that_are_no_unicode_are_names_like_others(model: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    data = write_lines(folder / "rows.jsonl", [*ROWS[:3], {"unknown": 1}])
    options = ["score", data, "--model", model, "--device", "cpu", "--out", folder / "out"]
    for done in (command(*options), invoke(*options, "--json"), invoke(*options, "--dry-run")):
        assert done.code == 0, done.err
    subset = folder / "subset.jsonl"
    options = ["select", folder / "out", "--keep", "1", "--out", subset]
    for done in (command(*options, PYTHONIOENCODING="ascii"), invoke(*options, "--json", "--overwrite")):
        assert done.code == 0, done.err
    assert len(subset.read_bytes().splitlines()) == 1
    assert_one_line_error(invoke("rank", folder / "gone"), 5, "gone")


def test_an_internal_error_has_a_traceback_only_on_request(scores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(ScoresFolder, "table", broken)
    monkeypatch.delenv("DONOD_FAST_TRACEBACK", raising=False)
    done = invoke("rank", scores)
    assert done.code == 70 and "internal error: ZeroDivisionError: oops" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("DONOD_FAST_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        invoke("rank", scores)


def test_real_processes_agree_on_exit_codes_and_streams(model: Path, data: Path, scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("score", data, "--model", model, "--out", out, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"] == 40 and done.err == ""
    assert_same_bits(ScoresFolder.open(out).table(), ScoresFolder.open(scores).table())
    gone = command("score", tmp_path / "gone.jsonl", "--model", model, "--out", out)
    assert_one_line_error(gone, 3, "no such file")
    assert gone.err.count("\n") == 1 and gone.out == ""
