"""Score a corpus into a folder: parts depend only on their rows, and a resumed run does only the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from score_runs import assert_same_bits, short_rows, write_lines
from scored_folders import part_path
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.shards import Segment
from donod_fast.engines.local import Outcome, manifest_of, score_corpus, score_parts, score_shard
from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.opening import open_scores
from donod_fast.scoring.scorer import Scorer

ROWS = short_rows(50, seed=9)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(tiny_model("llama"), tiny_tokenizer())


def run(scorer: Scorer, out: Path, part_rows: int = 8, **options: Any) -> Outcome:
    with locked(out):
        return score_corpus(corpus_from_rows(ROWS), scorer, out, part_rows=part_rows, **options)


def test_a_folder_holds_what_scoring_in_memory_gives(scorer: Scorer, tmp_path: Path) -> None:
    outcome = run(scorer, tmp_path / "whole", part_rows=len(ROWS))
    wanted = scorer.score_table(ROWS)
    assert_same_bits(outcome.folder.table(), wanted)
    assert outcome.counts == Counter(wanted.column("status").to_pylist())
    assert sum(outcome.formats.values()) == len(ROWS) and outcome.formats["question_answer"] > 40
    assert outcome.resumed_rows == 0


@pytest.mark.parametrize("lost", [[0], [6], [2, 3], [0, 2, 4, 6], list(range(7)), []])
def test_a_resumed_run_does_what_is_left_and_gives_the_same_bits(
    scorer: Scorer, tmp_path: Path, lost: list[int]
) -> None:
    folder = run(scorer, tmp_path / "out").folder
    wanted = folder.table()
    kept = {part: part_path(folder, part).stat().st_ino for part in range(7) if part not in lost}
    for part in lost:
        part_path(folder, part).unlink()
    seen: list[tuple[int, int]] = []
    outcome = run(scorer, tmp_path / "out", progress=lambda rows, tokens: seen.append((rows, tokens)))
    assert_same_bits(outcome.folder.table(), wanted)
    assert {part: part_path(folder, part).stat().st_ino for part in kept} == kept
    left = sum(min(8, len(ROWS) - 8 * part) for part in lost)
    assert outcome.resumed_rows == len(ROWS) - left
    assert sum(outcome.formats.values()) == left
    assert sum(rows for rows, _ in seen) == len(ROWS)


def test_a_part_s_bits_do_not_depend_on_the_rows_of_other_parts(scorer: Scorer, tmp_path: Path) -> None:
    table = run(scorer, tmp_path / "out").folder.table()
    for part in range(7):
        alone = scorer.score_table(ROWS[8 * part : 8 * part + 8])
        columns = ["id", "status", "loss", "entropy", "weight_dot_update", "update_norm", "don", "nod"]
        assert_same_bits(table.slice(8 * part, 8).select(columns), alone.select(columns))


def test_parts_never_span_two_files_of_a_corpus(scorer: Scorer, tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", ROWS[:21])
    second = write_lines(tmp_path / "b.ndjson", ROWS[21:])
    with locked(tmp_path / "out"):
        corpus = open_corpus([str(first), str(second)])
        outcome = score_corpus(corpus, scorer, tmp_path / "out", part_rows=8)
    folder = outcome.folder
    bounds = [folder.part_range(part) for part in range(folder.parts)]
    assert bounds == [(0, 8), (8, 16), (16, 21), (21, 29), (29, 37), (37, 45), (45, 50)]
    for start, stop in bounds:
        found = folder.table().slice(start, stop - start).drop_columns(["row", "detail"])
        assert_same_bits(found, scorer.score_table(ROWS[start:stop]).drop_columns(["row", "detail"]))


def test_a_manifest_records_what_the_scores_were_made_of(scorer: Scorer, tmp_path: Path) -> None:
    manifest = run(scorer, tmp_path / "out").folder.manifest
    assert manifest["input"]["rows"] == len(ROWS)
    assert {"donod_fast", "python", "torch", "transformers"} <= manifest["versions"].keys()
    assert manifest["model"]["weight_norm"] == scorer.weight_norm
    assert manifest["update"]["update"] == "adamw" and manifest["created"]


def test_an_error_in_the_reading_thread_ends_the_run(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = scorer.masker.tokenize_many, iter(range(100))

    def breaking(records: Any) -> Any:
        if next(calls) == 3:
            raise ZeroDivisionError("while reading ahead")
        return real(records)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.masker, "tokenize_many", breaking)
        with pytest.raises(ZeroDivisionError):
            run(scorer, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) == 3
    assert_same_bits(run(scorer, tmp_path / "out").folder.table(), run(scorer, tmp_path / "w").folder.table())


def test_given_parts_are_requested_one_by_one_and_committed_in_order(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(scorer, tmp_path / "out").folder
    wanted = folder.table()
    parts = [5, 0, 6, 2]  # as after a device was lost: backwards too
    for part in parts:
        part_path(folder, part).unlink()
    committed: list[int] = []
    asked: list[int] = []
    write_part = ScoresFolder.write_part

    def watched(folder: ScoresFolder, part: int, rows: Any, *more: Any) -> None:
        write_part(folder, part, rows)
        committed.append(part)

    def queue() -> Iterator[int]:
        for part in parts:
            asked.append(part)
            yield part

    def progress(rows: int, tokens: int) -> None:
        assert len(asked) <= len(committed) + 4  # one ahead, one that is scored, two being written

    monkeypatch.setattr(ScoresFolder, "write_part", watched)
    formats = score_parts(corpus_from_rows(ROWS), scorer, folder, queue(), progress=progress)
    assert committed == parts
    assert sum(formats.values()) == 3 * 8 + 2
    assert_same_bits(folder.table(), wanted)


def test_an_error_while_a_part_is_scored_costs_no_part_before_it(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = scorer.sample_scorer.score, iter(range(100))

    def breaking(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise ZeroDivisionError("while scoring")
        return real(*arguments, **options)

    monkeypatch.setattr(scorer.sample_scorer, "score", breaking)
    with pytest.raises(ZeroDivisionError):
        run(scorer, tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").glob("part-*"))] == [
        f"part-{i:06d}.parquet" for i in range(3)
    ]


def test_fewer_workers_than_none_are_refused(scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers"):
        run(scorer, tmp_path / "out", workers=-1)


def test_parts_of_no_rows_are_refused(scorer: Scorer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="part_rows"):
        run(scorer, tmp_path / "out", part_rows=0)


def test_shards_scored_in_any_order_equal_the_parts_of_a_whole_run(scorer: Scorer, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    with locked(tmp_path / "whole"):
        whole = score_corpus(open_corpus([str(data)]), scorer, tmp_path / "whole", part_rows=8).folder
    out = tmp_path / "out"
    open_scores(out, open_corpus([str(data)]), manifest_of(open_corpus([str(data)]), scorer, 8))
    folder = ScoresFolder.open(out)
    corpus = folder.corpus()
    for shard in sorted(folder.plan, key=lambda shard: -shard.number):
        for _ in range(2):  # twice is once
            assert score_shard(shard, corpus, scorer, folder) == whole.summary(shard.number)
    for part in range(whole.parts):
        assert part_path(folder, part).read_bytes() == part_path(whole, part).read_bytes()
    for shard in folder.plan:
        summary = folder.summary(shard.number)
        assert summary is not None
        assert tuple(Segment(*segment) for segment in summary.segments) == shard.segments
    with pytest.raises(InputError, match=r"shard 3 .* is not in"):
        score_shard(replace(whole.plan.shard(3), first_row=5), corpus, scorer, folder)
