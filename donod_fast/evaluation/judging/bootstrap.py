"""Start script of both processes: makes this package's modules importable even if donod_fast is not installed there."""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes longer than the rest

for _name in ("donod_fast", "donod_fast.evaluation", "donod_fast.evaluation.judging"):
    _package = type(sys)(_name)
    _package.__path__ = [_HERE]
    sys.modules[_name] = _package

if sys.argv[1] == "program":
    from donod_fast.evaluation.judging.program_side import main
else:
    from donod_fast.evaluation.judging.judge_side import main
main()
