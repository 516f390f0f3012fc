"""Judge hostile programs from outside their process.

The program answers questions in its own sandboxed process and can send plain data only; the tests run in another
sandboxed process, which writes the verdict. See ``relay.py`` for a diagram.
"""

from donod_fast.evaluation.judging.check import Check, Verdict
from donod_fast.evaluation.judging.records import evalplus_check, human_eval_check, mbpp_check
from donod_fast.evaluation.judging.relay import judge

__all__ = ["Check", "Verdict", "evalplus_check", "human_eval_check", "judge", "mbpp_check"]
