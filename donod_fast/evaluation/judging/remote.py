"""The program as the tests see it: proxy objects, and answers as plain data of this process's own types."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from donod_fast.evaluation.judging.codec import MAX_MESSAGE, Reference, Refused
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode

NONCE = 8

_NAMES = 100  # class names of one exception; none of ours has as many bases
_NAME = 200
_VALUE = encode(("value", None))[:-1]  # in front of the encoding of an answer's value

_EXCEPTIONS: dict[str, type[Exception]] = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
}
_ENDS = {"StopIteration", "StopAsyncIteration"}


class Stopped(BaseException):  # not an Exception: a test's ``except Exception`` must not catch it
    """The program can no longer answer, or sent an invalid answer. Final: it cannot pass any more.

    Attributes:
        status: the verdict's status.
        detail: the verdict's detail.
    """

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class ProgramError(Exception):
    """An exception of one of the program's own classes that derives from no builtin except ``Exception``."""


class IterationEnded(ProgramError):
    """The program's StopIteration. As itself it would end a loop of the tests, such as ``all(map(candidate, …))``."""


Exchange = Callable[[bytes], "bytes | bytearray"]


class Program:
    """Asks the program, one question at a time.

    Args:
        exchange: sends the bytes of a question, returns those of its answer; raises :class:`Stopped`.

    Attributes:
        stopped: the reason why it stopped, or None; checked before a program passes, as tests may catch exceptions.
        raised: the exception that the last question raised here, to distinguish it from the tests' own.
        last: the last value of an answer.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.stopped: Stopped | None = None
        self.raised: Exception | None = None
        self.last: Any = None

    def load(self, ask: Exchange) -> None:
        """Let the program's text run; ``ask`` receives the nonce and returns the complete answer.

        Raises:
            Stopped: it has ended, perhaps by a SystemExit.
            Exception: the program's exception, as a builtin.
        """
        nonce = os.urandom(NONCE)
        self._content(self._guarded(ask, nonce, nonce))

    def name(self, name: str) -> Any:
        """The program's global with this name: plain data or a :class:`Remote`; NameError if there is none."""
        return self.ask("name", name)

    def ask(self, *question: Any) -> Any:
        """The value of an answer.

        Raises:
            Stopped: it has ended, or sent an invalid answer, or one that does not fit into memory.
            Exception: the program's exception, as the builtin of that name.
        """
        if self.stopped is not None:
            raise self.stopped
        nonce = os.urandom(NONCE)
        self.last = None  # free its memory
        try:
            sent = nonce + encode(question, _refer)
        except MemoryError:
            self._out_of_memory()
        self.last = self._content(self._guarded(self._exchange, sent, nonce))
        return self.last

    def batch(self, target: Any, calls: list[bytes]) -> Iterator[Answer]:
        """Answers to the first of several calls, at least one, each decoded on request only."""
        answers = self.ask("batch", target, calls)
        self.last = None
        if type(answers) is not list or not 0 < len(answers) <= len(calls):
            self._stop("protocol", "a batch of answers that does not match its questions")
        answers.reverse()
        while answers:
            data = answers.pop()
            if type(data) is not bytes:
                self._stop("protocol", "an answer that is not bytes")
            yield Answer(data, self._content)

    def _guarded(self, ask: Exchange, question: bytes, nonce: bytes) -> memoryview:
        """The answer's content, without its nonce."""
        if self.stopped is not None:
            raise self.stopped
        try:
            answer = memoryview(ask(question))
        except Stopped as stopped:
            self.stopped = stopped
            raise
        except MemoryError:
            self._out_of_memory()
        if answer[:NONCE] != nonce:
            self._stop("protocol", "an answer to something that was not asked")
        return answer[NONCE:]

    def _content(self, data: memoryview | bytes) -> Any:
        try:
            answer = decode(data, self._resolve)
        except Refused as error:
            self._stop("protocol", f"the program answered with {error}")
        except MemoryError:
            self._out_of_memory()
        if type(answer) is tuple and len(answer) == 3 and answer[0] == "raised":
            self._raise(answer[1], answer[2])
        if type(answer) is not tuple or len(answer) != 2 or answer[0] != "value":
            self._stop("protocol", "an answer that is neither a value nor an exception")
        return answer[1]

    def _resolve(self, reference: Reference) -> Any:
        if not reference.kind:
            raise Refused("a reference to an object of the judge")
        kind = RemoteIterator if reference.kind == "iterator" else Remote
        return kind(self, reference.number, reference.kind[:_NAME])

    def _raise(self, names: Any, message: Any) -> NoReturn:
        if type(names) is not list or not 0 < len(names) <= _NAMES:
            self._stop("protocol", "a malformed exception")
        if any(type(one) is not str for one in [*names, message]):
            self._stop("protocol", "a malformed exception")
        names = [one[:_NAME] for one in names]
        message = message[:MAX_MESSAGE]
        if "Exception" not in names:
            self._stop("exited", f"{names[0]}: {message}".rstrip(": "))
        self.raised = _builtin(names, message)
        raise self.raised

    def _out_of_memory(self) -> NoReturn:
        self._stop("memory", "an answer that takes more memory than a judge has")

    def _stop(self, status: str, detail: str) -> NoReturn:
        self.stopped = Stopped(status, detail)
        raise self.stopped from None


class Answer:
    """One answer of a batch, not yet decoded."""

    def __init__(self, data: bytes, content: Callable[[bytes], Any]) -> None:
        self._data = data
        self._content = content

    def encodes(self, value: memoryview) -> bool:
        """Whether it is a value with this encoding; takes no memory and hardly any time."""
        whole = len(self._data) == len(_VALUE) + len(value)
        return whole and self._data.startswith(_VALUE) and self._data.endswith(value)

    def value(self) -> Any:
        """Its value, or the exception that the program raised as a :class:`Raised`.

        Raises:
            Stopped: the answer is invalid, or does not fit into memory.
        """
        try:
            return self._content(self._data)
        except Exception as error:
            return Raised(error)


class Raised:
    """An exception within a batch of answers."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Remote:
    """An object of one of the program's own classes, or one of its functions.

    It can be called, queried for attributes, items, length and truth, and passed back as an argument. It equals only
    itself and cannot be ordered: every comparison that decides a test is made here, between values of this process.
    """

    __slots__ = ("_donod_kind", "_donod_number", "_donod_program")

    def __init__(self, program: Program, number: int, kind: str) -> None:
        object.__setattr__(self, "_donod_program", program)
        object.__setattr__(self, "_donod_number", number)
        object.__setattr__(self, "_donod_kind", kind)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._donod_program.ask("call", self, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # the program must not define the attributes that Python itself looks up
        return self._donod_program.ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._donod_program.ask("set_attribute", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._donod_program.ask("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._donod_program.ask("set_item", self, key, value)

    def __len__(self) -> int:
        length = self._donod_program.ask("length", self)
        if type(length) is not int:
            raise TypeError("a length that is not an integer")
        return length

    def __bool__(self) -> bool:
        return self._donod_program.ask("truth", self) is True

    def __iter__(self) -> Iterator[Any]:
        iterator = self._donod_program.ask("iterate", self)
        return iterator if isinstance(iterator, RemoteIterator) else iter(iterator)

    def __contains__(self, value: Any) -> bool:
        # Compared here, not there: the program must not learn the value that is searched for.
        return any(one is value or one == value for one in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._donod_number == other._donod_number

    def __hash__(self) -> int:
        return hash(self._donod_number)

    def __repr__(self) -> str:
        return f"<{self._donod_kind} of the program>"


class RemoteIterator(Remote):
    """An iterator of the program: a generator, a map, a zip. One question per item."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._donod_program.ask("next", self)
        except IterationEnded:
            self._donod_program.raised = StopIteration()
            raise self._donod_program.raised from None


def _refer(value: Any) -> Reference:
    if isinstance(value, Remote):
        return Reference(value._donod_number, "")
    raise Refused(f"the tests would pass the program a {type(value).__name__}, which is not plain data")


def _builtin(names: list[str], message: str) -> Exception:
    """The nearest builtin exception, with the program's own class name in the message if it differs."""
    if not _ENDS.isdisjoint(names):
        return IterationEnded(f"{names[0]}: {message}".rstrip(": "))
    for name in names:
        kind = _EXCEPTIONS.get(name)
        if kind is Exception and names[0] != "Exception":
            break
        if kind is not None:
            try:
                return kind(message if name == names[0] else f"{names[0]}: {message}")
            except TypeError:  # such as UnicodeDecodeError, which needs five arguments
                continue
    return ProgramError(f"{names[0]}: {message}")
