"""Generated files of records whose conversations are known, and records that LLaMA-Factory cannot be given."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from donod_fast.data.column_map import ColumnMap, Tags
from donod_fast.data.read_rules import ReadRules

Turns = list[tuple[str, str]]

_WORDS = ("red", "42", "NA", "2020-01-01", "true", "ä", "\u2028", "a\nb", "{}", " lead", "null", "1e5")
_TOOLS = json.dumps([{"name": "add", "parameters": {"type": "object"}}])


@dataclass
class Case:
    """A file and what each of its rows says.

    Attributes:
        rows: the records.
        rules: how they are read.
        system: the system text of each row, "" for none.
        turns: the turns of each row after it, as (role, text).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    rules: ReadRules = field(default_factory=ReadRules)
    system: list[str] = field(default_factory=list)
    turns: list[Turns] = field(default_factory=list)


def draw_case(draw: random.Random, count: int = 5) -> Case:
    """A file of one of the shapes that public data sets have."""
    shape = draw.choice((_alpaca, _pairs, _mapped, _messages, _sharegpt, _tagged))
    return shape(draw, count)


def _text(draw: random.Random) -> str:
    return " ".join(draw.choices(_WORDS, k=draw.randint(1, 4))) + "."


def _alpaca(draw: random.Random, count: int) -> Case:
    case = Case()
    answer = draw.choice(("output", "response"))
    has_system, has_history, has_tools = (draw.random() < 0.4 for _ in range(3))
    for _ in range(count):
        question, reply = _text(draw), _text(draw)
        row: dict[str, Any] = {"instruction": question, answer: reply, "n": draw.randint(0, 9)}
        system, turns = "", [("user", question), ("assistant", reply)]
        if has_system and draw.random() < 0.7:
            row["system"] = system = _text(draw)
        if has_history:
            pairs = [[_text(draw), _text(draw)] for _ in range(draw.randint(0, 2))]
            row["history"] = pairs
            turns = [
                (role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)
            ] + turns
        if has_tools:
            row["tools"] = _TOOLS
        _add(case, row, system, turns)
    return case


def _pairs(draw: random.Random, count: int) -> Case:
    case = Case()
    names = draw.choice((("question", "answer"), ("query", "response"), ("problem", "solution")))
    for _ in range(count):
        question, reply = _text(draw), _text(draw)
        _add(case, {names[0]: question, names[1]: reply}, "", [("user", question), ("assistant", reply)])
    return case


def _mapped(draw: random.Random, count: int) -> Case:
    case = Case(rules=ReadRules(columns=ColumnMap(prompt="q", input="more", response="a", system="s", join="\n")))
    for _ in range(count):
        question, more, reply, system = (_text(draw) for _ in range(4))
        row = {"q": question, "more": more if draw.random() < 0.6 else "", "a": reply, "s": system}
        asked = "\n".join(text for text in (question, row["more"]) if text)
        _add(case, row, system, [("user", asked), ("assistant", reply)])
    return case


def _messages(draw: random.Random, count: int) -> Case:
    return _conversations(draw, count, "messages", "role", "content", ("system", "user", "assistant", "tool"))


def _sharegpt(draw: random.Random, count: int) -> Case:
    column = draw.choice(("conversations", "conversation"))
    return _conversations(draw, count, column, "from", "value", ("system", "human", "gpt", "observation"))


def _tagged(draw: random.Random, count: int) -> Case:
    case = _conversations(draw, count, "talk", "who", "says", ("boss", "me", "it", "world"))
    roles = (
        ("me", "user"),
        ("it", "assistant"),
        ("world", "observation"),
        ("call", "function_call"),
        ("boss", "system"),
    )
    case.rules = ReadRules(columns=ColumnMap(messages="talk", tags=Tags("who", "says", roles)))
    return case


def _conversations(
    draw: random.Random, count: int, column: str, role: str, content: str, names: tuple[str, str, str, str]
) -> Case:
    case = Case()
    spelled = dict(zip(("system", "user", "assistant", "tool"), names, strict=True))
    for number in range(count):
        turns: Turns = []
        for _ in range(draw.randint(1, 3)):
            asks = "user" if number == 0 or draw.random() < 0.8 else "tool"
            turns += [(asks, _text(draw)), ("assistant", _text(draw))]
        system = _text(draw) if draw.random() < 0.5 else ""
        said = ([("system", system)] if system else []) + turns
        _add(case, {column: [{role: spelled[name], content: text} for name, text in said]}, system, turns)
    return case


def _add(case: Case, row: dict[str, Any], system: str, turns: Turns) -> None:
    case.rows.append(row)
    case.system.append(system)
    case.turns.append(turns)


def _spoilt(change: Callable[[list[dict[str, Any]]], Any], shape: str = "alpaca") -> list[dict[str, Any]]:
    kinds: dict[str, dict[str, Any]] = {
        "alpaca": {"instruction": "Say it.", "output": "It."},
        "messages": {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]},
    }
    rows = [json.loads(json.dumps(kinds[shape])) for _ in range(3)]
    change(rows)
    return rows


def _turns_of(rows: list[dict[str, Any]], row: int = 1) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = rows[row]["messages"]
    return turns


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "an answer after an answer": (
        _spoilt(lambda rows: _turns_of(rows).append({"role": "assistant", "content": "Hu."}), "messages"),
        "row 1.*question and an answer in turns",
    ),
    "a last question": (
        _spoilt(lambda rows: _turns_of(rows).append({"role": "user", "content": "Hu."}), "messages"),
        "row 1.*last one must be an answer",
    ),
    "a system text in the middle": (
        _spoilt(lambda rows: _turns_of(rows).insert(1, {"role": "system", "content": "Hu."}), "messages"),
        "row 1.*system",
    ),
    "a turn that is left out": (
        _spoilt(lambda rows: _turns_of(rows)[:0] == [] and _turns_of(rows).extend(
            [{"role": "user", "content": "Hu."}, {"role": "assistant", "content": "Ha.", "weight": 0}]
        ), "messages"),
        "row 1.*its own flags leave out",
    ),
    "two names of a role": (
        _spoilt(lambda rows: _turns_of(rows)[0].update(role="human"), "messages"), "names of the role user",
    ),
    "two keys of a role": (
        _spoilt(lambda rows: rows[1].update(
            messages=[{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Ho."}]), "messages"),
        "rows before it are not",
    ),
    "a list of parts": (
        _spoilt(lambda rows: [turn.update(content=[{"type": "text", "text": "Hi."}]) for row in rows
                              for turn in row["messages"]], "messages"),
        "has no text in 'content'",
    ),
    "tool calls beside the text": (
        _spoilt(lambda rows: _turns_of(rows)[1].update(
            tool_calls=[{"type": "function", "function": {"name": "f", "arguments": "{}"}}]), "messages"),
        "row 1.*tool_calls",
    ),
    "documents": (_spoilt(lambda rows: rows[1].update(documents=["A text."])), "documents"),
    "two further columns": (
        _spoilt(lambda rows: (rows[1].update(input="x"), rows[2].update(context="y"))), "row 2.*another text",
    ),
    "two names of the answer": (
        _spoilt(lambda rows: rows[1].update(response=rows[1].pop("output"))), "row 1.*is a NoneType",
    ),
    "history as messages": (
        _spoilt(lambda rows: rows[1].update(history=[{"role": "user", "content": "a"},
                                                     {"role": "assistant", "content": "b"}])),
        "row 1.*pairs of texts",
    ),
    "tools as a list": (_spoilt(lambda rows: rows[1].update(tools=[{"name": "f"}])), "row 1.*tools is a list"),
    "dates": (_spoilt(lambda rows: [row.update(output="2020-01-01") for row in rows]), "output is a datetime"),
    "a column of two types": (
        _spoilt(lambda rows: (rows[0].update(extra="x"), rows[1].update(extra={"a": 1}))), "cannot load it.*extra",
    ),
    "two formats": (
        _spoilt(lambda rows: rows.__setitem__(1, {"question": "Q?", "answer": "A."})), "row 1.*rows before it are not",
    ),
    "tokens": (_spoilt(lambda rows: [row.update(input_ids=[1, 2], labels=[1, 2]) for row in rows]), "--tokenized"),
}  # fmt: skip
"""Records that LLaMA-Factory would skip, change or fail on → what the refusal says."""
