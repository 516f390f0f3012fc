"""Plain data as bytes, and nothing else: the only thing that crosses between a program and its judge.

A value is one tag byte and a body. The decoder makes objects of exactly the types below, never of a class that the
sender has: an object equal to everything, an int that lies about itself or a list with its own ``__eq__`` arrives as
the builtin value under it or, where there is none, as a :class:`Reference`, a number that only its sender can do
something with. No pickle, no names that are looked up, no code.

This module and its two halves run inside the sandbox: the standard library only, and of that what starts quickly.
"""

from __future__ import annotations

import builtins

MAX_DEPTH = 150
"""Containers within containers: what both sides can take apart within Python's own recursion limit."""

RUN = 8
"""From so many items of one type in a row on they are sent as one block: a list of ten million takes no minute."""
RUN_CODES = {int: "q", float: "d"}
BUILTIN_TYPES = {
    one.__name__: one
    for one in vars(builtins).values()
    if isinstance(one, type) and one.__module__ == "builtins" and not issubclass(one, BaseException)
}


class Refused(Exception):
    """A value that cannot be sent, or bytes that are no value; the message says why."""


class Reference:
    """Something that stays with its sender: an object of a class of its own, a function, an iterator.

    Attributes:
        number: what its owner knows it by.
        kind: name of its type there, for messages only; "" where the receiver of the bytes is its owner.
    """

    __slots__ = ("kind", "number")

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
