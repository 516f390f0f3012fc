"""What does the engine ray cost, where one process could do the work?

    python bench/ray_overhead.py                          # 10^5 rows, local and ray in turns, each with one worker
    python bench/ray_overhead.py --rows 8192 --rounds 1 --no-record

``donod-fast score`` as a user runs it, on short synthetic rows: the local engine in one process, and the engine ray
with one worker on one CPU and a cluster that it starts itself; one thread each, no process tokenises ahead. The time of
a part is that between two commits; their median is the *steady* time, in which no start-up counts. *Start-up* is the
time to the first commit less the time of a part: processes, cluster, plan and model. Both must write the same parts.
Appends to results/ray_overhead.csv.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from memory import write_short_rows
from record import print_rows, write_rows
from scaling import COMMAND, ENVIRONMENT, stub_model

ENGINES: dict[str, list[str]] = {
    "local": ["--workers", "0"],
    "ray": ["--engine", "ray", "--ray-workers", "1", "--cpus-per-worker", "1", "--workers", "0"],
}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--part-rows", type=int, default=1_024)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine, in turns")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory(prefix="donod-fast-bench-") as scratch:
        model, data = stub_model(Path(scratch) / "stub"), Path(scratch) / "rows.jsonl"
        write_short_rows(data, options.rows)
        parts: dict[str, list[bytes]] = {}
        for number in range(options.rounds):
            for engine in ENGINES:
                out = Path(scratch) / f"{engine}-{number}"
                found[engine].append(measured(engine, data, model, out, options.part_rows))
                parts[engine] = [file.read_bytes() for file in sorted(out.glob("part-*.parquet"))]
                print(engine, found[engine][-1], flush=True)
        if parts["local"] != parts["ray"]:
            raise SystemExit("the engines wrote different parts")
    rows = [
        {
            "engine": engine,
            "model": "stub (1 layer of 16, random)",
            "rows": options.rows,
            "part_rows": options.part_rows,
            "rounds": options.rounds,
            **{name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]},
            "overhead": round(
                statistics.median(run["seconds_per_part"] for run in runs)
                / statistics.median(run["seconds_per_part"] for run in found["local"])
                - 1,
                4,
            ),
            "load": round(os.getloadavg()[0], 2),
        }
        for engine, runs in found.items()
    ]
    print_rows(rows)
    if not options.no_record:
        print(write_rows("ray_overhead", rows))


def measured(engine: str, data: Path, model: Path, out: Path, part_rows: int) -> dict[str, float]:
    """Seconds in all, to begin, and for each part of one run."""
    command = ["score", data, "--model", model, "--device", "cpu", "--out", out, "--compile", "off", "-q"]
    command += ["--part-rows", part_rows, *ENGINES[engine]]
    begun = time.time()  # the clock that stamps the files
    subprocess.run([*COMMAND, *map(str, command)], check=True, env=ENVIRONMENT, cwd="/")
    whole = time.time() - begun
    commits = sorted(file.stat().st_mtime for file in out.glob("part-*.parquet"))
    each = statistics.median(after - before for before, after in pairwise(commits[:-1]))  # the last part is shorter
    return {
        "seconds": whole,
        "startup_seconds": commits[0] - begun - each,
        "end_seconds": begun + whole - commits[-1],
        "seconds_per_part": each,
        "rows_per_second": part_rows / each,
    }


if __name__ == "__main__":
    main()
