"""Ranking larger than memory: selections from synthetic score rows in part files, one process per measurement.

    python bench/rank_parts.py                          # 10^6, 10^7 and 10^8 rows
    python bench/rank_parts.py --rows 1000000 --no-record

The rows have the schema and the summaries of real parts: skewed NOD, DON around zero, one row in fifty without a
score, seven sources of unequal size. Each selection starts with the open folder and ends when the set of chosen rows is
known and the table on disk is dropped. The peak is that of the process, including Python, PyTorch and Arrow (VmHWM of
Linux; getrusage may report the parent's peak for a child). ``memory`` is the ranking in memory, whose choice must be
equal row by row. ``load`` is the machine's load average at the end: a value above the number of threads means other
work. Appends to results/rank_parts.csv.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from record import print_rows, write_rows

from donod_fast.data.shards import ShardPlan
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import schema
from donod_fast.selection.keeping import keep
from donod_fast.selection.out_of_core import RowSet, rank_parts
from donod_fast.selection.ranking import ScoreColumns, rank

SOURCES = ("web", "code", "math", "chat", "books", "wiki", "forum")
SHARES = (0.4, 0.2, 0.1, 0.1, 0.1, 0.09, 0.01)
CASES = {
    "constants from metadata": {},
    "top 30 %": {"keep": 0.3},
    "30 % of each source": {"keep": 0.3, "by": "source"},
    "DON above its 0.7-quantile": {"method": "don-threshold", "don_quantile": 0.7},
    "top 30 %, memory": {"keep": 0.3},
}
FITS = 10**7  # maximum rows that are also ranked in memory


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    parser.add_argument("--part-rows", type=int, default=10**6)
    parser.add_argument("--memory", type=float, default=2.0, help="memory limit of a selection in GiB")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_folder(options.write, options.rows[0], options.part_rows)
        return
    if options.measure:
        print(json.dumps(measured(options.measure, options.case, int(options.memory * 2**30))))
        return
    found: list[dict[str, Any]] = []
    for rows in options.rows:
        found += of_size(rows, options.part_rows, options.memory)
    print_rows(found)
    if not options.no_record:
        print("recorded in", write_rows("rank_parts", found, kind="cpu"))


def of_size(rows: int, part_rows: int, memory: float) -> list[dict[str, Any]]:
    """All measurements of one number of rows."""
    scratch = Path(tempfile.mkdtemp(prefix="donod-fast-bench-"))
    folder = scratch / "scores"
    command = [sys.executable, __file__, "--part-rows", str(part_rows), "--memory", str(memory)]
    try:
        subprocess.run([*command, "--rows", str(rows), "--write", folder], check=True)
        size = sum(file.stat().st_size for file in folder.iterdir())
        found = []
        for case in CASES:
            if case.endswith("memory") and rows > FITS:
                continue
            done = subprocess.run(
                [*command, "--measure", folder, "--case", case], check=True, stdout=subprocess.PIPE, text=True
            )
            row = {"case": case, "rows": rows, "part_rows": part_rows, "parts_mib": round(size / 2**20)}
            found.append({**row, **json.loads(done.stdout)})
            print(found[-1], file=sys.stderr)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    chosen = {row["chosen"] for row in found if row["case"].startswith("top")}
    assert len(chosen) == 1, "both engines must choose the same rows"
    return found


def measured(place: Path, case: str, memory: int) -> dict[str, Any]:
    """One measurement, in this process."""
    folder = ScoresFolder.open(place)
    options: dict[str, Any] = dict(CASES[case])
    rows, kept, disk, mark = None, 0, 0, ""
    begin = time.perf_counter()
    if case.startswith("constants"):
        folder.constants()
    elif case.endswith("memory"):
        ranking = rank(ScoreColumns.from_table(folder.table()))
        rows = RowSet(folder.rows)
        rows.add(keep(ranking, **options).numpy())
    else:
        method, by = options.pop("method", "topsis"), options.pop("by", None)
        with rank_parts(folder, method, by=by, memory=memory, temp_dir=place.parent) as past_memory:
            rows = past_memory.keep(**options).rows
            disk = sum(file.stat().st_size for file in place.parent.glob(".donod-fast-rank-*/**/*") if file.is_file())
    seconds = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    if rows is not None:
        kept, mark = len(rows), hashlib.sha256(rows._bits.tobytes()).hexdigest()[:12]
    return {
        "seconds": round(seconds, 2),
        "peak_mib": round(peak / 1024),
        "disk_mib": round(disk / 2**20),
        "kept": kept,
        "chosen": mark,
        "memory_gib": memory / 2**30,
        "load": round(os.getloadavg()[0], 1),
        "duckdb": version("duckdb"),
    }


def write_folder(place: Path, rows: int, part_rows: int) -> None:
    """A scores folder like that of ``donod-fast score --carry source``, with synthetic numbers."""
    place.mkdir()
    plan = ShardPlan.uniform(rows, part_rows)
    made = [{"name": "synthetic", "kind": "rows", "digest": "synthetic", "rows": rows}]
    manifest = {
        "input": {"rows": rows, "fingerprint": "synthetic", "inputs": made},
        "part_rows": part_rows,
        "update": {"rule": "adamw", "lr": 2e-5, "storage_dtype": None},
        "model": {"weight_norm": 250.0},
        "carry": ["source"],
    }
    folder = ScoresFolder.open_or_create(place, manifest, plan)
    for part in range(len(plan)):
        folder.write_table(part, made_up(*folder.part_range(part)))


def made_up(start: int, stop: int) -> pa.Table:
    """Scores of some rows."""
    count = stop - start
    draw = np.random.default_rng(start)
    nod = np.exp(draw.normal(-9, 1.2, count))
    columns = {
        "loss": draw.gamma(2.0, 0.6, count),
        "entropy": draw.gamma(2.0, 0.6, count),
        "weight_dot_update": draw.normal(0, 40, count),
        "update_norm": nod / 2e-5,
        "don": nod * draw.normal(0.02, 0.1, count),
        "nod": nod,
    }
    unscored = draw.random(count) < 0.02
    status = pa.DictionaryArray.from_arrays(unscored.astype(np.int8), ["scored", "too_long"])
    source = pa.DictionaryArray.from_arrays(draw.choice(len(SOURCES), count, p=SHARES).astype(np.int8), list(SOURCES))
    return pa.table(
        {
            "row": np.arange(start, stop),
            "id": pa.array([f"{row:x}" for row in range(start, stop)]),
            "status": status.cast(pa.string()),
            "detail": pa.array([""]).take(pa.array(np.zeros(count, np.int8))),
            "tokens": draw.integers(20, 2000, count).astype(np.int32),
            "scored_tokens": draw.integers(5, 500, count).astype(np.int32),
            "truncated": np.zeros(count, bool),
            **{name: np.where(unscored, np.nan, column) for name, column in columns.items()},
            "record.source": source.cast(pa.string()),
        },
        schema=schema(["source"]),
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
