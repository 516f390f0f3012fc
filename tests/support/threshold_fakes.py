"""Fakes for the tests of the studies: a recipe over a few rows, and fast components that train nothing.

A "model" is the text of its rows and seed; it solves a task or not by a rule that the test can compute, so that the
report can be compared with known numbers.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER
from donod_fast.studies.core.grid import MODEL, Unit, measure_all
from donod_fast.training import Recipe, recipe_from

TASKS = 60
TOKENS_A_ROW = 10


def demo_rows(count: int) -> list[dict[str, Any]]:
    """The first rows of the demonstration's corpus, of which some are corrupted."""
    with CORPUS_FILE.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def demo_recipe(folder: Path, *overrides: str, rows: int = 80) -> Recipe:
    """A study on ``rows`` rows of the demonstration's corpus with its model; benchmarks are for the fakes to name."""
    data = folder / "corpus.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in demo_rows(rows)), encoding="utf-8")
    values = {
        "name": "small",
        "description": "For tests.",
        "score": {"data": [str(data)]},
        "train": {"model": str(MODEL_FOLDER), "epochs": 2},
        "study": {
            "methods": ["all", "random", "nod", "topsis", "loss"],
            "keeps": [0.25, 0.5],
            "don_quantiles": [0.5, 0.75],
            "seeds": [0, 1, 2],
        },
    }
    return recipe_from(values, overrides)


@dataclass(frozen=True)
class FakeParts:
    """Trains by writing rows and seed to a file. ``log`` gets a line for every training and measure.

    A task is solved with a chance that rises with the share of rows below half of ``rows``; the loss falls alike.
    """

    rows: int
    log: Path
    die_after: int | None = None

    def __call__(self) -> FakeParts:
        return self

    @property
    def training(self) -> Mapping[str, Any]:
        return {"fake": "training"}

    @property
    def base(self) -> Mapping[str, Any]:
        return {"fake": "base"}

    @property
    def measures(self) -> Mapping[str, Mapping[str, Any]]:
        return {"humaneval": {"problems": "fake"}, "heldout": {"data": "fake"}}

    def train(self, rows: Sequence[int], seed: int, folder: Path) -> Mapping[str, Any]:
        self._note(f"train {len(rows)} {seed}")
        model = folder / MODEL
        model.mkdir(parents=True, exist_ok=True)
        (model / "rows.json").write_text(json.dumps([list(rows), seed]), encoding="utf-8")
        return {"tokens": 2 * TOKENS_A_ROW * len(rows), "scored_tokens": 2 * len(rows), "steps": 1, "loss": 1.0}

    def measure(self, name: str, model: Path | None) -> Mapping[str, Any]:
        rows, seed = [[], 0] if model is None else json.loads((model / "rows.json").read_text(encoding="utf-8"))
        self._note(f"measure {name} {len(rows)} {seed}")
        good = sum(row < self.rows / 2 for row in rows) / self.rows
        if name == "heldout":
            return {"loss": 2.0 - good + 0.01 * seed, "error": 0.01, "rows": 5, "tokens": 50}
        draw = random.Random(f"{sorted(rows)} {seed}")
        solved = {f"task-{task}": [int(draw.random() < 0.2 + good), 1] for task in range(TASKS)}
        return {"tasks": solved, "isolation": "none", "seconds": {"generate": 0.0, "judge": 0.0}}

    def _note(self, text: str) -> None:
        if self.die_after is not None and self.log.exists():
            done = len(self.log.read_text(encoding="utf-8").splitlines())
            if done >= self.die_after:
                os._exit(9)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


@dataclass(frozen=True)
class SlowParts(FakeParts):
    """Notes its process and then trains for longer than a test waits."""

    def __call__(self) -> SlowParts:
        return self

    def train(self, rows: Sequence[int], seed: int, folder: Path) -> Mapping[str, Any]:
        self._note(f"train {os.getpid()}")
        time.sleep(600)
        raise AssertionError


def measure_all_units(root: Path, parts: FakeParts, units: list[Unit]) -> None:
    """What a process does that a test kills; it stands here since a spawned process cannot import a test module."""
    list(measure_all(root, parts, units, jobs=2))
