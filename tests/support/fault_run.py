"""``make nightly``: kills, fuzzed records and files, and flips, in slices whose counts add up to one table.

    python tests/support/fault_run.py --share 0.3
    python tests/support/fault_run.py --share 1 --state build/faults.jsonl --csv bench/results/faults.csv

A share of 1 is the full set. Each slice that is finished is a line of the file of states with its seed and the commit;
the next run of the same share and seed skips it, so a full run may be cut into as many pieces as one likes.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disk_steps import compiler, preloaded
from kill_operations import OPERATIONS

HERE = Path(__file__).parent
FULL = {"kills": 1000, "records": 100_000, "files": 10_000, "flips": 1_000}
"""The full set: kills, records, files, and places of flips."""

FIELDS = ("area", "kind", "outcome", "count", "share", "seed", "commit", "date")
WRONG = ("failed", "changed")
_SLICE = {"records": 10_000, "files": 2_500, "flips": 250}
_BATCH = 250
_TOGETHER = 6
"""Operations that one program kills: it costs some seconds to start."""


@dataclass(frozen=True)
class Slice:
    """A piece of the set: one program's work.

    Attributes:
        area: kills, records, files or flips.
        name: what tells it from the others of the area; for kills, the operations.
        program: the program's file and its arguments, without those of every program.
        steps: whether the program counts the changes of the disk.
    """

    area: str
    name: str
    program: tuple[str, ...]
    steps: bool = False


def slices(share: float, seed: int, areas: Sequence[str]) -> Iterator[Slice]:
    """The slices of a share of the full set."""
    if "kills" in areas:
        weight = sum(one.weight for one in OPERATIONS)
        for begin in range(0, len(OPERATIONS), _TOGETHER):
            together = OPERATIONS[begin : begin + _TOGETHER]
            kills = {one.name: max(1, round(FULL["kills"] * share * one.weight / weight)) for one in together}
            chosen = [given for name, number in kills.items() for given in ("--kill", f"{number} {name}")]
            yield Slice("kills", ", ".join(kills), ("kill_trials.py", *chosen), steps=True)
    for area in ("records", "files"):
        if area in areas:
            left, first = max(_BATCH, round(FULL[area] * share)), 0
            while left > 0:
                size = min(_SLICE[area], left)
                given = ("fuzz_trials.py", f"--{area}", str(size), "--first", str(first))
                yield Slice(area, f"{first} {size}", given)
                left, first = left - size, first + size // _BATCH
    if "flips" in areas:
        left, part = max(8, round(FULL["flips"] * share)), 0
        while left > 0:
            size = min(_SLICE["flips"], left)
            yield Slice("flips", f"{part} {size}", ("flip_trials.py", "--places", str(size), "--part", str(part)))
            left, part = left - size, part + 1


def run(one: Slice, seed: int, place: Path) -> tuple[Counter[str], list[str]]:
    """Run a slice: counts by ``kind|outcome``, and what is wrong."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if one.steps:
        if compiler() is None:
            names = [given.partition(" ")[2] for given in one.program[2::2]]
            return Counter({f"{name}|not tried": 1 for name in names}), []
        environment |= preloaded(place / "steps")
    command = [sys.executable, str(HERE / one.program[0]), *one.program[1:], "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--place", str(place / "work")],
        env=environment,
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for line in done.stdout.splitlines():
        if line.startswith(b"{"):
            _add(json.loads(line), counts, wrong)
    if done.returncode:
        wrong.append(f"{one.program[0]} ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace')[-2000:]}")
        counts[f"{one.name}|failed"] += 1
    return counts, wrong


def _add(found: Mapping[str, Any], counts: Counter[str], wrong: list[str]) -> None:
    """Add one line of a program to the counts."""
    if "operation" in found:
        counts[f"{found['operation']}|{found['outcome']}"] += 1
        wrong += [json.dumps(found)] if found["outcome"] == "failed" else []
        return
    if found["what"] == "kind left out":
        counts[f"{found['kind']}|not tried"] += 1
        return
    wrong += found["failures"]
    for name, number in found["outcomes"].items():
        if found["what"] == "records":
            name = f"records|{name}" if name == "failed" else f"records|{name.replace('_', ' ')}"
        elif found["what"] == "files":
            outcome, _, kind = name.partition(" ")
            name = f"{kind or 'files'}|{outcome}"
        else:
            kind, reader, outcome = name.split("|")
            name = f"{kind}: {reader}|{outcome}"
        counts[name] += number


def table(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each area, kind and outcome, from the lines of a file of states."""
    counts: Counter[tuple[str, str, str]] = Counter()
    about: dict[str, dict[str, Any]] = {}
    for line in lines:
        of = about.setdefault(line["area"], {"share": line["share"], "seed": line["seed"], "commit": [], "date": ""})
        of["commit"] += [line["commit"]] if line["commit"] not in of["commit"] else []
        of["date"] = max(of["date"], line["date"])
        for name, number in line["counts"].items():
            kind, _, outcome = name.rpartition("|")
            key = line["area"], kind, outcome
            counts[key] = 1 if outcome == "not tried" else counts[key] + number
    return [
        {"area": area, "kind": kind, "outcome": outcome, "count": number}
        | {**about[area], "commit": "+".join(about[area]["commit"])}
        for (area, kind, outcome), number in counts.items()
    ]


def printed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as text: a line for each kind, with its outcomes."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        found.setdefault((row["area"], row["kind"]), {})[row["outcome"]] = row["count"]
    width = max(len(kind) for _, kind in found)
    lines = []
    for (area, kind), outcomes in found.items():
        said = ", ".join(f"{outcome} {number:,}" for outcome, number in sorted(outcomes.items()))
        lines.append(f"{area:8} {kind:{width}} {said}")
    return "\n".join(lines)


def commit() -> str:
    """The commit of this repository; with ``+`` if files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../..")
    return (git("rev-parse", "--short=9", "HEAD") or "unknown") + ("*" if changed else "")


def main() -> int:
    """Run what is missing, print the table, and write it; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--share", type=float, default=0.3, help="share of the full set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--area", action="append", choices=tuple(FULL), help="one area only; may be repeated")
    parser.add_argument("--state", type=Path, default=Path("build/faults.jsonl"), help="file of finished slices")
    parser.add_argument("--csv", type=Path, help="write the table to this file")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further slice after so many minutes")
    options = parser.parse_args()
    options.state.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        [json.loads(line) for line in options.state.read_text("utf-8").splitlines()] if options.state.exists() else []
    )
    lines = [line for line in lines if (line["share"], line["seed"]) == (options.share, options.seed)]
    known = {(line["area"], line["slice"]) for line in lines}
    began, left = time.monotonic(), 0
    for one in slices(options.share, options.seed, options.area or tuple(FULL)):
        if (one.area, one.name) in known:
            continue
        if time.monotonic() - began > options.minutes * 60:
            left += 1
            continue
        place = Path(tempfile.mkdtemp(prefix="faults-"))
        try:
            counts, wrong = run(one, options.seed, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        line = {
            "area": one.area,
            "slice": one.name,
            "share": options.share,
            "seed": options.seed,
            "commit": commit(),
            "date": datetime.date.today().isoformat(),
            "counts": counts,
            "wrong": wrong,
        }
        lines.append(line)
        with options.state.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{one.area:8} {one.name}: {dict(counts)}", flush=True)
    if not lines:
        print("nothing was run")
        return 1
    wrong = [f"{line['area']} {line['slice']}: {text}" for line in lines for text in line["wrong"]]
    rows = table(lines)
    print("\n" + printed(rows))
    print("\n".join(["", "WRONG:", *wrong] if wrong else []))
    if left:
        print(f"{left} slices are left: run the same command again")
    if options.csv is not None:
        with options.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
