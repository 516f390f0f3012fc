"""The loop in the program's own process: it runs the program's text, then answers questions about it.

Nothing here is trusted, since the program runs in this process and can change all of it. It receives only what a
question needs: a name and the arguments of one call. ``decoder.py`` decodes its answers in another process.
"""

from __future__ import annotations

import builtins
import os
import sys
import time

from donod_fast.evaluation.judging import wire
from donod_fast.evaluation.judging.codec import MAX_MESSAGE, Reference
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

NONCE = 8
"""Bytes before each question that its answer must repeat, so that no answer can precede its question."""

_BATCH_SECONDS = 0.25
_BATCH_BYTES = 4 << 20


def main() -> None:
    """Answer questions until the channel closes."""
    descriptor = wire.channel()
    server = Server()
    wire.send(descriptor, b"")  # ready: the program's own time begins
    while True:
        try:
            question = wire.receive(descriptor)
        except (EOFError, OSError):
            os._exit(0)
        wire.send(descriptor, question[:NONCE] + server.answer(question[NONCE:]))


class Server:
    """The program, and those of its objects that were sent as references."""

    def __init__(self) -> None:
        self._module = type(sys)("program")
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}

    def answer(self, question: bytes | bytearray) -> bytes:
        """The answer to one question: ``("value", …)`` or ``("raised", class names, message)``, as bytes."""
        try:
            name, *arguments = decode(question, self._resolve)
            value = getattr(self, f"_{name}")(*arguments)
        except BaseException as error:
            return self._raised(error)
        try:
            return encode(("value", value), self._refer)
        except BaseException as error:
            return self._raised(error)

    def _raised(self, error: BaseException) -> bytes:
        # Its own class first, then those it derives from, so that the judge can find the builtin among them.
        names = [kind.__name__ for kind in type(error).__mro__ if kind is not object]
        try:
            message = str(error)[:MAX_MESSAGE]
        except BaseException:
            message = ""
        return encode(("raised", names, message))

    def _refer(self, value: Any) -> Reference:
        key = id(value)
        if key not in self._numbers:
            self._numbers[key] = len(self._objects)
            self._objects[len(self._objects)] = value  # kept alive, so that its id is not reused
        kind = "iterator" if hasattr(type(value), "__next__") else type(value).__name__
        return Reference(self._numbers[key], kind or "object")

    def _resolve(self, reference: Reference) -> Any:
        return self._objects[reference.number]

    def _load(self, text: str) -> None:
        sys.path.extend(sys.argv[2:])  # installed packages, where the sandbox shows them
        builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # the interpreter starts without site
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a thread for each core would meet the limit on processes
        if "random" in text:
            import random

            random.seed(0)
        # Register the module by name: data classes and named tuples look up their module.
        sys.modules[self._module.__name__] = self._module
        exec(compile(text, "program.py", "exec"), self._module.__dict__)

    def _name(self, name: str) -> Any:
        if name not in self._module.__dict__:
            raise NameError(f"name {name!r} is not defined")
        return self._module.__dict__[name]

    def _call(self, target: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return target(*arguments, **named)

    def _batch(self, target: Any, calls: list[bytes]) -> list[bytes]:
        """Answers to the first of several calls: at least one, and as many as time and size allow."""
        end = time.monotonic() + _BATCH_SECONDS
        answers: list[bytes] = []
        size = 0
        for one in calls:
            try:
                answers.append(encode(("value", target(*decode(one))), self._refer))
            except BaseException as error:
                answers.append(self._raised(error))
                break
            size += len(answers[-1])
            if size > _BATCH_BYTES or time.monotonic() > end:
                break
        return answers

    def _attribute(self, target: Any, name: str) -> Any:
        return getattr(target, name)

    def _set_attribute(self, target: Any, name: str, value: Any) -> None:
        setattr(target, name, value)

    def _item(self, target: Any, key: Any) -> Any:
        return target[key]

    def _set_item(self, target: Any, key: Any, value: Any) -> None:
        target[key] = value

    def _length(self, target: Any) -> int:
        return len(target)

    def _truth(self, target: Any) -> bool:
        return bool(target)

    def _iterate(self, target: Any) -> Any:
        return iter(target)

    def _next(self, target: Any) -> Any:
        return next(target)
