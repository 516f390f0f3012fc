"""A small share of `make nightly`: kills, fuzzed records and files, and flips. Each kind of trial can fail."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import fault_run
import fuzz_trials
import pytest
from disk_steps import compiler
from fault_run import FULL, Slice, printed, run, slices, table
from flip_trials import Scored, flips
from fuzzed_files import KINDS, injure
from fuzzed_records import fuzzed_line
from kill_operations import OPERATIONS, commands

from donod_fast.data.masking import Masker
from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.errors import CorpusError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer

WRITES_NOTHING = {"show", "rank", "compare", "status", "check", "which", "bench", "columns"}
"""Commands that write no file, or a picture or page of what they print by the writer of `report`."""

KILLED_ELSEWHERE = {
    "demo": "score, select and report in one",
    "dual": "tests/selection/dual",
    "damoc": "cells of a study",
    "study": "cells of a study",
}


@contextmanager
def broken(target: str, by: Callable[..., object]) -> Iterator[None]:
    with mock.patch(target, by):
        yield


@pytest.mark.skipif(compiler() is None or os.uname().sysname != "Linux", reason="needs Linux and a C compiler")
def test_killed_commands_run_again_to_the_same_files(tmp_path: Path) -> None:
    kills = ("3 score", "2 select → Parquet", "2 export → JSON Lines", "1 merge")
    chosen = [given for one in kills for given in ("--kill", one)]
    counts, wrong = run(Slice("kills", "share", ("kill_trials.py", *chosen), steps=True), 0, tmp_path)
    assert wrong == []
    assert sum(counts.values()) == 8 and counts["score|equal"] == 3


def test_every_command_that_writes_is_killed() -> None:
    killed = {one.name.split()[0] for one in OPERATIONS}
    assert killed <= set(commands())
    assert {name for name in commands() if name.split()[0] not in killed} - WRITES_NOTHING - set(
        KILLED_ELSEWHERE
    ) == set()


def test_names_of_operations_are_unlike_each_other() -> None:
    names = [one.name for one in OPERATIONS]
    assert len(set(names)) == len(names) and not any("|" in name or ", --kill" in name for name in names)


def test_the_full_set_has_as_many_trials_as_are_claimed() -> None:
    found = list(slices(1.0, 0, tuple(FULL)))
    kills = sum(int(text.partition(" ")[0]) for one in found for text in one.program[2::2] if one.area == "kills")
    assert abs(kills - FULL["kills"]) <= len(OPERATIONS)
    for area, at in (("records", 2), ("files", 2), ("flips", 2)):
        assert sum(int(one.program[at]) for one in found if one.area == area) == FULL[area]
    assert len({(one.area, one.name) for one in found}) == len(found)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.from_pretrained(MODEL_FOLDER, device="cpu")


def test_every_fuzzed_record_is_one_row_with_a_status(scorer: Scorer, tmp_path: Path) -> None:
    draw = random.Random("share")
    for masker in fuzz_trials.maskers(scorer):
        lines = [fuzzed_line(draw) for _ in range(60)]
        own = scorer if masker is scorer.masker else None
        assert sum(fuzz_trials.check_records(lines, tmp_path, masker, own).values()) == 60


def test_a_row_that_is_lost_is_a_failed_trial(scorer: Scorer, tmp_path: Path) -> None:
    lines = [fuzzed_line(random.Random(0)) for _ in range(3)]

    def one_less(masker: Masker, records: list[object]) -> list[object]:
        return []

    with (
        broken("donod_fast.data.masking.Masker.tokenize_many", one_less),
        pytest.raises(fuzz_trials.Failure, match="3 records gave 0 rows"),
    ):
        fuzz_trials.check_records(lines, tmp_path, scorer.masker, None)


def test_every_injured_file_is_read_or_refused_by_name(tmp_path: Path) -> None:
    kinds, _ = fuzz_trials.readable_kinds(tmp_path / "whole")
    assert {name for name in kinds if name.startswith("rows.")} >= {"rows.jsonl", "rows.csv", "rows.parquet"}
    (tmp_path / "files").mkdir()
    found = list(fuzz_trials.file_batch(1, 0, tmp_path / "files", tmp_path / "whole", kinds))
    assert [detail for outcome, detail in found if outcome == "failed"] == []
    assert {outcome for outcome, _ in found} == {"read", "refused"}


def test_an_error_that_names_no_file_is_a_failed_trial(tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise CorpusError("it is broken")

    (tmp_path / "rows.jsonl").touch()
    with broken("fuzz_trials.open_corpus", refuse), pytest.raises(fuzz_trials.Failure, match="does not name"):
        fuzz_trials.check_file(tmp_path / "rows.jsonl")


def test_an_injury_changes_bytes_and_the_same_seed_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        KINDS["rows.jsonl"](tmp_path / "rows.jsonl")
        injure(tmp_path / "rows.jsonl", random.Random(4))
        contents.append((tmp_path / "rows.jsonl").read_bytes())
    KINDS["rows.jsonl"](tmp_path / "rows.jsonl")
    assert contents[0] == contents[1] != (tmp_path / "rows.jsonl").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(tmp_path_factory.mktemp("flips") / "world")


def test_no_flip_changes_a_score_in_silence(folder: Scored) -> None:
    kinds = len(folder.files())
    found = list(flips(folder, kinds, "share"))
    assert [one for one in found if one[2] in ("changed", "failed")] == []
    assert len(found) == kinds * (2 * len(folder.readers()) + 1)
    assert {kind for kind, _, outcome, _ in found if outcome == "detected"} == set(folder.files())


def test_a_reader_that_trusts_damaged_bytes_is_seen(folder: Scored) -> None:
    numbers = iter(range(10**6))

    def careless(folder: ScoresFolder, *arguments: object) -> dict[int, list[float]]:
        return {0: [float(next(numbers))]}

    with broken("flip_trials.read_token_losses", careless):
        found = list(flips(folder, 1, "share"))
    assert {outcome for _, reader, outcome, _ in found if reader == "losses"} == {"changed"}


def test_slices_add_up_to_one_table() -> None:
    about = {"share": 1.0, "seed": 0, "date": "2026-01-01", "wrong": []}
    lines = [
        {**about, "area": "kills", "commit": "a", "counts": {"score|equal": 3, "eval|not tried": 1}},
        {
            **about,
            "area": "kills",
            "commit": "b",
            "counts": {"score|equal": 2, "score|refused": 1, "eval|not tried": 1},
        },
    ]
    rows = table(lines)
    assert {(row["kind"], row["outcome"]): row["count"] for row in rows} == {
        ("score", "equal"): 5,
        ("score", "refused"): 1,
        ("eval", "not tried"): 1,
    }
    assert {row["commit"] for row in rows} == {"a+b"} and set(rows[0]) == set(fault_run.FIELDS)
    assert printed(rows).splitlines()[0].split() == ["kills", "score", "equal", "5,", "refused", "1"]
