"""A row as LLaMA-Factory 0.9.5 reads it with an entry of ``dataset_info.json``: its system text, turns and tools.

Written from the behaviour of its ``alpaca`` and ``sharegpt`` converters. Rows that these skip raise
:class:`UnreadError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class UnreadError(Exception):
    """A row that LLaMA-Factory would skip or fail on; the message says why."""


@dataclass(frozen=True, slots=True)
class FactoryTurn:
    """One turn: its role (``user``, ``assistant``, ``observation`` or ``function``) and its text."""

    role: str
    content: str

    def is_same(self, role: str, content: str, calls: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a message that was scored says the same."""
        if self.role == "function":
            return role == "assistant" and (_calls(self.content) == [_plain(call) for call in calls] if calls else
                                            content == self.content)  # fmt: skip
        known = {"observation": "tool"}.get(self.role, self.role)
        return known == role and self.content == content and not calls


@dataclass(frozen=True, slots=True)
class FactoryRow:
    """What LLaMA-Factory makes of a row.

    Attributes:
        turns: the turns after the system text, the answer last.
        system: the system text.
        tools: the JSON text of function descriptions.
        question: prompt and query of an alpaca row, without what joins them.
    """

    turns: tuple[FactoryTurn, ...]
    system: str
    tools: str
    question: tuple[str, ...] = ()

    def tool_list(self) -> list[Any]:
        """The function descriptions. Raises UnreadError if they are no JSON list."""
        if not self.tools.strip():
            return []
        try:
            found = json.loads(self.tools)
        except ValueError as error:
            raise UnreadError("its tools are no JSON text") from error
        if not isinstance(found, list):
            raise UnreadError("its tools are no JSON list")
        return found


def read_row(row: Mapping[str, Any], entry: Mapping[str, Any], *, preference: str | None = None) -> FactoryRow:
    """Read a row by an entry.

    Args:
        row: the row as ``datasets`` gives it.
        entry: ``formatting``, ``columns``, ``tags`` and ``ranking``.
        preference: which of two answers is the last turn.

    Raises:
        UnreadError: LLaMA-Factory would skip it, or fail.
    """
    columns: Mapping[str, str] = entry["columns"]
    for role, column in columns.items():
        if column not in row:
            raise UnreadError(f"the column {column!r} ({role}) is absent")
    system = _text(row, columns, "system")
    tools = _text(row, columns, "tools")
    if entry["formatting"] == "alpaca":
        turns, question = _alpaca(row, columns)
    else:
        turns, own = _sharegpt(row, columns, entry["tags"], ranking=bool(entry.get("ranking")))
        system, question = system if own is None else own, ()
    if entry.get("ranking"):
        turns.append(_answer(row, columns, entry, preference))
    return FactoryRow(tuple(turns), system, tools, question)


def _alpaca(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[list[FactoryTurn], tuple[str, ...]]:
    turns = []
    history = row[columns["history"]] if "history" in columns else None
    for pair in history or ():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UnreadError(f"{columns['history']} holds something other than pairs of texts")
        turns += [FactoryTurn("user", pair[0]), FactoryTurn("assistant", pair[1])]
    question = tuple(text for role in ("prompt", "query") if (text := _text(row, columns, role)))
    turns.append(FactoryTurn("user", "\n".join(question)))
    if "response" in columns:
        answer = row[columns["response"]]
        if not isinstance(answer, str):
            raise UnreadError(f"{columns['response']} is a {type(answer).__name__}, not a text")
        turns.append(FactoryTurn("assistant", answer))
    return turns, question


def _sharegpt(
    row: Mapping[str, Any], columns: Mapping[str, str], tags: Mapping[str, str], *, ranking: bool
) -> tuple[list[FactoryTurn], str | None]:
    names = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["observation_tag"]: "observation",
        tags["function_tag"]: "function",
        tags["system_tag"]: "system",
    }
    messages = row[columns["messages"]]
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise UnreadError(f"{columns['messages']} is no list of messages")
    turns = [_turn(message, tags, names) for message in messages]
    system = None
    if turns and turns[0].role == "system":
        system, turns = turns[0].content, turns[1:]
    for number, turn in enumerate(turns):
        if turn.role not in (("user", "observation"), ("assistant", "function"))[number % 2]:
            raise UnreadError(f"turn {number} is of {turn.role}; it wants a question and an answer in turns")
    if len(turns) % 2 != ranking:
        raise UnreadError(f"it has {len(turns)} turns, and the last one must be an answer")
    return turns, system


def _turn(message: Mapping[str, Any], tags: Mapping[str, str], names: Mapping[str, str]) -> FactoryTurn:
    role, content = message.get(tags["role_tag"]), message.get(tags["content_tag"])
    if not isinstance(role, str) or role not in names:
        raise UnreadError(f"a message has the role {role!r}, which no tag names")
    if not isinstance(content, str):
        raise UnreadError(f"a message of {role} has no text in {tags['content_tag']!r}")
    if message.get("tool_calls"):
        raise UnreadError(f"a message of {role} has tool_calls, which it leaves out")
    return FactoryTurn(names[role], content)


def _answer(
    row: Mapping[str, Any], columns: Mapping[str, str], entry: Mapping[str, Any], preference: str | None
) -> FactoryTurn:
    answers = {name: row[columns[name]] for name in ("chosen", "rejected")}
    if entry["formatting"] == "alpaca":
        wrong = next((name for name, value in answers.items() if not isinstance(value, str)), None)
        if wrong is not None:
            raise UnreadError(f"{wrong} is no text")
        return FactoryTurn("assistant", answers[preference or "chosen"])
    tags = entry["tags"]
    names = {tags["assistant_tag"]: "assistant", tags["function_tag"]: "function"}
    wrong = next((name for name, value in answers.items() if not isinstance(value, Mapping)), None)
    if wrong is not None:
        raise UnreadError(f"{wrong} is no single message")
    read = {name: _turn(value, tags, names) for name, value in answers.items()}
    return read[preference or "chosen"]


def _text(row: Mapping[str, Any], columns: Mapping[str, str], role: str) -> str:
    value = row[columns[role]] if role in columns else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnreadError(f"{columns[role]} is a {type(value).__name__}, not a text")
    return value


def _calls(text: str) -> list[Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return [_plain(call) for call in (found if isinstance(found, list) else [found])]


def _plain(call: Any) -> Any:
    """Name and arguments of a call in either spelling."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return call
    return function.get("name"), arguments or {}


__all__ = ["FactoryRow", "FactoryTurn", "UnreadError", "read_row"]
