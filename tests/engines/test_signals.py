"""Signals at random moments: nothing is left behind, and the next run ends like one that was never interrupted."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from attack_counts import Attacks
from edge_cases import SCORE, EdgeRunner, make_stage
from score_runs import assert_same_bits, leftovers

from donod_fast.scores.folder import ScoresFolder

pytestmark = [pytest.mark.attack, pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")]

LONGEST_SECONDS = 4.0
"""Signals come within this time even if the first run was held up by the machine."""

ENDS = {
    "terminate": 143, "hangup": 129, "interrupt": 130, "interrupt_twice": 130, "terminate_twice": 143, "kill": -9,
}  # fmt: skip
COMMANDS: dict[str, tuple[str, ...]] = {
    "score": (*SCORE[:6], "--part-rows", "4", "--device", "cpu"),
    "score standard input": ("score", "-", *SCORE[2:]),
    "select": ("select", "scores", "--keep", "0.5", "--out", "subset.jsonl"),
    "select larger than memory": ("select", "scores", "--keep", "0.5", "--out", "subset.jsonl", "--engine", "duckdb"),
    "export a folder": ("export", "scores", "--out", "all"),
    "merge": ("merge", "scores", "scores2", "--out", "out"),
    "evaluate": ("eval", "humaneval", "--problems", "problems.jsonl", "--canonical", "--out", "judged"),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(tmp_path_factory.mktemp("signals") / "stage")


@pytest.fixture(scope="module")
def runner(stage: Path) -> Iterator[EdgeRunner]:
    with EdgeRunner(stage, stage.parent / "scratch") as found:
        yield found


def test_signals_at_random_moments_change_no_result(attacks: Attacks, runner: EdgeRunner, stage: Path) -> None:
    draw = random.Random(3)
    rows = (stage / "rows.jsonl").read_bytes()
    lasts: dict[str, float] = {}
    undisturbed: dict[str, pa.Table] = {}
    wrong, number = [], attacks.number(4, 90)
    for _ in range(number):
        name = draw.choices(list(COMMANDS), weights=[8, 3, 1, 2, 2, 1, 2])[0]
        how = draw.choice(list(ENDS))
        words = COMMANDS[name]
        if name not in lasts:
            began = time.monotonic()
            ended = runner.run(*words, input=rows)
            assert ended.code == 0, ended
            lasts[name] = min(time.monotonic() - began, LONGEST_SECONDS)
            if name.startswith("score"):
                undisturbed[name] = ScoresFolder.open(ended.place / "out").table()
        after = draw.uniform(0.02, 1.0) * lasts[name]
        given = {"kill": after} if how == "kill" else {"surrounding": how, "delay": after}
        ended = runner.run(*words, input=rows, **given)
        faults = ended.faults()
        if how == "kill":  # nothing can be removed then; the next run does it
            faults = [fault for fault in faults if not fault.startswith(("left", "code -9"))]
        elif ended.code not in (0, ENDS[how]):
            faults.append(f"code {ended.code}")
        again = runner.run(*words, *(("--overwrite",) if _refuses_old(name) else ()), kept=True, input=rows)
        faults += [f"again: {fault}" for fault in again.faults()]
        if again.code != 0:
            faults.append(f"again: code {again.code} {again.err[-300:]!r}")
        elif name.startswith("score"):
            try:
                assert_same_bits(ScoresFolder.open(again.place / "out").table(), undisturbed[name])
            except AssertionError:
                faults.append("again: other scores")
            faults += [f"again: left {one}" for one in leftovers(again.place / "out") if one != "stdin.jsonl"]
        if faults:
            wrong.append((name, how, round(after, 3), faults, ended.err[-300:]))
    attacks.count("signals", "signals at random moments", tried=number, got_through=len(wrong))
    if wrong:
        pytest.fail("\n".join(map(repr, wrong)))


def _refuses_old(name: str) -> bool:
    return name.startswith(("select", "export", "merge"))


def test_a_live_run_keeps_its_temporary_files(runner: EdgeRunner, stage: Path) -> None:
    from donod_fast.system.files import atomic_writer, remove_abandoned_files, temporary_name
    from donod_fast.system.scratch import remove_abandoned, scratch_folder

    place = stage.parent / "live"
    place.mkdir()
    abandoned = place / temporary_name("other", 1)
    abandoned.write_bytes(b"x")
    with scratch_folder(place, ".donod-fast-test-") as folder, atomic_writer(place / "file") as file:
        killed = place / ".donod-fast-test-killed"
        shutil.copytree(folder, killed)
        remove_abandoned(place, ".donod-fast-test-")
        remove_abandoned_files(place)
        assert folder.is_dir() and not killed.exists() and not abandoned.exists()
        file.write(b"content")
    assert [one.name for one in place.iterdir()] == ["file"]


@pytest.mark.parametrize("error", ["ImportError('numpy failed to import')", "ModelError('cannot load')", "OSError(5)"])
def test_whatever_a_library_makes_of_an_interruption_it_is_one(error: str) -> None:
    program = f"""
import os, signal, sys, time
from donod_fast.cli import app as module, main
from donod_fast.errors import ModelError
def run(**_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException:
        raise {error} from None
module.app = run
sys.argv = ["donod-fast", "status"]
main()
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 143 and "internal error" not in done.stderr and "Traceback" not in done.stderr
