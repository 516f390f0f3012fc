"""A process that forks the tasks of arrays and kills some of them. It runs as a program, so that kills are real.

It loads the model once. Each task inherits it and does what ``donod-fast score --shard`` does from there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from killed_runs import FINISHED, ended, forked, work
from score_runs import tiny_scorer

from donod_fast.data.reading import open_corpus
from donod_fast.engines.array.holding import holding
from donod_fast.engines.local import score_corpus
from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.scoring.scorer import Scorer

TASKS = 3
PART_ROWS = 8
REFUSED, OTHER_SETTINGS = 3, 4


def score(scorer: Scorer, data: Path, out: str, task: ArrayTask, part_rows: int = PART_ROWS) -> None:
    """One task; it exits with a code of its own if it is refused."""
    try:
        with holding(out, task):
            score_corpus(open_corpus([str(data)]), scorer, out, part_rows=part_rows, task=task)
    except SettingsMismatchError:
        os._exit(OTHER_SETTINGS)
    except StoreError as error:
        print(error, file=sys.stderr)
        os._exit(REFUSED)


def at_once(scorer: Scorer, data: Path, out: str, part_rows: list[int]) -> list[int]:
    """Start a task for each entry of ``part_rows`` at the same moment; their exit codes."""
    count = len(part_rows)
    gate, opener = os.pipe()

    def job(index: int) -> None:
        os.close(opener)
        os.read(gate, 1)  # returns for all of them when the parent closes its end
        score(scorer, data, out, ArrayTask(count, index), part_rows[index])

    workers = [forked(lambda index=index: job(index)) for index in range(count)]
    os.close(opener)
    os.close(gate)
    return [ended(worker) for worker in workers]


def killed(scorer: Scorer, data: Path, out: Path, seed: int, patience: float) -> dict[str, Any]:
    """Start all unfinished tasks again and again, and kill some of them at random times, until all have ended well."""
    draw = random.Random(seed)
    left, kills, seen = set(range(TASKS)), 0, [0]
    while left:
        workers = {index: forked(lambda index=index: score(scorer, data, str(out), ArrayTask(TASKS, index)))
                   for index in sorted(left)}  # fmt: skip
        victims = [index for index in sorted(left) if draw.random() < 0.7]
        for index in victims:
            time.sleep(draw.uniform(0.0, patience))
            os.kill(workers[index], signal.SIGKILL)
        for index, worker in workers.items():
            if index not in victims and len(left) > 1:
                time.sleep(draw.uniform(0.0, patience))
                os.kill(worker, signal.SIGKILL)
            code = ended(worker)
            if code == FINISHED:
                left.discard(index)
            else:
                assert code == -signal.SIGKILL, code
                kills += 1
        seen.append(len(list(out.glob("part-*.parquet"))))
        if seen[-1] <= seen[-2] + 1:  # however slow the machine now is, each round commits something
            patience *= 1.5
    return {"kills": kills, "seen": seen}


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, data, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    scorer = tiny_scorer(model)
    began = time.perf_counter()
    work(scorer, data, out / "undisturbed", PART_ROWS)  # not in a task: each of them inherits what this imported
    parts = len(list((out / "undisturbed").glob("part-*.parquet")))
    patience = 6 * (time.perf_counter() - began) / parts
    report: dict[str, Any] = {"at once": at_once(scorer, data, str(out / "at-once"), [PART_ROWS] * 4)}
    report["mixed"] = at_once(scorer, data, str(out / "mixed"), [8, 9, 8, 9])
    report |= killed(scorer, data, out / "killed", int(sys.argv[4]), patience)
    if len(sys.argv) > 5:  # a folder on an object store
        report["stored"] = at_once(scorer, data, sys.argv[5], [PART_ROWS] * 3)
        report["stored mixed"] = at_once(scorer, data, sys.argv[5] + "-mixed", [8, 9, 8])
    print(json.dumps(report))
