"""No column of a prompt is dropped in silence: its content reaches the tokens, or the column is listed as unused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_chat import MARKED, masker, record

from donod_fast.data.formats import read_record, to_sample
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import Conversation, Message, PromptCompletion, SampleError, Status

TURNS = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Ho"}]
SHAREGPT = [{"from": "human", "value": "Hi there"}, {"from": "gpt", "value": "Ho"}]
TOOL = {"name": "weather", "description": "Weather of a city.", "parameters": {"type": "object", "properties": {}}}

BASES: dict[str, dict[str, Any]] = {
    "messages": {"messages": TURNS},
    "sharegpt": {"conversations": SHAREGPT},
    "alpaca": {"instruction": "Add them", "output": "Three"},
    "alpaca with an empty instruction": {"instruction": "", "query": "Add them", "response": "Three"},
    "prompt and completion": {"prompt": "Add them", "completion": "Three"},
    "prompt and response": {"prompt": "Add them", "response": "Three"},
    "message lists": {"prompt": TURNS[:1], "completion": TURNS[1:]},
    "question and answer": {"question": "Add them", "answer": "Three"},
    "query and response": {"query": "Add them", "response": "Three"},
    "problem and solution": {"problem": "Add them", "solution": "Three"},
    "question and response": {"question": "Add them", "response": "Three"},
    "text": {"text": "Add them: three"},
    "chosen beside a prompt": {"prompt": "Add them", "chosen": "Three", "rejected": "Four"},
    "chosen beside a question": {"question": "Add them", "chosen": "Three", "rejected": "Four"},
    "chosen beside messages": {"messages": TURNS[:1], "chosen": "Three", "rejected": TURNS[1]},
    "chosen that repeats the prompt": {"prompt": "Hi there", "chosen": TURNS, "rejected": TURNS},
    "two responses": {"query": "Add them", "response": "Three", "rejected_response": "Four"},
    "two last turns": {"messages": TURNS, "rejected_response": "Four"},
}
BESIDE: dict[str, tuple[Any, Any]] = {
    "system": ("Be kind", "Be rude"),
    "system_prompt": ("Speak French", "Speak Latin"),
    "system_message": ("Count", "Read"),
    "context": ("It is one and two", "It is five and six"),
    "input": ("one", "two"),
    "query": ("seven", "eight"),
    "history": ([["Who?", "Me."]], [["Who?", "You."]]),
    "tools": ([TOOL], [{**TOOL, "name": "clock"}]),
    "functions": (json.dumps([TOOL]), json.dumps([{**TOOL, "name": "news"}])),
    "documents": (["One is odd."], [{"title": "Numbers", "text": "Two is even."}]),
    "passage": ("A long story", "Another story"),
    "category": ("sums", "words"),
    "id": (1, 2),
    "score": (0.5, 0.25),
}
RULES = ReadRules(preference="chosen")


def other(value: Any) -> Any:
    """A value of the same kind with other words."""
    if isinstance(value, str):
        return f"Please {value}"
    return [
        {key: text if key in ("role", "from") else f"Please {text}" for key, text in turn.items()} for turn in value
    ]


ANSWERS = ("output", "response", "completion", "answer", "solution", "chosen", "rejected", "rejected_response")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(BASES)), st.lists(st.sampled_from(list(BESIDE)), unique=True, max_size=6))
def test_a_prompts_column_changes_the_tokens_or_is_listed(base: str, beside: list[str]) -> None:
    data = {**{name: BESIDE[name][0] for name in beside}, **BASES[base]}
    mask = masker(MARKED, preference="chosen", max_length=2000)
    row = mask.tokenize(record(data))
    assert row.status == Status.SCORED, row.detail
    assert set(row.unused) <= set(data)
    for name in data:
        if name in ANSWERS:
            continue
        changed = {**data, name: BESIDE[name][1] if name not in BASES[base] else other(data[name])}
        if base == "chosen that repeats the prompt" and name == "prompt":
            with pytest.raises(SampleError, match="does not begin with the messages before it"):
                to_sample(record(changed), rules=RULES)
            continue
        after = mask.tokenize(record(changed))
        assert (after.input_ids != row.input_ids) == (name not in row.unused), (name, row.unused)
        assert after.unused == row.unused


@pytest.mark.parametrize("base", BASES)
def test_material_beside_a_pair_is_used_with_every_format(base: str) -> None:
    """The columns that a trainer uses beside a pair may be left unused only where the format has no place for them."""
    used = {"system", "system_prompt", "system_message", "tools", "functions", "documents"}
    if base not in ("messages", "sharegpt", "message lists", "chosen beside messages", "two last turns"):
        used |= {"context", "history"}
    if base.startswith("alpaca"):
        used |= {"input", "query"}
    if base == "text":
        used = set()
    if base == "chosen that repeats the prompt":
        used -= {"context", "history"}
    for name in BESIDE:
        if name in BASES[base] or (base == "question and response" and name == "query"):  # then query is the question
            continue
        unused = read_record(record({**BASES[base], name: BESIDE[name][0]}), RULES).unused
        assert (name in unused) == (name not in used), (name, unused)


def test_context_stands_where_alpacas_input_stands() -> None:
    """Dolly's context and Alpaca's input give the same tokens."""
    question, passage, reply = "When did it open?", "It opened in 1931.", "In 1931."
    dolly = {"instruction": question, "context": passage, "response": reply, "category": "closed_qa"}
    alpaca = {"instruction": question, "input": passage, "output": reply}
    squad = {"question": question, "context": passage, "answer": reply}
    first, second, third = masker(MARKED).tokenize_many([record(data) for data in (dolly, alpaca, squad)])
    assert first.input_ids == second.input_ids == third.input_ids
    assert (first.unused, second.unused, third.unused) == (("category",), (), ())


def test_query_is_the_input_of_an_instruction_and_else_the_question() -> None:
    def user(data: dict[str, Any]) -> str:
        sample, _ = to_sample(record(data))
        assert isinstance(sample, Conversation)
        return sample.messages[0].content

    assert user({"instruction": "", "query": "And three?", "response": "Six."}) == "And three?"
    assert user({"instruction": "Double it.", "query": "three", "response": "Six."}) == "Double it.\n\nthree"
    assert user({"query": "And three?", "response": "Six."}) == "And three?"


def test_a_plain_prompt_becomes_a_conversation_only_beside_material() -> None:
    plain = {"prompt": "And three?", "response": "Six."}
    for nothing in ({}, {"system": " "}, {"history": []}, {"tools": ""}, {"documents": []}, {"context": ""}):
        assert to_sample(record({**plain, **nothing}))[0] == PromptCompletion("And three?", "Six.")
    found, name = to_sample(record({**plain, "system": "Double.", "history": [["Two.", "Four."]]}))
    assert name == "prompt_completion"
    assert found == Conversation(
        (
            *(Message("system", "Double."), Message("user", "Two."), Message("assistant", "Four.")),
            *(Message("user", "And three?"), Message("assistant", "Six.")),
        )
    )


def test_the_first_system_text_that_is_not_blank_counts() -> None:
    def system(**columns: Any) -> tuple[str, tuple[str, ...]]:
        reading = read_record(record({"messages": TURNS, **columns}), RULES)
        assert isinstance(reading.sample, Conversation)
        return reading.sample.messages[0].content, reading.unused

    assert system(system=" ", system_prompt="A") == ("A", ())
    assert system(system="B", system_prompt="A") == ("B", ("system_prompt",))
    own = [{"role": "system", "content": "C"}, *TURNS]
    assert system(messages=own, system="B") == ("C", ("system",))


def test_history_may_be_messages() -> None:
    sample, _ = to_sample(record({"query": "And?", "response": "Six.", "history": TURNS}))
    assert isinstance(sample, Conversation) and [turn.content for turn in sample.messages] == [
        *("Hi there", "Ho", "And?", "Six.")
    ]


def test_documents_are_texts_or_objects_with_text() -> None:
    def documents(value: Any) -> Any:
        sample, _ = to_sample(record({"messages": TURNS, "documents": value}))
        assert isinstance(sample, Conversation)
        return sample.documents

    assert documents("One.") == documents(["One."]) == ({"text": "One."},)
    assert documents([{"title": "T", "text": "One."}]) == ({"title": "T", "text": "One."},)
    assert documents([]) == documents("") == ()
    for wrong in (3, [3], [{"title": "T"}], {"text": "One."}):
        with pytest.raises(SampleError, match=r"documents.*--columns"):
            documents(wrong)


def test_functions_are_tools_and_stay_as_they_are_given() -> None:
    for name in ("tools", "functions"):
        for value in ([TOOL], json.dumps([TOOL])):
            sample, _ = to_sample(record({"messages": TURNS, name: value}))
            assert isinstance(sample, Conversation) and sample.tools == (TOOL,)


def test_a_second_answer_is_listed() -> None:
    row = {"problem": "Two and two?", "answer": "4", "solution": "First two, then two more.", "generations": ["long"]}
    assert read_record(record(row), ReadRules()).unused == ("answer", "generations")


def test_a_null_column_and_the_labels_of_tokens_are_not_listed() -> None:
    row = {"input_ids": [1, 2], "labels": [-100, 2], "attention_mask": [1, 1], "note": None, "source": "x"}
    assert read_record(record(row), ReadRules()).unused == ("source",)


def test_names_that_are_listed_are_short_and_can_be_stored() -> None:
    unused = read_record(record({"text": "x", "\ud800": 1, "n" * 1000: 2}), ReadRules()).unused
    assert [name.encode("utf-8") and len(name) for name in unused] == [6, 81]
