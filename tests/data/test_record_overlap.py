"""Overlaps of two sets of rows: every disguise of a copied row is found, and different rows are not."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.data.record_overlap import find_overlaps, refuse_overlaps
from donod_fast.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared"
SAME, SAME_PROMPT, NEAR = "the same text", "the same question", "sequences of 5 words"
WORDS = [f"{a}{b}" for a in "bcdfghjklmnprst" for b in ("ado", "elo", "iru", "opa", "uti")]


def row_of(random: Random, prompt: int = 20, answer: int = 40) -> dict[str, str]:
    """A row of random words."""
    return {
        "instruction": " ".join(random.choices(WORDS, k=prompt)),
        "output": " ".join(random.choices(WORDS, k=answer)),
    }


def other_format(row: dict[str, str]) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "You answer."},
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"]},
        ]
    }


DISGUISES = {
    "as it is": (dict, SAME),
    "another order of columns": (lambda row: dict(reversed(row.items())), SAME),
    "a further column": (lambda row: {**row, "id": 7}, SAME),
    "another format": (other_format, SAME),
    "question and answer": (lambda row: {"question": row["instruction"], "answer": row["output"]}, SAME),
    "upper case": (lambda row: {name: text.upper() for name, text in row.items()}, SAME),
    "white space": (lambda row: {name: "\n " + text.replace(" ", "  ") for name, text in row.items()}, SAME),
    "punctuation": (lambda row: {name: text.replace(" ", ", ") + "." for name, text in row.items()}, SAME),
    "wide letters": (
        lambda row: {name: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in text)
                     for name, text in row.items()},
        SAME,
    ),
    "another answer": (lambda row: {**row, "output": "no idea about this one at all"}, SAME_PROMPT),
    "a word changed": (lambda row: {**row, "output": row["output"] + " done"}, SAME_PROMPT),
    "words in front": (lambda row: {**row, "instruction": "please tell me " + row["instruction"]}, NEAR),
    "a longer row around it": (
        lambda row: {"instruction": "again " + row["instruction"], "output": row["output"] + " " + " ".join(WORDS)},
        NEAR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("disguise", DISGUISES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_copied_row_is_found_in_every_disguise(disguise: str, seed: int) -> None:
    random = Random(seed)
    make, kind = DISGUISES[disguise]
    held = [row_of(random) for _ in range(6)]
    trained = [row_of(random) for _ in range(8)]
    at, place = random.randrange(6), random.randrange(9)
    trained.insert(place, make(held[at]))
    found = find_overlaps(held, trained)
    assert [(one.first, one.second) for one in found] == [(at, place)]
    assert kind in found[0].why
    # The other way round as well, unless a short row now stands in front of a longer one.
    assert [(one.first, one.second) for one in find_overlaps(trained, held)] == [(place, at)]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_rows_that_share_a_template_are_no_overlap(seed: int) -> None:
    random = Random(seed)
    frame = "answer the following question as well as you can and give reasons for your answer in full sentences"

    def framed() -> dict[str, str]:
        row = row_of(random, prompt=12, answer=25)
        return {**row, "instruction": f"{frame}: {row['instruction']}"}

    assert find_overlaps([framed() for _ in range(30)], [framed() for _ in range(30)]) == []


def test_short_rows_overlap_only_if_they_are_equal() -> None:
    held = [{"instruction": "Add 2 and 3", "output": "5"}, {"instruction": "Say yes", "output": "yes"}]
    assert find_overlaps(held, [{"instruction": "Add 2 and 4", "output": "6"}]) == []
    assert find_overlaps(held, [{"instruction": "say  YES!", "output": "Yes."}])[0].why == SAME
    # The same short prompt is no overlap: many rows have it.
    assert find_overlaps(held, [{"instruction": "Say yes", "output": "no"}]) == []


def test_languages_without_spaces_are_compared_by_characters() -> None:
    held = [{"instruction": "请用中文解释什么是机器学习以及它的应用", "output": "机器学习是人工智能的一个分支"}]
    near = [{"instruction": "好。请用中文解释什么是机器学习以及它的应用", "output": "机器学习是人工智能的一个分支"}]
    assert len(find_overlaps(held, near)) == 1
    assert find_overlaps(held, [{"instruction": "今天天气怎么样", "output": "今天天气很好，阳光明媚"}]) == []


ODD: list[dict[str, Any]] = [
    {},
    {"x": None},
    {"instruction": "…", "output": "!"},
    {"input_ids": [1, 2, 3]},
    {"text": ""},
    {"messages": "broken"},
    {"a": {"b": [1, {"c": "deep"}]}},
]


@pytest.mark.parametrize("record", ODD)
def test_odd_records_overlap_with_no_other_row(record: dict[str, Any]) -> None:
    other = row_of(Random(0))
    assert find_overlaps([record], [other]) == []
    # Rows that cannot be read, or have no word, are neither trained on nor measured, so they are not compared.
    readable = "input_ids" in record
    assert [one.why for one in find_overlaps([record], [other, record])] == [SAME] * readable


def test_the_message_names_rows_of_both_sets_by_their_places() -> None:
    random = Random(1)
    rows = [row_of(random) for _ in range(5)]
    found = find_overlaps(rows, rows)
    with pytest.raises(
        InputError, match=r"5 of 5 rows of H are also in D: row 10 \(the same text as row 100\).* 2 more"
    ):
        refuse_overlaps(found, 5, "H", "D", first_skip=10, second_skip=100)
    refuse_overlaps([], 5, "H", "D")


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the real data of ../shared is absent")
def test_the_splits_of_real_data_do_not_overlap() -> None:
    def rows(path: str) -> list[dict[str, Any]]:
        text = (SHARED / "data" / path).read_text(encoding="utf-8")
        return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]

    alpaca = rows("alpaca/alpaca_5000.json")
    assert find_overlaps(alpaca[-100:], alpaca[:2000]) == []
    math = rows("gsm8k/train.jsonl")
    assert find_overlaps(rows("gsm8k/test.jsonl")[:100], math[:2000]) == []
    assert len(find_overlaps(math[:50], math[40:200])) == 10
