"""Of two answers the one that is asked for is scored, after its question and never twice; else the row is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_chat import record

from donod_fast.data.formats import Reading, read_record, to_sample
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import Conversation, Message, PromptCompletion, SampleError, Status

USER, SYSTEM = {"role": "user", "content": "Q"}, {"role": "system", "content": "S"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
FIRST = [{"role": "user", "content": "P"}, {"role": "assistant", "content": "R"}]
FROM_USER = {"from": "human", "value": "Q"}
FROM_GOOD, FROM_BAD = {"from": "gpt", "value": "good"}, {"from": "gpt", "value": "bad"}

# Each holds the question Q, and the answers good and bad.
ROWS: dict[str, dict[str, Any]] = {
    "a question and strings": {"question": "Q", "chosen": "good", "rejected": "bad"},
    "an instruction and strings": {"instruction": "Q", "input": "", "chosen": "good", "rejected": "bad"},
    "a query and strings": {"query": "Q", "chosen": "good", "rejected": "bad"},
    "a query and ms-swift's answers": {"query": "Q", "response": "good", "rejected_response": "bad"},
    "messages and ms-swift's answer": {"messages": [USER, GOOD], "rejected_response": "bad"},
    "a prompt and messages": {"prompt": "Q", "chosen": [GOOD], "rejected": [BAD]},
    "a prompt and whole conversations": {"prompt": "Q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "message lists": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "message lists that repeat": {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "whole conversations alone": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "whole conversations twice": {"messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "conversations and one message": {"conversations": [FROM_USER], "chosen": FROM_GOOD, "rejected": FROM_BAD},
    "messages and one message": {"messages": [USER], "chosen": GOOD, "rejected": BAD},
    "messages and strings": {"messages": [USER], "chosen": "good", "rejected": "bad"},
}


def read(data: dict[str, Any], preference: str | None = "chosen") -> Reading:
    return read_record(record(data), ReadRules(preference=preference))


def refusal(data: dict[str, Any], preference: str | None = "chosen") -> str:
    sample = read(data, preference).sample
    assert isinstance(sample, SampleError) and sample.status == Status.UNKNOWN_FORMAT
    return sample.detail


def said(data: dict[str, Any], preference: str = "chosen") -> list[tuple[str, str, bool]]:
    sample = read(data, preference).sample
    assert isinstance(sample, Conversation), sample
    return [(turn.role, turn.content, turn.scored) for turn in sample.messages]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("preference", "reply"), [("chosen", "good"), ("rejected", "bad")])
def test_the_answer_that_is_asked_for_follows_the_question_once(row: str, preference: str, reply: str) -> None:
    assert said(ROWS[row], preference) == [("user", "Q", True), ("assistant", reply, True)]


@pytest.mark.parametrize("row", ROWS)
def test_two_answers_are_refused_by_name_unless_one_is_asked_for(row: str) -> None:
    detail = refusal(ROWS[row], None)
    assert "rejected" in detail and "--preference chosen" in detail


@pytest.mark.parametrize("row", ROWS)
def test_turns_before_the_answer_are_given_and_never_scored(row: str) -> None:
    earlier = {"from": "human", "value": "P"}, {"from": "gpt", "value": "R"}
    data = dict(ROWS[row])
    if row.startswith(("a question", "an instr", "a query")) or row == "a prompt and messages":
        data["history"] = [["P", "R"]]
    else:
        for name in ("messages", "prompt"):
            if isinstance(data.get(name), list):
                data[name] = [*FIRST, *data[name]]
        for name in ("chosen", "rejected"):
            if isinstance(data.get(name), list) and data[name][0] == USER:
                data[name] = [*FIRST, *data[name]]
        if "conversations" in data:
            data["conversations"] = [*earlier, FROM_USER]
        if data.get("prompt") == "Q":
            data.pop("prompt")
    given = [("user", "P", True), ("assistant", "R", False), ("user", "Q", True)]
    assert said(data, "rejected") == [*given, ("assistant", "bad", True)]
    assert read(data).excluded == 0


@pytest.mark.parametrize("row", ROWS)
def test_the_other_answer_is_listed_as_unused(row: str) -> None:
    other = "rejected_response" if "rejected_response" in ROWS[row] else "rejected"
    assert other in read(ROWS[row]).unused


def test_a_prompt_and_answers_that_are_strings_stay_plain_text() -> None:
    row = {"prompt": "Q: ", "chosen": "good", "rejected": "bad"}
    assert read(row).sample == PromptCompletion("Q: ", "good")
    assert read({**row, "chosen": "Q: good", "rejected": "Q: bad"}, "rejected").sample == PromptCompletion("Q: ", "bad")
    assert read({**row, "chosen": "Q: good"}).sample == PromptCompletion("Q: ", "Q: good")  # its own words
    assert said({**row, "system": "S"}) == [("system", "S", True), ("user", "Q: ", True), ("assistant", "good", True)]


def test_a_system_message_is_there_once() -> None:
    whole = {"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}
    expected = [("system", "S", True), ("user", "Q", True), ("assistant", "good", True)]
    for before in ({}, {"prompt": "Q"}, {"prompt": [USER]}, {"prompt": [SYSTEM, USER]}, {"system": "S"}):
        assert said({**whole, **before}) == expected
    assert said({"prompt": [SYSTEM, USER], "chosen": [USER, GOOD], "rejected": [BAD]}) == expected


def test_a_dialogue_in_one_text_and_an_answer_without_a_question_are_refused() -> None:
    dialogue = "\n\nHuman: Q\n\nAssistant: {}"
    both = {"chosen": dialogue.format("good"), "rejected": dialogue.format("bad")}
    for beside in ({}, {"prompt": "Q"}, {"question": "Q"}, {"messages": [USER]}):
        assert "chosen is the text of a whole dialogue" in refusal({**both, **beside})
    prompt = "\n\nHuman: Q\n\nAssistant:"
    assert read({**both, "prompt": prompt}).sample == PromptCompletion(prompt, " good")
    assert "chosen has no question before it" in refusal({"chosen": "good", "rejected": "bad"})


def test_an_answer_to_another_question_is_refused() -> None:
    other = [{"role": "user", "content": "X"}, GOOD]
    assert "does not begin with the messages before it" in refusal({"prompt": [USER], "chosen": other, "rejected": "b"})
    assert "does not begin with the messages before it" in refusal({"prompt": "Q", "chosen": other, "rejected": "b"})
    assert "end with an answer already" in refusal({"messages": [USER, BAD], "chosen": "good", "rejected": "b"})


def test_an_empty_answer_and_a_named_format_are_respected() -> None:
    sample = read({"question": "Q", "chosen": " ", "rejected": "bad"}).sample
    assert isinstance(sample, SampleError) and sample.status == Status.EMPTY_RESPONSE
    row = {"messages": [USER, GOOD], "chosen": "x", "rejected": "y"}
    found = read_record(record(row), ReadRules(format="messages"))
    assert found.format == "messages" and found.unused == ("chosen", "rejected")
    with pytest.raises(SampleError, match="needs the columns chosen and rejected"):
        to_sample(record({"question": "Q", "answer": "A"}), "preference")


def test_marks_of_who_was_chosen_are_no_answers() -> None:
    found = read({"question": "Q", "answer": "A", "chosen": True, "rejected": False})
    assert found.format == "question_answer" and found.unused == ("chosen", "rejected")
    assert isinstance(found.sample, Conversation) and found.sample.messages[1] == Message("assistant", "A")
