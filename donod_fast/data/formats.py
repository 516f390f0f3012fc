"""Convert a record into a sample: detect the record's format and read its content.

The format is detected for each record from its columns; a column whose value is null counts as absent. For any record
:func:`read_record` returns a sample or the reason why there is none, and names the columns that it does not use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.data.column_map import ColumnMap
from donod_fast.data.conversations import as_list, kind_of, shown, text_column
from donod_fast.data.media import check_columns
from donod_fast.data.preferences import Answers, check_choice, find_answers, read_preference
from donod_fast.data.prompt_material import CONTEXT, Material, TurnReader, answer, role_key_of
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.reading.canonical import canonical_json, record_content
from donod_fast.data.record_columns import Columns, first_of
from donod_fast.data.token_rows import read_tokens
from donod_fast.data.trained_turns import excluding_flag
from donod_fast.data.types import (
    Conversation,
    Message,
    PlainText,
    PromptCompletion,
    Record,
    Sample,
    SampleError,
    Status,
)
from donod_fast.errors import InputError, suggest

TURN_COLUMNS = ("messages", "conversations", "conversation")
ALPACA_OUTPUTS = ("output", "response", "completion")
ALPACA_INPUTS = ("input", "query", CONTEXT)
COMPLETIONS = ("completion", "response")
QUESTIONS = (("question", "answer"), ("query", "response"), ("problem", "solution"), ("question", "response"))
ID_COLUMNS = ("id", "_id", "uid", "uuid", "task_id")

MAPPED = "columns"
"""Name of the format of records whose columns are mapped."""

SHOWN_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Reading:
    """What a record holds for the model.

    Attributes:
        sample: the sample, or why there is none; the detail begins with file and place.
        format: the name of its format (never ``"auto"``), "" if there is no sample.
        unused: columns that the sample does not depend on, and what was left out of the others.
        excluded: number of assistant turns that the record's own flags leave out.
    """

    sample: Sample | SampleError
    format: str = ""
    unused: tuple[str, ...] = ()
    excluded: int = 0


def check_format(format: str) -> None:
    """Refuse a format that is not one of ``FORMATS``.

    Raises:
        InputError: names the formats.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r} is not known; known are {', '.join(FORMATS)}{suggest(format, FORMATS)}")


def to_sample(record: Record, format: str = "auto", rules: ReadRules | None = None) -> tuple[Sample, str]:
    """Read a record as a sample.

    Args:
        record: the row as stored in its file.
        format: one of ``FORMATS``; ``"auto"`` detects it from the record's columns.
        rules: all rules of reading, instead of ``format``.

    Returns:
        The sample, and the name of its format (never ``"auto"``).

    Raises:
        SampleError: the row cannot be read as a sample; the detail begins with file and place.
        InputError: ``format`` is not a known format.
    """
    reading = read_record(record, rules or ReadRules(format))
    if isinstance(reading.sample, SampleError):
        raise reading.sample
    return reading.sample, reading.format


def read_record(record: Record, rules: ReadRules) -> Reading:
    """Read a record by these rules.

    Raises:
        InputError: the rules name a format that is not known.
    """
    check_format(rules.format)
    columns = Columns(record.data or {})
    try:
        if record.data is None:
            raise SampleError(Status.NOT_PARSABLE, record.problem or "the row cannot be parsed")
        sample, name = _read(columns, rules)
    except SampleError as error:
        detail = f"{record.file}, {record.place}: {error.detail}"
        excluded = columns.excluded if error.status is Status.ALL_MASKED else 0
        return Reading(SampleError(error.status, _valid_utf8(detail)), excluded=excluded)
    return Reading(sample, name, columns.unused, columns.excluded)


def _read(columns: Columns, rules: ReadRules) -> tuple[Sample, str]:
    reader = TurnReader(rules.text_only, None if rules.columns is None else rules.columns.tags)
    media: tuple[str, ...] = ()
    if rules.columns is not None:
        sample, name, media = _mapped(columns, rules.columns, rules, reader), MAPPED, rules.columns.media
    else:
        name = _detected(columns) if rules.format == "auto" else rules.format
        sample = _READERS[name](columns, rules, reader)
    check_columns(columns, media, text_only=rules.text_only)
    flag = excluding_flag(columns)
    if flag is not None:
        turns = sample.messages if isinstance(sample, Conversation) else ()
        columns.excluded += sum(turn.role == "assistant" and turn.scored for turn in turns) or 1
        raise SampleError(Status.ALL_MASKED, f"the record leaves itself out: {flag}")
    return sample, name


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
    turn_column = _turn_column(columns)
    if find_answers(columns, turn_column) is not None:
        return "preference"
    if turn_column is not None:
        # Decide by the items, not by the column: real files have either spelling under either name.
        return "sharegpt" if role_key_of(columns.peek(turn_column)) == "from" else "messages"
    if "prompt" in columns and first_of(columns, COMPLETIONS):
        return "prompt_completion"
    if "instruction" in columns and first_of(columns, ALPACA_OUTPUTS):
        return "alpaca"
    if question_columns(columns):
        return "question_answer"
    if "text" in columns:
        return "text"
    raise SampleError(
        Status.UNKNOWN_FORMAT,
        f"no known format has the columns {_listed(columns)}; --format can name one, and --columns the columns to read",
    )


def _turn_column(columns: Columns) -> str | None:
    return next((name for name in TURN_COLUMNS if as_list(columns.peek(name)) is not None), None)


def question_columns(columns: Mapping[str, Any]) -> tuple[str, str] | None:
    """The question and the answer of a record, by their usual names; None if it has no such pair."""
    return next((pair for pair in QUESTIONS if pair[0] in columns and pair[1] in columns), None)


def _listed(columns: Columns) -> str:
    listed = [f"{shown(name)} ({kind_of(columns.peek(name))})" for name in list(columns)[:SHOWN_COLUMNS]]
    return ", ".join(listed + ["…"] * (len(columns) > SHOWN_COLUMNS)) or "(none)"


def _wanted(columns: Columns, format: str, names: tuple[str, ...]) -> str:
    """The first of these columns that the record has; an error that names them if it has none."""
    found = first_of(columns, names)
    if found is None:
        wanted = " or ".join(names)
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"format {format} needs the column {wanted}; this record has {_listed(columns)}",
        )
    return found


def _messages(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    turns = reader.read(columns, _wanted(columns, "messages", TURN_COLUMNS), "role")
    return Material().conversation(columns, turns)


def _sharegpt(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    turns = reader.read(columns, _wanted(columns, "sharegpt", TURN_COLUMNS), "from")
    return Material().conversation(columns, turns)


def _alpaca(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    question = _wanted(columns, "alpaca", ("instruction",))
    name = _wanted(columns, "alpaca", ALPACA_OUTPUTS)
    return _pair(columns, Material((question, *ALPACA_INPUTS)), name)


def _pair(columns: Columns, material: Material, name: str) -> Sample:
    """A conversation of one question and its answer, after earlier turns."""
    reply = Message("assistant", answer(columns, name))
    history = material.history_turns(columns)
    return material.conversation(columns, [*history, material.user_turn(columns), reply])


def _prompt_completion(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    prompt = _wanted(columns, "prompt_completion", ("prompt",))
    name = _wanted(columns, "prompt_completion", COMPLETIONS)
    material = Material((prompt, CONTEXT))
    if as_list(columns.peek(prompt)) is not None or as_list(columns.peek(name)) is not None:
        return _message_lists(columns, material, name, reader)
    if material.is_beside(columns):
        return _pair(columns, material, name)
    return PromptCompletion(text_column(columns, prompt), answer(columns, name))


def _message_lists(columns: Columns, material: Material, name: str, reader: TurnReader) -> Sample:
    """A conversation whose first messages are given and whose last ones are the answer."""
    prompt = material.prompts[0]
    if as_list(columns.peek(prompt)) is None or as_list(columns.peek(name)) is None:
        kinds = f"{prompt} is {kind_of(columns[prompt])} and {name} {kind_of(columns[name])}"
        raise SampleError(Status.UNKNOWN_FORMAT, f"{kinds}; both must be strings or lists of messages")
    before = reader.read(columns, prompt, "role")
    return material.conversation(columns, reader.read(columns, name, "role"), before)


def _question_answer(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    names = question_columns(columns)
    if names is None:
        wanted = " or ".join(f"{question} and {answer}" for question, answer in QUESTIONS)
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"format question_answer needs the columns {wanted}; this record has {_listed(columns)}",
        )
    return _pair(columns, Material((names[0], CONTEXT)), names[1])


def _preference(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    turn_column = _turn_column(columns)
    answers = find_answers(columns, turn_column)
    if answers is None:
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"format preference needs the columns chosen and rejected; this record has {_listed(columns)}",
        )
    preference = check_choice(answers, rules.preference)
    question = first_of(columns, ("prompt", "instruction", *(name for name, _ in QUESTIONS)))
    further = ALPACA_INPUTS if question == "instruction" else (CONTEXT,)
    material = Material(() if question is None or turn_column is not None else (question, *further))
    return read_preference(columns, answers, preference, material, turn_column, reader)


def _mapped(columns: Columns, map: ColumnMap, rules: ReadRules, reader: TurnReader) -> Sample:
    """A record by the columns that are mapped; those of its prompt and its answer must be there."""
    for role in ("prompt", "response", "messages", "chosen", "rejected", "text"):
        column = getattr(map, role)
        if column is not None and column not in columns:
            raise SampleError(
                Status.UNKNOWN_FORMAT,
                f"the column {shown(column)} is mapped to {role}, but this record has {_listed(columns)}",
            )
    if map.text is not None:
        return PlainText(answer(columns, map.text))
    material = Material(
        _names(map.prompt, map.input, map.context),
        **{role: _names(getattr(map, role)) for role in ("system", "history", "tools", "documents")},
        join=map.join,
    )
    if map.chosen is not None and map.rejected is not None:
        answers = Answers(map.chosen, map.rejected)
        preference = check_choice(answers, rules.preference)
        return read_preference(columns, answers, preference, material, map.messages, reader)
    if map.messages is not None:
        return material.conversation(columns, reader.read(columns, map.messages))
    assert map.response is not None, "a map has an answer"
    if as_list(columns.peek(material.prompts[0])) is not None:
        return _message_lists(columns, material, map.response, reader)
    return _pair(columns, material, map.response)


def _names(*columns: str | None) -> tuple[str, ...]:
    return tuple(column for column in columns if column is not None)


def _text(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    return PlainText(answer(columns, _wanted(columns, "text", ("text",))))


def _tokenized(columns: Columns, rules: ReadRules, reader: TurnReader) -> Sample:
    _wanted(columns, "tokenized", ("input_ids",))
    return read_tokens(columns)


_READERS: dict[str, Callable[[Columns, ReadRules, TurnReader], Sample]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "question_answer": _question_answer,
    "preference": _preference,
    "text": _text,
    "tokenized": _tokenized,
}

FORMATS = ("auto", *_READERS)
"""Allowed values of ``format``."""
