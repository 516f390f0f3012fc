"""Everything of a record that stands before the answer: questions, context, history, system texts, tools, documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from donod_fast.data.column_map import Tags
from donod_fast.data.conversations import as_list, checked_turns, kind_of, parse_tools, parse_turns, text_column
from donod_fast.data.media import text_turns
from donod_fast.data.record_columns import Columns, first_of
from donod_fast.data.types import Conversation, Message, SampleError, Status

ALPACA_JOIN = "\n\n"
"""Separator between a question and its input or context in the user turn."""

SYSTEM = ("system", "system_prompt", "system_message")
CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Material:
    """The columns that hold a question and the material beside it. Of several the first that is there counts.

    Attributes:
        prompts: columns whose texts make the user turn, in this order; the record has the first.
        system: of the system message.
        history: of earlier turns.
        tools: of function descriptions.
        documents: of texts to answer from.
        join: text between the prompts.
    """

    prompts: tuple[str, ...] = ()
    system: tuple[str, ...] = SYSTEM
    history: tuple[str, ...] = ("history",)
    tools: tuple[str, ...] = ("tools", "functions")
    documents: tuple[str, ...] = ("documents",)
    join: str = ALPACA_JOIN

    def is_beside(self, columns: Columns) -> bool:
        """Whether the record has more than a question: a system text, history, tools, documents or a second prompt."""
        return (
            self.system_text(columns) is not None
            or any(name in columns and not _is_blank(columns.peek(name)) for name in self.prompts[1:])
            or bool(self.history_turns(columns) or self.tool_list(columns) or self.document_list(columns))
        )

    def user_turn(self, columns: Columns) -> Message:
        """The question. Raises SampleError if a part of it is no text."""
        parts = [text_column(columns, name) for name in self.prompts if name in columns]
        return Message("user", self.join.join(part for part in parts if part.strip()))

    def system_text(self, columns: Columns) -> str | None:
        """The first system text that is not blank. Raises SampleError if one is no text."""
        texts = (text_column(columns, name) for name in self.system if name in columns)
        return next((text for text in texts if text.strip()), None)

    def with_system(self, columns: Columns, turns: list[Message]) -> list[Message]:
        """Put the system text first, unless the turns begin with a system message of their own. Raises SampleError."""
        if turns and turns[0].role == "system":
            return turns
        text = self.system_text(columns)
        return turns if text is None else [Message("system", text), *turns]

    def history_turns(self, columns: Columns) -> list[Message]:
        """Earlier turns: [question, answer] pairs, or messages. Raises SampleError if they are neither."""
        name = first_of(columns, self.history)
        if name is None:
            return []
        items = as_list(columns[name])
        if items is None:
            raise SampleError(Status.UNKNOWN_FORMAT, f"{name} is {kind_of(columns[name])}, not a list")
        if items and all(isinstance(item, Mapping) for item in items):
            return parse_turns(items, name, role_key_of(items))
        turns = []
        for number, item in enumerate(items):
            pair = as_list(item)
            if pair is None or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise SampleError(Status.UNKNOWN_FORMAT, f"{name} item {number} is not a pair of strings")
            turns += [Message("user", pair[0]), Message("assistant", pair[1])]
        return turns

    def tool_list(self, columns: Columns) -> tuple[Mapping[str, Any], ...]:
        """Function descriptions. Raises SampleError if they are none."""
        name = first_of(columns, self.tools)
        return () if name is None else parse_tools(columns[name], name)

    def document_list(self, columns: Columns) -> tuple[Mapping[str, Any], ...]:
        """Texts to answer from, as objects. Raises SampleError if one is no string and no object with ``text``."""
        name = first_of(columns, self.documents)
        if name is None:
            return ()
        value = columns[name]
        items = [value] if isinstance(value, str) and value.strip() else as_list(value)
        if items is None and value != "":
            raise SampleError(Status.UNKNOWN_FORMAT, f"{name} is {kind_of(value)}, not a list of texts; {_CHOOSE}")
        return tuple(_document(item, f"{name}[{number}]") for number, item in enumerate(items or ()))

    def conversation(self, columns: Columns, turns: list[Message], given: Sequence[Message] = ()) -> Conversation:
        """A conversation with the system text, tools and documents of the record.

        Args:
            columns: the record.
            turns: the turns; those of the assistant are scored unless their own flags leave them out.
            given: turns before them, of which none is scored.

        Raises:
            SampleError: there is nothing to score in it, or the material is not of its kind.
        """
        before = [replace(turn, scored=False) if turn.role == "assistant" else turn for turn in given]
        columns.excluded += sum(turn.role == "assistant" and not turn.scored for turn in turns)
        whole = self.with_system(columns, [*before, *turns])
        checked_turns(turns)
        number = len(whole) - len(turns) if given else 0
        return Conversation(tuple(whole), self.tool_list(columns), self.document_list(columns), number)


@dataclass(frozen=True, slots=True)
class TurnReader:
    """Reads the messages in a column.

    Attributes:
        text_only: leave out images, audio and video; otherwise they are refused.
        tags: the spelling of messages, None for the usual ones.
    """

    text_only: bool = False
    tags: Tags | None = None

    def read(self, columns: Columns, name: str, role_key: str | None = None) -> list[Message]:
        """The messages of a list, or the only one if the column holds a single message.

        Args:
            columns: the record.
            name: the column.
            role_key: ``"role"`` or ``"from"``; None to see from the first message.

        Raises:
            SampleError: it is not a list of messages.
        """
        value = columns[name]
        items = [value] if isinstance(value, Mapping) else as_list(value)
        if items is None:
            return parse_turns(value, name, "role")  # names the problem
        if self.tags is not None:
            items = [self.tags.plain(item) if isinstance(item, Mapping) else item for item in items]
            role_key = "role"
        items = text_turns(items, name, columns, text_only=self.text_only)
        return parse_turns(items, name, role_key or role_key_of(items))


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


_CHOOSE = "--columns names the columns to read"


def role_key_of(items: Any) -> str:
    """``"from"`` if the first message has ShareGPT's spelling, else ``"role"``."""
    turns = as_list(items)
    first = turns[0] if turns else None
    return "from" if isinstance(first, Mapping) and first.get("role") is None and "from" in first else "role"


def answer(columns: Columns, name: str) -> str:
    """The text of an answer. Raises SampleError if it is blank or no text."""
    text = text_column(columns, name)
    if not text.strip():
        raise SampleError(Status.EMPTY_RESPONSE, f"{name} is empty")
    return text


def _document(item: Any, place: str) -> Mapping[str, Any]:
    if isinstance(item, str):
        return {"text": item}
    if not isinstance(item, Mapping):
        raise SampleError(Status.UNKNOWN_FORMAT, f"{place} is {kind_of(item)}, not a text; {_CHOOSE}")
    if not isinstance(item.get("text"), str):
        raise SampleError(Status.UNKNOWN_FORMAT, f"{place} has no text; {_CHOOSE}")
    return item


__all__ = ["ALPACA_JOIN", "CONTEXT", "SYSTEM", "Material", "TurnReader", "answer", "role_key_of"]
