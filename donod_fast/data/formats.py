"""Convert a record into a sample: detect the record's format and read its content.

The format is detected for each record from its columns; a column whose value is null counts as absent.
For any record, :func:`to_sample` either returns a sample or raises a SampleError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from donod_fast.data.conversations import as_list, checked_turns, kind_of, parse_tools, parse_turns, shown, text_column
from donod_fast.data.reading.canonical import canonical_json, record_content
from donod_fast.data.types import (
    IGNORE_INDEX,
    Conversation,
    Message,
    PlainText,
    PromptCompletion,
    Record,
    Sample,
    SampleError,
    Status,
    TokenRow,
)
from donod_fast.errors import InputError, suggest

Columns = Mapping[str, Any]
"""A record's columns without those that are null."""

TURN_COLUMNS = ("messages", "conversations", "conversation")
ALPACA_OUTPUTS = ("output", "response", "completion")
COMPLETIONS = ("completion", "response")
QUESTIONS = (("question", "answer"), ("query", "response"), ("problem", "solution"))
ID_COLUMNS = ("id", "_id", "uid", "uuid", "task_id")

ALPACA_JOIN = "\n\n"
"""Separator between an Alpaca record's instruction and its input in the user turn."""

SHOWN_COLUMNS = 12


def check_format(format: str) -> None:
    """Refuse a format that is not one of ``FORMATS``.

    Raises:
        InputError: names the formats.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r} is not known; known are {', '.join(FORMATS)}{suggest(format, FORMATS)}")


def to_sample(record: Record, format: str = "auto") -> tuple[Sample, str]:
    """Read a record as a sample.

    Args:
        record: the row as stored in its file.
        format: one of ``FORMATS``; ``"auto"`` detects it from the record's columns.

    Returns:
        The sample, and the name of its format (never ``"auto"``).

    Raises:
        SampleError: the row cannot be read as a sample; the detail begins with file and place.
        InputError: ``format`` is not a known format.
    """
    check_format(format)
    try:
        if record.data is None:
            raise SampleError(Status.NOT_PARSABLE, record.problem or "the row cannot be parsed")
        columns = {name: value for name, value in record.data.items() if value is not None}
        name = _detected(columns) if format == "auto" else format
        return _READERS[name](columns), name
    except SampleError as error:
        detail = f"{record.file}, {record.place}: {error.detail}"
        raise SampleError(error.status, _valid_utf8(detail)) from error


def record_id(record: Record) -> str:
    """Name a record: its own id, else 16 hex digits of a hash of its content. Raises nothing.

    The record's own id is the first of ``ID_COLUMNS`` that holds a non-empty string or an integer;
    lone surrogates in it become ``?``.
    """
    data = {} if record.data is None else record.data
    for value in (data.get(column) for column in ID_COLUMNS):
        if isinstance(value, str) and value:
            return value.encode("utf-8", errors="replace").decode("utf-8")
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                return str(value)
            except ValueError:  # more digits than Python prints
                continue
    content = None if record.data is None else record_content(record.data)
    if content is None:
        content = record.raw or f"{record.file}, {record.place}".encode("utf-8", errors="replace")
    return hashlib.sha256(content).hexdigest()[:16]


def carried_values(record: Record, columns: Sequence[str]) -> tuple[str | None, ...]:
    """Columns of a record as text: strings unchanged, anything else as JSON, None if absent or null."""
    data = {} if record.data is None else record.data
    return tuple(_as_text(data.get(column)) for column in columns)


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _valid_utf8(value)
    content = canonical_json(value)
    return None if content is None else content.decode("ascii")


def _valid_utf8(text: str) -> str:
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _detected(columns: Columns) -> str:
    """The format's name from the column names alone; the most specific formats are tested first."""
    if "input_ids" in columns:
        return "tokenized"
    for column in TURN_COLUMNS:
        turns = as_list(columns.get(column))
        if turns is not None:
            first = turns[0] if turns else None
            # Decide by the items, not by the column: real files have either spelling under either name.
            is_sharegpt = isinstance(first, Mapping) and first.get("role") is None and "from" in first
            return "sharegpt" if is_sharegpt else "messages"
    if "prompt" in columns and _first_of(columns, COMPLETIONS):
        return "prompt_completion"
    if "instruction" in columns and _first_of(columns, ALPACA_OUTPUTS):
        return "alpaca"
    if _question_columns(columns):
        return "question_answer"
    if "text" in columns:
        return "text"
    raise SampleError(
        Status.UNKNOWN_FORMAT, f"no known format has the columns {_listed(columns)}; --format can name one"
    )


def _listed(columns: Columns) -> str:
    listed = [f"{shown(name)} ({kind_of(value)})" for name, value in list(columns.items())[:SHOWN_COLUMNS]]
    return ", ".join(listed + ["…"] * (len(columns) > SHOWN_COLUMNS)) or "(none)"


def _first_of(columns: Columns, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in columns), None)


def _wanted(columns: Columns, format: str, names: tuple[str, ...]) -> str:
    """The first of these columns that the record has; an error that names them if it has none."""
    found = _first_of(columns, names)
    if found is None:
        wanted = " or ".join(names)
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"format {format} needs the column {wanted}; this record has {_listed(columns)}",
        )
    return found


def _response(columns: Columns, name: str) -> str:
    text = text_column(columns, name)
    if not text.strip():
        raise SampleError(Status.EMPTY_RESPONSE, f"{name} is empty")
    return text


def _conversation(columns: Columns, format: str, role_key: str) -> Sample:
    column = _wanted(columns, format, TURN_COLUMNS)
    turns = _with_system(columns, parse_turns(columns[column], column, role_key))
    return Conversation(checked_turns(turns), parse_tools(columns.get("tools")))


def _messages(columns: Columns) -> Sample:
    return _conversation(columns, "messages", "role")


def _sharegpt(columns: Columns) -> Sample:
    return _conversation(columns, "sharegpt", "from")


def _with_system(columns: Columns, turns: list[Message]) -> list[Message]:
    """Put the ``system`` column first, unless the turns begin with a system message of their own."""
    if "system" not in columns or (turns and turns[0].role == "system"):
        return turns
    text = text_column(columns, "system")
    return [Message("system", text), *turns] if text.strip() else turns


def _alpaca(columns: Columns) -> Sample:
    _wanted(columns, "alpaca", ("instruction",))
    response = _response(columns, _wanted(columns, "alpaca", ALPACA_OUTPUTS))
    parts = [text_column(columns, "instruction")]
    if "input" in columns:
        parts.append(text_column(columns, "input"))
    user = ALPACA_JOIN.join(part for part in parts if part.strip())
    turns = [*_history(columns), Message("user", user), Message("assistant", response)]
    return Conversation(tuple(_with_system(columns, turns)))


def _history(columns: Columns) -> list[Message]:
    """Earlier turns as [question, answer] pairs (LLaMA-Factory's format)."""
    pairs = as_list(columns.get("history", []))
    if pairs is None:
        raise SampleError(Status.UNKNOWN_FORMAT, f"history is {kind_of(columns['history'])}, not a list")
    turns = []
    for number, item in enumerate(pairs):
        pair = as_list(item)
        if pair is None or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise SampleError(Status.UNKNOWN_FORMAT, f"history item {number} is not a pair of strings")
        turns += [Message("user", pair[0]), Message("assistant", pair[1])]
    return turns


def _prompt_completion(columns: Columns) -> Sample:
    _wanted(columns, "prompt_completion", ("prompt",))
    name = _wanted(columns, "prompt_completion", COMPLETIONS)
    prompt, completion = as_list(columns["prompt"]), as_list(columns[name])
    if prompt is None and completion is None:
        return PromptCompletion(text_column(columns, "prompt"), _response(columns, name))
    if prompt is None or completion is None:
        kinds = f"prompt is {kind_of(columns['prompt'])} and {name} {kind_of(columns[name])}"
        raise SampleError(Status.UNKNOWN_FORMAT, f"{kinds}; both must be strings or lists of messages")
    before = parse_turns(prompt, "prompt", "role")
    after = checked_turns(parse_turns(completion, name, "role"))
    # The prompt is given, so its assistant turns are context, not targets.
    context = [replace(turn, scored=False) if turn.role == "assistant" else turn for turn in before]
    return Conversation((*context, *after), parse_tools(columns.get("tools")))


def _question_columns(columns: Columns) -> tuple[str, str] | None:
    return next((pair for pair in QUESTIONS if pair[0] in columns and pair[1] in columns), None)


def _question_answer(columns: Columns) -> Sample:
    names = _question_columns(columns)
    if names is None:
        wanted = " or ".join(f"{question} and {answer}" for question, answer in QUESTIONS)
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"format question_answer needs the columns {wanted}; this record has {_listed(columns)}",
        )
    question, answer = names
    user = Message("user", text_column(columns, question))
    return Conversation((user, Message("assistant", _response(columns, answer))))


def _text(columns: Columns) -> Sample:
    return PlainText(_response(columns, _wanted(columns, "text", ("text",))))


def _tokenized(columns: Columns) -> Sample:
    _wanted(columns, "tokenized", ("input_ids",))
    ids = _integers(columns, "input_ids")
    labels = _integers(columns, "labels") if "labels" in columns else ids
    attended = _integers(columns, "attention_mask") if "attention_mask" in columns else [1] * len(ids)
    for name, values in (("labels", labels), ("attention_mask", attended)):
        if len(values) != len(ids):
            problem = f"{name} has {len(values)} values where input_ids has {len(ids)}"
            raise SampleError(Status.INVALID_TOKENS, problem)
    _all_valid("input_ids", ids, lambda value: value >= 0)
    _all_valid("labels", labels, lambda value: value >= 0 or value == IGNORE_INDEX)
    _all_valid("attention_mask", attended, lambda value: value in (0, 1))
    if 1 not in attended:
        raise SampleError(Status.EMPTY_RESPONSE, "every token of input_ids is masked out by attention_mask")
    begin = attended.index(1)
    end = len(attended) - attended[::-1].index(1)
    if 0 in attended[begin:end]:
        hole = attended.index(0, begin)
        raise SampleError(Status.INVALID_TOKENS, f"attention_mask is 0 in the middle, at {hole}")
    return TokenRow(tuple(ids[begin:end]), tuple(labels[begin:end]))


def _integers(columns: Columns, name: str) -> list[int]:
    values = as_list(columns[name])
    if values is None:
        raise SampleError(Status.UNKNOWN_FORMAT, f"{name} is {kind_of(columns[name])}, not a list")
    position = next((position for position, value in enumerate(values) if type(value) is not int), None)
    if position is not None:
        problem = f"{name} holds {kind_of(values[position])} at {position}, not an integer"
        raise SampleError(Status.UNKNOWN_FORMAT, problem)
    return values


def _all_valid(name: str, values: list[int], valid: Callable[[int], bool]) -> None:
    invalid = {value for value in set(values) if not valid(value)}  # far fewer than there are tokens
    if invalid:
        position = next(position for position, value in enumerate(values) if value in invalid)
        raise SampleError(Status.INVALID_TOKENS, f"{name} holds {shown(values[position])} at {position}")


_READERS: dict[str, Callable[[Columns], Sample]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "question_answer": _question_answer,
    "text": _text,
    "tokenized": _tokenized,
}

FORMATS = ("auto", *_READERS)
"""Allowed values of ``format``."""
