"""Do cost per row and memory stay constant as a corpus grows, and are two workers twice as fast as one?

    python bench/scaling.py                                    # 10^4, 10^5, 10^6 rows by one and by two workers
    python bench/scaling.py --rows 10000 100000 --model demo --engine ray

``donod-fast score`` as a user runs it, on short synthetic rows; each worker is a process with one thread. The model
``stub`` is a real one, with a single layer of sixteen random features and the demonstration's tokenizer: this
measures everything except the model. Rows per second are those committed after each worker's first part, so that
start-up does not count; memory is the peak (VmHWM) of any single process of the run and the sum of all processes,
sampled every 0.2 seconds. ``floor`` is the number of rows per second that one thread tokenises. Appends to
results/scaling.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import MODEL, write_short_rows
from record import print_rows, write_rows

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.scores.folder import PARTS, ScoresFolder

COMMAND = [sys.executable, "-P", "-c", "from donod_fast.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", choices=["stub", "demo"], default="stub")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--rounds", type=int, default=1, help="number of runs, in turns; medians are recorded")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="donod-fast-bench-") as scratch:
        model = stub_model(Path(scratch) / "stub") if options.model == "stub" else MODEL
        name = "demonstration" if options.model == "demo" else "stub (1 layer of 16, random)"
        runs: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for number in range(options.rounds):
            for rows in options.rows:
                data = Path(scratch) / f"{rows}.jsonl"
                write_short_rows(data, rows)
                floor = tokenised_per_second(data, model)
                for workers in options.workers:
                    out = Path(scratch) / f"scores-{rows}-{workers}-{number}"
                    run = {**measured(data, rows, model, out, workers, options.engine), "floor": round(floor)}
                    print(run, flush=True)
                    runs.setdefault((rows, workers), []).append({**run, "model": name, "rounds": options.rounds})
                data.unlink()
        found = [median_of(those) for those in runs.values()]
    for row in found:
        first = next(one for one in found if one["workers"] == row["workers"])
        single = next((one for one in found if one["rows"] == row["rows"] and one["workers"] == 1), row)
        row["speed_of_smallest"] = round(row["rows_per_s"] / first["rows_per_s"], 3)
        row["memory_of_smallest"] = round(row["peak_worker_mib"] / first["peak_worker_mib"], 3)
        row["speed_of_one_worker"] = round(row["rows_per_s"] / single["rows_per_s"], 2)
    print_rows(found)
    if not options.no_record:
        print("recorded in", write_rows("scaling", found, kind="cpu"))


def median_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each number's median."""
    return {
        key: value if isinstance(value, str) else statistics.median_low(run[key] for run in runs)
        for key, value in runs[0].items()
    }


def stub_model(path: Path) -> Path:
    """A model of one small random layer with the demonstration's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tokenised_per_second(data: Path, model: Path) -> float:
    """Rows per second that one thread only reads and tokenises."""
    from transformers import AutoTokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = AutoTokenizer.from_pretrained(model)
    masker = Masker(tokenizer, MaskSettings(), vocab_size=len(tokenizer))
    records = list(open_corpus([str(data)]).records(0, 5000))
    begin = time.perf_counter()
    masker.tokenize_many(records)
    return len(records) / (time.perf_counter() - begin)


def measured(data: Path, rows: int, model: Path, out: Path, workers: int, engine: str) -> dict[str, Any]:
    """One run: rows per second, and memory."""
    command = ["score", data, "--model", model, "--out", out, "--compile", "off", "--json", "--part-rows", "256"]
    if engine == "ray":
        command += ["--engine", "ray", "--ray-workers", workers]
    else:
        command += ["--devices", ",".join(["cpu"] * workers)]
    begin = time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, *map(str, command)], stdout=subprocess.PIPE, text=True, cwd=os.sep, env=ENVIRONMENT
    ) as process:
        single, together = watched(process)
        assert process.stdout is not None
        summary = json.loads(process.stdout.read())
    seconds = time.perf_counter() - begin
    assert process.returncode == 0 and summary["by_status"]["scored"] == rows, summary
    folder = ScoresFolder.open(out)
    times = {name: fact.modified for name, fact in folder.storage.facts(PARTS).items()}
    order = sorted(range(folder.parts), key=lambda part: times[folder.part_name(part)])
    commits = [(times[folder.part_name(part)], folder.summary(part)) for part in order]
    begin, counted = commits[workers - 1][0], [summary for _, summary in commits[workers:] if summary is not None]
    took = commits[-1][0] - begin
    return {
        "rows": rows,
        "workers": workers,
        "engine": engine,
        "parts": folder.parts,
        "rows_per_s": round(sum(summary.rows for summary in counted) / took),
        "tokens_per_s": round(sum(summary.tokens for summary in counted) / took),
        "seconds": round(seconds, 1),
        "peak_worker_mib": round(single / 1024, 1),
        "peak_all_mib": round(together / 1024, 1),
    }


def watched(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Largest peak of one descendant process, and largest sum over all at any time, in KiB, until it ends."""
    single = together = 0
    while process.poll() is None:
        peaks, now = [0], 0
        for number in _family(process.pid):
            status = _status(number)
            peaks.append(status.get("VmHWM", 0))
            now += status.get("VmRSS", 0)
        single, together = max(single, *peaks), max(together, now)
        time.sleep(0.2)
    return single, together


def _family(process: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [process]
    for number in found:
        found += parents.get(number, [])
    return found


def _status(process: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "VmRSS"))}


if __name__ == "__main__":
    main()
