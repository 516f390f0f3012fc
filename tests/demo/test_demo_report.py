"""The demonstration's table says what was dropped, and what chance would have dropped."""

from __future__ import annotations

import pytest

from donod_fast.demo.report import ALL_KINDS, Count, detect, format_table

LABELS = ["none", "masked_words", "none", "wrong_answer", "masked_words", "none", "wrong_answer", "none"]


def test_counts_are_those_of_the_dropped_part() -> None:
    (detection,) = detect(LABELS, {"topsis": [0, 2, 4, 5]})
    assert detection.kinds == {
        "masked_words": Count(dropped=1, planted=2),
        "wrong_answer": Count(dropped=2, planted=2),
        ALL_KINDS: Count(dropped=3, planted=4),
    }
    assert detection.clean == Count(dropped=1, planted=4)
    assert detection.dropped_share == 0.5


def test_a_method_that_keeps_the_corrupted_rows_is_reported_as_it_is() -> None:
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


def test_the_table_is_aligned_with_chance_in_its_last_line() -> None:
    table = format_table(detect(LABELS, {"TOPSIS, AdamW": [0, 2, 4, 5], "random": [0, 1, 2, 3]}))
    # A blind draw of 4 of 8 rows drops 1 ± sqrt(2·½·½·6/7) of 2, and 2 ± sqrt(4·½·½·4/7) of 4
    assert table.splitlines() == [
        "dropped of the planted  masked words  wrong answer  all kinds  clean rows",
        "-------------------------------------------------------------------------",
        "TOPSIS, AdamW                 1 of 2        2 of 2     3 of 4      1 of 4",
        "random                        1 of 2        1 of 2     2 of 4      2 of 4",
        "-------------------------------------------------------------------------",
        "chance (50%)                   1 ± 1         1 ± 1      2 ± 1       2 ± 1",
    ]
