"""The entry of a file of records in LLaMA-Factory's ``dataset_info.json``, and the proof that it reads these records.

LLaMA-Factory 0.9.5 skips a row that it does not understand with a warning, and it sets each column and tag to None that
an entry with ``columns`` or ``tags`` leaves out. So every tag is written, and the file is loaded as LLaMA-Factory loads
it (:mod:`donod_fast.data.factory_files`) and read by its rules (:mod:`donod_fast.data.factory_rows`): each row must
hold the very texts that were scored.

Messages in OpenAI's spelling get ``"formatting": "sharegpt"`` with tags. With ``"openai"``, LLaMA-Factory adds words of
its own ("detailed thinking off") to each system text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from donod_fast.data.column_map import ColumnMap, Tags
from donod_fast.data.conversations import CALL_ROLES, CONTENT_KEYS, ROLES, as_list
from donod_fast.data.factory_files import SUFFIXES, loaded_rows
from donod_fast.data.factory_rows import FactoryRow, UnreadError, read_row
from donod_fast.data.formats import (
    ALPACA_INPUTS,
    ALPACA_OUTPUTS,
    COMPLETIONS,
    MAPPED,
    TURN_COLUMNS,
    question_columns,
    read_record,
)
from donod_fast.data.probes import REASONING_KEYS
from donod_fast.data.prompt_material import CONTEXT, SYSTEM
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import Conversation, PlainText, PromptCompletion, Record, Sample, SampleError, TokenRow
from donod_fast.errors import InputError
from donod_fast.system.wording import plural

_TAG_OF = {
    "user": "user_tag",
    "assistant": "assistant_tag",
    "observation": "observation_tag",
    "function_call": "function_tag",
    "system": "system_tag",
}
_OPENAI = {"user": "user", "assistant": "assistant", "observation": "tool", "function_call": "function_call",
           "system": "system"}  # fmt: skip
_SHAREGPT = {"user": "human", "assistant": "gpt", "observation": "observation", "function_call": "function_call",
             "system": "system"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry without its ``file_name``.

    Attributes:
        content: ``formatting``, ``columns``, ``tags`` and ``ranking``, as far as they are needed.
        notes: what the user should know, in sentences.
    """

    content: dict[str, Any]
    notes: tuple[str, ...] = ()


def refuse_file(out: Path) -> None:
    """Refuse a kind of file that LLaMA-Factory does not read, or reads as other texts. Raises InputError."""
    if out.suffix.lower() in SUFFIXES and out.suffix == out.suffix.lower():
        return
    why = "turns texts such as 12 and NA of a CSV file into numbers and nulls" if out.suffix == ".csv" else (
        "does not read such files"
    )  # fmt: skip
    raise InputError(f"{out}: LLaMA-Factory {why}; end the name in {', '.join(SUFFIXES)}")


def entry_of(file: Path, records: Iterable[Record], again: Iterable[Record], rules: ReadRules) -> Entry:
    """The entry of a file, proved on each of its rows.

    Args:
        file: the file, of a kind in :data:`~donod_fast.data.factory_files.SUFFIXES`.
        records: its records, in order.
        again: the same once more.
        rules: how they were read when they were scored.

    Raises:
        InputError: LLaMA-Factory cannot express the records or would read others; names the row and the reason.
    """
    facts = _Facts(file.name)
    for record in records:
        facts.add(record, rules)
    mapping = facts.mapping(rules)
    entry = _content(mapping, facts)
    joins = _prove(file, loaded_rows(file), again, rules, mapping, entry)
    notes = []
    if joins:
        notes.append(
            f"LLaMA-Factory puts one line end between {mapping.prompt} and {mapping.input or mapping.context}; "
            f"{plural(joins, 'row')} had an empty line there when scored. Score with --dataset-info and --dataset to "
            "have its text"
        )
    if facts.formats == {"prompt_completion"}:
        notes.append("these rows were scored without a chat template; LLaMA-Factory puts them into its own")
    if mapping.text is not None:
        notes.append("these rows are texts without a prompt: train on them with stage: pt")
    if mapping.chosen is not None:
        notes.append("these rows have two answers: train on them with a preference stage, such as stage: dpo")
    return Entry(entry, tuple(notes))


@dataclass
class _Facts:
    """What the records of a file have in common."""

    file: str
    formats: set[str] = field(default_factory=set)
    columns: dict[str, None] = field(default_factory=dict)
    role_keys: dict[str, None] = field(default_factory=dict)
    content_keys: dict[str, None] = field(default_factory=dict)
    roles: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, record: Record, rules: ReadRules) -> None:
        reading = read_record(record, rules)
        place = f"{self.file}, row {record.row}"
        if isinstance(reading.sample, SampleError):
            raise InputError(f"{place}: cannot be read back: {reading.sample.detail}")
        if isinstance(reading.sample, TokenRow):
            raise InputError(f"{place}: is tokens already; write them with --tokenized, for tokenized_path")
        if reading.excluded:
            raise InputError(
                f"{place}: has assistant turns that its own flags leave out, and LLaMA-Factory trains on them; use "
                "--tokenized"
            )
        self.formats.add(reading.format)
        if len(self.formats) > 1:
            raise InputError(
                f"{place}: is of the format {reading.format}, and rows before it are not; an entry of "
                "dataset_info.json has one format, so score and select the formats apart"
            )
        data = record.data or {}
        self.columns.update(dict.fromkeys(name for name, value in data.items() if value is not None))
        column = rules.columns.messages if rules.columns is not None else _turns(data)
        if column is not None and (rules.columns is None or rules.columns.tags is None):
            for message in as_list(data.get(column)) or ():
                if isinstance(message, Mapping):
                    self._message(message)

    def _message(self, message: Mapping[str, Any]) -> None:
        role_key = "role" if message.get("role") is not None else "from"
        self.role_keys[role_key] = None
        content = next((key for key in CONTENT_KEYS if message.get(key) is not None), None)
        if content is not None:
            self.content_keys[content] = None
        spelled = message.get(role_key)
        if isinstance(spelled, str):
            name = spelled.strip().lower()
            role = "function_call" if name in CALL_ROLES else ROLES.get(name, name)
            self.roles.setdefault("observation" if role == "tool" else role, {})[spelled] = None

    def mapping(self, rules: ReadRules) -> ColumnMap:
        """The columns by their roles, as they were read."""
        if not self.formats:
            raise InputError(f"{self.file}: holds no rows")
        (format_name,) = self.formats
        if format_name == MAPPED:
            assert rules.columns is not None
            return rules.columns
        if format_name == "text":
            return ColumnMap(text="text")
        beside: dict[str, Any] = {
            role: self._only(names)
            for role, names in (("system", SYSTEM), ("history", ("history",)), ("tools", ("tools", "functions")),
                                ("documents", ("documents",)))
        }  # fmt: skip
        if format_name in ("messages", "sharegpt"):
            del beside["history"]
            return ColumnMap(messages=self._only(TURN_COLUMNS), **beside)
        if format_name == "alpaca":
            return ColumnMap(
                prompt="instruction", input=self._only(ALPACA_INPUTS), response=self._only(ALPACA_OUTPUTS), **beside
            )
        if format_name == "prompt_completion":
            return ColumnMap(prompt="prompt", input=self._only((CONTEXT,)), response=self._only(COMPLETIONS), **beside)
        if format_name == "question_answer":
            pair = question_columns(self.columns)
            assert pair is not None
            return ColumnMap(prompt=pair[0], input=self._only((CONTEXT,)), response=pair[1], **beside)
        raise InputError(
            f"{self.file}: rows of the format {format_name} have no entry that is certain; score them with --columns "
            "or --dataset-info, which say what each column is"
        )

    def _only(self, names: Iterable[str]) -> str | None:
        return next((name for name in names if name in self.columns), None)

    def tags(self) -> dict[str, str]:
        """All tags, from the spelling of the messages."""
        role_key = self._one(self.role_keys, "keys of the role") or "role"
        content_key = self._one(self.content_keys, "keys of the content") or "content"
        names = dict(_SHAREGPT if role_key == "from" else _OPENAI)
        for role, spelled in self.roles.items():
            names[role] = self._one(spelled, f"names of the role {role}") or names[role]
        return {"role_tag": role_key, "content_tag": content_key, **{_TAG_OF[role]: names[role] for role in _TAG_OF}}

    def _one(self, found: Mapping[str, None], what: str) -> str | None:
        if len(found) > 1:
            raise InputError(
                f"{self.file}: messages have different {what} ({', '.join(map(repr, found))}); an entry of "
                "dataset_info.json has one"
            )
        return next(iter(found), None)


def _turns(data: Mapping[str, Any]) -> str | None:
    return next((name for name in TURN_COLUMNS if as_list(data.get(name)) is not None), None)


def _content(mapping: ColumnMap, facts: _Facts) -> dict[str, Any]:
    """The entry of a map. Columns that no row has are left out: LLaMA-Factory would look for them."""
    for role, value in (("documents", mapping.documents), ("media", mapping.media)):
        if value and (role == "media" or value in facts.columns):
            raise InputError(
                f"{facts.file}: no entry of dataset_info.json can say that {value} holds {role}; write it by hand"
            )
    if mapping.input is not None and mapping.context is not None and mapping.context in facts.columns:
        raise InputError(
            f"{facts.file}: {mapping.input} and {mapping.context} both stand behind the prompt, and LLaMA-Factory "
            "knows one query; use --tokenized"
        )
    roles: dict[str, str | None] = {"system": mapping.system, "tools": mapping.tools}
    if mapping.messages is None:
        roles |= {"query": mapping.input or mapping.context, "history": mapping.history}
    roles = {role: column for role, column in roles.items() if column in facts.columns}
    entry: dict[str, Any] = {"formatting": "alpaca" if mapping.messages is None else "sharegpt"}
    if mapping.chosen is not None:
        entry["ranking"] = True
        roles = {"chosen": mapping.chosen, "rejected": mapping.rejected, **roles}
    if mapping.messages is not None:
        entry["columns"] = {"messages": mapping.messages, **roles}
        entry["tags"] = facts.tags() if mapping.tags is None else _tags(mapping.tags)
    elif mapping.text is not None:
        entry["columns"] = {"prompt": mapping.text}
    else:
        answer = {} if mapping.response is None else {"response": mapping.response}
        entry["columns"] = {"prompt": mapping.prompt, **answer, **roles}
    return entry


def _tags(tags: Tags) -> dict[str, str]:
    names = {role: spelled for spelled, role in tags.roles}
    return {
        "role_tag": tags.role,
        "content_tag": tags.content,
        **{tag: names.get(role, role) for role, tag in _TAG_OF.items()},
    }


def _prove(
    file: Path,
    rows: Iterable[Mapping[str, Any]],
    records: Iterable[Record],
    rules: ReadRules,
    mapping: ColumnMap,
    entry: Mapping[str, Any],
) -> int:
    """Compare each row with the sample that was scored; return how many differ in what joins prompt and query."""
    joins = count = 0
    wanted: Iterator[Record] = iter(records)
    for count, row in enumerate(rows, 1):
        record = next(wanted, None)
        if record is None:
            raise InputError(f"{file.name}: LLaMA-Factory loads more rows than it has records")
        place = f"{file.name}, row {count - 1}"
        sample = read_record(record, rules).sample
        try:
            found = read_row(row, entry, preference=rules.preference)
            joins += _refuse_other(found, sample, mapping)
        except UnreadError as error:
            raise InputError(f"{place}: LLaMA-Factory would not train on what was scored: {error}") from error
    if next(wanted, None) is not None:
        raise InputError(
            f"{file.name}: LLaMA-Factory loads {count} rows of it, and there are more; write a .parquet file"
        )
    return joins


def _refuse_other(found: FactoryRow, sample: Sample | SampleError, mapping: ColumnMap) -> bool:
    """Refuse a row that reads otherwise; whether only the text between prompt and query differs."""
    match sample:
        case Conversation(messages, tools, documents):
            if documents:
                raise UnreadError("it knows no documents")
            for message in messages:
                own = message.own or {}
                if key := next((key for key in (*REASONING_KEYS, "name") if own.get(key)), None):
                    raise UnreadError(f"a message of {message.role} has {key!r}, which it leaves out")
            has_system = bool(messages) and messages[0].role == "system"
            system = messages[0].content if has_system else ""
            turns = [(m.role, m.content, m.tool_calls) for m in messages[has_system:]]
            if (found.system or "") != system:
                raise UnreadError("it reads another system text")
            if list(tools) != found.tool_list():
                raise UnreadError("it reads other tools")
        case PromptCompletion(prompt, completion):
            turns = [("user", prompt, ()), ("assistant", completion, ())]
        case PlainText(text):
            turns = [("user", text, ())]
        case _:
            raise UnreadError("it has no reader for such rows")
    if len(turns) != len(found.turns):
        raise UnreadError(f"it reads {len(found.turns)} turns of {len(turns)}")
    joined = False
    for number, ((role, content, calls), turn) in enumerate(zip(turns, found.turns, strict=True)):
        if turn.is_same(role, content, calls):
            continue
        asked = [part for part in found.question if part.strip()]
        whole = len(asked) == len(found.question)  # it joins blank parts, too
        if role == "user" and turn.role == "user" and asked and whole and content == mapping.join.join(asked):
            joined = True
            continue
        raise UnreadError(f"turn {number} ({role}) has another text or role there")
    return joined


__all__ = ["Entry", "entry_of", "refuse_file"]
