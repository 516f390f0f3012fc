"""The judge's process: runs the benchmark's tests against a program in another process, and writes the verdict.

It has the tests and the expected values, but no line of the program. A forked child judges each check. Frames to the
parent start with one byte: ``L`` (let the program load its text), ``?`` (a question for the program), ``.`` (the
verdict; the child then exits).
"""

from __future__ import annotations

import builtins
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from donod_fast.evaluation.judging import wire
from donod_fast.evaluation.judging.codec import Reference
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode
from donod_fast.evaluation.judging.evalplus_rules import Comparison
from donod_fast.evaluation.judging.free_names import free_names
from donod_fast.evaluation.judging.remote import Program, Raised, Stopped

DETAIL = 300
"""Maximum characters of a verdict's detail."""

_JUDGED = 77  # the exit code of a fork that has sent its verdict
_KEPT_BYTES = 8 << 20
_BATCH_CALLS = 200
_BATCH_BYTES = 1 << 20


def main() -> None:
    """Judge the checks that the parent sends, each in a fork of this process, so that checks are independent."""
    descriptor = wire.channel()
    while True:
        try:
            sent = wire.receive(descriptor)
        except EOFError:
            os._exit(0)
        child = os.fork()
        if child == 0:
            wire.send(descriptor, b"." + encode(Judge(decode(sent), descriptor).verdict()))
            os._exit(_JUDGED)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != _JUDGED:  # it was killed, or the tests made it exit
            said = {"status": "error", "detail": f"the tests' process ended with {code}"}
            wire.send(descriptor, b"." + encode({**said, "base": False, "expected": []}))


class Wrong(Exception):
    """The program has not passed: the verdict's status and detail."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Judge:
    """The judgement of one program."""

    def __init__(self, check: dict[str, Any], descriptor: int) -> None:
        self._check = check
        self._descriptor = descriptor
        self._program = Program(lambda question: self._exchange(b"?" + question))
        self._base = False
        self._canonical = Canonical(check["reference"], check["entry_point"], check["expected"])

    def verdict(self) -> dict[str, Any]:
        """Status, detail, whether the base tests passed, and the reference outputs that were computed."""
        status, detail = "passed", ""
        try:
            self._load()
            self._run()
            if self._program.stopped is not None:  # the tests caught an exception that they must not catch
                raise self._program.stopped
        except (Stopped, Wrong) as error:
            status, detail = error.status, error.detail
        except BaseException as error:
            status, detail = self._failure(error)
        return {"status": status, "detail": one_line(detail), "base": self._base, "expected": self._canonical.outputs}

    def _load(self) -> None:
        try:
            self._program.load(lambda nonce: self._exchange(b"L" + nonce))
        except SyntaxError as error:
            raise Wrong("syntax", f"{type(error).__name__}: {error}") from error
        except Exception as error:
            raise Wrong(_status_of(error), f"the program does not load: {_named(error)}") from error

    def _run(self) -> None:
        if "random" in self._check["test"] or "random" in self._check["setup"] + self._check["reference"]:
            import random

            random.seed(0)
        kind = self._check["kind"]
        {"human-eval": self._human_eval, "mbpp": self._mbpp, "evalplus": self._evalplus}[kind]()

    def _entry(self) -> Any:
        name = self._check["entry_point"]
        try:
            return self._program.name(name)
        except NameError as error:
            raise Wrong("no_entry_point", f"the program defines no {name}") from error

    def _human_eval(self) -> None:
        candidate = self._entry()
        test = self._check["test"]
        namespace = self._namespace(test, candidate)
        exec(compile(test, "<tests>", "exec"), namespace)
        if "check" not in namespace:
            raise Wrong("error", "the benchmark's test defines no check(candidate)")
        namespace["check"](candidate)
        self._base = True

    def _mbpp(self) -> None:
        name = self._check["entry_point"]
        candidate = self._entry() if name else None
        parts = [self._check["setup"], *self._check["test_list"]]
        namespace = self._namespace("\n".join(parts), candidate)
        for number, part in enumerate(parts):
            exec(compile(part, "<setup>" if number == 0 else f"<test {number}>", "exec"), namespace)
        self._base = True

    def _namespace(self, test: str, candidate: Any) -> dict[str, Any]:
        """The namespace for the tests: the names that they use and do not define.

        They are taken from the trusted prompt, the standard library or the program, in this order, so that a program
        cannot replace a helper of the tests or a module that they use. The entry point
        is always the program's, even if it has a builtin's name.
        """
        namespace: dict[str, Any] = {"__name__": "tests"}
        entry = self._check["entry_point"]
        free = free_names(test)
        if entry and entry in free:
            namespace[entry] = candidate
        wanted = free - {entry} - set(vars(builtins)) - set(namespace)
        if wanted:
            trusted = _prompt_names(self._check["prompt"])
            for name in sorted(wanted):
                if name in trusted:
                    namespace[name] = trusted[name]
                elif name in sys.stdlib_module_names:
                    namespace[name] = __import__(name)
                else:
                    try:
                        namespace[name] = self._program.name(name)
                    except NameError:
                        continue  # the test that uses it will report this
        return namespace

    def _evalplus(self) -> None:
        check = self._check
        target = self._entry()
        self._compare(check["base_inputs"], 0, target)
        self._base = True
        self._compare(check["plus_inputs"], len(check["base_inputs"]), target)

    def _compare(self, inputs: list[bytes], first: int, target: Any) -> None:
        comparison = Comparison(self._check["rules"], self._check["entry_point"], self._check["atol"])
        done = 0
        while done < len(inputs):
            for output in self._program.batch(target, _batch(inputs, done)):
                arguments = decode(inputs[done])
                if isinstance(output, Raised):
                    raise Wrong(_status_of(output.error), f"{_named(output.error)}, for {self._call(arguments)}")
                expected = self._canonical.output(first + done, inputs[done])
                try:
                    right = comparison.right(arguments, output, expected)
                except Exception:
                    right = False
                if self._program.stopped is not None:
                    raise self._program.stopped
                if not right:
                    raise Wrong("failed", f"{self._call(arguments)} is {brief(output)}, not {brief(expected)}")
                done += 1

    def _call(self, arguments: Any) -> str:
        return f"{self._check['entry_point']}({', '.join(brief(one) for one in arguments)})"

    def _exchange(self, frame: bytes) -> bytes:
        wire.send(self._descriptor, frame)
        answer = wire.receive(self._descriptor)
        if answer[:1] != b"=":
            status, detail = decode(answer[1:])
            raise Stopped(status, detail)
        return answer[1:]

    def _failure(self, error: BaseException) -> tuple[str, str]:
        """Status and detail for an exception from the tests: a failed assertion, the program's error, or their own."""
        where = self._place(error)
        if error is self._program.raised:
            return _status_of(error), f"{_named(error)}{where and ', in '}{where}"
        if isinstance(error, AssertionError):
            answer = f" (the last answer was {brief(self._program.last)})"
            return "failed", f"{where or 'a test'}{': ' if str(error) else ''}{error}{answer}"
        return "error", f"{_named(error)}{where and ', in '}{where}"

    def _place(self, error: BaseException) -> str:
        """The line of the tests at which an exception was raised."""
        where = ""
        for frame, line in traceback.walk_tb(error.__traceback__):
            name = frame.f_code.co_filename
            if name == "<tests>":
                where = self._check["test"].splitlines()[line - 1].strip()
            elif name == "<setup>":
                where = self._check["setup"].splitlines()[line - 1].strip()
            elif name.startswith("<test "):
                where = self._check["test_list"][int(name[6:-1]) - 1].strip()
        return where


class Canonical:
    """The canonical solution's outputs, computed on first use."""

    def __init__(self, text: str, entry_point: str, known: list[bytes]) -> None:
        self.outputs = list(known)
        self._room = _KEPT_BYTES - sum(map(len, known))
        self._text = text
        self._entry_point = entry_point
        self._function: Any = None

    def output(self, number: int, arguments: bytes) -> Any:
        """Its output for the arguments with this number, requested in order; encoded and decoded like the program's."""
        if number < len(self.outputs):
            return decode(self.outputs[number], _itself)
        if self._function is None:
            self._function = _module("reference", self._text)[self._entry_point]
        try:
            # An output that is not plain data (a match object) becomes a reference: it is only ever compared with None.
            data = encode(self._function(*decode(arguments)), lambda value: Reference(0, type(value).__name__))
        except Exception as error:
            raise Wrong("error", f"the benchmark's reference raised {_named(error)}") from error
        if number == len(self.outputs):
            self._room -= len(data)
            if self._room >= 0:
                self.outputs.append(data)
        return decode(data, _itself)


def one_line(text: str) -> str:
    """A text on one line, cut to ``DETAIL`` characters."""
    line = " ".join(text.split())
    line = line.encode("utf-8", "backslashreplace").decode()
    return line if len(line) <= DETAIL else line[: DETAIL - 1] + "…"


def brief(value: Any, limit: int = 80) -> str:
    """A value's ``repr``, truncated, for values of any size."""
    if type(value) is int and value.bit_length() > 1000:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception as error:
        return f"a {type(value).__name__} ({type(error).__name__} in its repr)"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _prompt_names(prompt: str) -> dict[str, Any]:
    # A prompt ends in a docstring (then it is complete) or in the line of its def.
    for text in (prompt, f"{prompt}\n    pass\n"):
        try:
            return _module("prompt", text)
        except SyntaxError:
            continue
        except Exception:
            return {}
    return {}


def _module(name: str, text: str) -> dict[str, Any]:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    return module.__dict__


def _itself(reference: Reference) -> Reference:
    return reference


def _batch(inputs: list[bytes], first: int) -> list[bytes]:
    chosen: list[bytes] = []
    size = 0
    for one in inputs[first : first + _BATCH_CALLS]:
        chosen.append(one)
        size += len(one)
        if size > _BATCH_BYTES:
            break
    return chosen


def _status_of(error: BaseException) -> str:
    return "memory" if isinstance(error, MemoryError) else "error"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
