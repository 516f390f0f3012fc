"""Kinds of inputs side by side: rows a second and peak memory of planning, reading and scoring, against JSON Lines.

    python bench/formats.py --rows 100000 --repeats 3                            # planning, reading, scoring
    python bench/formats.py --rows 10000 100000 1000000 --measure plan read      # is memory flat?

The same short rows are written in each kind by the library that defines it; the files of tokens hold the rows as the
model's tokenizer writes them, so that scoring them tokenises nothing. Each measurement is a process of its own, and the
kinds take turns. Its time begins after the imports, and for scoring after the model is loaded: a Llama with one layer
of width 8 and the demonstration's vocabulary, so that reading counts. The peak is that of the process (VmHWM of Linux),
imports included; scoring prepares its rows in this process. Appends to results/formats.csv.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import print_rows, write_rows

import donod_fast

DEMO = Path(donod_fast.__file__).parent / "demo" / "data" / "model"
KINDS = ("jsonl", "jsonl.gz", "csv", "parquet", "arrow", "arrows", "lance", "npy", "npy by end", "tar", "saved")
MEASURES = ("plan", "read", "score")
BATCH = 10_000


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--measure", nargs="+", choices=MEASURES, default=MEASURES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--child", nargs=4, metavar=("MEASURE", "KIND", "FOLDER", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        measure, kind, folder, run = options.child
        print(json.dumps(measured(measure, kind, Path(folder), run)))
        return
    kinds = ["jsonl", *(kind for kind in options.kinds if kind != "jsonl")]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="donod-fast-bench-") as scratch:
        save_model(Path(scratch) / "model")
        for rows in options.rows:
            folder = Path(scratch) / str(rows)
            folder.mkdir()
            (folder / "model").symlink_to(Path(scratch) / "model")
            write_kinds(folder, rows, kinds)
            for measure in options.measure:
                found += compared(folder, rows, kinds, measure, options.repeats)
    print_rows(found)
    if not options.no_record:
        print("recorded in", write_rows("formats", found, kind="cpu"))


def compared(folder: Path, rows: int, kinds: list[str], measure: str, repeats: int) -> list[dict[str, Any]]:
    """One measurement of all kinds, in turns; medians."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    peaks: dict[str, list[float]] = {kind: [] for kind in kinds}
    load = os.getloadavg()[0]
    for run in range(repeats):
        for kind in kinds:
            command = [sys.executable, __file__, "--child", measure, kind, str(folder), str(run)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds, peak = json.loads(done.stdout.splitlines()[-1])
            times[kind].append(seconds)
            peaks[kind].append(peak)
    base = statistics.median(times["jsonl"])
    return [
        {
            "measured": measure,
            "kind": kind,
            "rows": rows,
            "mib": round(size_of(path_of(folder, kind)) / 2**20, 2),
            "repeats": repeats,
            "seconds": round(statistics.median(times[kind]), 4),
            "rows_per_s": round(rows / statistics.median(times[kind])),
            "times_jsonl": round(base / statistics.median(times[kind]), 3),
            "peak_mib": round(statistics.median(peaks[kind]), 1),
            "model": "Llama, 1 layer of width 8" if measure == "score" else "none",
            "load": round(load, 2),
        }
        for kind in kinds
    ]


def measured(measure: str, kind: str, folder: Path, run: str) -> tuple[float, float]:
    """Seconds and peak MiB of one measurement in this process."""
    import datasets  # noqa: F401  (kinds must not differ in what they import)
    import lance  # noqa: F401

    from donod_fast.data.reading import open_corpus
    from donod_fast.data.shards import PART_ROWS, plan_shards
    from donod_fast.data.token_rules import TokenRules

    end = json.loads((folder / "model" / "end.json").read_text()) if kind == "npy by end" else None
    options: dict[str, Any] = {"tokens": TokenRules("uint16", end)} if kind.startswith("npy") else {}
    name = str(path_of(folder, kind))
    scorer: Any = None
    if measure == "score":
        from donod_fast.scoring.scorer import Scorer

        scorer = Scorer.from_pretrained(folder / "model", device="cpu")
    begin = time.perf_counter()
    corpus = open_corpus([name], **options)
    plan_shards(corpus, PART_ROWS)
    if measure == "read":
        assert sum(record.data is not None for record in corpus.records()) == corpus.rows
    if measure == "score":
        from donod_fast.engines.local import score_corpus

        score_corpus(corpus, scorer, folder / f"scores-{kind.replace(' ', '-')}-{run}", part_rows=PART_ROWS)
    seconds = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return seconds, peak / 1024


def save_model(folder: Path) -> None:
    """The smallest Llama with the demonstration's tokenizer, with random weights."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 1, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The token between the documents of "npy by end" is one that the tokenizer does not have
    (folder / "end.json").write_text(json.dumps(len(tokenizer)))


def drawn_rows(count: int) -> Iterator[dict[str, str]]:
    """Questions of a few words, each with different numbers, so that caches do not help."""
    draw = random.Random(0)
    for _ in range(count):
        a, b = draw.randrange(10**6), draw.randrange(10**6)
        yield {"question": f"What is {a} and {b} ?", "answer": f"It is {a + b}."}


def path_of(folder: Path, kind: str) -> Path:
    """The input of a kind."""
    return folder / {"npy by end": "token_ids_end.npy", "npy": "token_ids.npy", "saved": "saved"}.get(kind, f"a.{kind}")


def size_of(path: Path) -> int:
    """Bytes of a file or of all files of a folder."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else path.stat().st_size


def write_kinds(folder: Path, count: int, kinds: list[str]) -> None:
    """The same rows in each kind."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.feather
    import pyarrow.parquet as pq

    rows = list(drawn_rows(count))
    table = pa.Table.from_pylist(rows)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path_of(folder, "jsonl").write_text(text)
    if "jsonl.gz" in kinds:
        path_of(folder, "jsonl.gz").write_bytes(gzip.compress(text.encode(), 6))
    if "csv" in kinds:
        pyarrow.csv.write_csv(table, path_of(folder, "csv"))
    if "parquet" in kinds:
        pq.write_table(table, path_of(folder, "parquet"), row_group_size=BATCH)
    for kind, writer in (("arrow", pa.ipc.new_file), ("arrows", pa.ipc.new_stream)):
        if kind in kinds:
            with writer(str(path_of(folder, kind)), table.schema) as file:
                file.write_table(table, max_chunksize=BATCH)
    if "lance" in kinds:
        import lance

        lance.write_dataset(table, str(path_of(folder, "lance")), max_rows_per_file=BATCH)
    if "saved" in kinds:
        import datasets

        datasets.disable_progress_bars()
        datasets.Dataset(table).save_to_disk(str(path_of(folder, "saved")))
    if "tar" in kinds:
        import webdataset

        with webdataset.TarWriter(str(path_of(folder, "tar")), encoder=False) as tar:
            for at, row in enumerate(rows):
                tar.write({"__key__": f"{at:09d}", "json": json.dumps(row).encode()})
    if {"npy", "npy by end"} & set(kinds):
        write_tokens(folder, rows)


def write_tokens(folder: Path, rows: list[dict[str, str]]) -> None:
    """The rows as tokens and masks by the package's own masks; with metadata, and with an end token instead."""
    import numpy as np

    from donod_fast.data.reading import corpus_from_rows
    from donod_fast.scoring.scorer import Scorer

    end = json.loads((folder / "model" / "end.json").read_text())
    masker = Scorer.from_pretrained(folder / "model", device="cpu").masker
    with (
        path_of(folder, "npy").open("wb") as ids,
        path_of(folder, "npy by end").open("wb") as ids_end,
        (folder / "labels_mask.npy").open("wb") as masks,
        (folder / "labels_mask_end.npy").open("wb") as masks_end,
        gzip.open(folder / "token_ids.csv.gz", "wt") as metadata,
    ):
        at = 0
        for begin in range(0, len(rows), BATCH):
            records = list(corpus_from_rows(rows[begin : begin + BATCH]).records())
            for sample in masker.tokenize_many(records):
                tokens, mask = np.array(sample.input_ids, "<u2"), np.array(sample.scored, np.bool_)
                ids.write(tokens.tobytes())
                masks.write(mask.tobytes())
                ids_end.write(tokens.tobytes() + np.array([end], "<u2").tobytes())
                masks_end.write(mask.tobytes() + b"\0")
                metadata.write(f"{at},{at + len(tokens)},{sample.row}\n")
                at += len(tokens)


if __name__ == "__main__":
    main()
