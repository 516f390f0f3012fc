"""Messages with a word put into their text, so that the place of the text in a rendering is seen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from donod_fast.data.probes import REASONING_KEYS, thinking_in
from donod_fast.data.types import Message

_INSERTED = "zqinsertedqz"


def with_word(message: Message, *, at_end: bool) -> Iterator[tuple[Message, str, str]]:
    """The message with a word at the beginning or the end of its text, in the ways that may work.

    Yields:
        The changed message, the word, and what the word stands for.
    """
    for changed in _with_word_in_call(message) if at_end and message.tool_calls else _with_inserted(message, at_end):
        yield changed, _INSERTED, ""
    calls = message.for_template().get("tool_calls") or []
    if at_end and calls and isinstance(calls[-1].get("id"), str) and calls[-1]["id"]:
        # Some templates write the id last, and some accept ids of one length only.
        known = calls[-1]["id"]
        word = (_INSERTED * (1 + len(known) // len(_INSERTED)))[: len(known)]
        yield _with_last_call(message, {**calls[-1], "id": word}), word, known


def _with_inserted(message: Message, at_end: bool) -> Iterator[Message]:
    own, content = message.own or {}, message.content
    if at_end:
        if content.strip():
            yield from (message.changed(content=text + _INSERTED) for text in {content: 0, content.rstrip(): 0})
        return
    for key in REASONING_KEYS:
        if isinstance(own.get(key), str) and own[key].strip():
            yield replace(message, own={**own, key: _INSERTED + own[key].lstrip()})
    if not content.strip():
        calls = message.for_template().get("tool_calls") or []
        if calls:
            yield replace(message, own={**message.for_template(), "tool_calls": [_renamed(calls[0]), *calls[1:]]})
        return
    found, texts = thinking_in(content), []
    if found is not None:
        begin = found.end("thought") - len(found["thought"].lstrip())
        answer = content[found.end() :].lstrip()
        for place in (begin, found.end(), len(content) - len(answer)):
            texts.append(content[:place] + _INSERTED + content[place:])
    texts += [_INSERTED + content, _INSERTED + content.lstrip()]
    yield from (message.changed(content=text) for text in dict.fromkeys(texts))


def _renamed(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    changed = {**function, "name": _INSERTED + str(function.get("name"))}
    return {**call, "function": changed} if "function" in call else changed


def _with_word_in_call(message: Message) -> Iterator[Message]:
    """The message with a word at the end of the arguments of its last call, if they end in a text."""
    call = (message.for_template().get("tool_calls") or [{}])[-1]
    function = call.get("function", call)
    arguments = function.get("arguments")
    if isinstance(arguments, Mapping) and arguments:
        last = next(reversed(arguments))
        longer = {**arguments, last: arguments[last] + _INSERTED} if isinstance(arguments[last], str) else None
    else:
        in_text = isinstance(arguments, str) and re.search(r'"\s*\}\s*$', arguments)
        longer = arguments[: in_text.start()] + _INSERTED + arguments[in_text.start() :] if in_text else None
    if longer is not None:
        changed = {**function, "arguments": longer}
        yield _with_last_call(message, {**call, "function": changed} if "function" in call else changed)


def _with_last_call(message: Message, call: Mapping[str, Any]) -> Message:
    own = message.for_template()
    return replace(message, own={**own, "tool_calls": [*own["tool_calls"][:-1], call]})


__all__ = ["with_word"]
