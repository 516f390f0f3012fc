"""Run attacks of one program, or of hostile programs beside a correct one, and print as JSON what got through.

As a script ``attack_runs.py ISOLATION PREFIX PART PARTS``; :mod:`sandbox_runs` starts it as an ordinary user.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from attack_parts import achieved  # noqa: E402
from sandbox_attacks import ATTACKS  # noqa: E402
from sandbox_pairs import HOSTILE, TOGETHER, beside  # noqa: E402

from donod_fast.evaluation.sandbox import Isolation, Limits, Sandbox  # noqa: E402

BESIDE = "beside a hostile program: "
KINDS = [*ATTACKS, *(BESIDE + kind for kind in HOSTILE)]
"""All kinds of attacks."""


def run_attacks(sandbox: Sandbox, prefix: str, part: int, parts: int) -> dict[str, list[str]]:
    """What each attack achieved, of every ``parts``-th kind that begins with ``prefix``, from number ``part`` on."""
    found: dict[str, list[str]] = {}
    for kind in [kind for kind in KINDS if kind.startswith(prefix)][part::parts]:
        if kind in ATTACKS:
            attack = ATTACKS[kind]
            limits = replace(sandbox.limits, **attack.limits)
            command = ["{python}", "{program}/main.py"]
            found[kind] = achieved(attack, sandbox.run({"main.py": attack.program}, command, limits=limits))
        else:
            name = kind.removeprefix(BESIDE)
            found[kind] = beside(sandbox, HOSTILE[name], hostile=TOGETHER.get(name, 3))
    return found


if __name__ == "__main__":
    isolation, prefix, part, parts = sys.argv[1:]
    print(json.dumps(run_attacks(Sandbox(Isolation(isolation), Limits(seconds=20)), prefix, int(part), int(parts))))
