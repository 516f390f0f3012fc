"""Many kills at random points of a run with several processes: no row lost or duplicated, identical bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from score_runs import COMMAND, ENVIRONMENT, assert_same_bits, command, leftovers, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.scores.folder import ScoresFolder

KILLS = 20
PART_ROWS = 8


def processes_below(process: int) -> list[int]:
    """Ids of the processes that a process has started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found = [process]
    for number in found:
        found += parents.get(number, [])
    return found[1:]


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_a_run_killed_twenty_times_equals_an_undisturbed_one(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    data = write_lines(tmp_path / "rows.jsonl", short_rows(20000))
    options = ["score", data, "--model", model, "--part-rows", PART_ROWS, "--devices", "cpu,cpu", "--out"]
    out = tmp_path / "out"
    draw = random.Random(11)
    kills = {"command": 0, "child": 0}
    run: subprocess.Popen[bytes] | None = None
    while sum(kills.values()) < KILLS:
        if run is None or run.poll() is not None:
            assert run is None or run.returncode != 0, f"it ended after {kills}; give it more rows"
            run = subprocess.Popen([*COMMAND, *map(str, [*options, out]), "--quiet"], env=ENVIRONMENT, cwd=os.sep)
            before = len(list(out.glob("part-*.parquet")))
            while len(list(out.glob("part-*.parquet"))) <= before and run.poll() is None:
                time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 1.0))
        children = processes_below(run.pid)
        victim = draw.choice([run.pid, *children])
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            kills["command" if victim == run.pid else "child"] += 1
        if victim == run.pid:
            run.wait(60)
    assert min(kills.values()) > 0
    if run is not None and run.poll() is None:
        run.kill()
        run.wait(60)
    parts = len(list(out.glob("part-*.parquet")))
    assert 0 < parts < 2500
    done = command(*options, out)
    assert done.code == 0, done.err
    assert command(*options, tmp_path / "undisturbed").code == 0
    assert_same_bits(ScoresFolder.open(out).table(), ScoresFolder.open(tmp_path / "undisturbed").table())
    assert [name for name in leftovers(out) if name != "problems.json"] == []
