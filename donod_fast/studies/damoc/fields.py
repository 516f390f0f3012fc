"""Find the texts of a record and their sides, and replace them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from donod_fast.data.conversations import CALL_ROLES, CONTENT_KEYS, ROLES, as_list
from donod_fast.data.formats import (
    ALPACA_INPUTS,
    ALPACA_OUTPUTS,
    COMPLETIONS,
    TURN_COLUMNS,
    question_columns,
    to_sample,
)
from donod_fast.data.prompt_material import CONTEXT as CONTEXT_COLUMN
from donod_fast.data.prompt_material import SYSTEM
from donod_fast.data.types import Record, Sample

SIDES = ("instruction", "input", "response")
"""Sides that may be compressed: the instruction (prompt, question, user turns), the input of Alpaca, the answer."""

CONTEXT = "context"
"""The side of texts that are never compressed: system message, tools, earlier turns."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class TextField:
    """A text of a record.

    Attributes:
        path: location in the record: ``("instruction",)``, ``("messages", 1, "content")``.
        side: one of ``SIDES``, or ``CONTEXT``.
        text: the text, not empty.
    """

    path: Path
    side: str
    text: str

    @property
    def name(self) -> str:
        """The path for a reader: ``messages[1].content``."""
        parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path]
        return "".join(parts).removeprefix(".")


def read_fields(record: Mapping[str, Any], place: int, format: str = "auto") -> tuple[Sample, list[TextField]]:
    """A record as a sample, and its texts in the order in which the sample holds them.

    Contents that are lists of parts, tool calls, and rows of tokens have no text that could be replaced.

    Args:
        record: the record as read from its file.
        place: its position in the list, for messages.
        format: a name of :data:`donod_fast.data.formats.FORMATS`.

    Raises:
        SampleError: the record cannot be read.
        InputError: there is no such format.
    """
    sample, found = to_sample(Record(place, "records", f"record {place}", record), format)
    fields = [
        TextField(path, side, text) for path, side, text in _READERS[found](record) if isinstance(text, str) and text
    ]
    return sample, fields


def replaced(record: Mapping[str, Any], texts: Mapping[Path, str]) -> dict[str, Any]:
    """A copy of the record with these texts at their paths; everything else is unchanged."""
    found = dict(record)
    for path, text in texts.items():
        inner: Any = found
        for part, after in pairwise(path):
            value = inner[part]
            # An array of a table's column becomes a list, whose items can be exchanged.
            inner[part] = list(as_list(value) or ()) if isinstance(after, int) else dict(value)
            inner = inner[part]
        inner[path[-1]] = text
    return found


_Found = Iterator[tuple[Path, str, Any]]


def _first(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next(name for name in names if record.get(name) is not None)


def _before(record: Mapping[str, Any]) -> _Found:
    yield from _systems(record)
    for number, pair in enumerate(as_list(record.get("history")) or []):
        texts = as_list(pair) or ()  # a message instead of a pair is not replaced
        yield from ((("history", number, side), CONTEXT, text) for side, text in enumerate(texts))


def _systems(record: Mapping[str, Any]) -> _Found:
    yield from (((name,), CONTEXT, record.get(name)) for name in SYSTEM)


def _alpaca(record: Mapping[str, Any]) -> _Found:
    yield from _before(record)
    yield ("instruction",), "instruction", record["instruction"]
    for name in ALPACA_INPUTS:
        yield (name,), "input", record.get(name)
    name = _first(record, ALPACA_OUTPUTS)
    yield (name,), "response", record[name]


def _prompt_completion(record: Mapping[str, Any]) -> _Found:
    name = _first(record, COMPLETIONS)
    if isinstance(record["prompt"], str):
        yield from _before(record)
        yield ("prompt",), "instruction", record["prompt"]
        yield (CONTEXT_COLUMN,), "input", record.get(CONTEXT_COLUMN)
        yield (name,), "response", record[name]
        return
    for path, side, text in _turns(record, "prompt", "role"):
        yield path, CONTEXT if side == "response" else side, text  # the texts of a prompt are given, not learned
    yield from _turns(record, name, "role")


def _question_answer(record: Mapping[str, Any]) -> _Found:
    pair = question_columns({name: value for name, value in record.items() if value is not None})
    assert pair is not None, "the record was read as question and answer"
    question, answer = pair
    yield from _before(record)
    yield (question,), "instruction", record[question]
    yield (CONTEXT_COLUMN,), "input", record.get(CONTEXT_COLUMN)
    yield (answer,), "response", record[answer]


def _conversation(record: Mapping[str, Any], role_key: str) -> _Found:
    yield from _systems(record)
    yield from _turns(record, _first(record, TURN_COLUMNS), role_key)


def _turns(record: Mapping[str, Any], column: str, role_key: str) -> _Found:
    other_key = "from" if role_key == "role" else "role"
    for number, turn in enumerate(as_list(record[column]) or []):
        role = turn.get(role_key) if turn.get(role_key) is not None else turn.get(other_key)
        key = next((key for key in CONTENT_KEYS if turn.get(key) is not None), None)
        name = str(role).strip().lower()
        if key is not None:
            calls = name in CALL_ROLES or turn.get("tool_calls") is not None or turn.get("function_call") is not None
            side = {"user": "instruction", "assistant": "response"}.get(ROLES.get(name, ""), CONTEXT)
            yield (column, number, key), CONTEXT if calls else side, turn[key]


_READERS: dict[str, Callable[[Mapping[str, Any]], _Found]] = {
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "question_answer": _question_answer,
    "messages": lambda record: _conversation(record, "role"),
    "sharegpt": lambda record: _conversation(record, "from"),
    "text": lambda record: iter([(("text",), "response", record["text"])]),
    "tokenized": lambda _: iter(()),
}

__all__ = ["CONTEXT", "SIDES", "Path", "TextField", "read_fields", "replaced"]
