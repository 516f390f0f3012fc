"""Messages on a sandboxed process's channel, in frames of at most ``PART`` bytes.

A frame is four bytes of length and that many bytes. A frame of exactly ``PART`` bytes means that the message continues
in the next frame; a shorter frame ends it. So a relay never holds more than one part of a message.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH = struct.Struct(">I")

CHANNEL = "DONOD_CHANNEL"
"""The environment variable with the descriptor's number (``donod_fast.evaluation.sandbox`` sets it)."""

PART = 1 << 18
"""Bytes of a frame that does not end its message."""


def channel() -> int:
    """The descriptor of this process's channel."""
    return int(os.environ[CHANNEL])


def send(descriptor: int, message: bytes | bytearray, kind: bytes = b"") -> None:
    """Write one message; a ``kind`` is written before it, as a message of its own.

    Raises:
        OSError: the other side is closed.
    """
    head = _LENGTH.pack(len(kind)) + kind if kind else b""
    for part in parts(message):
        _write(descriptor, head + _LENGTH.pack(len(part)) + part)
        head = b""


def parts(message: bytes | bytearray) -> Iterator[bytes]:
    """The content of a message's frames."""
    view = memoryview(message)
    for at in range(0, len(view) + 1, PART):
        yield bytes(view[at : at + PART])


def receive(descriptor: int) -> bytearray:
    """Read one message.

    Raises:
        EOFError: the other side is closed.
    """
    message = bytearray()
    while True:
        size = _frame(descriptor, message)
        if size != PART:
            return message


def receive_answer(descriptor: int) -> tuple[bool, bytearray]:
    """Read what a relay sends: whether the message is an answer, and the answer or the reason why there is none.

    Each frame has one more byte in front: ``=`` for a part of the answer, ``!`` for the reason, which ends the message
    even if the answer has begun.

    Raises:
        EOFError: the other side is closed.
    """
    message = bytearray()
    while True:
        start = len(message)
        size = _frame(descriptor, message)
        if message[start : start + 1] != b"=":
            return False, message[start + 1 :]
        del message[start]
        if size != PART + 1:
            return True, message


def _frame(descriptor: int, into: bytearray) -> int:
    (size,) = _LENGTH.unpack(_exactly(descriptor, _LENGTH.size))
    left = size
    while left:
        part = os.read(descriptor, min(left, 1 << 20))
        if not part:
            raise EOFError("the channel was closed")
        into += part
        left -= len(part)
    return int(size)


def _exactly(descriptor: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = os.read(descriptor, size - len(found))
        if not part:
            raise EOFError("the channel was closed")
        found += part
    return found


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
