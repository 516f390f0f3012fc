"""Shrink a failed trial: the plainest template and the shortest conversation that fail in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

from conversation_generator import Drawn
from mask_trials import Outcome, Setup, judge, setup_of
from template_specs import STYLES, TemplateSpec

_PLAIN = TemplateSpec(STYLES["pipe"], prompt=STYLES["pipe"]["assistant"].before)
_WORDS = ("One?", "Two.", "Three?", "Four.", "Five?", "Six.", "Seven?", "Eight.", "Nine?", "Ten.")


def kind_of(outcome: Outcome) -> str:
    """The first words of the problem: failures of one kind share them."""
    words = outcome.problem.split("\n")[0].split(":")
    return ":".join(words[: 2 if words[0].startswith("refused") else 1])[:40]


def shrink(setup: Setup, drawn: Drawn, outcome: Outcome) -> tuple[Setup, Drawn, Outcome]:
    """Simplify template and conversation, a step at a time, as long as the failure stays the same."""
    kind = kind_of(outcome)
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in _steps(setup, drawn):
            try:
                found = judge(*smaller)
            except Exception:  # a simpler template may not be one at all
                continue
            if found.kind == "wrong" and kind_of(found) == kind:
                (setup, drawn), outcome, is_smaller = smaller, found, True
                break
    return setup, drawn, outcome


def _steps(setup: Setup, drawn: Drawn) -> Iterator[tuple[Setup, Drawn]]:
    messages = drawn.messages
    for first in range(len(messages)):
        for count in (1, 2, 3):
            fewer = messages[:first] + messages[first + count :]
            if _is_natural(fewer, messages[0]["role"]):
                yield setup, replace(drawn, messages=fewer)
    if drawn.tools:
        yield setup, replace(drawn, tools=[])
    for spec in _simpler(setup.spec):
        yield setup_of(spec, setup.tokenizer_kind, setup.train_on), drawn
    if setup.tokenizer_kind != "special":
        yield setup_of(setup.spec, "special", setup.train_on), drawn
    if setup.train_on != "all":
        yield setup_of(setup.spec, setup.tokenizer_kind), drawn
    for at, message in enumerate(messages):
        for simpler in _simpler_messages(message, _WORDS[at % len(_WORDS)]):
            yield setup, replace(drawn, messages=[*messages[:at], simpler, *messages[at + 1 :]])


def _is_natural(messages: list[dict[str, Any]], first: str) -> bool:
    """Whether there is a reply, none follows another, results follow calls, and no reply becomes the first message."""
    kinds = ["call" if message.get("tool_calls") else message["role"] for message in messages]
    roles = [message["role"] for message in messages]
    is_called = all(before in ("call", "tool") for before, kind in pairwise(["", *kinds]) if kind == "tool")
    begins = roles[:1] != ["assistant"] or first == "assistant"
    return "assistant" in roles and begins and is_called and ("assistant", "assistant") not in pairwise(roles)


def _simpler(spec: TemplateSpec) -> Iterator[TemplateSpec]:
    for name in (field.name for field in fields(TemplateSpec)):
        plain = getattr(_PLAIN, name)
        if name == "prompt":
            plain = spec.frames["assistant"].before
        if name == "frames":
            if spec.frames != plain and spec.prompt in (None, spec.frames["assistant"].before):
                yield replace(spec, frames=plain, prompt=spec.prompt and plain["assistant"].before)
        elif getattr(spec, name) != plain:
            yield replace(spec, **{name: plain})


def _simpler_messages(message: dict[str, Any], word: str) -> Iterator[dict[str, Any]]:
    content = message["content"] or ""
    if message["content"] is None:
        yield {**message, "content": ""}
    if not isinstance(content, str):
        yield {**message, "content": content[0]["text"]}
    elif content and content != word and not (message.get("tool_calls") and not content.strip()):
        yield {**message, "content": word}
    for key in ("weight", "reasoning_content", "thinking", "tool_calls"):
        if key in message and (key != "tool_calls" or content.strip()):
            yield {name: value for name, value in message.items() if name != key}
    if len(message.get("tool_calls") or ()) > 1:
        yield {**message, "tool_calls": message["tool_calls"][:1]}
