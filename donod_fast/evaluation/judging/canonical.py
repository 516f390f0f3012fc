"""The canonical solution's outputs, computed on first use in a process of its own.

That process gets no answer of a program, so it has the judge's own limits: some solutions need minutes, or gigabytes.
The process that has the answers reads the outputs as bytes and rarely needs more: equal bytes are equal values.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from types import ModuleType

from donod_fast.evaluation.judging import wire
from donod_fast.evaluation.judging.codec import MAX_BYTES, Reference
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode
from donod_fast.evaluation.judging.evalplus_rules import all_floats
from donod_fast.evaluation.judging.wording import named

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any, NoReturn

_KEPT_BYTES = 8 << 20
_HEAD = struct.Struct(">BI")
_PLAIN, _FLOATS, _TOO_LARGE, _FAILED = 1, 2, 4, 8


class ReferenceFailed(Exception):
    """The canonical solution has no output; the message says why."""


class Expected:
    """One output.

    Attributes:
        data: its encoding.
        plain: whether an answer with the same encoding is equal to it; not so for NaN and objects that are not plain.
        floats: whether it is a float, or a list or tuple of floats.
        too_large: whether it is larger than an answer may be, and so cannot be an answer's value; ``data`` is empty.
    """

    def __init__(self, kept: bytes) -> None:
        self.data = memoryview(kept)[1:]
        self.plain, self.floats, self.too_large = (bool(kept[0] & flag) for flag in (_PLAIN, _FLOATS, _TOO_LARGE))

    def value(self) -> Any:
        """The output, decoded like a program's; an object that is not plain is a :class:`Reference`."""
        return decode(self.data, _itself)


class Canonical:
    """The canonical solution's outputs.

    Args:
        text: its source, a whole program.
        entry_point: its function.
        inputs: encoded arguments of all calls.
        known: the first outputs, if they were computed before.

    Attributes:
        outputs: the first outputs, as many as are worth keeping.
    """

    def __init__(self, text: str, entry_point: str, inputs: list[bytes], known: list[bytes]) -> None:
        self.outputs = list(known)
        self._room = _KEPT_BYTES - sum(map(len, known))
        self._process: _Process | None = None
        if len(known) < len(inputs):  # before there is any answer, so that the process has none
            self._process = _Process(text, entry_point, inputs)

    def output(self, number: int) -> Expected:
        """The output for the input with this number; the numbers ascend.

        Raises:
            ReferenceFailed: the solution raised an exception, or its process ended.
        """
        if number < len(self.outputs):
            return Expected(self.outputs[number])
        if self._process is None:
            raise ReferenceFailed("has no process")
        kept = self._process.output(number)
        if number == len(self.outputs):
            self._room -= len(kept)
            if self._room >= 0:
                self.outputs.append(kept)
        return Expected(kept)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()


class _Process:
    def __init__(self, text: str, entry_point: str, inputs: list[bytes]) -> None:
        questions, self._asks = os.pipe()
        self._answers, answers = os.pipe()
        self._number = os.fork()
        if self._number == 0:
            os.close(self._asks)
            os.close(self._answers)
            os.close(wire.channel())
            _serve(text, entry_point, inputs, questions, answers)
        os.close(questions)
        os.close(answers)

    def output(self, number: int) -> bytes:
        os.write(self._asks, struct.pack(">I", number))
        flags, size = _HEAD.unpack(self._exactly(_HEAD.size))
        data = self._exactly(size)
        if flags & _FAILED:
            raise ReferenceFailed(data.decode())
        return bytes((flags,)) + data

    def _exactly(self, size: int) -> bytearray:
        found = bytearray()
        while len(found) < size:
            part = os.read(self._answers, min(size - len(found), 1 << 20))
            if not part:
                raise ReferenceFailed("ended its process")
            found += part
        return found

    def close(self) -> None:
        os.kill(self._number, signal.SIGKILL)
        os.waitpid(self._number, 0)


def _serve(text: str, entry_point: str, inputs: list[bytes], questions: int, answers: int) -> NoReturn:
    try:
        function: Any = None
        if "random" in text:  # as for the program
            import random

            random.seed(0)
        while len(asked := os.read(questions, 4)) == 4:
            try:
                function = function or module("reference", text)[entry_point]
                (number,) = struct.unpack(">I", asked)
                flags, data = _output(function, inputs[number])
            except Exception as error:
                flags, data = _FAILED, f"raised {named(error)}"[:1000].encode("utf-8", "backslashreplace")
            left = memoryview(_HEAD.pack(flags, len(data)) + data)
            while left:
                left = left[os.write(answers, left) :]
    finally:
        os._exit(0)


def _output(function: Any, arguments: bytes) -> tuple[int, bytes]:
    value = function(*decode(arguments))
    # An output that is not plain data (a match object) becomes a reference: it is only ever compared with None.
    data = encode(value, lambda one: Reference(0, type(one).__name__))
    if len(data) > MAX_BYTES:
        return _TOO_LARGE, b""
    arrived = decode(data, _itself)
    return _PLAIN * _equal(arrived, value) | _FLOATS * all_floats(arrived), data


def _equal(arrived: Any, value: Any) -> bool:
    # Nothing in the decoded value is identical to a part of the other, so that NaN makes the two unequal.
    try:
        return bool(arrived == value)
    except Exception:
        return False


def module(name: str, text: str) -> dict[str, Any]:
    """The names that a trusted source defines, as a module of this name."""
    made = ModuleType(name)
    sys.modules[name] = made
    exec(compile(text, f"<{name}>", "exec"), made.__dict__)
    return made.__dict__


def _itself(reference: Reference) -> Reference:
    return reference
