"""Verdicts on hostile programs, reached from outside them.

The program answers questions in a sandboxed process of its own and can send plain data only; the tests run in another
sandboxed process, which writes the verdict. See ``relay.py`` for the picture.
"""

from donod_fast.evaluation.judging.check import Check, Verdict
from donod_fast.evaluation.judging.records import evalplus_check, human_eval_check, mbpp_check
from donod_fast.evaluation.judging.relay import judge

__all__ = ["Check", "Verdict", "evalplus_check", "human_eval_check", "judge", "mbpp_check"]
