"""Run attacks of one program, or of one beside another, and print as JSON what got through.

As a script: ``attack_runs.py ISOLATION WHAT COUNT``; :mod:`sandbox_runs` starts it as an ordinary user.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from sandbox_attacks import ATTACKS, Attack, achieved  # noqa: E402

from donod_fast.evaluation.sandbox import Finished, Isolation, Limits, Sandbox  # noqa: E402


def start_attack(sandbox: Sandbox, attack: Attack) -> Finished:
    """Run one attack to its end."""
    limits = replace(sandbox.limits, **attack.limits)
    return sandbox.run({"main.py": attack.program}, ["{python}", "{program}/main.py"], limits=limits)


def run_attacks(sandbox: Sandbox, prefix: str, count: int) -> dict[str, list[list[str]]]:
    """What each trial of the attacks whose kind begins with ``prefix`` achieved."""
    found: dict[str, list[list[str]]] = {}
    for kind, attack in ATTACKS.items():
        if kind.startswith(prefix):
            found[kind] = [achieved(attack, start_attack(sandbox, attack)) for _ in range(count)]
    return found


if __name__ == "__main__":
    kind, prefix, count = sys.argv[1:]
    sandbox = Sandbox(Isolation(kind), Limits(seconds=20))
    print(json.dumps(run_attacks(sandbox, prefix, int(count))))
