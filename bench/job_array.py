"""An array of two tasks against one process: rows per second on the same corpus, each process with one thread.

    python bench/job_array.py --model ../shared/models/tiny-instruct --rows 4000 --runs 3

Every run scores into a new folder. The processes of an array start at the same moment; its time ends with the last of
them. The time is that of the whole commands without the start of Python and the loading of the model, which `score
--json` reports as `seconds`; the command's own time is in the column `command_s`. Each process is pinned to a core of
its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import circumstances, print_rows, write_rows

PROGRAM = [sys.executable, "-P", "-c", "from donod_fast.cli import main; main()"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
WORDS = [
    "count",
    "the",
    "red",
    "and",
    "green",
    "stones",
    "of",
    "a",
    "river",
    "house",
    "which",
    "answer",
    "number",
    "is",
]


def write_corpus(path: Path, rows: int) -> None:
    """A corpus of generated questions and answers."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            question, answer = (" ".join(draw.choices(WORDS, k=draw.randint(8, 60))) for _ in range(2))
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")


def run(command: list[str], tasks: int, cores: list[int]) -> tuple[float, float]:
    """Score with so many processes; (the longest time of scoring, the time of the commands) in seconds."""
    start = time.perf_counter()
    processes = []
    for index in range(tasks):
        share = ["--shard", f"{index}/{tasks}"] if tasks > 1 else []
        core = cores[index % len(cores)]
        whole = ["taskset", "-c", str(core), *PROGRAM, *command, *share]
        processes.append(subprocess.Popen(whole, stdout=subprocess.PIPE, env=ONE_THREAD, text=True))
    said = [process.communicate()[0] for process in processes]
    seconds = time.perf_counter() - start
    if any(process.returncode for process in processes):
        raise SystemExit("a process failed")
    return max(float(json.loads(one)["seconds"]) for one in said), seconds


def main() -> None:
    """Measure one process and an array by turns, and record the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--part-rows", type=int, default=64)
    parser.add_argument("--record", action="store_true", help="append to results/array.csv")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    times: dict[int, list[tuple[float, float]]] = {1: [], given.tasks: []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        write_corpus(data, given.rows)
        out = Path(folder) / "out"
        command = ["score", str(data), "--model", given.model, "--device", "cpu", "--workers", "0", "--json",
                   "--part-rows", str(given.part_rows), "--out", str(out)]  # fmt: skip
        for _ in range(given.runs):
            for tasks in times:
                shutil.rmtree(out, ignore_errors=True)
                times[tasks].append(run(command, tasks, cores))
    alone = given.rows / statistics.median(seconds for seconds, _ in times[1])
    rows: list[dict[str, Any]] = []
    for tasks, taken in times.items():
        rate = given.rows / statistics.median(seconds for seconds, _ in taken)
        rows.append(
            {
                "processes": tasks,
                "rows": given.rows,
                "model": Path(given.model).name,
                "runs": given.runs,
                "rows_per_s": f"{rate:.1f}",
                "times_one": f"{rate / alone:.3f}",
                "command_s": f"{statistics.median(seconds for _, seconds in taken):.1f}",
                "load_before": f"{load:.1f}",
            }
        )
    print_rows(rows)
    if given.record:
        write_rows("array", rows, kind="cpu")
    else:
        print(circumstances("cpu"))


if __name__ == "__main__":
    main()
