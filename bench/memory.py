"""Does memory grow with the number of rows? ``donod-fast score`` on short synthetic rows, one process per row count.

    python bench/memory.py                          # 10,000 and 1,000,000 rows, the embedded demonstration model
    python bench/memory.py --rows 10000 100000 --trunk stub

Everything runs as for a user, on a CPU: file, tokens, batches, trunk, head, parts, summary. ``--trunk stub`` replaces
the hidden states by the input embeddings, for machines where the model would take hours; this is recorded in the row.
The peak is that of the scoring process (VmHWM of Linux). Appends to results/memory.csv.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import print_rows, write_rows

import donod_fast

MODEL = Path(donod_fast.__file__).parent / "demo" / "data" / "model"

# A user's command that prints its peak memory at the end.
PROGRAM = """
import sys
from pathlib import Path

calls = 0
stub = sys.argv.pop(1) == "stub"
if stub:
    from donod_fast.models.trunk import Trunk

    def embeddings(self, batch):
        global calls
        calls += 1
        return self.decoder.get_input_embeddings()(batch.input_ids).flatten(0, 1)[batch.predictors]

    Trunk.scored_states = embeddings
from donod_fast.cli import main

try:
    main()
finally:
    assert bool(calls) == stub, "the trunk was not what the row says"
    status = Path("/proc/self/status").read_text()
    print("VmHWM", next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--trunk", choices=["model", "stub"], default="model")
    parser.add_argument("--update", default="adamw")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    found = [measured(rows, options.trunk, options.update) for rows in options.rows]
    for row in found:
        row["times_smallest"] = round(row["peak_mib"] / min(one["peak_mib"] for one in found), 3)
    print_rows(found)
    if not options.no_record:
        print("recorded in", write_rows("memory", found, kind="cpu"))


def measured(rows: int, trunk: str, update: str) -> dict[str, str | int | float]:
    """Peak memory and time of one run over ``rows`` rows."""
    with tempfile.TemporaryDirectory(prefix="donod-fast-bench-") as scratch:
        data, out = Path(scratch) / "rows.jsonl", Path(scratch) / "scores"
        write_short_rows(data, rows)
        # By default the command would compile the trunk for the larger corpus only.
        command = ["score", data, "--model", MODEL, "--out", out, "--device", "cpu", "--compile", "off", "--quiet"]
        command += ["--update", update]
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, trunk, *map(str, command)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=os.sep,
        )
        seconds = time.perf_counter() - begin
        parts = len(list(out.glob("part-*.parquet")))
    peak = int(done.stdout.split("VmHWM")[1])
    return {
        "rows": rows,
        "trunk": "demonstration model" if trunk == "model" else "stub (input embeddings)",
        "update": update,
        "parts": parts,
        "peak_mib": round(peak / 1024, 1),
        "seconds": round(seconds, 1),
        "rows_per_s": round(rows / seconds),
    }


def write_short_rows(path: Path, rows: int) -> None:
    """Questions of a few words, each with different numbers, so that caches do not help."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            a, b = draw.randrange(10**6), draw.randrange(10**6)
            file.write(f'{{"question": "{a} and {b} ?", "answer": "{a + b}"}}\n')


if __name__ == "__main__":
    main()
