"""What a chat template costs while it renders: steps and characters, counted against a budget.

The environment of :mod:`donod_fast.data.bounded_jinja` charges here for everything that it does. A filter, a method or
a format that could multiply a text is estimated before it is called.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from donod_fast.system.limits import (
    CHARACTERS_PER_CHARACTER,
    LENGTH_PER_CHARACTER,
    RENDER_CHARACTERS,
    RENDER_STEPS,
    STEPS_PER_MESSAGE,
)

_MOST_NUMBER = 1_000_000
"""Largest number that a filter, a method or a format may be given: each of them is a length, a width or a count."""

_MOST_BITS = 1 << 16
"""Bits of the largest integer that a template may compute."""

_NUMBERS = re.compile(r"\d+")
STEP_CHARACTERS = 16  # what a call costs beside the text that it makes
_ITEM_CHARACTERS = 8  # what an item of a list costs beside its own text
_DEEPEST = 100


class TooCostlyError(Exception):
    """A template does more than it may; the message says what, and names the limit."""


class _Meter(threading.local):
    """What is left to the template that this thread renders."""

    steps = RENDER_STEPS
    characters = RENDER_CHARACTERS
    most = RENDER_CHARACTERS
    further: Callable[[], int] | None = None


_meter = _Meter()


@contextmanager
def metered(messages: int, characters: int, further: Callable[[], int] | None = None) -> Iterator[None]:
    """Give the template that this thread renders inside the ``with`` block its budget.

    Args:
        messages: number of messages that it writes.
        characters: characters of their texts.
        further: counts the characters of what else is written, such as tools; called only if the rest is not enough.
    """
    _meter.steps = RENDER_STEPS + STEPS_PER_MESSAGE * messages
    _meter.most = RENDER_CHARACTERS + LENGTH_PER_CHARACTER * characters
    _meter.characters = _meter.most + CHARACTERS_PER_CHARACTER * characters
    _meter.further = further
    try:
        yield
    finally:
        _meter.further = None
        _meter.steps, _meter.characters, _meter.most = RENDER_STEPS, RENDER_CHARACTERS, RENDER_CHARACTERS


def count_step() -> None:
    """Count a round of a loop, or a call of a macro.

    Raises:
        TooCostlyError: it is one too many.
    """
    left = _meter.steps - 1
    if left < 0:
        raise TooCostlyError(f"it takes more than {RENDER_STEPS:,} rounds of loops and calls")
    _meter.steps = left


def checked_filter(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The value that a filter gets, after its cost was estimated."""
    check_numbers(name, args, kwargs)
    given = (*args, *kwargs.values())
    match name:
        case "join":
            value = value if isinstance(value, str | list | tuple) else listed(value)
            charge(weight(value) + len(value) * max(map(weight, given), default=0))
        case "replace":
            charge(weight(value))
            _check_replace(str(value), given)
        case "format":
            check_format(str(value), given)
        case "indent":
            text = str(value)
            widths = [len(one) if isinstance(one, str) else one for one in given if isinstance(one, str | int)]
            charge((text.count("\n") + 1) * max([4, *widths]) + len(text))
        case "batch" | "slice" | "center" | "wordwrap" | "truncate":
            charge(sum(one for one in given if isinstance(one, int)))
            charge(weight(value))
        case "sum":
            if any(not isinstance(one, int | float | str) for one in given):
                raise TooCostlyError("the filter sum adds numbers only")
            value = value if isinstance(value, list | tuple) else listed(value)
            charge(len(value))
        case "tojson":
            spaces = [len(one) if isinstance(one, str) else one for one in given if isinstance(one, str | int)]
            charge(weight(value) * (1 + max([0, *spaces])))
        case "sort" | "unique" | "groupby" | "min" | "max" | "dictsort":
            value = value if isinstance(value, str | list | tuple | dict) else listed(value)
            charge(weight(value))
        case "pprint" | "string" | "escape" | "e" | "forceescape" | "safe" | "urlize" | "xmlattr" | "striptags":
            charge(weight(value))
        case _:
            charge(size_of(value))
    return value


def checked_method(name: str, owner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a method of a text, a list, a mapping or a number, after its cost was estimated."""
    check_numbers(name, args, kwargs)
    given = (*args, *kwargs.values())
    charge(size_of(owner))
    match name:
        case "join" if args:
            items = args[0] if isinstance(args[0], str | bytes | list | tuple | dict) else listed(args[0])
            charge(weight(items) + len(items) * len(owner))
            return (items, *args[1:])
        case "replace":
            _check_replace(owner, given)
        case "format" | "format_map":
            check_format(owner, given, "{")
        case "count" | "index" if isinstance(owner, list | tuple):
            charge(weight(owner))
        case "expandtabs":
            tab = "\t" if isinstance(owner, str) else b"\t"
            charge(owner.count(tab) * max([8, *(one for one in given if isinstance(one, int))]))
        case "translate":
            table = given[0] if given else None
            longest = max(map(weight, table.values()), default=1) if isinstance(table, Mapping) else 1
            charge(len(owner) * longest)
        case "ljust" | "rjust" | "center" | "zfill" | "to_bytes":
            charge(sum(one for one in given if isinstance(one, int)))
    return args


def charge(characters: int) -> None:
    """Charge for characters that are made.

    Raises:
        TooCostlyError: they are too many.
    """
    # What a thread owns is slow to look up: this is called for every step of a template.
    if characters > RENDER_CHARACTERS and characters > most_characters():
        raise too_long("a text that it makes")
    left = _meter.characters - characters
    if left < 0:
        most_characters()
        left = _meter.characters - characters
    if left < 0:
        raise too_long("the texts that it makes on the way")
    _meter.characters = left


def most_characters() -> int:
    """Characters that the template may write, with those of what is counted only when they are needed."""
    if _meter.further is not None:
        characters, _meter.further = _meter.further(), None
        _meter.most += LENGTH_PER_CHARACTER * characters
        _meter.characters += (LENGTH_PER_CHARACTER + CHARACTERS_PER_CHARACTER) * characters
    return _meter.most


def too_long(what: str) -> TooCostlyError:
    """The error about a text that is too long."""
    return TooCostlyError(f"{what} would have more than {_meter.most:,} characters")


def size_of(value: Any) -> int:
    """Characters of a text, items of a list; 0 for other values."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 0


def weight(value: Any, depth: int = 0) -> int:
    """Characters that a value has as text, about; stops at the limit."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return 8 if value is True or value is False else value.bit_length() // 3 + 1
    if depth > _DEEPEST:
        raise TooCostlyError(f"a value that it writes is nested more than {_DEEPEST} deep")
    if isinstance(value, list | tuple | set | frozenset):
        items: Iterable[Any] = value
    elif isinstance(value, dict):
        items = chain(value, value.values())
    elif isinstance(value, Mapping):
        items = chain(value.keys(), value.values())
    else:
        return 8
    total, most = 2, RENDER_CHARACTERS
    for item in items:
        total += (len(item) if type(item) is str else weight(item, depth + 1)) + _ITEM_CHARACTERS
        if total > most and total > (most := most_characters()):
            raise too_long("a value that it writes")
    return total


def listed(items: Any) -> list[Any]:
    found = []
    for item in items:
        charge(1)
        found.append(item)
    return found


def check_numbers(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse numbers that no length, width or count needs, and charge for lists."""
    for one in (*args, *kwargs.values()):
        if isinstance(one, int) and abs(one) > _MOST_NUMBER:
            raise TooCostlyError(
                f"it gives {name.removeprefix('safe_') or 'a function'} a number above {_MOST_NUMBER:,}"
            )
        if isinstance(one, list | tuple | dict):
            charge(weight(one))


def check_product(left: Any, right: Any) -> None:
    """Charge for a product."""
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length())
        return
    for text, times in ((left, right), (right, left)):
        if isinstance(text, str | bytes | list | tuple) and isinstance(times, int):
            charge(len(text) * max(times, 0))


def check_bits(bits: int) -> None:
    """Refuse integers that take too many bits."""
    if bits > _MOST_BITS:
        raise TooCostlyError(f"it computes a number of more than {_MOST_BITS:,} bits")


def _check_replace(text: Any, given: tuple[Any, ...]) -> None:
    if len(given) >= 2:
        old, new = (one if isinstance(one, str | bytes) else str(one) for one in given[:2])
        texts: Any = text
        times = len(text) + 1 if not old else texts.count(old) if type(old) is type(text) else 0
        charge(len(text) + times * len(new))


def check_format(pattern: Any, given: Any, mark: str = "%") -> None:
    """Charge for a format, with its widths."""
    values = given if isinstance(given, tuple | list) else (given,)
    values = [value for one in values for value in (one.values() if isinstance(one, Mapping) else (one,))]
    if isinstance(pattern, bytes):
        pattern = pattern.decode("latin-1")
    widest = max((int(found[:12]) for found in _NUMBERS.findall(pattern)), default=0)
    # A star takes its width from the values, and so does {:{}}.
    takes = "*" in pattern or (mark == "{" and "{" in pattern.partition(":")[2])
    if takes:
        widest = max([widest, *(abs(one) for one in values if isinstance(one, int))])
    if widest > _MOST_NUMBER:
        raise TooCostlyError(f"it formats with a width above {_MOST_NUMBER:,}")
    longest = max(map(weight, values), default=0)
    charge(len(pattern) + pattern.count(mark) * (longest + widest))


__all__ = [
    "STEP_CHARACTERS",
    "TooCostlyError",
    "charge",
    "check_bits",
    "check_format",
    "check_numbers",
    "check_product",
    "checked_filter",
    "checked_method",
    "count_step",
    "metered",
    "most_characters",
    "size_of",
    "too_long",
    "weight",
]
