"""Probe conversations: copies of a conversation in which unique words stand for every text.

A template treats a probe as it treats the conversation: roles, keys, calls and their arguments are the same, only texts
differ. What the template writes, and where, is then read from its output. Conversations of one kind have equal probes,
so that each kind is probed once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from donod_fast.data.types import Conversation, Message

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Keys of a message that hold what the model thought before its reply."""

_OPEN = r"(?:<think>|<thinking>|<reasoning>|<seed:think>|\[THINK\]|<\|begin_of_thought\|>)"
_CLOSINGS = ("</think>", "</thinking>", "</reasoning>", "</seed:think>", "[/THINK]", "<|end_of_thought|>")
_CLOSE = f"(?:{'|'.join(map(re.escape, _CLOSINGS))})"

THINKING = re.compile(rf"\s*(?P<open>{_OPEN})?(?P<thought>.*?)(?P<close>{_CLOSE})", re.DOTALL)
"""Thinking at the start of a reply, within tags. Some data sets leave the opening tag to the prompt."""

OPENED_THINKING = re.compile(rf"{_OPEN}(?:\s*{_CLOSE})?\s*\Z")
"""An opening tag of thinking, or an empty block of it, at the end of a text."""

EMPTY_THINKING = re.compile(rf"\s*{_OPEN}\s*{_CLOSE}\s*")
"""An empty block of thinking."""

KINDS = 4096
"""How many kinds of conversations are remembered."""

_LONG_ID = 6

_NUMBER = 70117
"""Stands for numbers among arguments."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Words that stand for the texts of a message in a probe; ``""`` or empty where the message has no such text.

    Attributes:
        reasoning: the reasoning, in a key of its own or within tags of the content.
        content: the content after the reasoning.
        calls: for each tool call the words of its name and its arguments.
        ids: ids of calls.
    """

    reasoning: str = ""
    content: str = ""
    calls: tuple[tuple[str, ...], ...] = ()
    ids: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All of them."""
        calls = (word for call in self.calls for word in call)
        return tuple(word for word in (self.reasoning, self.content, *calls, *self.ids) if word)

    def last(self, text: str) -> tuple[str, int]:
        """The word that a text has last, and how often the text has it; ``("", 0)`` if it has none."""
        there = [word for word in self.words if word in text]
        word = max(there, key=text.rfind, default="")
        return word, text.count(word) if word else 0

    def first_start(self, text: str) -> int:
        """Where the first of these words begins in a text; -1 if none is there."""
        return min((at for word in self.words if (at := text.find(word)) >= 0), default=-1)


def end_of(word: str, count: int, text: str) -> int:
    """Where a word ends that a text has for the ``count``-th time; -1 if it has it less often."""
    end = 0
    for _ in range(count):
        at = text.find(word, end)
        if at < 0:
            return -1
        end = at + len(word)
    return end


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a conversation.

    Attributes:
        conversation: the messages with words for texts.
        pieces: the words of each message.
        tools: words in the descriptions of the tools.
        documents: words in the documents.
        key: equal for conversations of one kind.
    """

    conversation: Conversation
    pieces: tuple[Pieces, ...]
    tools: tuple[str, ...]
    documents: tuple[str, ...]
    key: str


Key = TypeVar("Key")
Known = TypeVar("Known")


class Kinds(Generic[Key, Known]):
    """What is known of each kind of conversation: found once, and forgotten when :data:`KINDS` newer ones are known."""

    def __init__(self) -> None:
        self._known: dict[Key, Known] = {}

    def find(self, key: Key, make: Callable[[], Known]) -> Known:
        """What is known of a kind; ``make`` finds it the first time."""
        if key not in self._known:
            self._known[key] = make()
            if len(self._known) > KINDS:
                del self._known[next(iter(self._known))]
        return self._known[key]


def split_thinking(content: str) -> tuple[str, str]:
    """Thinking within tags at the start of a reply (stripped, ``""`` if there is none), and the rest."""
    found = thinking_in(content)
    return ("", content) if found is None else (found["thought"].strip(), content[found.end() :])


def thinking_in(content: str) -> re.Match[str] | None:
    """The match of :data:`THINKING` at the start of a reply; None if it has no such tags."""
    # Looking for the closing tags first is much faster in a long text without any.
    return THINKING.match(content) if any(tag in content for tag in _CLOSINGS) else None


def reasoning_of(message: Message) -> str:
    """A reply's reasoning: from a key of its own, else from tags in its content; ``""`` without any."""
    own = message.own or {}
    texts = [own[key].strip() for key in REASONING_KEYS if isinstance(own.get(key), str)]
    return next(filter(None, texts), "") or split_thinking(message.content)[0]


def probe_of(conversation: Conversation) -> Probe:
    """Make the probe of a conversation."""
    names: dict[str, str] = {}  # ids of calls → ids of the same length and kind
    made = [_message(at, message, names) for at, message in enumerate(conversation.messages)]
    tools = [_tool(at, tool) for at, tool in enumerate(conversation.tools[:2])]
    documents = [_document(at, document) for at, document in enumerate(conversation.documents)]
    probe = Conversation(
        tuple(message for message, _ in made),
        tuple(tool for tool, _ in tools),
        tuple(document for document, _ in documents),
    )
    return Probe(
        probe,
        tuple(pieces for _, pieces in made),
        tuple(word for _, words in tools for word in words),
        tuple(word for _, words in documents for word in words),
        json.dumps([[m.for_template() for m in probe.messages], probe.tools, probe.documents], default=repr),
    )


def _message(at: int, message: Message, names: dict[str, str]) -> tuple[Message, Pieces]:
    word = f"zq{message.role}{at}qz"
    thought = f"zqthought{at}qz"
    own = message.for_template()
    calls, call_words = _calls(at, own.get("tool_calls"), names)
    reasoning, content, text = "", word if message.content.strip() else "", message.content
    found = thinking_in(text) if message.role == "assistant" else None
    if found is not None:
        has_answer = bool(text[found.end() :].strip())
        content = word if has_answer else ""
        reasoning = thought if found["thought"].strip() else ""
        # The white space around the tags is kept: templates split at the tags with it.
        gap = re.match(r"\s*", text[found.end() :])
        opened = text[: found.start("thought")]
        inner = re.sub(r"\S(?:.*\S)?", thought, found["thought"], count=1, flags=re.DOTALL)
        text = opened + inner + found["close"] + (gap[0] if gap and has_answer else "") + content
    elif content:
        text = word
    changed: dict[str, Any] = {}
    for key, value in own.items():
        if key == "content":
            changed[key] = _content(value, text)
        elif key == "tool_calls":
            changed[key] = calls
        elif key in REASONING_KEYS and isinstance(value, str):
            changed[key] = thought if value.strip() else value
            reasoning = thought if value.strip() else reasoning
        elif key in ("tool_call_id", "id") and isinstance(value, str):
            changed[key] = _id(value, names)
        elif key in ("role", "name"):
            changed[key] = value if key == "role" or not isinstance(value, str) else f"zqname{at}qz"
        else:
            changed[key] = value if value is None or isinstance(value, bool | int | float) else _stand_in(value, at)
    own_message = None if message.own is None else changed
    made = Message(message.role, text, tuple(calls or ()), message.scored, own_message)
    ids = [str(call.get("id", "")) for call in calls or () if isinstance(call, Mapping)]
    # A short id may appear anywhere.
    return made, Pieces(reasoning, content, call_words, tuple(one for one in ids if len(one) >= _LONG_ID))


def _content(value: Any, text: str) -> Any:
    """Content of the same form: text, None, or a list whose text parts are one."""
    if isinstance(value, str) or value is None:
        return text if isinstance(value, str) else None
    return [{"type": "text", "text": text}]


def _calls(at: int, calls: Any, names: dict[str, str]) -> tuple[list[Any] | None, tuple[tuple[str, ...], ...]]:
    if not calls:
        return None if calls is None else [], ()
    made, words = [], []
    for number, call in enumerate(calls):
        name = f"zqcall{at}x{number}qz"
        values: list[str] = []
        function = call.get("function", call)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                new: Any = json.dumps(_like(json.loads(arguments), f"{at}x{number}", values), ensure_ascii=False)
            except (ValueError, RecursionError):
                new = arguments
        else:
            new = _like(arguments, f"{at}x{number}", values)
        changed = {**function, "name": name, **({"arguments": new} if "arguments" in function else {})}
        whole = {**call, "function": changed} if "function" in call else changed
        if isinstance(call.get("id"), str):
            whole = {**whole, "id": _id(call["id"], names)}
        made.append(whole)
        words.append((name, *values))
    return made, tuple(words)


def _id(value: str, names: dict[str, str]) -> str:
    """An id of the same length that stands for this one: templates check the length."""
    if value not in names:
        number = f"q{len(names)}"
        names[value] = number.rjust(len(value), "z")[-len(value) :] if value else value
    return names[value]


def _like(value: Any, place: str, words: list[str]) -> Any:
    """A value of the same shape, whose texts and numbers are replaced by words that are collected."""
    if isinstance(value, str):
        word = f"zqvalue{place}x{len(words)}qz"
        words.append(word)
        return word
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        words.append(str(_NUMBER))
        return _NUMBER
    if isinstance(value, float):
        words.append(str(_NUMBER + 0.5))
        return _NUMBER + 0.5
    if isinstance(value, Mapping):
        return {key: _like(item, place, words) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_like(item, place, words) for item in value]
    return value


def _stand_in(value: Any, at: int) -> Any:
    return f"zqother{at}qz" if isinstance(value, str) else _like(value, f"k{at}", [])


def _tool(at: int, tool: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A tool with a complete description, wrapped in ``function`` or not as the given one is."""
    name, description, key = f"zqtool{at}qz", f"zqdescription{at}qz", f"zqkey{at}qz"
    made = {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {key: {"type": "string", "description": f"zqhelp{at}qz"}},
            "required": [key],
        },
    }
    if "function" in tool:
        return {"type": "function", "function": made}, (name, description, key)
    return made if "name" in tool else {**dict(tool), "zqtool": name}, (
        (name, description, key) if "name" in tool else (name,)
    )


def _document(at: int, document: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    words: list[str] = []
    return {key: _like(value, f"d{at}{key}", words) for key, value in document.items()}, tuple(words)


__all__ = [
    "EMPTY_THINKING",
    "OPENED_THINKING",
    "REASONING_KEYS",
    "THINKING",
    "Kinds",
    "Pieces",
    "Probe",
    "end_of",
    "probe_of",
    "reasoning_of",
    "split_thinking",
    "thinking_in",
]
