"""Kill commands of ``donod-fast``, run them again, and see what is there. It runs as a program, so that kills are real.

This process imports everything once. Each trial forks it: the fork is the command. It is killed at a chosen change of
the disk (``disk_steps.py``) or at a random moment; then the folder is looked at; then the same command runs again.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from disk_steps import DiskSteps
from kill_operations import OPERATIONS, Inputs, Operation, canonical, contents

from donod_fast.system.checked_json import verified

LIMIT = 300.0
"""Seconds after which a command counts as hung."""


@dataclass(frozen=True)
class Trial:
    """One kill and what came of it.

    Attributes:
        operation: name of the operation.
        kill: where it was killed: a number of a call that changes the disk, or a moment.
        outcome: ``equal`` to an undisturbed run once the command had run again; ``refused``: it was refused by name,
            and what the message asks for led to equal outputs; ``failed``; or ``missed``: it had ended before.
        detail: the call that it was killed at, or what failed.
    """

    operation: str
    kill: str
    outcome: str
    detail: str = ""


class Failure(Exception):
    """What a trial shows to be wrong."""


class Killer:
    """Runs and kills commands in forks of this process.

    Args:
        place: an empty folder.
        names: the operations that it will kill.
        address: of a Ray cluster, for the operations that need one.
    """

    def __init__(self, place: Path, names: Iterable[str], address: str | None = None) -> None:
        self._steps = DiskSteps()
        # This process changes files too, but none that is watched while a command runs
        self._place, self._watched = place, place / "watched"
        self._trial, self._temporary = self._watched / "trial", self._watched / "temporary"
        for folder in (self._trial, self._temporary):
            folder.mkdir(parents=True)
        os.environ["TMPDIR"] = str(self._temporary)
        _warm_up(names)
        self.inputs = Inputs(place / "inputs", self.run, address)
        self._wanted: dict[str, dict[str, bytes]] = {}
        self._calls: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def run(self, *arguments: object) -> None:
        """Run a command to its end. Raises AssertionError: it failed."""
        code, said = self._ended(self._started(list(arguments)))
        assert code == 0, (arguments, code, said)

    def learn(self, operation: Operation) -> int:
        """Run an operation undisturbed, and return how often it changes the disk."""
        before = self._place / f"before {operation.name}".replace("/", "|")
        if not before.exists():
            shutil.rmtree(self._trial)
            self._trial.mkdir()
            operation.prepare(self.inputs, self._trial, self.run)
            shutil.copytree(self._trial, before)
            self._reset(operation)
            self._steps.arm(self._watched, None)
            began = time.monotonic()
            self.run(*operation.command(self.inputs, self._trial))
            self._seconds[operation.name] = time.monotonic() - began
            self._calls[operation.name] = self._steps.disarm()[0]
            self._wanted[operation.name] = contents(self._trial)
            litter = list(self._litter())
            assert not litter, (operation.name, litter)
        return self._calls[operation.name]

    def at_step(self, operation: Operation, step: int, *, half: bool, group: bool) -> Trial:
        """Kill at a change of the disk."""
        self._reset(operation)
        self._steps.arm(self._watched, step, half=half, group=group)
        leader = self._started(operation.command(self.inputs, self._trial))
        code, said = self._ended(leader)
        at = self._steps.disarm()[1]
        kill = f"step {step}{' half' if half else ''}{' group' if group else ''}"
        return self._resumed(operation, kill, leader, code, said, at)

    def at_moment(self, operation: Operation, share: float) -> Trial:
        """Kill after a share of the time that an undisturbed run takes."""
        self._reset(operation)
        leader = self._started(operation.command(self.inputs, self._trial))
        time.sleep(share * self._seconds[operation.name])
        os.kill(leader, signal.SIGKILL)
        code, said = self._ended(leader)
        return self._resumed(operation, f"moment {share:.3f}", leader, code, said, "")

    def _resumed(self, operation: Operation, kill: str, leader: int, code: int, said: str, at: str) -> Trial:
        name = operation.name
        try:
            if code not in (0, -signal.SIGKILL):
                raise Failure(f"it ended with {code}: {said}")
            killed = code == -signal.SIGKILL or at
            if killed:
                self._look(operation)
            outcome = self._again(operation)
            _end_group(leader)
            return Trial(name, kill, outcome if killed else "missed", at)
        except Failure as failure:
            return Trial(name, kill, "failed", f"{at}: {failure}")
        finally:
            _end_group(leader)

    def _look(self, operation: Operation) -> None:
        """Each file that has its final name is whole: what it was before, or what an undisturbed run writes."""
        wanted = self._wanted[operation.name]
        before = self._before(operation)
        names = {name for name in wanted if not _is_working_file(name)}
        for name in sorted(names):
            file = self._trial / name
            if not file.is_file() or any(fnmatch.fnmatch(name, one) for one in operation.changing):
                continue
            if (before / name).exists() and file.read_bytes() == (before / name).read_bytes():
                continue
            try:
                found = canonical(file)
                if file.suffix == ".json" and name.endswith("manifest.json"):
                    verified(json.loads(file.read_bytes()), needs_checksum=True)
            except Exception as error:
                raise Failure(f"{name} is not whole: {type(error).__name__}: {error}") from error
            # A manifest grows during a run; its checksum was verified
            if found != wanted[name] and not name.endswith("manifest.json"):
                raise Failure(f"{name} is neither what it was nor what it becomes")

    def _again(self, operation: Operation) -> str:
        arguments = operation.command(self.inputs, self._trial)
        code, said = self._ended(self._started(arguments))
        outcome = "equal"
        if code != 0:
            errors = [line for line in said.splitlines() if line.startswith("donod-fast: error: ")]
            if "Traceback" in said or len(errors) != 1 or not 0 < code < 8:
                raise Failure(f"run again, it ended with {code}: {said}")
            outcome = "refused"
            if self._unlike(operation):
                if not operation.again or operation.again[0] not in said:
                    raise Failure(f"refused without a way out: {said}")
                code, said = self._ended(self._started([*arguments, *operation.again]))
                if code != 0:
                    raise Failure(f"refused, and then with {operation.again} too: {said}")
        unlike = self._unlike(operation)
        if unlike:
            raise Failure(f"{outcome}, and unlike an undisturbed run: {', '.join(unlike[:5])}")
        litter = list(self._litter())
        if litter:
            raise Failure(f"{outcome}, and left: {', '.join(litter[:5])}")
        return outcome

    def _unlike(self, operation: Operation) -> list[str]:
        wanted = self._wanted[operation.name]
        try:
            found = contents(self._trial)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        return [name for name in names if not any(fnmatch.fnmatch(name, one) for one in operation.changing)]

    def _litter(self) -> Iterator[str]:
        for entry in sorted(self._temporary.iterdir()):
            yield f"temporary/{entry.name}"

    def _before(self, operation: Operation) -> Path:
        return self._place / f"before {operation.name}".replace("/", "|")

    def _reset(self, operation: Operation) -> None:
        for folder in (self._trial, self._temporary):
            while folder.exists():  # a worker that has lost its driver may still write a part
                shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._before(operation), self._trial)
        self._temporary.mkdir()

    def _started(self, arguments: list[object]) -> int:
        (self._place / "said").write_bytes(b"")
        child = os.fork()
        if child == 0:
            _command([str(one) for one in arguments], self._place / "said")
        with suppress(OSError):  # here too: whoever comes first
            os.setpgid(child, child)
        return child

    def _ended(self, child: int) -> tuple[int, str]:
        deadline = time.monotonic() + LIMIT
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            if time.monotonic() > deadline:
                _end_group(child)
                os.waitpid(child, 0)
                return 99, f"it hung for {LIMIT} s"
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(status), (self._place / "said").read_text("utf-8", "replace")


def _is_working_file(name: str) -> bool:
    """Whether a file is appended to, or replaced in a folder that only counts once it is marked as complete."""
    return name.endswith(("samples.jsonl", "verdicts.jsonl")) or "/checkpoints/" in name


def _end_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _command(arguments: list[str], said: Path) -> None:
    """``donod-fast …`` in this fork; never returns."""
    os.setpgid(0, 0)
    target = os.open(said, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(target, number)
    sys.argv = ["donod-fast", *arguments]
    code = 1
    try:
        from donod_fast.cli import main

        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        import atexit

        atexit._run_exitfuncs()
        os._exit(code)


def _warm_up(names: Iterable[str]) -> None:
    """Import what these operations import, so that forks need not."""
    modules = ["datasets", "donod_fast.cli.score", "donod_fast.engines.choosing", "donod_fast.engines.devices"]
    modules += ["donod_fast.engines.local", "transformers.models.llama.modeling_llama"]
    modules += [module for name in names for module in _IMPORTED.get(name.split()[0], ())]
    for module in modules:
        importlib.import_module(module)

    # A fresh interpreter for each device would take seconds, and the children are killed all the same.
    process = importlib.import_module("donod_fast.engines.device.process")
    process.CONTEXT = multiprocessing.get_context("fork")  # type: ignore[attr-defined]


_IMPORTED = {
    "select": ("duckdb", "donod_fast.cli.select", "donod_fast.selection.choosing"),
    "report": ("donod_fast.cli.report", "donod_fast.reports.report"),
    "train": ("trl", "donod_fast.cli.train", "donod_fast.training.run"),
    "eval": ("donod_fast.cli.evaluate", "donod_fast.evaluation.run"),
}
"""What a command imports late."""


_CLUSTER = """
import os, sys
from cluster_specs import NURSERY, start_nursery
os.environ[NURSERY] = start_nursery()
from nodes import TwoNodes
nodes = TwoNodes()
print("address", nodes.address, flush=True)
sys.stdin.read()
nodes.shutdown()
"""


@contextmanager
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine, in processes of its own: forks need a quiet parent."""
    import ray  # noqa: F401  # drivers are forks, which need not import it

    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_worker_register_timeout_seconds": "600",
    }
    os.environ.update(settings)
    head = subprocess.Popen([sys.executable, "-c", _CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert head.stdin is not None and head.stdout is not None
    try:
        for line in head.stdout:
            if line.startswith("address "):
                yield line.split()[1]
                break
        else:
            raise AssertionError("the cluster did not start")
    finally:
        head.stdin.close()
        head.wait()


def trials(killer: Killer, operation: Operation, kills: int, seed: int) -> Iterator[Trial]:
    """Kill an operation so many times: mostly at steps, each step before another one twice, the rest at random."""
    draw = random.Random(f"{seed} {operation.name}")
    calls = killer.learn(operation)
    moments = kills // 5
    steps: list[tuple[int, bool]] = []
    while len(steps) < kills - moments:
        round_ = [(step, draw.random() < 0.5) for step in range(calls)]
        draw.shuffle(round_)
        steps += round_
    for step, half in steps[: kills - moments]:
        yield killer.at_step(operation, step, half=half, group=draw.random() < 0.5)
    for _ in range(moments):
        yield killer.at_moment(operation, draw.random())


def main() -> None:
    """Print one line of JSON a trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, required=True, help="an empty folder")
    parser.add_argument("--kill", action="append", default=[], help="a number and the name of an operation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    operations = {one.name: one for one in OPERATIONS}
    wanted = [(operations[name], int(number)) for number, _, name in (one.partition(" ") for one in options.kill)]
    with cluster() if any(one.needs_cluster for one, _ in wanted) else nullcontext() as address:
        killer = Killer(options.place, [one.name for one, _ in wanted], address)
        for operation, number in wanted:
            for trial in trials(killer, operation, number, options.seed):
                print(json.dumps(asdict(trial)), flush=True)


if __name__ == "__main__":
    main()
