"""The judge's process: runs the benchmark's tests against a program in another process, and writes the verdict.

It has the tests and the expected values, but no line of the program. A forked child judges each check, within the
limits of ``bounds.py``. Messages to the parent have a kind, which is a message of its own: ``L`` (let the program load
its text), ``?`` (a question for the program), ``.`` (the verdict; the child then exits).
"""

from __future__ import annotations

import builtins
import os
import sys
import traceback
from typing import Any, NoReturn

from donod_fast.evaluation.judging import wire
from donod_fast.evaluation.judging.bounds import JUDGED, BaseMark, Bounds, OutOfMemory, cut_off
from donod_fast.evaluation.judging.canonical import Canonical, Expected, ReferenceFailed, module
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode
from donod_fast.evaluation.judging.evalplus_rules import Comparison
from donod_fast.evaluation.judging.free_names import free_names
from donod_fast.evaluation.judging.remote import Answer, Program, Raised, Stopped
from donod_fast.evaluation.judging.wording import brief, named, one_line

_BATCH_CALLS = 200
_BATCH_BYTES = 1 << 20
_NO_MEMORY = "the tests ran out of memory on the program's answers"


def main() -> None:
    """Judge the checks that the parent sends, each in a fork of this process, so that checks are independent."""
    descriptor = wire.channel()
    while True:
        try:
            sent = wire.receive(descriptor)
        except EOFError:
            os._exit(0)
        mark = BaseMark()
        child = os.fork()
        if child == 0:
            _judge(sent, descriptor, mark)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        base = mark.collect()
        if code != JUDGED:
            met = cut_off(code, base)
            if met is not None:  # perhaps in the middle of a message: nothing can follow it
                os._exit(met)
            # It was killed, or the tests made it exit.
            said = {"status": "error", "detail": f"the tests' process ended with {code}"}
            wire.send(descriptor, encode({**said, "base": False, "expected": []}), b".")


def _judge(sent: bytes | bytearray, descriptor: int, mark: BaseMark) -> NoReturn:
    with OutOfMemory():
        judge = Judge(decode(sent), descriptor, mark)
        wire.send(descriptor, encode(judge.verdict()), b".")
    os._exit(JUDGED)


class Wrong(Exception):
    """The program has not passed: the verdict's status and detail."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Judge:
    """The judgement of one program."""

    def __init__(self, check: dict[str, Any], descriptor: int, mark: BaseMark) -> None:
        self._check = check
        self._descriptor = descriptor
        self._mark = mark
        self._bounds = Bounds(*check["bounds"])
        self._program = Program(lambda question: self._exchange(b"?", question))
        self._base = False
        inputs = check["base_inputs"] + check["plus_inputs"]
        self._canonical = Canonical(check["reference"], check["entry_point"], inputs, check["expected"])

    def verdict(self) -> dict[str, Any]:
        """Status, detail, whether the base tests passed, and the reference outputs that were computed."""
        status, detail = "passed", ""
        try:
            self._load()
            self._run()
            self._still_answers()
        except (Stopped, Wrong) as error:
            status, detail = error.status, error.detail
        except BaseException as error:
            try:
                status, detail = self._failure(error)
            except MemoryError:
                status, detail = "memory", _NO_MEMORY
        self._program.last = None
        self._canonical.close()
        return {"status": status, "detail": one_line(detail), "base": self._base, "expected": self._canonical.outputs}

    def _load(self) -> None:
        try:
            self._program.load(lambda nonce: self._exchange(b"L", nonce))
        except SyntaxError as error:
            raise Wrong("syntax", f"{type(error).__name__}: {error}") from error
        except Exception as error:
            raise Wrong(_status_of(error), f"the program does not load: {named(error)}") from error

    def _run(self) -> None:
        if "random" in self._check["test"] or "random" in self._check["setup"]:
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
        self._passed_base()

    def _mbpp(self) -> None:
        name = self._check["entry_point"]
        candidate = self._entry() if name else None
        parts = [self._check["setup"], *self._check["test_list"]]
        namespace = self._namespace("\n".join(parts), candidate)
        for number, part in enumerate(parts):
            exec(compile(part, "<setup>" if number == 0 else f"<test {number}>", "exec"), namespace)
        self._passed_base()

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
        self._passed_base()
        self._compare(check["plus_inputs"], len(check["base_inputs"]), target)

    def _passed_base(self) -> None:
        self._still_answers()
        self._base = True
        self._mark.set()

    def _still_answers(self) -> None:
        """Raise what stopped the program, in case the tests caught an exception that they must not catch."""
        if self._program.stopped is not None:
            raise self._program.stopped

    def _compare(self, inputs: list[bytes], first: int, target: Any) -> None:
        comparison = Comparison(self._check["rules"], self._check["entry_point"], self._check["atol"])
        done = 0
        while done < len(inputs):
            for answer in self._program.batch(target, _batch(inputs, done)):
                self._bounds.next_answer()
                try:
                    expected = self._canonical.output(first + done)
                except ReferenceFailed as error:
                    raise Wrong("error", f"the benchmark's reference {error}") from error
                if expected.plain and comparison.by_equality and answer.encodes(expected.data):
                    comparison.equal(expected.floats)
                else:
                    self._compare_values(comparison, inputs[done], answer, expected)
                done += 1

    def _compare_values(self, comparison: Comparison, given: bytes, answer: Answer, expected: Expected) -> None:
        output, arguments = answer.value(), decode(given)
        if isinstance(output, Raised):
            raise Wrong(_status_of(output.error), f"{named(output.error)}, for {self._call(arguments)}")
        if expected.too_large:
            raise Wrong("failed", f"{self._call(arguments)} is {brief(output)}, not a value above the size limit")
        try:
            wanted = expected.value()
            right = comparison.right(arguments, output, wanted)
        except MemoryError:
            raise Wrong("memory", _NO_MEMORY) from None
        except Exception:
            right = False
        self._still_answers()
        if not right:
            raise Wrong("failed", f"{self._call(arguments)} is {brief(output)}, not {brief(wanted)}")

    def _call(self, arguments: Any) -> str:
        return f"{self._check['entry_point']}({', '.join(brief(one) for one in arguments)})"

    def _exchange(self, kind: bytes, question: bytes) -> bytearray:
        wire.send(self._descriptor, question, kind)
        answered, content = wire.receive_answer(self._descriptor)
        self._bounds.next_answer()
        if not answered:
            status, detail = decode(content)
            raise Stopped(status, detail)
        return content

    def _failure(self, error: BaseException) -> tuple[str, str]:
        """Status and detail for an exception from the tests: a failed assertion, the program's error, or their own."""
        where = self._place(error)
        if error is self._program.raised:
            return _status_of(error), f"{named(error)}{where and ', in '}{where}"
        if isinstance(error, MemoryError):
            return "memory", _NO_MEMORY
        if isinstance(error, AssertionError):
            answer = f" (the last answer was {brief(self._program.last)})"
            return "failed", f"{where or 'a test'}{': ' if str(error) else ''}{error}{answer}"
        return "error", f"{named(error)}{where and ', in '}{where}"

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


def _prompt_names(prompt: str) -> dict[str, Any]:
    # A prompt ends in a docstring (then it is complete) or in the line of its def.
    for text in (prompt, f"{prompt}\n    pass\n"):
        try:
            return module("prompt", text)
        except SyntaxError:
            continue
        except Exception:
            return {}
    return {}


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
