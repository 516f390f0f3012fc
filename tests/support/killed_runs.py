"""A process that forks scoring workers and kills them. It runs as a program, so that kills are real.

This process imports everything and loads the model once. Every worker inherits both and does the real work: it takes
the folder's lock, opens the corpus, and scores it into the folder.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from score_runs import tiny_scorer

from donod_fast.data.reading import open_corpus
from donod_fast.engines.local import score_corpus
from donod_fast.scores.folder import locked
from donod_fast.scoring.scorer import Scorer

FINISHED = 0


def work(scorer: Scorer, data: Path, out: Path, part_rows: int, **options: Any) -> None:
    """What ``donod-fast score`` does once the model is loaded."""
    with locked(out):
        score_corpus(open_corpus([str(data)]), scorer, out, part_rows=part_rows, **options)


def forked(job: Callable[[], None]) -> int:
    """Run a job in a forked process; returns its process id."""
    worker = os.fork()
    if worker:
        return worker
    code = 1
    try:
        job()
        code = FINISHED
    finally:
        os._exit(code)


def ended(worker: int) -> int:
    """Wait for a worker: its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


def kill_at_random(scorer: Scorer, data: Path, out: Path, part_rows: int, seed: int, patience: float) -> dict[str, Any]:
    """Start workers and kill each within ``patience`` seconds, at random, until one ends normally."""
    draw = random.Random(seed)
    seen = [0]
    while True:
        worker = forked(lambda: work(scorer, data, out, part_rows))
        time.sleep(draw.uniform(0.0, patience))
        os.kill(worker, signal.SIGKILL)
        code = ended(worker)
        if code != -signal.SIGKILL:
            assert code == FINISHED, code
            return {"kills": len(seen) - 1, "parts_seen": seen[1:]}
        seen.append(len(list(out.glob("part-*.parquet"))))
        # However fast the machine now is: an attempt commits a part or two, not many and not none
        if seen[-1] > seen[-2] + 2:
            patience /= 2
        elif seen[-1] == seen[-5:][0]:
            patience *= 1.2


def kill_at_every_step(
    scorer: Scorer, data: Path, out: Path, part_rows: int, begun: Path | None = None, **options: Any
) -> dict[str, Any]:
    """Kill a worker right before and right after each call that changes the folder; then finish the run.

    Each point has a folder of its own, ``out/<n>``, left as the second, undisturbed worker finishes it. Each is a copy
    of ``begun``, if that is given.
    """
    for point in range(1000):
        folder = out / str(point)
        if begun is not None:
            shutil.copytree(begun, folder)

        def first(point: int = point, folder: Path = folder) -> None:
            _work_until(point, lambda: work(scorer, data, folder, part_rows, **options))

        code = ended(forked(first))
        second = ended(forked(lambda folder=folder: work(scorer, data, folder, part_rows, **options)))
        assert second == FINISHED, (point, second)
        if code == FINISHED:
            return {"points": point}
        assert code == -signal.SIGKILL, (point, code)
    raise AssertionError("more than a thousand points")


def _work_until(point: int, job: Callable[[], None]) -> None:
    left = [point]

    def step() -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    def between_steps(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            step()
            result = original(*arguments, **options)
            step()
            return result

        setattr(owner, name, watched)

    between_steps(os, "fsync")
    for name in ("replace", "unlink", "mkdir"):
        between_steps(Path, name)
    opened = Path.open

    def watched_open(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = opened(path, mode, *arguments, **options)
        if "w" not in mode:
            return file
        step()  # an empty file is there
        return _HalfWriter(file, step)

    Path.open = watched_open  # type: ignore[method-assign]
    job()


class _HalfWriter:
    """A file whose first write is done by halves, with a step between them."""

    def __init__(self, file: Any, step: Callable[[], None]) -> None:
        self._file, self._step, self._first = file, step, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _HalfWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        content = bytes(data)
        half = len(content) // 2 if self._first else 0
        self._file.write(content[:half])
        if self._first:
            self._file.flush()
            self._step()
        self._first = False
        self._file.write(content[half:])
        return len(content)


if __name__ == "__main__":
    torch.set_num_threads(1)
    how, model, data, out, part_rows = sys.argv[1], *map(Path, sys.argv[2:5]), int(sys.argv[5])
    scorer = tiny_scorer(model)
    # Not in a worker: each of them inherits what the first run imported
    losses = how.startswith("losses")
    work(scorer, data, out / "undisturbed", part_rows, token_losses=losses)
    if how == "random":
        began = time.perf_counter()
        assert ended(forked(lambda: work(scorer, data, out / "timed", part_rows))) == FINISHED
        parts = len(list((out / "timed").glob("part-*.parquet")))
        patience = 2.0 * (time.perf_counter() - began) / parts
        report = kill_at_random(scorer, data, out / "killed", part_rows, int(sys.argv[6]), patience)
    elif how == "losses added":
        work(scorer, data, out / "without", part_rows)
        report = kill_at_every_step(scorer, data, out, part_rows, out / "without", token_losses=True)
    else:
        report = kill_at_every_step(scorer, data, out, part_rows, token_losses=losses)
    print(json.dumps(report))
