"""Records of every known format become the expected sample, or give the reason why not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from donod_fast.data.formats import FORMATS, record_id, to_sample
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import (
    Conversation,
    Message,
    PlainText,
    PromptCompletion,
    Record,
    Sample,
    SampleError,
    Status,
    TokenRow,
)
from donod_fast.errors import InputError

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


DETECTED = {
    "tokenized": {"input_ids": [1, 2], "messages": CHAT, "text": "x"},
    "messages": {"messages": CHAT, "prompt": "p", "completion": "c"},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}],
        "text": "x",
    },
    "prompt_completion": {"prompt": "p", "completion": "c", "instruction": "i", "output": "o"},
    "alpaca": {"instruction": "i", "output": "o", "question": "q", "answer": "a"},
    "question_answer": {"question": "q", "answer": "a", "text": "x"},
    "text": {"text": "x", "url": "u"},
}


@pytest.mark.parametrize("format", DETECTED)
def test_the_most_specific_columns_name_the_format(format: str) -> None:
    assert to_sample(record(DETECTED[format]))[1] == format
    assert to_sample(record(DETECTED[format]), format) == to_sample(record(DETECTED[format]))


def test_the_formats_are_those_of_the_contract() -> None:
    assert (
        *("auto", "messages", "sharegpt", "alpaca"),
        *("prompt_completion", "question_answer", "preference", "text", "tokenized"),
    ) == FORMATS


def test_a_named_format_overrules_the_columns_order() -> None:
    row = {"messages": CHAT, "text": "plain", "question": "q", "answer": "a"}
    assert sample(row, "text") == PlainText("plain")
    assert sample(row, "question_answer") == Conversation((Message("user", "q"), Message("assistant", "a")))


def test_a_null_column_counts_as_absent() -> None:
    assert sample({"messages": None, "input_ids": None, "text": "x"}) == PlainText("x")


def test_an_unknown_format_lists_the_records_columns_and_a_remedy() -> None:
    status, detail = refused({"passage": "p", "options": ["a"], "n": 3})
    assert status == Status.UNKNOWN_FORMAT
    assert "'passage' (a string), 'options' (a list), 'n' (a number)" in detail and "--format" in detail


@pytest.mark.parametrize(
    ("format", "column"),
    [
        ("messages", "messages"),
        ("sharegpt", "conversations"),
        ("alpaca", "instruction"),
        ("prompt_completion", "prompt"),
        ("question_answer", "question and answer"),
        ("text", "text"),
        ("tokenized", "input_ids"),
    ],
)
def test_a_named_format_names_the_column_that_it_wants(format: str, column: str) -> None:
    status, detail = refused({"other": 1}, format)
    assert status == Status.UNKNOWN_FORMAT and column in detail and "'other'" in detail


def test_a_format_that_is_not_known_is_the_callers_error() -> None:
    with pytest.raises(InputError, match="alpaca"):
        to_sample(record({"text": "x"}), "alpaka")


def test_a_row_that_cannot_be_parsed_has_a_reason() -> None:
    broken = Record(6, "a.jsonl", "line 7", None, b"{", "not valid JSON: Expecting property name at column 2")
    with pytest.raises(SampleError) as caught:
        to_sample(broken)
    assert caught.value.status == Status.NOT_PARSABLE
    assert caught.value.detail == f"a.jsonl, line 7: {broken.problem}"


@pytest.mark.parametrize("output", ["output", "response", "completion"])
def test_an_alpaca_record_is_one_question_and_one_answer(output: str) -> None:
    row = {"instruction": "Add", output: "3"}
    answer = Message("assistant", "3")
    assert turns(row) == (Message("user", "Add"), answer)
    assert turns({**row, "input": " "}) == (Message("user", "Add"), answer)
    assert turns({**row, "input": "1 2"}) == (Message("user", "Add\n\n1 2"), answer)
    assert turns({**row, "system": "S", "history": [["q", "a"]]}) == (
        *(Message("system", "S"), Message("user", "q"), Message("assistant", "a")),
        *(Message("user", "Add"), answer),
    )
    mistakes: list[dict[str, Any]] = [
        {"input": 3},
        {"history": "x"},
        {"history": [["q"]]},
        {"history": [["q", None]]},
        {"instruction": []},
    ]
    for wrong in mistakes:
        assert refused({**row, **wrong})[0] == Status.UNKNOWN_FORMAT


@pytest.mark.parametrize(("q", "a"), [("question", "answer"), ("query", "response"), ("problem", "solution")])
def test_a_question_and_its_answer_are_two_turns(q: str, a: str) -> None:
    assert turns({q: "Hi", a: "Ho"}) == (USER, ASSISTANT)
    for wrong in (["Ho"], {"text": "Ho"}, 3):
        assert refused({q: "Hi", a: wrong})[0] == Status.UNKNOWN_FORMAT


@pytest.mark.parametrize("name", ["completion", "response"])
def test_a_prompt_and_completion_stay_plain_text_or_become_a_conversation(name: str) -> None:
    assert sample({"prompt": "p", name: " c"}) == PromptCompletion("p", " c")
    assert turns({"prompt": [*CHAT, CHAT[0]], name: [CHAT[1]]}) == (
        *(USER, Message("assistant", "Ho", scored=False)),
        *(USER, ASSISTANT),
    )
    assert refused({"prompt": CHAT, name: "c"})[0] == Status.UNKNOWN_FORMAT
    assert refused({"prompt": "p", name: CHAT})[0] == Status.UNKNOWN_FORMAT
    assert refused({"prompt": CHAT, name: [CHAT[0]]})[0] == Status.ALL_MASKED
    assert refused({"prompt": 3, name: "c"})[0] == Status.UNKNOWN_FORMAT


@pytest.mark.parametrize("blank", ["", " \n\t"])
@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "i", "output": None},
        {"question": "q", "answer": None},
        {"prompt": "p", "completion": None},
    ],
    ids=str,
)
def test_a_blank_response_is_an_empty_response(row: dict[str, Any], blank: str) -> None:
    assert refused({name: blank if value is None else value for name, value in row.items()})[0] == Status.EMPTY_RESPONSE
    assert refused({"text": blank})[0] == Status.EMPTY_RESPONSE


@pytest.mark.parametrize("array", [list, tuple, np.array, torch.tensor], ids=lambda a: a.__name__)
def test_tokens_come_as_lists_arrays_or_tensors(array: Any) -> None:
    ids, labels, mask = array([5, 6, 7, 0]), array([-100, 6, 7, -100]), array([1, 1, 1, 0])
    assert sample({"input_ids": ids}) == TokenRow((5, 6, 7, 0), (5, 6, 7, 0))
    assert sample({"input_ids": ids, "labels": labels, "attention_mask": mask}) == TokenRow((5, 6, 7), (-100, 6, 7))


def test_padding_is_trimmed_at_both_ends() -> None:
    assert sample({"input_ids": [0, 0, 5, 6, 0], "attention_mask": [0, 0, 1, 1, 0]}) == TokenRow((5, 6), (5, 6))


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"input_ids": []}, Status.EMPTY_RESPONSE),
        ({"input_ids": [1, 2], "attention_mask": [0, 0]}, Status.EMPTY_RESPONSE),
        ({"input_ids": [1, -2]}, Status.INVALID_TOKENS),
        ({"input_ids": [1, 2], "labels": [1]}, Status.INVALID_TOKENS),
        ({"input_ids": [1, 2], "labels": [1, -1]}, Status.INVALID_TOKENS),
        ({"input_ids": [1, 2], "attention_mask": [1]}, Status.INVALID_TOKENS),
        ({"input_ids": [1, 2], "attention_mask": [1, 2]}, Status.INVALID_TOKENS),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}, Status.INVALID_TOKENS),
        ({"input_ids": [1, True]}, Status.UNKNOWN_FORMAT),
        ({"input_ids": [1, 2.0]}, Status.UNKNOWN_FORMAT),
        ({"input_ids": [[1, 2]]}, Status.UNKNOWN_FORMAT),
        ({"input_ids": np.array([1.0])}, Status.UNKNOWN_FORMAT),
        ({"input_ids": np.array(1)}, Status.UNKNOWN_FORMAT),
        ({"input_ids": "1 2"}, Status.UNKNOWN_FORMAT),
        ({"input_ids": [1], "labels": 3}, Status.UNKNOWN_FORMAT),
    ],
    ids=str,
)
def test_tokens_that_cannot_be_have_their_status(row: dict[str, Any], status: Status) -> None:
    assert refused(row)[0] == status


@pytest.mark.parametrize(
    ("data", "id"),
    [
        ({"id": "a/1", "uid": "b"}, "a/1"),
        ({"id": 17}, "17"),
        ({"id": "", "_id": None, "uid": True, "uuid": 1.5, "task_id": "t"}, "t"),
        ({"id": "x\ud800y"}, "x?y"),
    ],
)
def test_a_record_keeps_its_own_id(data: dict[str, Any], id: str) -> None:
    assert record_id(record(data)) == id


def test_a_record_without_an_id_is_named_by_its_content() -> None:
    def place(row: int, data: Any, raw: bytes | None = None) -> Record:
        return Record(row, "a.jsonl", f"line {row}", data, raw)

    first = record_id(place(1, {"text": "ä\ud800", "n": [1, {"b": 2, "a": None}]}))
    assert first == record_id(place(9, {"n": [1, {"a": None, "b": 2}], "text": "ä\ud800"}, b"x"))
    assert len(first) == 16 and int(first, 16) >= 0
    others = [{"text": "b"}, {"id": 10**5000}, {1: "a", "b": 2}, {"a": np.arange(3)}, {"a": np.arange(4)}]
    ids = [first] + [record_id(place(row, data)) for row, data in enumerate(others)]
    ids += [record_id(place(1, None, b"{")), record_id(place(1, None, b"[")), record_id(place(9, None))]
    assert len(set(ids)) == len(ids)


REAL = {
    "alpaca/alpaca_5000.json": {"alpaca": 4998, Status.EMPTY_RESPONSE: 2},
    "codealpaca/code_alpaca_2k.json": {"alpaca": 2015, Status.EMPTY_RESPONSE: 2},
    "codealpaca/new_codealpaca.json": {"alpaca": 4535},
    "chat/alpaca_en_demo.json": {"alpaca": 999},
    "chat/dummy_conversation.json": {"sharegpt": 500},
    "chat/glaive_toolcall_en_demo.json": {"sharegpt": 300},
    "chat/v1_sft_demo.jsonl": {"messages": 500},
    "gsm8k/train.jsonl": {"question_answer": 7473},
    "gsm8k/test.jsonl": {"question_answer": 1319},
}


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_in_their_own_format(name: str) -> None:
    found: Counter[str] = Counter()
    for row in open_corpus([str(SHARED / name)]).records():
        try:
            found[to_sample(row)[1]] += 1
        except SampleError as error:
            found[error.status] += 1
    assert found == REAL[name]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")
def test_every_function_call_of_a_real_file_is_read_as_a_tool_call() -> None:
    path = SHARED / "chat" / "glaive_toolcall_en_demo.json"
    expected = [
        json.loads(turn["value"])["name"]
        for row in json.loads(path.read_text(encoding="utf-8"))
        for turn in row["conversations"]
        if turn["from"] == "function_call"
    ]
    samples = [to_sample(row)[0] for row in open_corpus([str(path)]).records()]
    calls = [
        call for one in samples if isinstance(one, Conversation) for turn in one.messages for call in turn.tool_calls
    ]
    assert [call["function"]["name"] for call in calls] == expected
    assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
