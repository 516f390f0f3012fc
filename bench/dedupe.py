"""Duplicates: time, memory and recall on real texts with planted copies and edits, one process per measurement.

    python bench/dedupe.py                              # 10^4 and 10^5 rows of shared/data
    python bench/dedupe.py --rows 10000 --no-record

The rows are made of GSM8K, Alpaca and CodeAlpaca: the beginning of one text and the end of another, so that many rows
are a little alike. One row in five is an edit of an earlier row: 0 to 12 % of its words are replaced, and a tenth of
these rows are plain copies. ``recall`` is the share of dropped rows among the planted rows whose Jaccard similarity to
their original, counted by shingles, is at least the threshold; ``recall_near`` the same of those that are less than
0.05 above it. ``false`` counts pairs whose similarity, counted again, is below the threshold: there must be none.
``minhash, datasketch`` computes the minima with datasketch 2 instead of rensa; the rest is the same. ``embedding``
compares vectors of 384 numbers, four of five of them far apart. The peak is that of the process, Python and its
packages included (``base_mib`` before the work). ``cpu_seconds`` are of all cores; ``load`` is that of the machine at
the end: above its number of cores, ``seconds`` hold other work. Appends to results/dedupe.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from record import print_rows, write_rows

from donod_fast.selection.dedupe import near_of_texts, near_texts
from donod_fast.selection.dedupe.near_vectors import near_vectors
from donod_fast.selection.dedupe.words import Shingler, jaccard

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CASES = ("exact", "minhash", "minhash, datasketch", "embedding")
THRESHOLD, COSINE = 0.8, 0.95
SIZE = 384
NEAR = 0.05


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**4, 10**5])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.rows[0])))
        return
    found: list[dict[str, Any]] = []
    for rows in options.rows:
        for case in options.cases:
            command = [sys.executable, __file__, "--rows", str(rows), "--measure", case]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.append({"case": case, "rows": rows, **json.loads(done.stdout)})
            print(found[-1], file=sys.stderr)
    print_rows(found)
    if not options.no_record:
        print("recorded in", write_rows("dedupe", found, kind="cpu"))


def measured(case: str, rows: int) -> dict[str, Any]:
    """One measurement, in this process."""
    if case == "embedding":
        return measured_vectors(rows)
    texts, originals = corpus(rows)
    if case.endswith("datasketch"):
        near_texts.minima_of = datasketch_minima
    kind = case.partition(",")[0]
    base, begin = peak(), clocks()
    near = near_of_texts(enumerate(texts), kind, None if kind == "exact" else THRESHOLD)
    end, most = clocks(), peak()
    shingler = Shingler()
    dropped = set(near.dropped.tolist())
    similar = {}
    for place, original in originals.items():
        if original not in dropped:
            similar[place] = jaccard(shingler.shingles(texts[place]), shingler.shingles(texts[original]))
            if kind == "exact" and texts[place] != texts[original]:
                similar[place] = 0.0
    least = 1.0 if kind == "exact" else THRESHOLD
    planted = [place for place, value in similar.items() if value >= least]
    close = [place for place in planted if similar[place] < least + NEAR]
    pairs = zip(near.dropped.tolist(), near.kept.tolist(), strict=True)
    false = sum(jaccard(shingler.shingles(texts[a]), shingler.shingles(texts[b])) < least for a, b in pairs)
    return {
        **costs(begin, end, base, most),
        "characters": round(sum(map(len, texts)) / len(texts)),
        "dropped": len(dropped),
        "planted": len(planted),
        "recall": round(sum(place in dropped for place in planted) / max(1, len(planted)), 5),
        "near": len(close),
        "recall_near": round(sum(place in dropped for place in close) / max(1, len(close)), 5),
        "false": false,
        "rensa": version("rensa"),
        "datasketch": version("datasketch"),
    }


def measured_vectors(rows: int) -> dict[str, Any]:
    """The same for vectors."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(rows, SIZE)).astype(np.float32)
    planted = np.flatnonzero(draw.random(rows) < 0.2)[1:]
    originals = (planted * draw.random(len(planted))).astype(np.int64)
    planted, originals = planted[~np.isin(originals, planted)], originals[~np.isin(originals, planted)]
    noise = draw.normal(size=(len(planted), SIZE)).astype(np.float32)
    vectors[planted] = vectors[originals] + 0.2 * noise
    base, begin = peak(), clocks()
    near = near_vectors([(np.arange(rows), vectors)], rows, COSINE)
    end, most = clocks(), peak()
    one, other = vectors[planted].astype(np.float64), vectors[originals].astype(np.float64)
    cosines = (one * other).sum(1) / np.sqrt((one * one).sum(1) * (other * other).sum(1))
    dropped, close = set(near.dropped.tolist()), cosines[cosines >= COSINE] < COSINE + NEAR
    there = planted[cosines >= COSINE]
    hits = np.array([place in dropped for place in there.tolist()])
    return {
        **costs(begin, end, base, most),
        "characters": 0,
        "dropped": len(dropped),
        "planted": len(there),
        "recall": round(float(hits.mean()), 5),
        "near": int(close.sum()),
        "recall_near": round(float(hits[close].mean()), 5) if close.any() else 1.0,
        "false": int((near.similarity < COSINE).sum()),
        "rensa": version("rensa"),
        "datasketch": version("datasketch"),
    }


def corpus(rows: int) -> tuple[list[str], dict[int, int]]:
    """Texts, and of each planted one the row that it was made of."""
    draw = random.Random(0)
    found = list(real_texts())
    texts: list[str] = []
    originals: dict[int, int] = {}
    for row in range(rows):
        if row and row % 5 == 4:
            original = draw.randrange(row)
            words = texts[original].split(" ")
            share = 0.0 if draw.random() < 0.1 else draw.random() * 0.12
            for at in draw.sample(range(len(words)), round(share * len(words))):
                words[at] = draw.choice(draw.choice(found).split() or ["word"])
            originals[row] = original
            texts.append(" ".join(words))
        else:
            first, second = draw.choice(found), draw.choice(found)
            texts.append(first[: draw.randint(len(first) // 3, len(first))] + second[len(second) // 2 :])
    return texts, originals


def real_texts() -> Iterator[str]:
    """Question and answer of each record."""
    for line in (DATA / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        yield f"user: {record['question']}\nassistant: {record['answer']}"
    for name in ("alpaca/alpaca_5000.json", "codealpaca/code_alpaca_2k.json"):
        for record in json.loads((DATA / name).read_text(encoding="utf-8")):
            yield f"user: {record['instruction']}\n{record['input']}\nassistant: {record['output']}"


def datasketch_minima(flat: Any, ends: Sequence[int]) -> Any:
    """What ``near_texts.minima_of`` does, by datasketch."""
    from datasketch import MinHash

    first = MinHash(near_texts.MINIMA, seed=1, scheme="affine32", hashfunc=int)
    halves = (flat >> np.uint64(32)).tolist()
    found, begin = [], 0
    for end in ends:
        one = MinHash(near_texts.MINIMA, seed=1, scheme="affine32", hashfunc=int, permutations=first.permutations)
        one.update_batch(halves[begin:end])
        found.append(one.hashvalues)
        begin = end
    return np.array(found, np.uint32)


def clocks() -> tuple[float, float]:
    """Seconds of the wall and of this process on all cores."""
    return time.perf_counter(), time.process_time()


def costs(begin: tuple[float, float], end: tuple[float, float], base: int, most: int) -> dict[str, Any]:
    """Columns that all cases share."""
    seconds, cpu = (round(after - before, 2) for before, after in zip(begin, end, strict=True))
    load = round(os.getloadavg()[0], 1)
    return {"seconds": seconds, "cpu_seconds": cpu, "base_mib": base, "peak_mib": most, "load": load}


def peak() -> int:
    """Peak memory of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return round(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024)


if __name__ == "__main__":
    main()
