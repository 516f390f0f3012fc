"""Rows are found again after every edit that leaves them the same row, and other rows are not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from donod_fast.data.overlap import Lookout, Match
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.reading import corpus_from_rows
from donod_fast.data.words import words_of

WORDS = [f"{first}{last}" for first in "bcdfghklmnprst" for last in ("ale", "ond", "urp", "ist", "ema", "ox")]
Row = dict[str, Any]


def drawn(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


def row(draw: random.Random) -> Row:
    return {"question": drawn(draw, draw.randint(10, 40)), "answer": drawn(draw, draw.randint(10, 60))}


def matches(known: list[Row], others: list[Row]) -> list[Match]:
    references = (("val", record) for record in corpus_from_rows(known).records())
    return list(Lookout(references, len(known), ReadRules()).matches(corpus_from_rows(others).records()))


def _each(one: Row, change: Callable[[str], str]) -> Row:
    return {name: change(text) for name, text in one.items()}


def _one_word(text: str, draw: random.Random) -> str:
    words = text.split()
    words[draw.choice([0, -1])] = "another"
    return " ".join(words)


EDITS: dict[str, Callable[[Row, random.Random], Row]] = {
    "none": lambda one, draw: dict(one),
    "case": lambda one, draw: _each(one, str.upper),
    "white space": lambda one, draw: _each(one, lambda text: "\n  ".join(text.split())),
    "punctuation": lambda one, draw: _each(one, lambda text: text.replace(" ", ", ") + "!"),
    "full width": lambda one, draw: _each(
        one, lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in text)
    ),
    "format": lambda one, draw: {"prompt": one["question"] + "\n", "completion": one["answer"]},
    "plain text": lambda one, draw: {"text": f"{one['question']}\n\n{one['answer']}"},
    "messages": lambda one, draw: {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant that likes to talk."},
            {"role": "user", "content": one["question"]},
            {"role": "assistant", "content": one["answer"]},
        ]
    },
    "further columns": lambda one, draw: {"id": "x", "source": "web", **one},
    "another answer": lambda one, draw: {**one, "answer": drawn(draw, 30)},
    "no answer worth the name": lambda one, draw: {**one, "answer": "yes"},
    "a word at one end": lambda one, draw: _each(one, lambda text: _one_word(text, draw)),
    "inside a longer row": lambda one, draw: {
        "question": f"{drawn(draw, 50)} {one['question']}",
        "answer": f"{one['answer']} {drawn(draw, 50)}",
    },
    "question edited and another answer": lambda one, draw: {
        "question": "Please: " + one["question"],
        "answer": drawn(draw, 30),
    },
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_row_is_found(edit: str) -> None:
    draw = random.Random(edit)
    known = [row(draw) for _ in range(30)]
    others = [row(draw) for _ in range(60)]
    chosen = draw.sample(range(30), 5)
    places = draw.sample(range(60), 5)
    for at, place in zip(chosen, places, strict=True):
        others[place] = EDITS[edit](known[at], draw)
    found = matches(known, others)
    assert {(one.known.row, one.record.row) for one in found} == set(zip(chosen, places, strict=True))


def test_rows_in_a_common_frame_are_not_taken_for_each_other() -> None:
    draw = random.Random(1)
    frame = "Below is an instruction that describes a task. Write a response that completes it well. " * 3

    def framed() -> Row:
        return {"question": frame + drawn(draw, 12), "answer": "The answer is: " + drawn(draw, 12)}

    known, others = [framed() for _ in range(40)], [framed() for _ in range(40)]
    assert not matches(known, others)
    others[7] = EDITS["punctuation"](known[3], draw)
    assert [(one.known.row, one.record.row) for one in matches(known, others)] == [(3, 7)]


def test_a_question_that_all_rows_have_is_no_sign() -> None:
    draw = random.Random(2)
    rows = [{"question": "Write a poem about anything", "answer": drawn(draw, 20)} for _ in range(60)]
    assert not matches(rows[:30], rows[30:])


@pytest.mark.parametrize("short", [{"question": "2 + 2?", "answer": "4"}, {"text": "红色的房子"}])
def test_short_rows_are_found_only_as_they_are(short: Row) -> None:
    near = {name: text.replace("2?", "3?").replace("红", "绿") for name, text in short.items()}
    assert not matches([short], [near])
    assert [one.why for one in matches([short], [near, short])] == ["the same text"]


def test_many_rows_are_looked_for_by_a_share_of_their_sequences() -> None:
    draw = random.Random(3)
    known = [{"text": drawn(draw, 60)} for _ in range(200)]
    records = list(corpus_from_rows(known).records())
    lookout = Lookout((("val", record) for record in records), 20_000, ReadRules())  # as of so many
    edited = [{"text": "Also: " + one["text"] + " and so on"} for one in known[:100]]
    others = [{"text": drawn(draw, 60)} for _ in range(200)]
    found = list(lookout.matches(corpus_from_rows([*edited, *others]).records()))
    assert all(one.known.row == one.record.row for one in found) and len(found) > 90


def test_rows_of_tokens_are_compared_by_their_ids() -> None:
    known = {"input_ids": list(range(40)), "labels": [-100] * 10 + list(range(10, 40))}
    other = {"input_ids": list(range(50)), "labels": [-100] * 10 + list(range(10, 50))}
    assert [one.why for one in matches([known], [other])] == ["the same question"]


def test_words_are_those_of_every_script() -> None:
    assert words_of("It's 3.5 ｋｍ, STRASSE!\t红色房子 naïve_x") == [
        "it", "s", "3", "5", "km", "strasse", "红", "色", "房", "子", "naïve_x"
    ]  # fmt: skip
    assert words_of("Straße") == words_of("STRASSE") and words_of(" \n…") == []
