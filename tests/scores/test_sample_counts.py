"""The parts of a folder count what was used of their records, and the counts add up over all rows and runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scored_folders import part_path
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.engines.local import score_corpus
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.part_summary import PartSummary
from donod_fast.scores.sample_counts import MOST_NAMES, OTHERS, SampleCounts
from donod_fast.scoring.sample_scorer import SampleScorer
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.locking import locked


def sample(row: int, **given: Any) -> TokenizedSample:
    return TokenizedSample(row, f"r{row}", Status.SCORED, **given)


SAMPLES = [
    sample(0, unused=("id", "category"), excluded=2),
    sample(1, unused=("id",), recasts=("system",)),
    sample(2, unused=("id", "id"), recasts=("system", "tools"), excluded=1),
    sample(3),
]
WHOLE = SampleCounts(4, {"category": 1, "id": 3}, {"system": 2, "tools": 1}, 3, 2)


def test_rows_are_counted_once_and_counts_add_up() -> None:
    assert SampleCounts.of(SAMPLES) == WHOLE
    for cut in range(5):
        assert SampleCounts.of(SAMPLES[:cut]) + SampleCounts.of(SAMPLES[cut:]) == WHOLE
    assert SampleCounts.from_json(json.loads(json.dumps(WHOLE.as_json()))) == WHOLE


def test_the_lines_name_columns_rewrites_and_flags() -> None:
    assert WHOLE.lines(4) == [
        "columns no score depends on: id (3 rows), category (1 row)",
        "rewritten for the chat template: system (2 rows), tools (1 row)",
        "left out by the records' own flags: 3 turns in 2 rows",
    ]
    assert SampleCounts(4).lines(4) == []
    assert WHOLE.lines(9)[-1] == "(counted in 4 of 9 rows: an earlier release scored the others)"


def test_endless_names_of_columns_do_not_fill_the_footers() -> None:
    many = [sample(row, unused=("id", f"key {row}")) for row in range(2 * MOST_NAMES)]
    counts = SampleCounts.of(many)
    assert len(counts.unused) == MOST_NAMES + 1
    assert counts.unused["id"] == len(many) and sum(counts.unused.values()) == 2 * len(many)
    assert sum((counts + counts).unused.values()) == 4 * len(many)
    assert counts.lines(len(many))[0].endswith(f", {OTHERS} ({len(many) + 1 - MOST_NAMES} rows)")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(tiny_model("llama"), tiny_tokenizer())


ROWS: list[dict[str, Any]] = [
    {"question": "Who?", "answer": "Me.", "id": f"r{at}", "note": "x" if at % 2 else None} for at in range(9)
]
ROWS[8]["train"] = False


def score(scorer: Scorer, out: Path) -> ScoresFolder:
    with locked(out):
        return score_corpus(corpus_from_rows(ROWS), scorer, out, part_rows=4).folder


def test_a_folder_counts_all_of_its_rows_after_a_second_run_too(scorer: Scorer, tmp_path: Path) -> None:
    folder = score(scorer, tmp_path / "out")
    counts = folder.sample_counts()
    # The record that leaves itself out has no sample, and so no columns.
    assert counts == SampleCounts(9, {"id": 8, "note": 4}, {}, 1, 1)
    before = part_path(folder, 1).read_bytes()
    part_path(folder, 1).unlink()
    assert score(scorer, tmp_path / "out").sample_counts() == counts
    assert part_path(folder, 1).read_bytes() == before


def test_a_part_of_an_earlier_release_loads_without_counts(scorer: Scorer, tmp_path: Path) -> None:
    summary = score(scorer, tmp_path / "out").summary(0)
    assert summary is not None and summary.samples.rows == 4
    content = json.loads(summary.as_json())
    assert PartSummary.from_json(content) == summary
    del content["samples"]
    assert PartSummary.from_json(content).samples == SampleCounts()


def test_the_detail_of_a_scored_row_is_stored_and_is_no_failure(scorer: Scorer) -> None:
    made = scorer.masker.tokenize(next(iter(corpus_from_rows(ROWS).records())))
    rows = SampleScorer.score(scorer.sample_scorer, [replace(made, detail="recast: system")])
    assert (rows[0].status, rows[0].detail) == ("scored", "recast: system") and rows[0].loss == rows[0].loss
