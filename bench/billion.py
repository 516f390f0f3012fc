"""A corpus of 10^8 rows planned, and 10^9 rows of scores ranked: time, peak memory and disk, one process per step.

    python bench/billion.py --plan-rows 100000000 --rows 1000000000 --scratch /somewhere
    python bench/billion.py --plan-rows 1000000 --rows 1000000 --no-record
    python bench/billion.py --steps write fold constants --rows 1000000000 --keep-folder

``plan`` opens Parquet files of a million rows each (a short text, the same in every row) and cuts them into parts, as
``score`` does. ``write`` makes a scores folder: DON and NOD of up to ten million rows are drawn, and repeat from there
on, so that every value is tied; all other columns are constant, which saves disk and no time of a ranking, since a
ranking does not read them. The steps after it are of that folder. ``footers`` reads the footer of every part, ``fold``
does so and writes ``summaries.parquet``; ``constants`` and ``status`` use that file. ``disk_mib`` is what a step keeps
on disk at its end. The peak is that of the process with Python, PyTorch and Arrow (VmHWM of Linux). ``load`` is the
machine's load average at the end: more than the number of threads means other work. Appends to results/billion.csv.
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
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rank_parts import SHARES, SOURCES
from record import print_rows, write_rows

from donod_fast.data.shards import ShardPlan, default_part_rows
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.part_summary import PartSummary
from donod_fast.scores.parts import CHECKSUM, METADATA
from donod_fast.scores.rows import schema
from donod_fast.system.sealed_parquet import sealed_bytes

FILE_ROWS, GROUP_ROWS = 10**6, 2**17
DRAWN_ROWS, MOST_DRAWN_PARTS = 10**7, 1000
RANKINGS: dict[str, dict[str, Any]] = {
    "top 30 %": {"keep": 0.3},
    "DON, top 30 %": {"method": "don", "keep": 0.3},
    "NOD, top 30 %": {"method": "nod", "keep": 0.3},
    "30 % of each source": {"keep": 0.3, "by": "source"},
}
STEPS = ("plan", "write", "footers", "fold", "constants", "status", *RANKINGS)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan-rows", type=int, default=10**8, help="rows of the corpus that is planned")
    parser.add_argument("--rows", type=int, default=10**9, help="rows of the scores folder")
    parser.add_argument("--part-rows", type=int, help="rows of a part; the default of `score` if not given")
    parser.add_argument("--memory", type=float, default=2.0, help="memory limit of a ranking in GiB")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder for the data")
    parser.add_argument("--keep-folder", action="store_true", help="leave the data there for another run")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.part_rows = options.part_rows or default_part_rows(options.rows)
    home = options.scratch / "donod-fast-billion"
    if options.measure:
        print(json.dumps(measured(options.measure, home, options)))
        return
    home.mkdir(parents=True, exist_ok=True)
    found = []
    try:
        for step in options.steps:
            done = subprocess.run(
                [sys.executable, *sys.argv, "--measure", step], check=True, stdout=subprocess.PIPE, text=True
            )
            found.append(json.loads(done.stdout))
            print(found[-1], file=sys.stderr, flush=True)
            if not options.no_record:
                write_rows("billion", found[-1:], kind="cpu")
    finally:
        if not options.keep_folder:
            shutil.rmtree(home, ignore_errors=True)
    print_rows(found)


def measured(step: str, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One step, in this process."""
    rows, part_rows = options.rows, options.part_rows
    if step == "plan":
        rows, part_rows = options.plan_rows, default_part_rows(options.plan_rows)
        write_corpus(home / "corpus", rows)
    begin = time.perf_counter()
    facts = run_step(step, home, rows, part_rows, int(options.memory * 2**30))
    seconds = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "step": step,
        "rows": rows,
        "part_rows": part_rows,
        "seconds": round(seconds, 2),
        "peak_mib": round(peak / 1024),
        "disk_mib": facts.get("disk_mib", ""),
        "found": facts["found"],
        "memory_gib": options.memory,
        "load": round(os.getloadavg()[0], 1),
    }


def run_step(step: str, home: Path, rows: int, part_rows: int, memory: int) -> dict[str, Any]:
    """Run a step; what it found, in words."""
    place = home / "scores"
    if step == "plan":
        return planned(home, part_rows)
    if step == "write":
        write_scores(place, rows, part_rows)
        size = sum(entry.stat().st_size for entry in os.scandir(place))
        return {"found": f"{ScoresFolder.open(place).parts} parts", "disk_mib": round(size / 2**20)}
    folder = ScoresFolder.open(place)
    if step == "footers":
        (place / "summaries.parquet").unlink(missing_ok=True)
        found = sum(part is not None for part in folder.summaries())
        return {"found": f"{found} parts"}
    if step == "fold":
        from donod_fast.scores.folded import SUMMARIES, write_summaries

        write_summaries(folder)
        return {"found": "written", "disk_mib": round((place / SUMMARIES).stat().st_size / 2**20, 1)}
    if step == "constants":
        don, nod = folder.constants()
        return {"found": f"DON {float(don.low):.6g} to {float(don.high):.6g}, NOD to {float(nod.high):.6g}"}
    if step == "status":
        from donod_fast.scores.monitoring import status_of

        state = status_of(folder)
        return {"found": f"{state.rows_done} rows, {state.parts_done} parts, {state.by_status.get('scored', 0)} scored"}
    from donod_fast.selection.out_of_core import rank_parts

    how = dict(RANKINGS[step])
    with rank_parts(folder, how.pop("method", "topsis"), by=how.pop("by", None), memory=memory, temp_dir=home) as big:
        chosen = big.keep(**how).rows
        disk = sum(file.stat().st_size for file in home.glob(".donod-fast-rank-*/**/*") if file.is_file())
    mark = hashlib.sha256(chosen._bits.tobytes()).hexdigest()[:12]
    return {"found": f"{len(chosen)} rows, set {mark}", "disk_mib": round(disk / 2**20)}


def planned(home: Path, part_rows: int) -> dict[str, Any]:
    """Open the corpus, plan it, write the plan and open it again."""
    from donod_fast.data.reading import open_corpus
    from donod_fast.data.shards import plan_shards

    corpus = open_corpus(sorted(map(str, (home / "corpus").glob("*.parquet"))))
    begin = time.perf_counter()
    plan = plan_shards(corpus, part_rows)
    cut, content = time.perf_counter() - begin, plan.to_bytes()
    begin = time.perf_counter()
    again = ShardPlan.from_bytes(content, "plan", needs_seal=True)
    opened = time.perf_counter() - begin
    assert (again.rows, len(again)) == (plan.rows, len(plan))
    told = f"{len(plan)} parts; cut in {cut:.2f} s, {len(content)} bytes, opened in {opened * 1000:.1f} ms"
    return {"found": told, "disk_mib": round(len(content) / 2**20, 2)}


def write_corpus(place: Path, rows: int) -> None:
    """Parquet files of a million rows: one text, in row groups of 131,072 rows."""
    place.mkdir(exist_ok=True)
    for start in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - start)
        texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array(["A short text."]))
        pq.write_table(
            pa.table({"text": texts.cast(pa.string())}), place / f"{start:012d}.parquet", row_group_size=GROUP_ROWS
        )


def write_scores(place: Path, rows: int, part_rows: int) -> None:
    """A finished folder whose rows repeat those of the first ten million."""
    place.mkdir()
    made = [{"name": "synthetic", "kind": "rows", "digest": "synthetic", "rows": rows}]
    manifest = {
        "input": {"rows": rows, "fingerprint": "synthetic", "inputs": made},
        "part_rows": part_rows,
        "update": {"rule": "adamw", "lr": 2e-5, "storage_dtype": None},
        "model": {"weight_norm": 250.0},
        "carry": ["source"],
    }
    folder = ScoresFolder.open_or_create(place, manifest, ShardPlan.uniform(rows, part_rows))
    count = min(MOST_DRAWN_PARTS, max(1, min(DRAWN_ROWS, rows) // part_rows))
    drawn = [drawn_part(number, part_rows) for number in range(count)]
    for shard in folder.plan:
        table, summary = drawn[shard.number % len(drawn)]
        if shard.rows < part_rows:
            table = table.slice(0, shard.rows)
            summary = PartSummary.of(table, 0, folder.settings, ())
        table = table.set_column(0, table.schema.field(0), pa.array(np.arange(shard.first_row, shard.stop)))
        summary = replace(
            summary,
            number=shard.number,
            first_row=shard.first_row,
            settings=folder.settings,
            segments=tuple(astuple(segment) for segment in shard.segments),
            origin=folder.origin(shard.number),
        )
        text = summary.as_json().encode()
        marks = {METADATA: text, CHECKSUM: hashlib.sha256(text).hexdigest().encode()}
        # Without the sync of each file: a crash only costs this benchmark.
        (place / folder.part_name(shard.number)).write_bytes(
            sealed_bytes(table.replace_schema_metadata(marks), compression="zstd")
        )


def drawn_part(number: int, count: int) -> tuple[pa.Table, PartSummary]:
    """Rows of a part with row numbers from 0, and their summary."""
    draw = np.random.default_rng(number)
    nod = np.exp(draw.normal(-9, 1.2, count)).astype(np.float32).astype(np.float64)
    don = (nod * draw.normal(0.02, 0.1, count)).astype(np.float32).astype(np.float64)
    unscored = draw.random(count) < 0.02
    status = pa.DictionaryArray.from_arrays(unscored.astype(np.int8), ["scored", "too_long"])
    source = pa.DictionaryArray.from_arrays(draw.choice(len(SOURCES), count, p=SHARES).astype(np.int8), list(SOURCES))
    empty = pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [""]).cast(pa.string())
    table = pa.table(
        {
            "row": np.arange(count),
            "id": empty,
            "status": status.cast(pa.string()),
            "detail": empty,
            "tokens": np.full(count, 500, np.int32),
            "scored_tokens": np.full(count, 200, np.int32),
            "truncated": np.zeros(count, bool),
            **{name: np.zeros(count) for name in ("loss", "entropy", "weight_dot_update", "update_norm")},
            "don": np.where(unscored, np.nan, don),
            "nod": np.where(unscored, np.nan, nod),
            "record.source": source.cast(pa.string()),
        },
        schema=schema(["source"]),
    )
    return table, PartSummary.of(table, 0, "", ())


if __name__ == "__main__":
    main()
