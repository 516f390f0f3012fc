"""Attacks on the walls, as root and as an ordinary user, in each kind of isolation; and one program beside another."""

from __future__ import annotations

import json
import sys

import pytest
from attack_counts import Attacks
from attack_parts import FACTOR, MEMORY, Attack, achieved
from attack_runs import KINDS, run_attacks
from sandbox_attacks import ATTACKS
from sandbox_runs import run_as_ordinary_user

from donod_fast.evaluation.sandbox import Finished, Isolation, Sandbox

USERS = ("root", "an ordinary user")
GROUPS = ("other processes", "first to be killed", "hidden", "shared with", "call", "memory", "beside")
SHARES = {"call": 4, "memory": 12, "beside": 12}
"""In the suite, each combination tries one attack of so many."""


def run_as(user: str, sandbox: Sandbox, prefix: str, part: int, parts: int) -> dict[str, list[str]]:
    """What the attacks achieved, run by that user."""
    if (user == "root") != sandbox.as_root:
        if user == "root":
            pytest.skip("needs root")
        done = run_as_ordinary_user("attack_runs.py", str(sandbox.isolation), prefix, str(part), str(parts))
        if done.returncode and ("No permissions" in done.stderr or "not permitted" in done.stderr):
            pytest.skip(f"ordinary users have no namespaces here: {done.stderr.strip()[-300:]}")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return run_attacks(sandbox, prefix, part, parts)


@pytest.mark.attack
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("group", GROUPS)
def test_no_attack_on_the_walls_gets_through(group: str, user: str, sandbox: Sandbox, attacks: Attacks) -> None:
    """``make attack`` tries all attacks in each of the four combinations, the suite one of ``SHARES`` in each."""
    parts = 1 if attacks.full else SHARES.get(group, 1)
    part = (USERS.index(user) + 2 * (sandbox.isolation == Isolation.NAMESPACES)) * max(1, parts // 4) % parts
    found = run_as(user, sandbox, group, part, parts)
    assert found
    for kind, what in found.items():
        # The calls are many and small: one line in the table.
        name = "calls that a program does not need" if group == "call" else kind
        attacks.count("sandbox", f"{name}, {sandbox.isolation}, {user}", tried=1, got_through=bool(what))
    assert {kind: what for kind, what in found.items() if what} == {}


def test_every_attack_belongs_to_a_group() -> None:
    assert [kind for kind in KINDS if sum(kind.startswith(group) for group in GROUPS) != 1] == []


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (b"END\n", False),
        (b"", True),
        (b"THROUGH x\nEND\n", True),
        (b"HELD %d\nEND\n" % (FACTOR * MEMORY), False),
        (b"HELD 1\nHELD %d\nEND\n" % (FACTOR * MEMORY), True),
    ],
)
def test_what_an_attack_achieved_is_recognised(said: bytes, wrong: bool) -> None:
    assert bool(achieved(Attack(""), Finished("exited", 0, said, b"", 0.1, None))) == wrong


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_attacks_get_through_where_there_are_no_walls(unsafe_sandbox: Sandbox) -> None:
    """So that none is harmless by an error of its own. Only those that do no harm to this machine."""
    for name in ("inotify_init1", "memfd_create", "timer_create, many", "sockets of any family"):
        attack = ATTACKS[f"call: {name}"]
        done = unsafe_sandbox.run({"main.py": attack.program}, ["{python}", "{program}/main.py"])
        assert achieved(attack, done), name


def test_attacks_are_programs() -> None:
    for attack in ATTACKS.values():
        compile(attack.program, "attack.py", "exec")
