"""Plain types that the packages exchange: record → sample → tokens + mask.

A corpus row starts as a :class:`Record` (reading), becomes a :data:`Sample` (formats) and then a
:class:`TokenizedSample` (masking). Each step that fails yields a :class:`Status` and a
human-readable detail instead, so that every input row ends as exactly one row of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

IGNORE_INDEX = -100
"""The label of a position that is not scored (the PyTorch and Hugging Face convention)."""

HASH_BYTES = 8
"""Bytes of the hash of a record; see :mod:`donod_fast.data.reading.record_hashes`."""


class Status(StrEnum):
    """Outcome of an input row. Only ``SCORED`` rows have numbers in their score columns."""

    SCORED = "scored"
    NOT_PARSABLE = "not_parsable"  # broken JSON, not UTF-8, not an object, a CSV row with the wrong number of fields
    UNKNOWN_FORMAT = "unknown_format"  # no known columns, or values of a wrong type in them
    EMPTY_RESPONSE = "empty_response"  # the response is empty or white space only
    TEMPLATE_FAILED = "template_failed"  # the chat template raised an error on this conversation
    REASONING_DROPPED = "reasoning_dropped"  # the chat template leaves out the reasoning of the last reply
    TOKENIZER_FAILED = "tokenizer_failed"  # the tokenizer raised an error on this text
    INVALID_TOKENS = "invalid_tokens"  # pre-tokenised ids outside the vocabulary, lengths that differ
    PROMPT_NOT_PREFIX = "prompt_not_prefix"  # the prompt's tokens are not a prefix of all tokens
    ALL_MASKED = "all_masked"  # no token is left to score
    ALL_SCORED = "all_scored"  # there is a prompt, but the mask scores it too
    TOO_LONG = "too_long"  # no response token lies within the length limit
    NON_FINITE = "non_finite"  # the model or its scores gave NaN or infinity
    OUT_OF_MEMORY = "out_of_memory"  # did not fit, even alone in its batch
    WORKER_LOST = "worker_lost"  # its process died or hung each time it was scored
    NOT_SEEN = "not_seen"  # a trainer's epoch was watched, and no step of it trained on the row


class SampleError(Exception):
    """A row that cannot be scored. Internal: turned into a status, it never reaches the user."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Record:
    """One input row as stored in its file.

    Attributes:
        row: 0-based position in the whole input, over all files in order.
        file: the file's name as the user gave it (``"-"`` for standard input).
        place: where in the file, for messages: ``"line 17"`` or ``"record 16"``.
        data: the parsed record, or None if it cannot be parsed.
        raw: the record's own text in UTF-8, so that a selection can write it back unchanged; None if it has none
            (Parquet, datasets, rows from Python). JSON Lines: the bytes of the line without its line end. A JSON
            document: the object's own text, on one line. CSV and TSV: the bytes of the row with its line end.
        problem: why ``data`` is None, else None.
        form: what ``raw`` is: ``"json"``, ``"csv"`` or ``"tsv"``.
        hash: the hash of a table's row; empty for other records. Use ``record_hashes.record_hash``.
    """

    row: int
    file: str
    place: str
    data: Mapping[str, Any] | None
    raw: bytes | None = None
    problem: str | None = None
    form: str = "json"
    hash: bytes = b""

    @property
    def json_text(self) -> bytes | None:
        """The record's own JSON text, on one line without its line end; None if it has none."""
        return self.raw if self.form == "json" else None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: its text; the text parts joined where the record has a list of parts.
        tool_calls: calls in the OpenAI form ``{"type": "function", "function": {"name", "arguments"}}`` with
            ``arguments`` an object.
        scored: False for an assistant turn that the record's own flags leave out.
        own: the record's message with all of its keys, as the chat template gets it; None if it is no more than
            role, content and tool calls.
    """

    role: str
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    scored: bool = True
    own: Mapping[str, Any] | None = None

    def for_template(self) -> dict[str, Any]:
        """The message as the chat template gets it."""
        if self.own is not None:
            return dict(self.own)
        plain: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            plain["tool_calls"] = [dict(call) for call in self.tool_calls]
        return plain

    def changed(self, role: str | None = None, content: str | None = None) -> Message:
        """The message with another role or content, in its own keys too; content in parts stays a part."""
        role = self.role if role is None else role
        content = self.content if content is None else content
        parts = self.own is not None and isinstance(self.own.get("content"), list)
        form: Any = [{"type": "text", "text": content}] if parts else content
        own = None if self.own is None else {**self.own, "role": role, "content": form}
        return replace(self, role=role, content=content, own=own)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns to be rendered by a chat template.

    ``tools`` are JSON-schema function descriptions, ``documents`` are texts to answer from, as objects. The
    first ``given`` messages are the prompt of a record that has prompt and completion apart; 0 for any other record.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    documents: tuple[Mapping[str, Any], ...] = ()
    given: int = 0


@dataclass(frozen=True, slots=True)
class PromptCompletion:
    """Plain text in two parts, no template: the completion (and an end token) is scored."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text that is scored whole (language-model style): every token that has a predecessor."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A pre-tokenised row. ``labels`` is aligned with ``input_ids`` (not shifted), -100 unscored."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


Sample = Conversation | PromptCompletion | PlainText | TokenRow


@dataclass(frozen=True, slots=True)
class TokenizedSample:
    """Tokens and the mask of one row, or the status that explains why there are none.

    Attributes:
        row: 0-based position in the input.
        id: the record's own id, else a hash of its content.
        status: ``SCORED`` if the row is ready to be scored, else the reason why not.
        detail: empty, or one line for the user (file, place, cause, remedy).
        input_ids: token ids within the length limit (empty where status is not ``SCORED``).
        scored: one flag per token: True where this token is a target. The first is always False,
            since no position predicts it.
        tokens: number of tokens of the row before any truncation (0 where it was not tokenised). Of a very long text
            only the beginning is tokenised: then it is a lower bound, above the limit, and ``detail`` says so.
        truncated: True where the length limit cut tokens off.
        format: the record format found (``"messages"``, ``"alpaca"``, …) or ``""``.
        mask: how the mask was made: ``"generation"``, ``"prefix"``, ``"text"``, ``"labels"``, ``""``, or the name of a
            mask profile.
        carried: values of the record's columns that are copied into the scores.
        recasts: what was rewritten so that the chat template can express it, by name.
        unused: columns of the record that no score depends on.
        excluded: number of assistant turns that the record's own flags leave out.
        hash: hash of the record as it is stored; empty if it is not known.
    """

    row: int
    id: str
    status: Status
    detail: str = ""
    input_ids: tuple[int, ...] = ()
    scored: tuple[bool, ...] = field(default=(), repr=False)
    tokens: int = 0
    truncated: bool = False
    format: str = ""
    mask: str = ""
    carried: tuple[str | None, ...] = ()
    recasts: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    excluded: int = 0
    hash: bytes = b""

    @property
    def scored_tokens(self) -> int:
        """How many tokens of the row are targets."""
        return sum(self.scored)
