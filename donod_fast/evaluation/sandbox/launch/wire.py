"""Messages between caller and monitor on the control socket: settings one way, one report the other way."""

from __future__ import annotations

import marshal
import os
import struct

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

HOW = ("exited", "signalled", "timeout", "memory", "output", "processes", "files", "killed")
_LENGTH = struct.Struct(">I")
_REPORT = struct.Struct(">BidqII")


def send_settings(control: int, settings: dict[str, Any]) -> None:
    """Send the settings of one run (plain values, trusted; both ends are the same interpreter)."""
    data = marshal.dumps(settings)
    _write(control, _LENGTH.pack(len(data)) + data)


def receive_settings(control: int) -> dict[str, Any]:
    """Read the settings of one run."""
    (length,) = _LENGTH.unpack(_read(control, _LENGTH.size))
    settings: dict[str, Any] = marshal.loads(_read(control, length))
    return settings


def send_number(control: int) -> None:
    """Send the monitor's process id, as the first message."""
    _write(control, _LENGTH.pack(os.getpid()))


def unpack_number(data: bytes) -> int | None:
    """The monitor's process id, from the bytes received so far."""
    return int(_LENGTH.unpack_from(data)[0]) if len(data) >= _LENGTH.size else None


def send_report(control: int, how: str, code: int, seconds: float, peak: int, stdout: bytes, stderr: bytes) -> None:
    """Report how the program ended."""
    head = _REPORT.pack(HOW.index(how), code, seconds, peak, len(stdout), len(stderr))
    _write(control, b"R" + head + stdout + stderr)


def send_failure(control: int, text: str) -> None:
    """Report why the program was never started."""
    _write(control, b"F" + text.encode())


def unpack_report(data: bytes) -> tuple[str, int, float, int, bytes, bytes] | str:
    """The monitor's report as (how, code, seconds, peak, stdout, stderr), or the text of a failure."""
    data = data[_LENGTH.size :]
    if data[:1] == b"F":
        return data[1:].decode("utf-8", "replace")
    if data[:1] != b"R" or len(data) < 1 + _REPORT.size:
        return "the sandbox's monitor ended without a report"
    how, code, seconds, peak, out, err = _REPORT.unpack_from(data, 1)
    text = data[1 + _REPORT.size :]
    return HOW[how], code, seconds, peak, text[:out], text[out : out + err]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = os.read(descriptor, length - len(data))
        if not part:
            raise EOFError("the caller has exited")
        data += part
    return data
