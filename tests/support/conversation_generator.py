"""Draw conversations that are hard to find again in a text: repeated, empty, marker-like and foreign contents."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

PLAIN = (
    "How many apples are left?",
    "She has 3 apples left.",
    "The weather in Paris is sunny today.",
    "Yes.",
    "Yes.",
    "No",
    "x",
    "Red, green, blue.",
    "Line one\nline two\n\nline three",
)
ODD = (
    "user",
    "assistant",
    "model",
    "ASSISTANT:",
    "### Response:",
    "Assistant: yes",
    "system",
    "end",
    "|>",
    "I say <|end|> and go on",
    "[/INST] is a marker",
    "<|assistant|>",
    "zq0qz",
    "tool_call",
    "</s>",
)
FOREIGN = ("Привет, как дела?", "雪が降る。", "😀👍🏽", "naïve – “quoted”…", "e\u0301\u200d", "שלום")
SPACED = ("  two in front", "one behind ", "\nbegins with a line", "ends with lines\n\n", "\tTab ", " ")
THOUGHTS = ("One or two?", "So it is four.\nNot five.", "Yes.", "user")

_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A conversation as a record holds it.

    Attributes:
        messages: the record's messages.
        tools: the record's tools.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)

    @property
    def data(self) -> dict[str, Any]:
        """The record."""
        return {"messages": self.messages, **({"tools": self.tools} if self.tools else {})}

    def wanted(self, train_on: str) -> frozenset[int]:
        """Positions of the assistant turns to score."""
        turns = [at for at, m in enumerate(self.messages) if m["role"] == "assistant"]
        turns = turns[-1:] if train_on == "last" else turns
        return frozenset(at for at in turns if self.messages[at].get("weight") != 0)


def draw_conversation(rng: random.Random) -> Drawn:
    """Draw one to four questions with their answers, and what public records put around them."""
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.35:
        messages.append({"role": "system", "content": _content(rng)})
    if rng.random() < 0.12:
        messages.append({"role": "assistant", "content": _reply(rng)})
    with_tools = rng.random() < 0.2
    thinks = rng.choices(("no", "content", "key"), (60, 25, 15))[0]
    same = _reply(rng) if rng.random() < 0.15 else None
    for turn in range(rng.choice((1, 1, 2, 2, 3, 4))):
        messages.append({"role": "user", "content": "" if rng.random() < 0.05 else _content(rng)})
        if rng.random() < 0.08:
            messages.append({"role": "user", "content": _content(rng)})
        if with_tools and rng.random() < 0.7:
            messages += _calls(rng, turn)
        messages.append(_thinking({"role": "assistant", "content": same or _reply(rng)}, thinks, rng))
    if rng.random() < 0.06:
        messages.append({"role": "user", "content": _content(rng)})
    for message in messages:
        if message["role"] == "assistant" and rng.random() < 0.08:
            message["weight"] = 0
    if rng.random() < 0.08:
        for message in messages:
            message["content"] = [{"type": "text", "text": message["content"] or ""}]
    return Drawn(messages, [_WEATHER] if with_tools and rng.random() < 0.7 else [])


def _content(rng: random.Random) -> str:
    pool = rng.choices((PLAIN, ODD, FOREIGN, SPACED), (60, 20, 10, 10))[0]
    return rng.choice(pool)


def _reply(rng: random.Random) -> str:
    text = _content(rng)
    return text if text.strip() else "Yes."


def _thinking(message: dict[str, Any], thinks: str, rng: random.Random) -> dict[str, Any]:
    if thinks == "no" or rng.random() < 0.2:
        return message
    thought = rng.choice(THOUGHTS)
    if thinks == "key":
        return {**message, rng.choice(("reasoning_content", "reasoning_content", "thinking")): thought}
    form = rng.choices(("<think>\n{}\n</think>\n\n{}", "<think>{}</think>{}"), (80, 20))[0]
    return {**message, "content": form.format(thought, message["content"])}


def _calls(rng: random.Random, turn: int) -> list[dict[str, Any]]:
    count = rng.choice((1, 1, 1, 2))
    ids = [f"abcdef{turn}{at}z" for at in range(count)]
    cities = rng.sample(("Paris", "Oslo", "user", "Łódź"), count)
    calls: list[dict[str, Any]] = [
        {"id": one, "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        for one, city in zip(ids, cities, strict=True)
    ]
    if rng.random() < 0.15:  # as OpenAI's interface returns them
        for call in calls:
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    said = rng.choices(("", None, _reply(rng)), (4, 4, 2))[0]
    results = [
        {"role": "tool", "tool_call_id": one, "name": "weather", "content": rng.choice(("sunny", "3 degrees", "Yes."))}
        for one in ids
    ]
    return [{"role": "assistant", "content": said, "tool_calls": calls}, *results]
