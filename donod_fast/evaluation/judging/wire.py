"""Frames on a sandboxed process's channel: four bytes of length, then the content."""

from __future__ import annotations

import os
import struct

_LENGTH = struct.Struct(">I")

CHANNEL = "DONOD_CHANNEL"
"""The environment variable with the descriptor's number (``donod_fast.evaluation.sandbox`` sets it)."""


def channel() -> int:
    """The descriptor of this process's channel."""
    return int(os.environ[CHANNEL])


def send(descriptor: int, payload: bytes) -> None:
    """Write one frame.

    Raises:
        OSError: the other side is closed.
    """
    left = memoryview(_LENGTH.pack(len(payload)) + payload)
    while left:
        left = left[os.write(descriptor, left) :]


def receive(descriptor: int) -> bytes:
    """Read one frame.

    Raises:
        EOFError: the other side is closed.
    """
    (size,) = _LENGTH.unpack(_exactly(descriptor, 4))
    return _exactly(descriptor, size)


def _exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError("the channel was closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
