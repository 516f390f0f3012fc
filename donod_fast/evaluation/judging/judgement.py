"""The relaying of one judgement: its questions, answers and clocks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from donod_fast.errors import CorpusError, SandboxError
from donod_fast.evaluation.judging.bounds import CUT_OFF, MEMORY
from donod_fast.evaluation.judging.check import Check
from donod_fast.evaluation.judging.clock import Clock, longest
from donod_fast.evaluation.judging.codec import MAX_BYTES, Refused
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode
from donod_fast.evaluation.judging.expected import ExpectedOutputs
from donod_fast.evaluation.judging.wire import PART, parts
from donod_fast.evaluation.sandbox import Ended, Finished, Limits, Process, Sandbox, Timeout, TooLarge

EVALPLUS_SECONDS = 60.0
"""Time for all inputs of an EvalPlus task together: EvalPlus's own limit on a task."""

JUDGE_SECONDS = 120.0
"""Wall time for work that no answer causes: a judge's start, and EvalPlus's references."""

_WALL = 1.5  # wall time per second of processor time: a busy program meets the processor limit first
_LEAST = 0.5  # seconds of processor time for the tests' work on answers, however little the program has
_GRACE = 0.2  # seconds for the sandbox to find out why a process ended


class JudgeLost(Exception):
    """The judge's process ended without a verdict, and not because of an answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """A verdict's content.

    Attributes:
        status: the status.
        detail: its detail.
        base: whether the base tests were passed.
        whole: whether the judge's process can judge again.
    """

    status: str
    detail: str
    base: bool = False
    whole: bool = False


class Judgement:
    """One judgement.

    Args:
        check: how to judge the program.
        program: its text.
        seconds: processor time of the program, or of one call (EvalPlus).
        expected: the outputs of EvalPlus's references, as far as they are known.

    Attributes:
        sure: whether a time-out is certain, independent of the machine's load.
    """

    def __init__(self, check: Check, program: str, seconds: float, expected: ExpectedOutputs) -> None:
        self._check = check
        self._program = program
        self._expected = expected
        evalplus = check.kind == "evalplus"
        self._processor = EVALPLUS_SECONDS if evalplus else seconds
        self._each = seconds * _WALL
        self._bounds = (max(seconds, _LEAST), max(self._processor, _LEAST))
        reference = JUDGE_SECONDS if evalplus else 0.0
        self._tests_wall = self._bounds[1] * _WALL + reference
        self._tests_processor = self._bounds[1] + reference
        self._clock: Clock  # the program's, once it is ready
        self.sure = True

    def limits(self, sandbox: Sandbox) -> Limits:
        """The program's limits: the sandbox's, with this judgement's processor time; wall time is a last resort."""
        program = longest(self._processor * _WALL, self._processor)
        tests = longest(self._tests_wall, self._tests_processor)
        return replace(sandbox.limits, seconds=3 * JUDGE_SECONDS + program + tests, cpu_seconds=self._processor)

    def relay(self, there: Process, judging: Process) -> Result:
        """Relay questions and answers until there is a verdict.

        Raises:
            JudgeLost: the judge's process has ended, not because of an answer.
        """
        sent = self._sent_check()
        ours = Clock(judging, JUDGE_SECONDS, JUDGE_SECONDS)
        try:
            for part in parts(encode(sent)):
                judging.send(part)
            while True:
                ours.start()
                kind = ours.receive(PART)
                if kind == b".":
                    return self._result(_message(ours), sent["key"])
                if kind == b"L":
                    self._load(_message(ours), there, judging)
                    ours = Clock(judging, self._tests_wall, self._tests_processor)
                else:
                    self._relay_question(ours, there, judging)
        except Timeout:
            self.sure = ours.sure
            return Result("timeout", "the tests took too long")
        except TooLarge:
            return Result("error", "the tests sent more data than a judge may send")
        except Ended:
            return self._cut_off(judging)

    def _load(self, nonce: bytes, there: Process, judging: Process) -> None:
        """Wait until the program's process is ready, then let it load the program's text; relay its answer."""
        failure = None
        try:
            there.receive(time.monotonic() + JUDGE_SECONDS, PART)
        except Timeout:
            failure = ("timeout", "the program's process did not start")
        except Ended:
            failure = self._why_ended(there)
        self._clock = Clock(there, self._processor * _WALL, self._processor)
        allowed = self._clock.start(self._each)
        for part in parts(nonce + encode(("load", self._program))):
            failure = failure or self._sends(part, there, allowed)
        self._relay_answer(failure, allowed, there, judging)

    def _relay_question(self, ours: Clock, there: Process, judging: Process) -> None:
        allowed = self._clock.start(self._each)
        failure = None
        while True:
            part = ours.receive(PART)
            failure = failure or self._sends(part, there, allowed)
            if len(part) < PART:
                break
        ours.stop()
        self._relay_answer(failure, allowed, there, judging)

    def _sends(self, part: bytes, there: Process, allowed: float) -> tuple[str, str] | None:
        """Send a part of a question to the program; returns status and detail if this is impossible."""
        return self._attempt(lambda clock: clock.send(part), there, allowed)[1]

    def _relay_answer(self, failure: tuple[str, str] | None, allowed: float, there: Process, judging: Process) -> None:
        """Relay the program's answer to the judge part by part, or the reason why there is none."""
        size = 0
        while failure is None:
            part, failure = self._attempt(lambda clock: clock.receive(PART), there, allowed)
            size += len(part)
            if failure is None and size > MAX_BYTES:
                failure = ("output", f"an answer of more than {MAX_BYTES >> 20} MiB")
            if failure is None:
                judging.send(b"=" + part)
                if len(part) < PART:
                    self._clock.stop()
                    return
        judging.send(b"!" + encode(failure))

    def _attempt(
        self, action: Callable[[Clock], bytes | None], there: Process, allowed: float
    ) -> tuple[bytes, tuple[str, str] | None]:
        try:
            return action(self._clock) or b"", None
        except Timeout:
            self.sure = self._clock.sure
            within = f"no answer within {allowed:.3g} s"
            if allowed < self._each / 2:  # earlier answers have taken the rest
                within = f"its answers took more than {self._processor * _WALL:g} s"
            return b"", ("timeout", within)
        except TooLarge:
            return b"", ("output", "an answer above the size limit")
        except Ended:
            return b"", self._why_ended(there)

    def _why_ended(self, there: Process) -> tuple[str, str]:
        time.sleep(_GRACE)  # not finish(): a program that has closed its channel may still run
        finished = there.kill()
        if finished.how == "timeout":
            self.sure = True
            return "timeout", f"more than {self._processor:g} s of processor time"
        limits = ("memory", "output", "processes", "files")
        status = finished.how if finished.how in limits else "exited"
        code = "" if finished.code is None else f" {finished.code}"
        return status, f"the program's process ended before it answered ({finished.how}{code})"

    def _cut_off(self, judging: Process) -> Result:
        """The verdict if the judge's process met a limit."""
        try:
            finished = judging.finish()
        except SandboxError as error:  # its monitor was killed from outside: start another judge
            raise JudgeLost(str(error)) from error
        status, base = _ending(finished)
        if status == "timeout":
            return Result(status, f"its answers cost the tests more than {self._bounds[0]:g} s of processor time", base)
        if status == "memory":
            return Result(status, f"its answers cost the tests more than {MEMORY >> 20} MiB of memory", base)
        raise JudgeLost(f"the tests' own process ended ({finished.how}, {finished.code})")

    def _sent_check(self) -> dict[str, Any]:
        check = self._check
        try:
            base, plus = ([encode(tuple(one)) for one in inputs] for inputs in (check.base_inputs, check.plus_inputs))
        except Refused as error:
            raise CorpusError(f"task {check.task_id}: an input cannot be sent to a program: {error}") from error
        key = hashlib.sha256(encode((check.reference, check.entry_point, base, plus))).digest()
        return {
            "kind": check.kind,
            "entry_point": check.entry_point,
            "prompt": check.prompt,
            "test": check.test,
            "setup": check.setup,
            "test_list": check.test_list,
            "reference": check.reference,
            "base_inputs": base,
            "plus_inputs": plus,
            "atol": check.atol,
            "rules": check.rules,
            "bounds": self._bounds,
            "expected": self._expected.known(key),
            "key": key,
        }

    def _result(self, content: bytes, key: bytes) -> Result:
        try:
            said = decode(content)
            result = Result(str(said["status"]), str(said["detail"]), said["base"] is True, whole=True)
            if self._check.kind == "evalplus":
                self._expected.keep(key, [bytes(one) for one in said["expected"]])
        except (Refused, KeyError, TypeError):
            return Result("error", "the tests' own process wrote no verdict")
        return result


def _message(clock: Clock) -> bytes:
    """A whole message of the judge."""
    found = [clock.receive(PART)]
    while len(found[-1]) == PART:
        found.append(clock.receive(PART))
    return b"".join(found)


def _ending(finished: Finished) -> tuple[str, bool]:
    if finished.how == "exited" and finished.code in CUT_OFF:
        return CUT_OFF[finished.code]
    return finished.how, False
