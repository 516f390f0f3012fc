"""Files of ``select --sets`` in a report: the page lists what a selection found, and holds the texts of these rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranked_folders import drawn, fake_scores, folder_of
from report_blocks import blocks_of
from score_runs import assert_one_line_error, invoke, write_lines

import donod_fast
from donod_fast.demo.corpus import DATA
from donod_fast.errors import InputError
from donod_fast.reports.report import write_report
from donod_fast.reports.settings import ReportOptions
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.set_files import write_sets
from donod_fast.selection.similar_sets import SimilarSets

MODEL = DATA / "model"


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    """Twenty rows of which six are equal to others, and one without a score; no test changes them."""
    place = tmp_path_factory.mktemp("sets")
    rows: list[dict[str, Any]] = [
        {"id": f"r{at}", "instruction": f"Say {at % 14}.", "output": "word " * 5 + str(at % 14)} for at in range(20)
    ]
    data = write_lines(place / "data.jsonl", [*rows, {"id": "empty", "instruction": "Say it.", "output": ""}])
    done = invoke(
        "score", data, "--model", MODEL, "--out", place / "scores", "--signals", "embedding", "--part-rows", "7"
    )
    assert done.code == 0, done.err
    return ScoresFolder.open(place / "scores")


def test_the_sets_of_a_selection_are_listed_with_their_rows(scores: ScoresFolder, tmp_path: Path) -> None:
    files = []
    for at, how in enumerate((["--dedupe", "exact"], ["--diversify", "kcenter"])):
        files += ["--sets", tmp_path / f"sets{at}.jsonl"]
        done = invoke("select", scores.name, "--keep", "5", *how, "--out", tmp_path / f"{at}.jsonl", *files[-2:])
        assert done.code == 0, done.err
    out = tmp_path / "report.html"
    done = invoke("report", scores.name, "--out", out, "--near-duplicates", "none", *files)
    assert done.code == 0, done.err
    meta = blocks_of(out)["meta"]
    exact, spread = meta["sets"]  # the records differ in their ids
    assert (exact["kind"], exact["sets"], exact["rows"], exact["threshold"]) == ("exact", 6, 12, None)
    assert (spread["kind"], spread["sets"], spread["rows"]) == ("kcenter", spread["sets"], 15)
    assert exact["label"] == "duplicates by equal texts" and spread["label"] == "rows represented by k-center"
    assert "read from sets0.jsonl" in exact["text"] and "--diversify kcenter" in spread["text"]
    lines = {line["label"]: line for line in meta["quality"]}
    assert lines[exact["label"]]["rows"] == 12 and lines[exact["label"]]["text"].startswith("6 sets of rows")
    for found, file in ((exact, files[1]), (spread, files[3])):
        written = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
        by_kept = {one["kept"]: one for one in written}
        sizes = [one["size"] for one in found["shown"]]
        assert sizes == sorted(sizes, reverse=True) and len(sizes) == len(written)
        for one in found["shown"]:
            line = by_kept.pop(one["kept"])
            similarity = dict(zip(line["dropped"], line["similarity"], strict=True))
            assert one["rows"][0] == one["kept"] and one["similarity"][0] is None
            assert sorted(one["rows"][1:]) == line["dropped"] and one["size"] == len(one["rows"])
            assert one["similarity"][1:] == pytest.approx([similarity[row] for row in one["rows"][1:]], abs=1e-4)
            assert one["similarity"][1:] == sorted(one["similarity"][1:], reverse=True)


def test_the_largest_sets_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = folder_of(tmp_path / "scores", drawn(2000), (1200, 800))
    sizes = rng.permutation(np.concatenate([np.arange(1, 41), np.full(60, 2)]))
    table = folder.table()
    rows = rng.permutation(table.column("row").to_numpy()[table.column("status").to_numpy() == "scored"])
    kept, dropped = np.repeat(rows[: len(sizes)], sizes), rows[len(sizes) : len(sizes) + sizes.sum()]
    sets = SimilarSets("embedding", 0.9, kept, dropped, rng.uniform(0.9, 1, len(dropped)))
    write_sets(folder, [sets], tmp_path / "sets.jsonl")
    (tmp_path / "none.jsonl").write_bytes(b"")
    options = ReportOptions(records=False, sets=(tmp_path / "sets.jsonl", str(tmp_path / "none.jsonl")))
    write_report(folder, tmp_path / "report.html", options)
    meta = blocks_of(tmp_path / "report.html")["meta"]
    (found,) = [one for one in meta["sets"] if one["kind"] == "embedding"]
    assert (found["sets"], found["rows"], found["threshold"]) == (len(sets), sets.rows, 0.9)
    assert [one["size"] for one in found["shown"]] == (np.sort(sizes)[::-1][:50] + 1).tolist()
    assert all(len(one["rows"]) == min(one["size"], 20) == len(one["similarity"]) for one in found["shown"])
    assert {"label": "similar rows", "text": "none.jsonl has no set", "rows": 0} in meta["quality"]


def test_texts_of_listed_rows_come_first(tmp_path: Path) -> None:
    rows = [
        {"id": f"r{at}", "instruction": f"Say {at}.", "output": np.random.default_rng(at).bytes(1500).hex()}
        for at in range(901)
    ]
    folder = fake_scores(tmp_path / "scores", write_lines(tmp_path / "data.jsonl", rows))
    order = np.random.default_rng(1).permutation(900)[:120]
    sets = SimilarSets("minhash", 0.8, np.repeat(order[:20], 5), order[20:], np.ones(100))
    write_sets(folder, [sets], tmp_path / "sets.jsonl")
    options = ReportOptions(max_mb=1.2, methods=("don",), near_duplicates="none", sets=(str(tmp_path / "sets.jsonl"),))
    done = write_report(folder, tmp_path / "report.html", options)
    assert done.texts < 900 and set(order.tolist()) <= set(blocks_of(tmp_path / "report.html")["text_rows"].tolist())


def test_sets_of_other_scores_are_refused(scores: ScoresFolder, tmp_path: Path) -> None:
    other = folder_of(tmp_path / "other", drawn(21), (21,))
    one = SimilarSets("exact", None, np.array([3]), np.array([20]), np.ones(1))
    write_sets(other, [one], tmp_path / "other.jsonl")
    write_sets(scores, [one], tmp_path / "unscored.jsonl")
    for name, said in (
        ("other", "line 1: the set is of another corpus"),
        ("unscored", "row 20 is in a set, but has no"),
    ):
        file = tmp_path / f"{name}.jsonl"
        done = invoke("report", scores.name, "--out", tmp_path / "r.html", "--sets", file)
        assert_one_line_error(done, 2, said)
        assert f"{name}.jsonl" in done.err and not (tmp_path / "r.html").exists()
        with pytest.raises(InputError, match=said):
            donod_fast.load_scores(scores.name).report(tmp_path / "r.html", sets=[file])


def test_a_part_that_is_gone_costs_only_the_texts_of_its_rows(scores: ScoresFolder, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(scores.path, tmp_path / "scores")
    folder = ScoresFolder.open(tmp_path / "scores")
    sets = SimilarSets("exact", None, np.array([1]), np.array([15]), np.ones(1))
    write_sets(folder, [sets], tmp_path / "sets.jsonl")
    (folder.path / folder.part_name(2)).unlink()
    donod_fast.load_scores(scores.name).report(tmp_path / "a.html", sets=tmp_path / "sets.jsonl")
    write_report(folder, tmp_path / "b.html", ReportOptions(near_duplicates="none", sets=(tmp_path / "sets.jsonl",)))
    whole, partial = (blocks_of(tmp_path / name) for name in ("a.html", "b.html"))
    assert whole["meta"]["sets"][-1]["shown"] == partial["meta"]["sets"][-1]["shown"]
    assert {1, 15} <= set(whole["text_rows"].tolist()) and 15 not in partial["text_rows"].tolist()
