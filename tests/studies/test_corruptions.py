"""Corruptions: each kind does what its name says, changes only the response, and follows its seed."""

from __future__ import annotations

import re
from random import Random

import pytest

from donod_fast.errors import InputError
from donod_fast.studies.core.corruptions import KINDS, MASK, SHARE, corrupt, plant, response_column

TEXT = "The sum of 12 and 30 is\n  42, since 12 + 30 = 42.\nAnd so it goes on for many more words."
ROWS = [
    {"id": i, "question": f"q {i}", "answer": f"Take {i} and {i + 7}; the answer is {2 * i + 7}."} for i in range(50)
]


def damaged(kind: str, text: str = TEXT, seed: int = 0) -> str:
    return corrupt({"answer": text, "question": "q"}, kind, Random(seed), ROWS)["answer"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_response_changes_and_the_record_itself_does_not(kind: str) -> None:
    record = {"id": 7, "question": "q", "answer": TEXT}
    changed = corrupt(record, kind, Random(0), ROWS)
    assert record["answer"] == TEXT
    assert changed["answer"] != TEXT
    assert {**changed, "answer": TEXT} == record


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: str) -> None:
    assert damaged(kind) == damaged(kind)
    if kind != "truncated":  # where nothing is drawn
        assert len({damaged(kind, seed=seed) for seed in range(10)}) > 5


def test_masked_replaces_its_share_of_words_and_keeps_the_white_space() -> None:
    words, changed = TEXT.split(), damaged("masked").split()
    assert len(words) == len(changed)
    assert sum(word == MASK for word in changed) == round(SHARE * len(words))
    assert all(new in (old, MASK) for old, new in zip(words, changed, strict=True))
    assert re.findall(r"\s+", damaged("masked")) == re.findall(r"\s+", TEXT)


def test_dropped_leaves_the_other_words_in_order() -> None:
    words, left = TEXT.split(), damaged("dropped").split()
    assert len(left) == len(words) - round(SHARE * len(words))
    remaining = iter(words)
    assert all(word in remaining for word in left), "a subsequence"


def test_shuffled_keeps_the_words_and_changes_their_order() -> None:
    assert sorted(damaged("shuffled").split()) == sorted(TEXT.split())
    assert damaged("shuffled").split() != TEXT.split()


def test_truncated_keeps_the_first_half_of_the_words() -> None:
    assert TEXT.startswith(damaged("truncated"))
    assert len(damaged("truncated").split()) == len(TEXT.split()) // 2


def test_a_wrong_answer_is_anothers() -> None:
    answers = {row["answer"] for row in ROWS}
    assert all(corrupt(row, "wrong_answer", Random(0), ROWS)["answer"] in answers - {row["answer"]} for row in ROWS)
    with pytest.raises(InputError, match="another record with another response"):
        corrupt(ROWS[0], "wrong_answer", Random(0), ROWS[:1])


def test_wrong_numbers_have_as_many_digits_and_no_number_stays() -> None:
    old, new = re.findall(r"\d+", TEXT), re.findall(r"\d+", damaged("wrong_numbers"))
    assert [len(number) for number in old] == [len(number) for number in new]
    assert all(a != b for a, b in zip(old, new, strict=True))
    assert re.sub(r"\d", "#", damaged("wrong_numbers")) == re.sub(r"\d", "#", TEXT)


@pytest.mark.parametrize("kind", ["dropped", "shuffled", "truncated", "wrong_numbers"])
def test_one_word_without_a_number_cannot_be_damaged_by_some(kind: str) -> None:
    for text in ("Yes", "Yes\n", "Yes \n"):
        assert damaged(kind, text).strip() == "Yes"


def test_planted_rows_are_the_ones_that_changed_in_exact_numbers() -> None:
    shares = {"masked": 0.1, "wrong_answer": 0.2, "shuffled": 0.04}
    planted, kinds = plant(ROWS, shares, seed=3)
    assert [a != b for a, b in zip(planted, ROWS, strict=True)] == [bool(kind) for kind in kinds]
    assert {kind: kinds.count(kind) for kind in shares} == {"masked": 5, "wrong_answer": 10, "shuffled": 2}
    assert plant(ROWS, shares, seed=3) == (planted, kinds)
    assert plant(ROWS, shares, seed=4)[1] != kinds


def test_a_row_that_a_kind_cannot_damage_is_not_called_corrupted() -> None:
    rows = [{"answer": f"It is {i}." if i % 5 == 0 else "It is none."} for i in range(50)]
    planted, kinds = plant(rows, {"wrong_numbers": 0.2, "masked": 0.8}, seed=0)
    assert kinds.count("wrong_numbers") == 10, "all that have a number"
    assert kinds.count("masked") == 40, "the others are there for other kinds"
    assert all(a != b for a, b in zip(planted, rows, strict=True))
    with pytest.raises(InputError, match="'wrong_numbers' can damage only 10 of the 15 rows"):
        plant(rows, {"wrong_numbers": 0.3}, seed=0)


def test_shares_beyond_all_rows_and_unknown_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="leave no row"):
        plant(ROWS, {"masked": 0.7, "dropped": 0.5}, seed=0)
    with pytest.raises(InputError, match="unknown corruption 'burnt'"):
        corrupt(ROWS[0], "burnt", Random(0), ROWS)


def test_the_response_is_found_where_formats_look_for_it() -> None:
    assert response_column({"instruction": "a", "output": "b"}) == "output"
    assert response_column({"prompt": "a", "completion": "b"}) == "completion"
    assert response_column({"output": "a", "response": "b"}) == "output"
    with pytest.raises(InputError, match="has no response as text"):
        response_column({"messages": []})
