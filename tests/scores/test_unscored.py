"""Why rows have no score: the commonest cause, with an example and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from donod_fast.data.types import Status
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import ScoreRow
from donod_fast.scores.unscored import REMEDIES, commonest_cause

MANIFEST = {
    "input": {"rows": 8, "fingerprint": "f"},
    "part_rows": 4,
    "model": {"fingerprint": "m", "revision": None, "dtype": "float32", "weight_norm": 1.5},
    "head": {},
    "update": {"update": "sgd", "lr": 0.1, "storage_dtype": None},
    "masks": {"format": "auto"},
}


def folder_of(place: Path, *rows: tuple[str, str]) -> ScoresFolder:
    """A folder whose rows have these statuses and details; the other rows are scored."""
    all_rows = [*rows, *[("scored", "")] * (8 - len(rows))]
    folder = ScoresFolder.open_or_create(place, MANIFEST)
    for part in range(2):
        start, stop = folder.part_range(part)
        folder.write_part(part, [ScoreRow(row, f"r{row}", *all_rows[row]) for row in range(start, stop)])
    return folder


def test_a_folder_whose_rows_are_all_scored_has_no_cause(tmp_path: Path) -> None:
    assert commonest_cause(folder_of(tmp_path)) is None


def test_the_commonest_cause_of_the_commonest_status_is_shown(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        ("empty_response", "a.jsonl, line 1: answer is empty"),
        ("scored", ""),
        ("scored", ""),
        ("scored", ""),
        ("not_parsable", "a.jsonl, line 5: not UTF-8: byte 0xff at 3"),
        ("not_parsable", "a.jsonl, line 6: broken JSON at column 12"),
        ("not_parsable", "a.jsonl, line 7: broken JSON at column 90"),
        ("empty_response", "a.jsonl, line 8: answer is empty"),
    )
    cause = commonest_cause(folder)
    assert cause is not None
    assert (cause.status, cause.rows) == ("not_parsable", 3)
    assert cause.example == "a.jsonl, line 6: broken JSON at column 12"
    assert cause.text() == f"3 not_parsable, for example {cause.example}; {REMEDIES[Status.NOT_PARSABLE]}"


@pytest.mark.parametrize(
    ("status", "cause", "has_its_own"),
    [
        ("unknown_format", "two answers; --preference chosen (or rejected) says which one to score", True),
        ("unknown_format", "weight is 0.5; only 0 and 1 can be scored, so remove weight or round it", True),
        ("unknown_format", "format alpaca needs the column output; this record has 'a' (a string)", False),
        ("not_parsable", "not UTF-8: byte 0xff at byte 3; if it is Latin-1, convert it: iconv -f LATIN1", True),
        ("not_parsable", "broken JSON at column 12", False),
        ("reasoning_dropped", "the template leaves out the reasoning; choose a template that writes it", True),
        ("too_long", "no token to score; raise the length limit (--max-length)", True),
    ],
)
def test_a_cause_that_names_its_remedy_gets_no_second_one(
    status: str, cause: str, has_its_own: bool, tmp_path: Path
) -> None:
    found = commonest_cause(folder_of(tmp_path, (status, f"a.jsonl, line 1: {cause}")))
    assert found is not None
    assert found.remedy == ("" if has_its_own else REMEDIES[Status(status)])
    assert found.text().endswith(cause if has_its_own else f"{cause}; {found.remedy}")


def test_one_part_with_the_status_is_read_and_no_other(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *[("all_masked", f"a.jsonl, line {at}: no token") for at in range(4)])
    read: list[int] = []
    original = folder.read_part
    folder.read_part = lambda part: read.append(part) or original(part)  # type: ignore[method-assign,func-returns-value]
    assert commonest_cause(folder) is not None
    assert read == [0]


def test_every_status_without_a_score_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Status) - {Status.SCORED}
