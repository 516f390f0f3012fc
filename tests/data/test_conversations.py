"""Conversation turns in any known spelling become one form, or give the reason why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from donod_fast.data.formats import to_sample
from donod_fast.data.types import (
    Conversation,
    Message,
    Record,
    Sample,
    SampleError,
    Status,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

USER, ASSISTANT = Message("user", "Hi"), Message("assistant", "Ho")
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


def record(data: Any) -> Record:
    return Record(row=6, file="a.jsonl", place="line 7", data=data, raw=b"{}")


def sample(data: dict[str, Any], format: str = "auto") -> Sample:
    return to_sample(record(data), format)[0]


def turns(data: dict[str, Any]) -> tuple[Message, ...]:
    found = sample(data)
    assert isinstance(found, Conversation)
    return found.messages


def refused(data: dict[str, Any], format: str = "auto") -> tuple[Status, str]:
    with pytest.raises(SampleError) as caught:
        to_sample(record(data), format)
    assert caught.value.detail.startswith("a.jsonl, line 7: ")
    return caught.value.status, caught.value.detail


@pytest.mark.parametrize(
    ("spelt", "role"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("Human", "user"),
        ("assistant", "assistant"),
    ]
    + [(name, "assistant") for name in ("gpt", "chatgpt", "bing", "bard", "model")]
    + [(name, "tool") for name in ("tool", "function", "observation", "function_response")],
)
def test_every_spelling_of_a_role_is_understood(spelt: str, role: str) -> None:
    as_messages = turns({"messages": [{"role": spelt, "content": "x"}, *CHAT]})
    as_sharegpt = turns({"conversations": [{"from": spelt, "value": "x"}, {"from": "gpt", "value": "Ho"}]})
    assert (as_messages[0].role, as_messages[0].content) == (role, "x")
    assert as_sharegpt[0] == Message(role, "x")


@pytest.mark.parametrize(("spelt", "given"), [("developer", "developer"), ("function", "function"), ("Human", "user")])
def test_a_role_that_templates_know_reaches_the_template_as_it_is(spelt: str, given: str) -> None:
    message = turns({"messages": [{"role": spelt, "content": "x"}, *CHAT]})[0]
    assert message.for_template() == {"role": given, "content": "x"}


def test_a_message_keeps_every_key_that_is_not_null() -> None:
    turn = {
        "role": "assistant", "content": [{"type": "text", "text": "Ho"}], "name": "n", "reasoning_content": "r",
        "weight": 1, "odd": {"a": None}, "thinking": None,
    }  # fmt: skip
    message = turns({"messages": [CHAT[0], turn]})[1]
    assert message.content == "Ho"
    assert message.for_template() == {key: value for key, value in turn.items() if value is not None}


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize("style", ["messages", "sharegpt"])
def test_the_items_and_not_the_column_tell_the_style(column: str, style: str) -> None:
    items = CHAT if style == "messages" else [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
    assert to_sample(record({column: items})) == (Conversation((USER, ASSISTANT)), style)


def test_content_in_parts_is_joined() -> None:
    parts = [
        {"type": "text", "text": "H"},
        {"type": "text", "value": "o"},
        "!",
        {"type": "text", "text": "", "value": "?"},
    ]
    assert turns({"messages": [CHAT[0], {"role": "assistant", "content": parts}]})[1].content == "Ho!"


def test_a_part_that_is_not_text_is_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "u"}}
    status, detail = refused({"messages": [{"role": "user", "content": [image]}, CHAT[1]]})
    assert status == Status.UNKNOWN_FORMAT and "messages[0]: content[0] is a part of type 'image_url'" in detail


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    ("turn", "calls"),
    [
        ({"tool_calls": [CALL]}, (CALL,)),
        ({"tool_calls": [{"id": "x1", **CALL}]}, ({"id": "x1", **CALL},)),
        (
            {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]},
            (CALL,),
        ),
        ({"tool_calls": [{"name": "add", "arguments": {"a": 1}}]}, (CALL,)),
        ({"function_call": {"name": "add", "arguments": '{"a": 1}'}}, (CALL,)),
        (
            {"tool_calls": [{"function": {"name": "now", "arguments": ""}}, CALL]},
            ({"type": "function", "function": {"name": "now", "arguments": {}}}, CALL),
        ),
    ],
)
def test_tool_calls_come_out_in_one_form(turn: dict[str, Any], calls: tuple[Any, ...]) -> None:
    messages = turns({"messages": [CHAT[0], {"role": "assistant", "content": None, **turn}]})
    assert (messages[1].content, messages[1].tool_calls) == ("", calls)
    given = messages[1].for_template()
    assert "content" not in given, "apply_chat_template leaves out keys that are null"
    # The template gets the calls as the record has them, and those in another key in the usual form.
    assert given["tool_calls"] == turn.get("tool_calls", [CALL])


def test_arguments_that_are_not_a_json_object_are_refused() -> None:
    for arguments in ("{a: 1}", "[1]", 3, '"text"'):
        call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
        assert refused({"messages": [CHAT[0], {"role": "assistant", "tool_calls": [call]}]})[0] == Status.UNKNOWN_FORMAT


def test_a_sharegpt_function_call_is_a_tool_call_only_if_it_is_json() -> None:
    def called(value: str) -> Message:
        return turns({"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": value}]})[
            1
        ]

    assert called('{"name": "add", "arguments": {"a": 1}}') == Message("assistant", "", (CALL,))
    assert called('[{"name": "add", "arguments": "{\\"a\\": 1}"}]') == Message("assistant", "", (CALL,))
    assert called("add(a=1)") == Message("assistant", "add(a=1)")
    assert called("{'name': 'add'}") == Message("assistant", "{'name': 'add'}")


def test_tools_are_a_list_or_the_json_text_of_one() -> None:
    bare = {"name": "add", "parameters": {}}
    wrapped = {"type": "function", "function": bare}
    for tool in (bare, wrapped):
        for given in ([tool], json.dumps([tool])):
            assert sample({"messages": CHAT, "tools": given}) == Conversation((USER, ASSISTANT), (tool,))
    nothing: list[Any] = [[], "", "[]", None, "null"]
    for empty in nothing:
        assert sample({"messages": CHAT, "tools": empty}) == Conversation((USER, ASSISTANT))
    for wrong in (3, "{", '{"name": "add"}', ["add"], "[1]"):
        assert refused({"messages": CHAT, "tools": wrong})[0] == Status.UNKNOWN_FORMAT


def test_a_system_column_is_first_unless_there_is_a_system_message() -> None:
    assert turns({"messages": CHAT, "system": "Be kind"}) == (Message("system", "Be kind"), USER, ASSISTANT)
    assert turns({"messages": CHAT, "system": " "}) == (USER, ASSISTANT)
    own = [{"role": "system", "content": "Own"}, *CHAT]
    assert turns({"messages": own, "system": "Be kind"}) == (Message("system", "Own"), USER, ASSISTANT)
    assert refused({"messages": CHAT, "system": 3})[0] == Status.UNKNOWN_FORMAT


EMPTY_TURN = {"role": "assistant", "content": " \n"}


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([], Status.UNKNOWN_FORMAT),
        ([CHAT[0]], Status.ALL_MASKED),
        ([CHAT[0], {**CHAT[1], "weight": 0}], Status.ALL_MASKED),
        ([CHAT[0], EMPTY_TURN], Status.EMPTY_RESPONSE),
        ([*CHAT, CHAT[0], EMPTY_TURN], Status.EMPTY_RESPONSE),
        ([CHAT[0], {"role": "assistant", "content": []}], Status.EMPTY_RESPONSE),
        (["Hi", "Ho"], Status.UNKNOWN_FORMAT),
        ([None], Status.UNKNOWN_FORMAT),
        ([{"content": "no role"}], Status.UNKNOWN_FORMAT),
        ([{"role": 7, "content": "x"}], Status.UNKNOWN_FORMAT),
        ([{"role": "wizard", "content": "x"}], Status.UNKNOWN_FORMAT),
        ([{"role": "user", "content": 3}, CHAT[1]], Status.UNKNOWN_FORMAT),
        ([{"role": "user", "content": [3]}, CHAT[1]], Status.UNKNOWN_FORMAT),
        ([{"role": "user", "content": {"text": "x"}}, CHAT[1]], Status.UNKNOWN_FORMAT),
        ([{"role": "user", "content": None}, CHAT[1]], Status.UNKNOWN_FORMAT),
        ([CHAT[0], {"role": "assistant", "content": None, "tool_calls": []}], Status.UNKNOWN_FORMAT),
        ([{**CHAT[0], "tool_calls": [CALL]}, CHAT[1]], Status.UNKNOWN_FORMAT),
        ([CHAT[0], {"role": "assistant", "tool_calls": CALL}], Status.UNKNOWN_FORMAT),
        ([CHAT[0], {"role": "assistant", "tool_calls": [{"function": {"name": 3}}]}], Status.UNKNOWN_FORMAT),
    ],
)
def test_a_conversation_that_cannot_be_scored_has_its_status(messages: list[Any], status: Status) -> None:
    assert refused({"messages": messages})[0] == status


def test_an_empty_turn_in_the_middle_or_a_last_question_is_accepted() -> None:
    assert len(turns({"messages": [CHAT[0], EMPTY_TURN, *CHAT, CHAT[0]]})) == 5
