"""``select`` with duplicates, spread rows and warnings, from the command line on real records."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from score_runs import assert_one_line_error, invoke, write_lines
from tiny_models import save_tiny

WORDS = ["quick", "brown", "fox", "lazy", "dog", "seven", "wizard", "quiet", "mix", "bright", "potion", "old", "tree"]


def answer(number: int) -> str:
    """Words that no other row has in this order; rows with an odd number are long."""
    return " ".join(random.Random(number).choices(WORDS, k=60 if number % 2 else 16))


def records() -> list[dict[str, Any]]:
    """Rows 0–49 differ; 50–59 are copies of 0–9 under other ids, 60–69 edits of 10–19 by one word."""
    rows = [{"id": at, "instruction": f"Write line {at}.", "output": answer(at)} for at in range(50)]
    rows += [{**rows[at], "id": 50 + at, "output": rows[at]["output"].replace(" ", "  ", 1)} for at in range(10)]
    rows += [{**rows[10 + at], "id": 60 + at, "output": rows[10 + at]["output"] + " again"} for at in range(10)]
    return [{**row, "source": "long" if at % 2 else "short"} for at, row in enumerate(rows)]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scores folder of these records, which no test changes."""
    place = tmp_path_factory.mktemp("variety")
    model = save_tiny("llama", place / "model")
    data = write_lines(place / "data.jsonl", records())
    options = ["--model", model, "--device", "cpu", "--carry", "source", "--signals", "embedding"]
    done = invoke("score", data, *options, "--out", place / "out")
    assert done.code == 0, done.err
    return place / "out"


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("engine", ["memory", "duckdb"])
def test_one_row_of_each_set_is_written_and_the_sets_are_told(scores: Path, tmp_path: Path, engine: str) -> None:
    for kind, pairs in (("exact", {at: 50 + at for at in range(10)}), ("minhash", {at: 50 + at for at in range(20)})):
        out, sets = tmp_path / f"{kind}.jsonl", tmp_path / f"{kind}-sets.jsonl"
        options = ["--keep", "1.0", "--dedupe", kind, "--engine", engine, "--out", out, "--sets", sets]
        done = invoke("select", scores, *options, "--json", "--method", "loss")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert found["kept"] == 70 - len(pairs) and found["missing"] == len(pairs)
        kept = {row["id"] for row in written(out)}
        assert all((one in kept) != (other in kept) for one, other in pairs.items())
        members = [{line["kept"], *line["dropped"]} for line in written(sets)]
        assert sorted(map(sorted, members)) == [[one, other] for one, other in pairs.items()]
        assert all(line["kept"] in kept and line["similarity"][0] >= 0.8 for line in written(sets))
        (counts,) = found["sets"]
        assert counts["kind"] == kind and counts["sets"] == len(pairs) and counts["compared"] == 70
        assert not list(tmp_path.glob(".donod-fast*"))


def test_the_summary_says_what_was_passed_over(scores: Path, tmp_path: Path) -> None:
    done = invoke("select", scores, "--keep", "65", "--dedupe", "minhash", "--out", tmp_path / "a.jsonl")
    assert done.code == 0, done.err
    assert "20 sets of nearly equal texts among the ranked rows" in done.out
    assert "no others are left for 15 rows that --keep asks for" in done.out
    done = invoke(
        "select", scores, "--keep", "9", "--diversify", "kmeans", "--pool", "2", "--out", tmp_path / "b.jsonl"
    )
    assert done.code == 0, done.err
    assert "spread by kmeans over the embeddings of 18 candidates" in done.out


def test_far_subsets_are_warned_about_on_standard_error(scores: Path, tmp_path: Path) -> None:
    long = ["--method", "scored_tokens@high", "--keep", "32"]
    done = invoke("select", scores, *long, "--out", tmp_path / "1.jsonl")
    assert done.code == 0
    first, second = done.err.splitlines()
    assert first.startswith("donod-fast: the kept rows are longer than the corpus")
    assert second.startswith("donod-fast: the kept rows mix source differently")
    found = json.loads(invoke("select", scores, *long, "--json", "--quiet", "--out", tmp_path / "2.jsonl").out)
    assert [f"donod-fast: {one}" for one in found["warnings"]] == [first, second]
    assert found["kept_tokens_mean"] > 1.25 * found["tokens_mean"]
    assert found["mix_distance"] == {"source": pytest.approx(0.5)}
    for options in ([*long, "--quiet"], ["--keep", "1.0"]):
        assert invoke("select", scores, *options, "--overwrite", "--out", tmp_path / "1.jsonl").err == ""


def test_what_cannot_be_done_is_refused_before_the_work(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    there = write_lines(tmp_path / "there.jsonl", [])
    for options, code, said in (
        (["--sets", tmp_path / "s.jsonl"], 2, "--sets writes the sets of --dedupe or --diversify"),
        (["--dedupe", "exact", "--sets", there], 5, "exists already"),
        (["--dedupe", "exact", "--sets", out, "--overwrite"], 2, "a file of its own"),
        (["--dedupe", "exact", "--sets", "-"], 2, "a file of its own"),
        (["--dedupe", "exact", "--sets", scores.parent / "data.jsonl", "--overwrite"], 5, "one of the inputs"),
        (["--dedupe", "exact", "--method", "kcenter"], 2, "needs a ranking of all rows"),
        (["--dedupe", "minhash", "--dedupe-threshold", "2"], 2, "above 0 and at most 1"),
        (["--diversify", "kcenter", "--pool", "0.1"], 2, "at least 1 candidate"),
    ):
        assert_one_line_error(invoke("select", scores, "--keep", "0.5", "--out", out, *options), code, said)
        assert not out.exists()
