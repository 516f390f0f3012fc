"""Rewrite a conversation so that a chat template can express it; only what the template cannot write is rewritten.

A template that does not know system messages, tools, tool calls or other things leaves them out silently, or raises an
error. Which of them is found with a probe of the whole conversation (:mod:`donod_fast.data.probes`): starting from all
rewrites that could help, each one is removed without which the template still writes every text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from donod_fast.data.probes import REASONING_KEYS, Probe, probe_of, reasoning_of
from donod_fast.data.types import Conversation, Message

RECASTS: dict[str, str] = {
    "merge": "consecutive user messages joined",
    "system": "system message moved into the user's message",
    "late_system": "later system message moved into the user's message",
    "tools": "tools listed in the system message",
    "documents": "documents listed in the system message",
    "calls": "tool call written as text",
    "calls_beside_content": "tool call beside text written as text",
    "parallel_calls": "several tool calls of a message written as text",
    "results": "tool result written as a user message",
    "roles": "role given by its usual name",
    "bare_tools": "tool wrapped as a function",
    "bare_calls": "tool call wrapped as a function",
    "arguments": "arguments of a tool call read from JSON text",
    "arguments_text": "arguments of a tool call given as JSON text",
    "parts": "content parts joined",
    "text_parts": "text given as a content part",
    "empty_content": "missing content given as empty text",
    "null_content": "missing or empty content beside a tool call given as null",
    "reasoning_key": "reasoning given under another key",
}
"""Rewrites by name, the most invasive first, with a description for people."""

_CALLS = frozenset({"calls", "calls_beside_content", "parallel_calls"})

Render = Callable[[Conversation], str | None]
"""The template's text for a conversation; None if the template raises an error."""


@dataclass(frozen=True, slots=True)
class RecastPlan:
    """What has to be rewritten in conversations of one kind.

    Attributes:
        recasts: names of :data:`RECASTS`, in that order.
        missing: what the template leaves out nevertheless, for messages; ``""`` if it writes everything.
        drops_reasoning: whether it leaves out, or refuses, the reasoning of the last reply.
        quotes_arguments: whether it writes arguments that are JSON text as a quoted string, JSON within JSON.
    """

    recasts: tuple[str, ...] = ()
    missing: str = ""
    drops_reasoning: bool = False
    quotes_arguments: bool = False


def plan_recasts(conversation: Conversation, render: Render) -> RecastPlan:
    """Find the rewrites that conversations of this kind need.

    Args:
        conversation: a probe, or any conversation.
        render: writes a conversation with the template.
    """
    chosen = _smallest(conversation, render)
    if chosen is not None:
        return chosen
    bare = _without_reasoning(conversation)
    if bare != conversation:  # the template may refuse reasoning, whatever else is rewritten
        chosen = _smallest(bare, render)
        if chosen is not None:
            return replace(chosen, drops_reasoning=True)
    text = render(conversation)
    if text is None:
        return RecastPlan()  # the row gets the template's own message
    return RecastPlan(missing=_missing(probe_of(conversation), text))


def _smallest(conversation: Conversation, render: Render) -> RecastPlan | None:
    """The fewest rewrites with which every text is written; None if all of them do not suffice."""
    names = _applicable(conversation)
    # A template reads content either as text or as parts, and arguments as an object or as text.
    usual = [name for name in names if name != "arguments_text"]
    chosen = _fewest(conversation, render, [name for name in usual if name != "text_parts"])
    chosen = chosen or _fewest(conversation, render, [name for name in usual if name != "parts"])
    if chosen is not None and _CALLS & set(chosen.recasts):
        lighter = (set(chosen.recasts) - _CALLS) | {"null_content", "arguments_text"}
        return _fewest(conversation, render, [name for name in names if name in lighter]) or chosen
    return chosen


def _fewest(conversation: Conversation, render: Render, names: Sequence[str]) -> RecastPlan | None:
    """The fewest of these rewrites with which every text is written; None if all of them do not suffice."""

    def is_whole(recasts: Sequence[str]) -> bool:
        return _writes_all(recast(conversation, recasts), render)

    recasts: list[str] = []
    if not is_whole(()):
        recasts = list(names)
        if not is_whole(recasts):
            return None
        # The least invasive are removed first, since others may be needed only because of them: a template may write
        # calls only beside content that is null. Some can only be removed together: calls and their results.
        found = True
        while found:
            found = False
            for count in (1, 2):
                for group in combinations(reversed(recasts), count):
                    fewer = [name for name in recasts if name not in group]
                    if len(fewer) == len(recasts) - count and is_whole(fewer):
                        recasts, found = fewer, True
                if found:
                    break
    drops = False
    if not _writes_reasoning(recast(conversation, recasts), render):
        if "reasoning_key" in names and _writes_reasoning(recast(conversation, [*recasts, "reasoning_key"]), render):
            recasts = [*recasts, "reasoning_key"]
        else:
            drops = True
    return RecastPlan(
        tuple(recasts), drops_reasoning=drops, quotes_arguments=_quotes_arguments(recast(conversation, recasts), render)
    )


def _writes_all(conversation: Conversation, render: Render) -> bool:
    probe = probe_of(conversation)
    text = render(probe.conversation)
    return text is not None and not _missing(probe, text) and not _is_garbled(probe, text, render)


def _missing(probe: Probe, text: str) -> str:
    """The first text of a probe that is not written, in words; ``""`` if all are."""
    for at, (message, pieces) in enumerate(zip(probe.conversation.messages, probe.pieces, strict=True)):
        if pieces.content and pieces.content not in text:
            return f"the words of message {at + 1} ({message.role})"
        for name, *values in pieces.calls:
            # Some templates write the id of a call, which holds the name, and not the name.
            if any(word not in text for word in values) or not (name in text or any(one in text for one in pieces.ids)):
                return f"a tool call of message {at + 1}"
    if any(word not in text for word in probe.tools):
        return "the descriptions of tools"
    return "the documents" if any(word not in text for word in probe.documents) else ""


def _is_garbled(probe: Probe, text: str, render: Render) -> bool:
    """Whether parts of content appear other than as text, as Python writes a list, or missing content as ``None``."""
    has_parts = any(isinstance((m.own or {}).get("content"), list) for m in probe.conversation.messages)
    if has_parts:
        joined = render(recast(probe.conversation, ("parts",)))
        if joined is not None and joined != text and not _missing(probe, joined):
            return True
    if "None" not in text or not any("content" in (m.own or {}) and (m.own or {})["content"] is None
                                     for m in probe.conversation.messages):  # fmt: skip
        return False
    without = render(recast(probe.conversation, ("empty_content",)))
    return without is not None and without.count("None") < text.count("None")


def _writes_reasoning(conversation: Conversation, render: Render) -> bool:
    """Whether the reasoning of the last reply is written; True if it has none, or if a user's message follows it."""
    probe = probe_of(conversation)
    at = next((k for k in reversed(range(len(probe.pieces))) if conversation.messages[k].role == "assistant"), None)
    if at is None or any(message.role == "user" for message in conversation.messages[at:]):
        return True
    word = probe.pieces[at].reasoning
    if not word:
        return True
    text = render(probe.conversation)
    return text is not None and word in text


def _quotes_arguments(conversation: Conversation, render: Render) -> bool:
    probe = probe_of(conversation)
    if not any(isinstance(_arguments(call), str) for message in probe.conversation.messages
               for call in message.tool_calls):  # fmt: skip
        return False
    text = render(probe.conversation)
    return text is not None and '\\"zqvalue' in text


def _applicable(conversation: Conversation) -> list[str]:
    """The rewrites that would change a conversation, the most invasive first."""
    listed = recast(conversation, ("tools", "documents"))  # a listing may become a system message, which can be moved
    changing = [
        name
        for name in RECASTS
        if name != "merge" and (recast(conversation, (name,)) != conversation or recast(listed, (name,)) != listed)
    ]
    merged = recast(conversation, ("merge", *changing)) != recast(conversation, changing)
    return (["merge"] if merged else []) + changing


def recast(conversation: Conversation, names: Sequence[str]) -> Conversation:
    """Rewrite a conversation; see :data:`RECASTS`."""
    if not names:
        return conversation
    messages = list(conversation.messages)
    tools, documents = conversation.tools, conversation.documents
    if "bare_tools" in names:
        tools = tuple(map(_wrapped, tools))
    listings = []
    if "tools" in names and tools:
        listings.append(_json(list(tools)))
        tools = ()
    if "documents" in names and documents:
        listings.append("\n\n".join(map(_document_text, documents)))
        documents = ()
    for listing in listings:
        if messages and messages[0].role == "system":
            messages[0] = messages[0].changed(content=_joined(messages[0].content, listing))
        else:
            messages.insert(0, Message("system", listing))
    messages = [_recast_message(message, names) for message in messages]
    messages = _with_moved_system(messages, names)
    if "merge" in names:
        messages = _merged(messages)
    if "text_parts" in names:
        messages = list(map(_in_parts, messages))
    return Conversation(tuple(messages), tools, documents)


def _with_moved_system(messages: Sequence[Message], names: Sequence[str]) -> list[Message]:
    """System texts at the start of the user message that follows them, or in a user message of their own."""
    written: list[Message] = []
    waits = False  # whether the last message is a system text to be joined with a user message
    for at, message in enumerate(messages):
        moves = message.role == "system" and ("late_system" if at else "system") in names
        turn = Message("user", message.content) if moves else message
        if waits and turn.role == "user":
            turn = turn.changed(content=_joined(written.pop().content, turn.content))
        written.append(turn)
        waits = moves
    return written


def _merged(messages: Sequence[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role == "user":
            message = message.changed(content=_joined(merged.pop().content, message.content))
        merged.append(message)
    return merged


def _in_parts(message: Message) -> Message:
    if not isinstance(message.for_template().get("content"), str):
        return message
    part = {"type": "text", "text": message.content}
    return replace(message, own={**message.for_template(), "content": [part]})


def _recast_message(message: Message, names: Sequence[str]) -> Message:
    own = message.for_template() if message.tool_calls else message.own
    if own is not None:
        changed = dict(own)
        if "roles" in names and own["role"] != message.role:
            changed["role"] = message.role
        if "parts" in names and isinstance(own.get("content"), list):
            changed["content"] = message.content
        if own.get("content") is None and "empty_content" in names:
            changed["content"] = message.content
        elif not own.get("content") and message.tool_calls and "null_content" in names:
            changed["content"] = None
        if "reasoning_key" in names and message.role == "assistant":
            reasoning = reasoning_of(replace(message, content=""))
            changed.update(dict.fromkeys(REASONING_KEYS, reasoning) if reasoning else {})
        calls = changed.get("tool_calls")
        if isinstance(calls, list) and calls:
            if "bare_calls" in names:
                calls = [call if "function" in call else _wrapped_call(call) for call in calls]
            if "arguments" in names:
                calls = [_with_read_arguments(call) for call in calls]
            if "arguments_text" in names:
                calls = [_with_written_arguments(call) for call in calls]
            changed["tool_calls"] = calls
        if changed != own:
            message = replace(message, own=changed)
    if message.role == "tool" and "results" in names:
        return Message("user", message.content)
    if message.tool_calls and _calls_class(message) in names:
        lines = "\n".join(_json(_name_and_arguments(call)) for call in message.tool_calls)
        content = f"{message.content}\n{lines}" if message.content.strip() else lines
        own = None if message.own is None else {k: v for k, v in message.own.items() if k != "tool_calls"}
        return replace(message, tool_calls=(), own=own).changed(content=content)
    return message


def _calls_class(message: Message) -> str:
    if message.content.strip():
        return "calls_beside_content"
    return "calls" if len(message.tool_calls) == 1 else "parallel_calls"


def _without_reasoning(conversation: Conversation) -> Conversation:
    """The conversation without the keys that hold reasoning."""

    def bare(message: Message) -> Message:
        if message.own is None or not any(key in message.own for key in REASONING_KEYS):
            return message
        return replace(message, own={key: value for key, value in message.own.items() if key not in REASONING_KEYS})

    return replace(conversation, messages=tuple(map(bare, conversation.messages)))


def _wrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "function", "function": tool} if "name" in tool and "function" not in tool else tool


def _wrapped_call(call: Mapping[str, Any]) -> dict[str, Any]:
    outer = {"type": "function", **{key: value for key, value in call.items() if key == "id"}}
    return {**outer, "function": {key: value for key, value in call.items() if key not in ("id", "type")}}


def _with_read_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function, arguments = call.get("function", call), _arguments(call)
    if not isinstance(arguments, str):
        return dict(call)
    changed = {**function, "arguments": json.loads(arguments) if arguments.strip() else {}}
    return {**call, "function": changed} if "function" in call else changed


def _with_written_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function, arguments = call.get("function", call), _arguments(call)
    if not isinstance(arguments, Mapping):
        return dict(call)
    changed = {**function, "arguments": _json(dict(arguments))}
    return {**call, "function": changed} if "function" in call else changed


def _name_and_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": call.get("function", call).get("name"), "arguments": _arguments(call)}


def _arguments(call: Mapping[str, Any]) -> Any:
    return call.get("function", call).get("arguments")


def _document_text(document: Mapping[str, Any]) -> str:
    texts = [value for value in document.values() if isinstance(value, str)]
    return "\n".join(texts) if len(texts) == len(document) else _json(dict(document))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first else second


__all__ = ["RECASTS", "RecastPlan", "plan_recasts", "recast"]
