"""Standard output and standard error of a command: what is printed is escaped here, once, for every caller.

Tables, errors, log lines, warnings, tracebacks and messages of libraries all go through these streams. They hide
secrets too: on standard error by the form of URLs and tokens, because libraries log and raise with URLs in their words;
on standard output, which may show data, only the secrets that this process knows. Colours of our
own pass by :func:`print_styled` only, so that data cannot bring any. Bytes for machines go through
:func:`binary_output`.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from donod_fast.confidential import without_known_secrets, without_secrets
from donod_fast.errors import StoreError
from donod_fast.system.escaping import escaped

_STYLE = r"(\x1b\[[0-9;]*m)"
_DRAWING = r"(?:\r|\n|\x1b\[A)*"
"""How a progress bar moves the cursor before it draws its line."""

PIPE_CLOSED = 141
"""Exit code of a command whose reader has gone, as that of one that SIGPIPE ends."""


_guarded: list[EdgeStream] = []
"""Standard output of this process, once it is guarded."""


class EdgeStream(io.TextIOBase):
    """A standard stream that escapes what it writes.

    It has no ``buffer``, so that no library writes past it.

    Args:
        stream: the stream that the interpreter made.
        clean: hides the secrets of a text.
        optional: whether the command continues if its text cannot be written, as messages of progress need not arrive.

    Attributes:
        failure: why text could not be written; None if all was.
    """

    def __init__(self, stream: TextIO, clean: Callable[[str], str], *, optional: bool) -> None:
        super().__init__()
        self._stream, self._clean, self._optional = stream, clean, optional
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream; characters that it lacks are escaped too."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What an encoder would do; nothing is left for it to do."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Whether it can be written: always."""
        return True

    def isatty(self) -> bool:
        """Whether a terminal shows the text."""
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        """Descriptor of the stream. Raises OSError if it has none."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write text without secrets, escaped.

        Raises:
            OSError: it cannot be written, and is not optional.
        """
        text, length = self._clean(text), len(text)
        shown = escaped(text)
        if shown != text and sys._getframe(1).f_globals.get("__name__", "").partition(".")[0] == "tqdm":
            moves = re.match(_DRAWING, text)[0]  # type: ignore[index]
            shown = (moves if self.isatty() else "") + escaped(text[len(moves) :].rstrip("\r"))
            shown += "\r" if self.isatty() and text.endswith("\r") and len(moves) < len(text) else ""
        self._put(shown)
        return length

    def write_styled(self, text: str) -> None:
        """Write text whose colours are ours; the caller has escaped the data in it.

        Raises:
            OSError: as :meth:`write`.
        """
        self._put(
            "".join(part if at % 2 else escaped(part) for at, part in enumerate(re.split(_STYLE, self._clean(text))))
        )

    def flush(self) -> None:
        """Flush the stream. Raises OSError as :meth:`write`."""
        self._tried(self._stream.flush)

    def binary(self) -> BinaryIO:
        """The stream for bytes that are not escaped; on a terminal they are.

        Raises:
            StoreError: the stream is closed.
        """
        if isinstance(self._stream, _Closed):
            raise StoreError("standard output is closed, so nothing can be written to it: name a file")
        return cast(BinaryIO, _Bytes(self, getattr(self._stream, "buffer", None)))

    def tried(self, call: Any, *given: Any) -> Any:
        """Call a function that writes, and keep its error.

        Raises:
            OSError: as :meth:`write`.
        """
        return self._tried(call, *given)

    def _put(self, text: str) -> None:
        if "utf" not in self.encoding.lower():
            text = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self._tried(self._stream.write, text)

    def _tried(self, call: Any, *given: Any) -> Any:
        try:
            return call(*given)
        except OSError as error:
            self.failure = self.failure or error
            if not self._optional:
                raise
        except ValueError:  # closed by somebody else
            if not self._optional:
                raise
        return None


class _Bytes(io.RawIOBase):
    """Bytes on their way to a standard stream."""

    def __init__(self, edge: EdgeStream, raw: BinaryIO | None) -> None:
        super().__init__()
        self._edge, self._raw = edge, None if edge.isatty() else raw
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        if self._raw is None:  # a terminal, or a text stream of a test
            self._edge.write(self._decoder.decode(bytes(content)))
        else:
            self._edge.tried(self._raw.write, content)
        return len(content)

    def flush(self) -> None:
        self._edge.flush()
        if self._raw is not None:
            self._edge.tried(self._raw.flush)


class _Closed(io.StringIO):
    """Takes the place of a stream that was closed before the command started: its text has no reader."""

    def write(self, text: str) -> int:
        return len(text)


def guard_streams() -> None:
    """Replace the standard streams of this process by ones that escape. A second call changes nothing.

    Where a descriptor is closed, ``/dev/null`` takes its place, so that no file gets the number of a standard stream.
    """
    _fill_descriptors()
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    if not isinstance(sys.stdout, EdgeStream):
        _guarded[:] = [EdgeStream(sys.stdout or _Closed(), without_known_secrets, optional=False)]
        sys.stdout = cast(TextIO, _guarded[0])
    if not isinstance(sys.stderr, EdgeStream):
        sys.stderr = cast(TextIO, EdgeStream(sys.stderr or _Closed(), without_secrets, optional=True))


def _fill_descriptors() -> None:
    descriptor = 0
    while descriptor <= 2:
        try:
            descriptor = os.open(os.devnull, os.O_RDWR)
        except OSError:  # no descriptor is left, or no /dev/null
            return
    os.close(descriptor)


def print_styled(text: str) -> None:
    """Print a line whose colours are ours on standard output; the data in it must be escaped already."""
    guarded_output().write_styled(text + "\n")


def binary_output() -> BinaryIO:
    """Standard output for bytes.

    Raises:
        StoreError: it is closed.
    """
    return guarded_output().binary()


class StyledOutput:
    """Standard output as a file for a library that colours text; see :meth:`EdgeStream.write_styled`."""

    def write(self, text: str) -> int:
        """Write text with colours."""
        guarded_output().write_styled(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(guarded_output(), name)


def guarded_output() -> EdgeStream:
    """Standard output as a stream that escapes, whether the process has called :func:`guard_streams` or not."""
    found: Any = sys.stdout
    if isinstance(found, EdgeStream):
        return found
    return EdgeStream(found or _Closed(), without_known_secrets, optional=False)


def code_of_output(code: int) -> tuple[int, str | None]:
    """Write out what is still buffered. Returns the exit code that results from ``code``, and an error's message.

    Output that could not be written is an error: a full disk must not look like success.
    """
    output = _guarded[0] if _guarded else guarded_output()  # Typer may have wrapped it once more
    with suppress(OSError, ValueError):
        output.flush()
    failure = output.failure
    sys.stderr.flush()
    if getattr(sys.stderr, "failure", None) is not None:
        _drop(sys.stderr)
    if failure is None:
        return code, None
    _drop(output)
    if failure.errno == errno.EPIPE:
        return PIPE_CLOSED, None
    reason = "the disk is full" if failure.errno == errno.ENOSPC else failure.strerror or str(failure)
    return code or StoreError.exit_code, f"cannot write to standard output: {reason}; send it elsewhere, and run again"


def _drop(stream: TextIO | EdgeStream) -> None:
    """Have the interpreter's last flush succeed: what is buffered has no place to be written to."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()


__all__ = [
    "PIPE_CLOSED",
    "EdgeStream",
    "StyledOutput",
    "binary_output",
    "code_of_output",
    "guard_streams",
    "guarded_output",
    "print_styled",
]
