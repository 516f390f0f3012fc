"""Which column of a table plays which role, where the user says it or a ``dataset_info.json`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from donod_fast.errors import InputError, suggest

_ALIASES = {"query": "input"}


@dataclass(frozen=True, slots=True)
class Tags:
    """How the messages of a conversation are spelled: names of their keys, and of their roles.

    Attributes:
        role: key of the role.
        content: key of the content.
        roles: pairs of a role's name in the data and a name that is known here.
    """

    role: str
    content: str
    roles: tuple[tuple[str, str], ...]

    def plain(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """A message with ``role`` and ``content`` as keys and roles that are known; its other keys stay."""
        plain = {key: value for key, value in item.items() if key not in (self.role, self.content)}
        if item.get(self.role) is not None:
            role = item[self.role]
            plain["role"] = dict(self.roles).get(role, role) if isinstance(role, str) else role
        if self.content in item:
            plain["content"] = item[self.content]
        return plain


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The columns that a record is read from; it has no others.

    ``prompt`` and ``response`` give a conversation of one question (with ``input`` and ``context`` behind the prompt,
    and ``history`` before it) and its answer. ``messages`` is a conversation. ``chosen`` and ``rejected`` are two
    answers to the prompt or the messages. ``text`` is scored whole.

    Attributes:
        prompt, input, context, response, system, history, messages, tools, documents, chosen, rejected, text: the
            column that plays this role, or None.
        media: columns that hold images, audio or video.
        join: text between prompt, input and context.
        tags: the spelling of messages, None for the usual ones.

    Raises:
        InputError: the roles do not make a record.
    """

    prompt: str | None = None
    input: str | None = None
    context: str | None = None
    response: str | None = None
    system: str | None = None
    history: str | None = None
    messages: str | None = None
    tools: str | None = None
    documents: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    text: str | None = None
    media: tuple[str, ...] = ()
    join: str = "\n\n"
    tags: Tags | None = None

    def __post_init__(self) -> None:
        if (self.chosen is None) != (self.rejected is None):
            raise InputError("the columns of a preference are two: map chosen and rejected")
        answers = {name: getattr(self, name) for name in ("response", "messages", "text") if getattr(self, name)}
        if self.chosen is not None:
            answers["chosen"] = self.chosen
            answers.pop("messages", None)  # the question may be a conversation
        if len(answers) != 1:
            given = " and ".join(answers) if answers else "none of them"
            raise InputError(f"map prompt and response, messages, chosen and rejected, or text; got {given}")
        if self.response is not None and self.prompt is None:
            raise InputError("a response needs a prompt: map prompt=COLUMN too")
        if self.messages is not None or self.text is not None:
            idle = [name for name in ("prompt", "input", "context", "history") if getattr(self, name) is not None]
            if idle:
                raise InputError(f"{'messages' if self.text is None else 'text'} excludes {', '.join(idle)}")
        if self.prompt is None and (self.input or self.context or self.history):
            raise InputError("input, context and history stand beside a prompt: map prompt=COLUMN too")

    @property
    def optional(self) -> dict[str, str]:
        """The columns that a record need not have, with their roles."""
        names = ("input", "context", "system", "history", "tools", "documents")
        return {column: name for name in names if (column := getattr(self, name)) is not None}

    @staticmethod
    def parse(text: str) -> ColumnMap:
        """Read ``prompt=question,response=answer``.

        Raises:
            InputError: it is not of this form, or names an unknown role.
        """
        found: dict[str, str] = {}
        for pair in text.split(","):
            name, equals, column = (part.strip() for part in pair.partition("="))
            if not equals or not name or not column:
                raise InputError(f"columns are mapped as role=column, separated by commas; got {pair.strip()!r}")
            if name not in (*ROLES, *_ALIASES):
                raise InputError(
                    f"{name!r} is no role of a column; roles are {', '.join(ROLES)}{suggest(name, (*ROLES, *_ALIASES))}"
                )
            role = _ALIASES.get(name, name)
            if role in found:
                raise InputError(f"the role {role} is mapped twice, to {found[role]!r} and {column!r}")
            found[role] = column
        return ColumnMap(**found)  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """The map as JSON values, without roles that no column plays."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ROLES if getattr(self, name) is not None}
        if self.media:
            found["media"] = list(self.media)
        if self.join != "\n\n":
            found["join"] = self.join
        if self.tags is not None:
            tags = self.tags
            found["tags"] = {"role": tags.role, "content": tags.content, "roles": [list(pair) for pair in tags.roles]}
        return found

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> ColumnMap:
        """Read the output of :meth:`as_json`."""
        found = dict(content)
        if "media" in found:
            found["media"] = tuple(found["media"])
        if "tags" in found:
            tags = found["tags"]
            found["tags"] = Tags(tags["role"], tags["content"], tuple((a, b) for a, b in tags["roles"]))
        return ColumnMap(**found)


ROLES = tuple(field.name for field in fields(ColumnMap) if field.name not in ("media", "join", "tags"))
"""Roles that a column can play."""

__all__ = ["ROLES", "ColumnMap", "Tags"]
