"""Records with images, audio or video are refused by name, unless their text alone is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_chat import record

from donod_fast.data.formats import Reading, read_record
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import Conversation, SampleError, Status

TEXT = {"type": "text", "text": "What is this?"}
REPLY = {"role": "assistant", "content": "A cat."}
PLAIN = {"messages": [{"role": "user", "content": "What is this?"}, REPLY]}
PARTS: dict[str, dict[str, Any]] = {
    "image": {"type": "image"},
    "image_url": {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
    "audio": {"audio": "a.wav"},
    "input_audio": {"type": "input_audio", "input_audio": {"data": ""}},
    "video": {"type": "video", "video": "v.mp4", "text": None},
}
VALUES: tuple[Any, ...] = ("a.png", ["a.png"], [{"bytes": b"x", "path": None}], b"png", np.zeros((2, 2)), {"path": "a"})


def read(data: dict[str, Any], *, text_only: bool = False) -> Reading:
    return read_record(record(data), ReadRules(text_only=text_only))


def refusal(data: dict[str, Any]) -> str:
    sample = read(data).sample
    assert isinstance(sample, SampleError) and sample.status == Status.UNKNOWN_FORMAT
    assert "--text-only" in sample.detail
    return sample.detail


def question(reading: Reading) -> str:
    assert isinstance(reading.sample, Conversation), reading.sample
    return reading.sample.messages[0].content


@pytest.mark.parametrize("name", ["image", "images", "audio", "audios", "video", "videos"])
def test_a_column_of_media_is_refused_or_left_out_and_listed(name: str) -> None:
    for value in VALUES:
        assert f"{name} holds images, audio or video" in refusal({**PLAIN, name: value})
        found = read({**PLAIN, name: value}, text_only=True)
        assert question(found) == "What is this?" and found.unused == (name,)
    for nothing in (None, "", [], [None], {"bytes": None, "path": None}, b"", False, 3):
        assert question(read({**PLAIN, name: nothing})) == "What is this?"


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_of_a_message_is_refused_or_left_out_and_listed(kind: str) -> None:
    row = {"messages": [{"role": "user", "content": [PARTS[kind], TEXT, PARTS[kind]]}, REPLY]}
    assert f"messages[0]: content[0] is a part of type '{kind}'" in refusal(row)
    found = read(row, text_only=True)
    assert question(found) == "What is this?" and found.unused == (f"messages: parts of type {kind}",)


def test_media_under_a_key_of_a_message_are_refused_or_left_out() -> None:
    row = {"messages": [{"role": "user", "content": "What is this?", "images": ["a.png"]}, REPLY]}
    assert "messages[0] has images" in refusal(row)
    found = read(row, text_only=True)
    assert question(found) == "What is this?" and found.unused == ("messages: images",)
    assert isinstance(found.sample, Conversation) and "images" not in (found.sample.messages[0].own or {})


def test_parts_of_text_and_other_types_keep_their_meaning() -> None:
    assert question(read({"messages": [{"role": "user", "content": [{**TEXT, "image": None}]}, REPLY]})) == TEXT["text"]
    odd = {"messages": [{"role": "user", "content": [{"type": "file", "file": "a"}]}, REPLY]}
    for text_only in (False, True):
        sample = read(odd, text_only=text_only).sample
        assert isinstance(sample, SampleError) and "'file'" in sample.detail


def test_a_message_of_an_image_alone_stays_as_an_empty_turn() -> None:
    row = {"messages": [{"role": "user", "content": [PARTS["image"]]}, REPLY]}
    assert question(read(row, text_only=True)) == ""
