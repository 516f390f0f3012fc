"""Reports of synthetic scores: size of the file, time and peak memory of ``donod-fast report``, one process each.

    python bench/report_rows.py                                  # 10^3 to 10^6 rows
    python bench/report_rows.py --rows 1000000 --no-record
    python bench/report_rows.py --rows 1000000 --write FOLDER    # only make the corpus and its scores
    python bench/report_rows.py --corpus ../shared/data/gsm8k/train.jsonl --model ../shared/models/tiny-instruct

The corpus is made of the rows of the embedded one, each with words of its own, from seven sources. The scores have the
schema, plan, hashes and manifest of real ones (the embedded model scored a few rows for the manifest), and made-up
numbers: skewed NOD, DON around zero, one row in fifty without a score. The peak is that of the process (VmHWM of
Linux). Appends to results/report.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from record import print_rows, write_rows

from donod_fast.data.reading import Corpus, open_corpus
from donod_fast.data.reading.record_hashes import record_hash
from donod_fast.data.shards import plan_shards
from donod_fast.demo.corpus import DATA
from donod_fast.reports.masks import masker_of
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import schema, with_hashes

SOURCES = ("web", "code", "math", "chat", "books", "wiki", "forum")
SHARES = (0.4, 0.2, 0.1, 0.1, 0.1, 0.09, 0.01)
_WORDS = ("red", "green", "seven", "house", "river", "count", "number", "which", "answer", "copper", "market", "note")


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--part-rows", type=int, default=50_000)
    parser.add_argument("--corpus", type=Path, help="a corpus instead of made-up rows; its numbers are made up")
    parser.add_argument("--model", type=Path, default=DATA / "model", help="whose tokenizer and masks are used")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--write", type=Path, help="make corpus and scores of the first number of rows here, and stop")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(write_folder(options.write, options.rows[0], options.part_rows, options.corpus, options.model))
        return
    if options.measure:
        print(json.dumps(measured(options.measure)))
        return
    sizes = options.rows if options.corpus is None else [0]
    found = [of_size(rows, options.part_rows, options.corpus, options.model) for rows in sizes]
    print_rows(found)
    if not options.no_record:
        print("recorded in", write_rows("report", found, kind="cpu"))


def of_size(rows: int, part_rows: int, corpus: Path | None, model: Path) -> dict[str, Any]:
    """The measurement of one number of rows, or of a corpus."""
    scratch = Path(tempfile.mkdtemp(prefix="donod-fast-bench-"))
    try:
        place = write_folder(scratch, rows, part_rows, corpus, model)
        command = [sys.executable, __file__, "--measure", str(place)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        bytes_read = (corpus or scratch / "corpus.jsonl").stat().st_size
        name = "made up" if corpus is None else f"{corpus.parent.name}/{corpus.name}"
        found = {"corpus": name, "rows": ScoresFolder.open(place).rows, "corpus_mb": round(bytes_read / 1e6, 1)}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {**found, **json.loads(done.stdout.splitlines()[-1])}


def measured(place: Path) -> dict[str, Any]:
    """One report, in this process."""
    from donod_fast.reports.report import write_report

    begin, used = time.perf_counter(), time.process_time()
    done = write_report(ScoresFolder.open(place), place.parent / "report.html")
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "points": done.points,
        "texts": done.texts,
        "file_mb": round(done.bytes / 1e6, 2),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used, 1),
        "peak_mib": round(peak / 1024),
        "load": round(os.getloadavg()[0], 1),
    }


def write_folder(scratch: Path, rows: int, part_rows: int, given: Path | None, model: Path) -> Path:
    """Make a corpus if none is given, and the scores folder ``scores``, as of ``donod-fast score --carry source``."""
    scratch.mkdir(parents=True, exist_ok=True)
    corpus = open_corpus([str(given or write_corpus(scratch / "corpus.jsonl", rows))])
    plan = plan_shards(corpus, part_rows)
    manifest = {
        **_manifest(scratch, corpus, model),
        "input": corpus.describe(),
        "part_rows": part_rows,
        "carry": ["source"],
    }
    del manifest["plan"]
    folder = ScoresFolder.open_or_create(scratch / "scores", manifest, plan)
    masker = None if given is None else masker_of(folder)[0]
    for part in range(folder.parts):
        records = list(corpus.records(*folder.part_range(part)))
        sources = [str((record.data or {}).get("source", SOURCES[record.row % 7])) for record in records]
        lengths = np.random.default_rng(part).integers(20, 2000, len(records))
        scored = lengths // 2
        if masker is not None:
            samples = masker.tokenize_many(records)
            lengths, scored = (np.array([getattr(s, name) for s in samples]) for name in ("tokens", "scored_tokens"))
        table = made_up(*folder.part_range(part), sources, lengths, scored)
        folder.write_table(part, with_hashes(table, [record_hash(record) for record in records]))
    return scratch / "scores"


def write_corpus(path: Path, rows: int) -> Path:
    """Rows of the embedded corpus, each with words of its own."""
    lines = [json.loads(line) for line in (DATA / "corpus.jsonl").read_text("utf-8").splitlines()]
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            record = dict(lines[row % len(lines)], id=f"s{row:07}", source=draw.choices(SOURCES, SHARES)[0])
            record["instruction"] += " " + " ".join(draw.choices(_WORDS, k=draw.randint(3, 60)))
            file.write(json.dumps(record) + "\n")
    return path


def _manifest(scratch: Path, corpus: Corpus, model: Path) -> dict[str, Any]:
    """The manifest of a real run over the first rows."""
    few = scratch / "few.jsonl"
    few.write_bytes(b"".join((record.raw or b"") + b"\n" for record in corpus.records(0, 4)))
    command = [sys.executable, "-m", "donod_fast", "score", str(few), "--model", str(model.absolute()), "-q"]
    subprocess.run([*command, "--out", str(scratch / "few")], check=True)
    return dict(ScoresFolder.open(scratch / "few").manifest)


def made_up(start: int, stop: int, sources: list[str], tokens: Any, scored_tokens: Any) -> pa.Table:
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
    detail = np.where(unscored, "corpus.jsonl, line 1: the row has more tokens than the limit", "")
    return pa.table(
        {
            "row": np.arange(start, stop),
            "id": [f"s{row:07}" for row in range(start, stop)],
            "status": pa.array(np.where(unscored, "too_long", "scored")),
            "detail": pa.array(detail),
            "tokens": tokens.astype(np.int32),
            "scored_tokens": scored_tokens.astype(np.int32),
            "truncated": np.zeros(count, bool),
            **{name: np.where(unscored, np.nan, column) for name, column in columns.items()},
            "record.source": sources,
        },
        schema=schema(["source"]),
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
