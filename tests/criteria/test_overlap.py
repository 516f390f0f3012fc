"""A reference set with rows of the data is refused by every way to score, unless that is allowed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from score_runs import Finished, assert_one_line_error, invoke, write_lines
from tiny_models import save_tiny

from donod_fast.criteria import overlap
from donod_fast.scores.folder import ScoresFolder

WORDS = ["red", "green", "blue", "seven", "twelve", "house", "river", "count", "the", "of", "and", "is", "number"]


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {"question": " ".join(draw.choices(WORDS, k=9)), "answer": " ".join(draw.choices(WORDS, k=6))}
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("overlap") / "model")


def score(folder: Path, model: Path, signals: str, *more: str) -> Finished:
    data, reference = folder / "data.jsonl", folder / "val.jsonl"
    given = ["--reference", str(reference)] if signals else []
    return invoke(
        "score", str(data), "--model", str(model), "--out", str(folder / "scores"), "--device", "cpu",
        *(["--signals", signals] if signals else []), *given, *more,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data, and references of which two are in the data, one of them edited."""
    data, references = rows(12, 1), rows(5, 2)
    data[4], data[9] = references[3], {**references[0], "answer": "TWELVE, of the red house!"}
    write_lines(tmp_path / "data.jsonl", data)
    write_lines(tmp_path / "val.jsonl", references)
    return tmp_path


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize("signals", ["rds", "el2n,bm25", "influence"])
def test_it_is_refused_with_the_rows_named(folder: Path, model: Path, signals: str, more: tuple[str, ...]) -> None:
    done = score(folder, model, signals, *more)
    assert_one_line_error(
        done, 2, "2 rows of 5 reference rows are in the data",
        "val.jsonl, line 1 (row 0): the same question as", "data.jsonl, line 10 (row 9)",
        "val.jsonl, line 4 (row 3): the same text as", "data.jsonl, line 5 (row 4)", "--allow-overlap",
    )  # fmt: skip
    assert not (folder / "scores" / "manifest.json").exists()


def test_allowed_it_is_scored_and_recorded(folder: Path, model: Path) -> None:
    assert score(folder, model, "rds", "--allow-overlap").code == 0
    scores = ScoresFolder.open(folder / "scores")
    assert scores.manifest["options"]["allow_overlap"] is True
    nearest = scores.table().column("rds").to_pylist()
    assert nearest[4] == pytest.approx(1.0, abs=1e-6) and nearest[4] == max(nearest)


def test_without_overlap_the_data_is_read_for_it_only_once(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(folder / "val.jsonl", rows(5, 7))
    seen: list[int] = []
    real = overlap.Lookout

    def counted(*given: Any) -> Any:
        seen.append(1)
        return real(*given)

    monkeypatch.setattr(overlap, "Lookout", counted)
    assert score(folder, model, "").code == 0 and not seen
    done = score(folder, model, "bm25")
    assert done.code == 0 and len(seen) == 1 and "index" not in done.err, done.err
    assert score(folder, model, "bm25").code == 0 and len(seen) == 1  # the same criterion, already recorded
    assert score(folder, model, "rds").code == 0 and len(seen) == 2
    write_lines(folder / "val.jsonl", rows(5, 1))  # rows of the data
    assert_one_line_error(score(folder, model, "less-head"), 2, "--allow-overlap")
