"""Encode plain data as bytes: the only data that crosses between a program and its judge.

A value is one tag byte and a body. The decoder creates objects of exactly the types below, never of the sender's
classes: an object equal to everything, an int subclass with false methods or a list with its own ``__eq__`` arrives
as its underlying builtin value or, if there is none, as a :class:`Reference`, a number that has a meaning only for its
sender. There is no pickle, no lookup of names, and no code.

This module and its two halves run inside the sandbox: they import only standard modules that load quickly.
"""

from __future__ import annotations

import builtins

MAX_DEPTH = 150
"""Maximum nesting of containers that both sides can handle within Python's own recursion limit."""

MAX_BYTES = 64 << 20
"""Maximum bytes of one answer."""

MAX_MESSAGE = 300
"""Maximum characters of an exception's message that cross; no more is accepted either."""

RUN = 8
"""Minimum run of items of one type that is sent as one block, so that a list of ten million items is fast."""
RUN_CODES = {int: "q", float: "d"}
BUILTIN_TYPES = {
    one.__name__: one
    for one in vars(builtins).values()
    if isinstance(one, type) and one.__module__ == "builtins" and not issubclass(one, BaseException)
}


class Refused(Exception):
    """A value cannot be sent, or bytes are not a value; the message says why."""


class Reference:
    """An object that stays with its sender: an instance of its own class, a function, an iterator.

    Attributes:
        number: its number at its owner.
        kind: name of its type there, for messages only; "" if the receiver of the bytes is its owner.
    """

    __slots__ = ("kind", "number")

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
