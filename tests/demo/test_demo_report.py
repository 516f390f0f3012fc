"""The demonstration's table: rows that each method drops, compared with random selection."""

from __future__ import annotations

import pytest

from donod_fast.demo.report import ALL_KINDS, Count, detect, format_table

LABELS = ["none", "masked_words", "none", "wrong_answer", "masked_words", "none", "wrong_answer", "none"]


def test_counts_are_of_the_dropped_rows() -> None:
    (detection,) = detect(LABELS, {"topsis": [0, 2, 4, 5]})
    assert detection.kinds == {
        "masked_words": Count(dropped=1, planted=2),
        "wrong_answer": Count(dropped=2, planted=2),
        ALL_KINDS: Count(dropped=3, planted=4),
    }
    assert detection.clean == Count(dropped=1, planted=4)
    assert detection.dropped_share == 0.5


def test_a_method_that_keeps_all_corrupted_rows_is_reported() -> None:
    (detection,) = detect(LABELS, {"sgd": [1, 3, 4, 6]})
    assert detection.kinds[ALL_KINDS] == Count(dropped=0, planted=4)
    assert detection.clean == Count(dropped=4, planted=4)


def test_all_rows_kept_drops_nothing() -> None:
    (detection,) = detect(LABELS, {"all": range(8)})
    assert detection.kinds[ALL_KINDS].dropped == 0
    assert detection.dropped_share == 0


def test_no_rows_and_rows_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        detect([], {"topsis": []})
    for row in (-1, 8):
        with pytest.raises(ValueError, match="outside 0 … 7"):
            detect(LABELS, {"topsis": [row]})


def test_the_table_is_aligned_and_ends_with_chance() -> None:
    table = format_table(detect(LABELS, {"TOPSIS (AdamW)": [0, 2, 4, 5], "random": [0, 1, 2, 3]}))
    # A random draw of 4 of 8 rows drops 1 ± 2·sqrt(2·½·½·6/7) of 2, and 2 ± 2·sqrt(4·½·½·4/7) of 4
    assert table.splitlines() == [
        "                     more is better  more is better  more is better  fewer is better",
        "rows dropped           masked words    wrong answer       all kinds       clean rows",
        "------------------------------------------------------------------------------------",
        "TOPSIS (AdamW)               1 of 2          2 of 2          3 of 4           1 of 4",
        "random                       1 of 2          1 of 2          2 of 4           2 of 4",
        "------------------------------------------------------------------------------------",
        "chance (50%) ± 2 SD           1 ± 1           1 ± 1           2 ± 2            2 ± 2",
    ]
