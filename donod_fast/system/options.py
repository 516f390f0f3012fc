"""Options declared once, as fields of frozen dataclasses.

A field made by :func:`option` carries its help text and its limits. The command line, configuration files and the
manifest of a scores folder are made from these fields, and Python callers use the dataclasses directly. This module and
the dataclasses that use it import neither torch nor the command-line library, so that help texts are shown at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from donod_fast.confidential import hide
from donod_fast.errors import InputError, suggest

_T = TypeVar("_T")
_KEY = "option"
_UNSET: Any = dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class Option:
    """How a field appears on the command line.

    Attributes:
        help: one sentence for the user.
        panel: heading that the option stands under in the help.
        name: name of the option where it is not the field's, in Python spelling (``max_length``).
        short: a one-letter form such as ``-q``.
        is_argument: whether it is positional.
        minimum: the smallest number accepted, None for no limit.
        choices: the accepted values, empty for any.
        completions: values that the shell completes although others are accepted as well.
        shown: what the help shows as the default, None for the default itself.
        text: default as typed on the command line (``...`` if there is none), if ``parse`` converts it to the value.
        parse: makes the field's value of what was typed, which has the type of ``text``; None where they are the same.
        type: type of what is typed, where Python callers may give further types; None for the field's type.
    """

    help: str
    panel: str
    name: str | None = None
    short: str | None = None
    is_argument: bool = False
    minimum: float | None = None
    choices: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    shown: str | None = None
    text: Any = ...
    parse: Callable[[Any], Any] | None = None
    type: Any = None


@dataclass(frozen=True, slots=True)
class OptionField:
    """An option of a dataclass, nested dataclasses included.

    Attributes:
        name: name of the option, in Python spelling.
        type: type of what is typed.
        default: default as it is typed; ``dataclasses.MISSING`` if the option is required.
        option: the rest.
    """

    name: str
    type: Any
    default: Any
    option: Option


def parse_names(text: str) -> tuple[str, ...]:
    """Read names separated by commas; empty ones count for nothing."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def option(default: Any = _UNSET, *, help: str, panel: str, **more: Any) -> Any:
    """A dataclass field that is an option as well. ``more`` are further attributes of :class:`Option`.

    With ``parse`` and ``text`` the field's default is ``parse(text)``.
    """
    about = Option(help, panel, **more)
    parse, text = about.parse, about.text
    if parse is not None and text is not ...:
        default = text if text is None else parse(text)
        if type(default).__hash__ is None:  # a dict, for example: dataclasses want a new one for each instance
            return dataclasses.field(default_factory=lambda: parse(text), metadata={_KEY: about})
    return dataclasses.field(default=default, metadata={_KEY: about})


def python_only(make: Callable[[], Any]) -> Any:
    """A dataclass field of settings that are options elsewhere, but not here. ``make`` makes its default."""
    return dataclasses.field(default_factory=make, metadata={_KEY: None})


def is_settings(kind: Any) -> bool:
    """Whether a type is a dataclass that has options."""
    return dataclasses.is_dataclass(kind) and isinstance(kind, type) and any(True for _ in options_of(kind))


def options_of(kind: type) -> Iterator[OptionField]:
    """The options of a dataclass in the order of its fields; nested dataclasses are replaced by their options."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        about = field.metadata.get(_KEY)
        if about is None:
            if _is_nested(field, hints[field.name]):
                yield from options_of(hints[field.name])
            continue
        is_parsed = about.parse is not None
        typed = _typed(about) if is_parsed else about.type or hints[field.name]
        default = about.text if is_parsed and about.text is not ... else field.default
        yield OptionField(about.name or field.name, typed, default, about)


def _is_nested(field: dataclasses.Field[Any], kind: Any) -> bool:
    """Whether the options of a field's dataclass are options of the outer one."""
    return _KEY not in field.metadata and dataclasses.is_dataclass(kind)


def _typed(about: Option) -> Any:
    """Type of what is typed for an option that is parsed."""
    if about.text is ...:
        return str
    return tuple[str, ...] if isinstance(about.text, list) else type(about.text)


def build(kind: type[_T], typed: Mapping[str, Any]) -> _T:
    """Make a dataclass from what was typed, by the names of the options. A name that is absent keeps its default.

    Raises:
        InputError: a value is refused by the dataclass or by the option's parser.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        about = field.metadata.get(_KEY)
        if about is None:
            if _is_nested(field, hints[field.name]):
                values[field.name] = build(hints[field.name], typed)
            continue
        name = about.name or field.name
        if name not in typed:
            continue
        value = typed[name]
        if about.parse is not None:
            if value is None:
                continue
            value = about.parse(value)
        elif isinstance(value, list):
            value = tuple(value)
        elif value is None and isinstance(field.default, tuple):
            value = field.default
        elif isinstance(value, str) and Path in (hints[field.name], *get_args(hints[field.name])):
            value = Path(value)
        values[field.name] = value
    return kind(**values)


def as_options(settings: Any) -> dict[str, Any]:
    """The options of a dataclass by name, in JSON types. Options that are parsed have no such record."""
    record: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        about, value = field.metadata.get(_KEY), getattr(settings, field.name)
        if about is None:
            if _is_nested(field, value):
                record |= as_options(value)
            continue
        if about.parse is not None:
            raise TypeError(f"{type(settings).__name__}.{field.name} is parsed, and cannot be recorded")
        record[about.name or field.name] = _json(value)
    return record


def _json(value: Any) -> Any:
    match value:
        case str():
            return hide(value)
        case tuple() | list():
            return [_json(one) for one in value]
        case Path():
            return str(value)
        case Mapping():
            return {str(key): _json(one) for key, one in value.items()}
    return value


def check_choices(settings: Any) -> None:
    """Compare each field that has ``choices`` with them.

    Raises:
        InputError: a value is not among them; the message names the field, and the nearest choice.
    """
    for field in dataclasses.fields(settings):
        about = field.metadata.get(_KEY)
        value = getattr(settings, field.name)
        if about is None or not about.choices or (value is None and field.default is None):
            continue
        if not isinstance(value, Mapping) and value not in about.choices:
            name = field.name.replace("_", " ")
            raise InputError(
                f"{name} must be one of {', '.join(about.choices)}, got {value!r}{suggest(value, about.choices)}"
            )


__all__ = [
    "Option",
    "OptionField",
    "as_options",
    "build",
    "check_choices",
    "is_settings",
    "option",
    "options_of",
    "parse_names",
    "python_only",
]
