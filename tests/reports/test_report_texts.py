"""Texts of a report: losses of tokens, sets of near-duplicates, other tokenizers, reading few of many records."""

from __future__ import annotations

import math
import random
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from report_blocks import blocks_of, texts_of
from score_runs import WORDS, assert_one_line_error, invoke, write_lines

from donod_fast.data.reading import open_corpus
from donod_fast.demo.corpus import DATA
from donod_fast.errors import DonodError
from donod_fast.reports.report import write_report
from donod_fast.reports.settings import ReportOptions
from donod_fast.reports.texts import records_of
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.token_losses import read_token_losses

MODEL = DATA / "model"


def long_rows(count: int) -> list[dict[str, Any]]:
    """Rows of which every third repeats the one before with another last word."""
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for at in range(count):
        words = draw.choices(WORDS, k=40)
        if at % 3 == 2:
            words = [*rows[-1]["output"].split()[:-1], "else"]
        rows.append({"id": f"r{at}", "instruction": "Say it." if at % 3 else f"Say {at}.", "output": " ".join(words)})
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    """Scores with the losses of tokens; no test changes them."""
    place = tmp_path_factory.mktemp("texts")
    data = write_lines(place / "data.jsonl", long_rows(30))
    done = invoke("score", data, "--model", MODEL, "--out", place / "scores", "--token-losses", "--part-rows", "7")
    assert done.code == 0, done.err
    return ScoresFolder.open(place / "scores")


@pytest.fixture(scope="module")
def blocks(folder: ScoresFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(folder, out)
    return blocks_of(out)


def test_each_scored_token_has_the_loss_that_was_recorded(blocks: dict[str, Any], folder: ScoresFolder) -> None:
    assert blocks["meta"]["texts"]["losses"]
    losses = read_token_losses(folder, range(folder.rows))
    assert len(losses) == 30
    for entry in texts_of(blocks):
        assert len(entry["losses"]) == len(entry["pieces"])
        for (flags, _), loss in zip(entry["pieces"], entry["losses"], strict=True):
            assert (loss is not None) == bool(flags & 1)
        known = [loss for loss in entry["losses"] if loss is not None]
        assert math.isclose(sum(known), sum(losses[entry["row"]]), abs_tol=1e-4 * len(known))
        assert 1 < len(known) <= len(losses[entry["row"]])


def test_near_duplicates_are_sets_whose_best_row_is_kept(blocks: dict[str, Any]) -> None:
    pytest.importorskip("rensa")
    (near,) = [one for one in blocks["meta"]["sets"] if one["kind"] == "minhash"]
    assert near["threshold"] == 0.8 and (near["sets"], near["rows"]) == (10, 20)
    ranks = dict(zip(blocks["row"].tolist(), blocks["r0"].tolist(), strict=True))
    for one in near["shown"]:
        first, second = sorted(one["rows"])
        assert second == first + 1 and second % 3 == 2
        assert one["kept"] == min(one["rows"], key=ranks.__getitem__) == one["rows"][0]


def test_without_minhash_a_sentence_says_what_to_install(
    folder: ScoresFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    write_report(folder, tmp_path / "report.html", ReportOptions(records=True, methods=("don", "nod")))
    (line,) = [
        one for one in blocks_of(tmp_path / "report.html")["meta"]["quality"] if one["label"] == "near-duplicates"
    ]
    assert "not looked for" in line["text"] and "donod-fast[dedupe]" in line["text"] and line["rows"] is None
    done = invoke("report", folder.name, "--out", tmp_path / "r.html", "--near-duplicates", "minhash")
    assert_one_line_error(done, 2, "donod-fast[dedupe]")


def test_tokens_that_are_not_those_of_the_run_are_named(folder: ScoresFolder, tmp_path: Path) -> None:
    shutil.copytree(folder.path, tmp_path / "scores")
    other = ScoresFolder.open(tmp_path / "scores")
    table, summary = other.read_part(1, hashes=True), other.summary(1)
    assert table is not None and summary is not None
    wrong = pa.array(
        [value + (row == 8) for row, value in enumerate(table.column("tokens").to_pylist(), 7)], pa.int32()
    )
    at = table.column_names.index("tokens")
    other.write_table(1, table.set_column(at, table.schema.field(at), wrong), summary.signals, summary.samples)
    write_report(other, tmp_path / "report.html", ReportOptions(near_duplicates="none"))
    marked = [one["row"] for one in texts_of(blocks_of(tmp_path / "report.html")) if "another mask" in one["detail"]]
    assert marked == [8]


def test_a_tokenizer_with_code_of_its_own_is_not_run(folder: ScoresFolder, tmp_path: Path) -> None:
    options = {**folder.manifest["options"], "trust_remote_code": True}
    other = ScoresFolder(folder.storage, {**folder.manifest, "options": options})
    write_report(other, tmp_path / "report.html")
    meta = blocks_of(tmp_path / "report.html")["meta"]
    assert not meta["texts"]["mask"] and "--trust-remote-code" in meta["texts"]["why"]


def test_a_model_of_the_hub_is_not_asked_for(
    folder: ScoresFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*given: object, **named: object) -> None:
        asked.append(given)
        raise OSError("there is no network here")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    manifest = {**folder.manifest, "options": {**folder.manifest["options"], "model": "nobody/no-such-model"}}
    write_report(ScoresFolder(folder.storage, manifest), tmp_path / "report.html")
    meta = blocks_of(tmp_path / "report.html")["meta"]
    assert not meta["texts"]["mask"] and "nobody/no-such-model" in meta["texts"]["why"] and not asked


@pytest.mark.parametrize("wanted", [[0], [299], [3, 4, 250], list(range(0, 300, 7)), list(range(300))])
def test_few_of_many_records_are_read_in_order(wanted: list[int], tmp_path: Path) -> None:
    corpus = open_corpus([str(write_lines(tmp_path / "data.jsonl", [{"text": str(at)} for at in range(300)]))])
    found = list(records_of(corpus, wanted))
    assert [record.row for record in found] == wanted
    assert [record.data for record in found] == [{"text": str(row)} for row in wanted]


def test_a_damaged_file_of_losses_is_an_error(folder: ScoresFolder, tmp_path: Path) -> None:
    shutil.copytree(folder.path, tmp_path / "scores")
    (file, *_) = sorted(path for path in (tmp_path / "scores").iterdir() if "loss" in path.name)
    file.write_bytes(file.read_bytes()[:-40] + bytes(40))
    with pytest.raises(DonodError, match=file.name):
        write_report(ScoresFolder.open(tmp_path / "scores"), tmp_path / "report.html")
