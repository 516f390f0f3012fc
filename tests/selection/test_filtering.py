"""Conditions on the kept rows: against a plain filter of the table, for both kinds of sets of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked_folders import drawn, folder_of

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.filter_options import FilterOptions
from donod_fast.selection.filtering import filter_columns, narrowed, read_row_numbers
from donod_fast.selection.out_of_core import RowSet
from donod_fast.selection.rankers import Kept

ROWS = 120
SOURCES = ("web", "code", "", None, "a=b:c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    draw = np.random.default_rng(1)
    return folder_of(
        tmp_path_factory.mktemp("filtered") / "scores",
        drawn(ROWS, 3),
        [50, 30, 40],
        {"source": [SOURCES[at] for at in draw.integers(0, 5, ROWS)], "loss": [str(at % 3) for at in range(ROWS)]},
        inputs=[("one.jsonl", 80), ("two.jsonl", 40)],
        signals={"flags": {"odd": draw.random(ROWS) < 0.5}, "more": {"ifd": draw.normal(size=ROWS)}},
    )


@pytest.fixture(scope="module")
def plain(folder: ScoresFolder) -> dict[str, list[Any]]:
    """The values of the columns by another way than the code: as Python objects of the whole table."""
    found: dict[str, list[Any]] = folder.table().to_pydict()
    return {**found, "source": found["record.source"], "file": ["one.jsonl"] * 80 + ["two.jsonl"] * 40}


def holds(value: Any, text: str) -> bool:
    """What the documentation says of a condition."""
    if isinstance(value, bool):
        return text == str(value).lower()
    if isinstance(value, (int, float)):
        low, colon, high = text.partition(":")
        if not colon:
            return value == float(low)
        return (not low or value >= float(low)) and (not high or value <= float(high)) and value == value
    return (value or "") == text


CONDITIONS = {
    "loss": ["0.5:0.75", ":0.25", "0.875:", "0.5", ":"],
    "don": ["0:", ":-1e-6", "-inf:inf"],
    "tokens": ["7", "8:", ":7"],
    "ifd": ["-0.5:0.5"],
    "odd": ["true", "false"],
    "source": ["web", "code", "", "a=b:c", "nowhere"],
    "file": ["one.jsonl", "two.jsonl"],
    "record.loss": ["0", "2"],
}
one_condition = st.sampled_from([(name, text) for name, texts in CONDITIONS.items() for text in texts])


@settings(max_examples=60, deadline=None)
@given(st.lists(one_condition, min_size=1, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_what_is_left_is_what_a_plain_filter_leaves(
    folder: ScoresFolder,
    plain: dict[str, list[Any]],
    conditions: list[tuple[str, str]],
    random: Any,
    as_set: bool,
) -> None:
    chosen = random.sample(range(ROWS), 60)
    wanted = [
        row
        for row in chosen
        if all(
            any(holds(plain[name][row], text) for other, text in conditions if other == name) for name, _ in conditions
        )
    ]
    rows: Any = chosen
    if as_set:
        rows = RowSet(ROWS)
        rows.add(np.array(chosen))
    options = FilterOptions(tuple(f"{name}={text}" for name, text in conditions))
    if not wanted:
        with pytest.raises(InputError, match="none of the 60 kept rows fulfils --where"):
            narrowed(folder, Kept(rows), options)
        return
    found = narrowed(folder, Kept(rows), options).rows
    assert list(found) == (sorted(wanted) if as_set else wanted)


def test_a_list_of_rows_and_a_condition_must_both_hold(folder: ScoresFolder, tmp_path: Path) -> None:
    listed = tmp_path / "rows.txt"
    listed.write_text("\ufeff3\n\n100\r\n 7 \n", encoding="utf-8")
    kept = Kept([100, 3, 9, 7])
    assert narrowed(folder, kept, FilterOptions(only_rows=listed)).rows == [100, 3, 7]
    assert narrowed(folder, kept, FilterOptions(("file=two.jsonl",), listed)).rows == [100]
    assert narrowed(folder, kept, FilterOptions()) is kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lost=1", "has no column 'lost'; it has .*did you mean"),
        ("loss=low", "a column of numbers"),
        ("loss=2:1", "LOW is no more than HIGH"),
        ("loss=nan", "a column of numbers"),
        ("loss=", "a column of numbers"),
        ("odd=yes", "is a flag"),
        ("file=three", "no input has this name"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: ScoresFolder, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        narrowed(folder, Kept([1, 2]), FilterOptions((text,)))


@pytest.mark.parametrize("text", ["loss", "=3", " =3"])
def test_a_text_that_is_no_condition_is_refused_at_once(text: str) -> None:
    with pytest.raises(InputError, match="is no condition"):
        FilterOptions((text,))


def test_don_of_another_learning_rate_is_not_compared(folder: ScoresFolder) -> None:
    with pytest.raises(InputError, match="remove --lr"):
        narrowed(folder, Kept([1, 2]), FilterOptions(("don=0:",)), lr=1e-3)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("1\nten\n"),
        lambda path: path.write_text("120\n"),
        lambda path: path.write_text("-1\n"),
        lambda path: path.write_text("9" * 40),
        lambda path: path.write_text("\n\n"),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.mkdir(),
        lambda path: None,
    ],
)
def test_a_bad_list_of_rows_is_refused(tmp_path: Path, write: Callable[[Path], Any]) -> None:
    path = tmp_path / "rows.txt"
    write(path)
    with pytest.raises(InputError, match=r"rows\.txt"):
        read_row_numbers(path, ROWS)


def test_columns_of_scores_come_before_carried_ones(folder: ScoresFolder) -> None:
    columns = filter_columns(folder)
    assert columns["loss"].kind == "number" and columns["record.loss"].kind == "text"
    assert columns["source"] == ("record.source", "text") and columns["file"] == (None, "text")
