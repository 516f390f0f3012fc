"""Evaluation folders, a study's cells and training folders for attacks on stored files, with their consumers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from eval_cases import human_eval_record, write_records
from flips import Reader

from donod_fast.evaluation import Sample, evaluate_samples, load_problems
from donod_fast.evaluation.browser import read_entries
from donod_fast.studies.core.cells import CellStore
from donod_fast.training.folder import LOSSES, MODEL, TrainingFolder

TASKS = 8


class Evaluation:
    """A finished evaluation and an interrupted one of the same samples; a fake judge must be in place.

    Args:
        place: an empty folder.
    """

    def __init__(self, place: Path) -> None:
        records = [human_eval_record(at) for at in range(TASKS)]
        self._problems = load_problems("humaneval", write_records(place / "problems.jsonl", records))
        self._samples = [
            Sample(one.task_id, 0, one.prompt + f"    return x + {at + at % 2}")
            for at, one in enumerate(self._problems)
        ]
        self.out, self._again = place / "out", place / "again"
        self.evaluate(self.out)
        self.kept = {file.name: file.read_bytes() for file in self.files()}

    def evaluate(self, out: Path) -> None:
        """Evaluate into a folder, or finish what is there."""
        evaluate_samples(self._problems, self._samples, out, settings={"benchmark": "rot"})

    def files(self) -> list[Path]:
        """The files of the evaluation."""
        return sorted(file for file in self.out.iterdir() if not file.name.startswith("."))

    def readers(self) -> Mapping[str, tuple[Reader, int]]:
        """The consumers, each with a weight."""
        return {"browse": (self.browse, 4), "resume": (self.resume, 1), "resume cut short": (self.resume_short, 1)}

    def browse(self) -> bytes:
        """Everything that the browser can show."""
        return repr([astuple(entry) for entry in read_entries(self.out)]).encode()

    def resume(self) -> bytes:
        """Evaluate again in a copy of the folder."""
        shutil.rmtree(self._again, ignore_errors=True)
        shutil.copytree(self.out, self._again)
        return self._finished()

    def resume_short(self) -> bytes:
        """Finish a copy of the folder that lost its result and half of its verdicts."""
        shutil.rmtree(self._again, ignore_errors=True)
        shutil.copytree(self.out, self._again)
        for name in ("result.json", "problems.jsonl"):
            (self._again / name).unlink()
        verdicts = self._again / "verdicts.jsonl"
        lines = verdicts.read_bytes().splitlines(keepends=True)
        verdicts.write_bytes(b"".join(lines[: TASKS // 2]))
        return self._finished()

    def _finished(self) -> bytes:
        self.evaluate(self._again)
        return b"".join(
            (self._again / name).read_bytes() for name in ("settings.json", "samples.jsonl", "verdicts.jsonl")
        )


class Study:
    """A store of cells with results, and a file in each cell's folder.

    Args:
        root: an empty folder.
    """

    SETTINGS: tuple[dict[str, Any], ...] = tuple({"seed": at, "lr": 10.0**-at, "name": "ä"} for at in range(4))

    def __init__(self, root: Path) -> None:
        self._root = root
        for at, settings in enumerate(self.SETTINGS):
            CellStore(root).result("train", settings, lambda folder, at=at: self._work(folder, at))

    @staticmethod
    def _work(folder: Path, at: int) -> dict[str, Any]:
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "weights.bin").write_bytes(bytes(range(at, at + 64)))
        return {"loss": 1 / (at + 3), "scores": [at / 7, float("nan")], "solved": at % 2 == 0, "folder": "model"}

    def files(self) -> list[Path]:
        """The files of all cells."""
        return sorted(file for file in self._root.rglob("*") if file.is_file() and file.suffix != ".lock")

    def readers(self) -> Mapping[str, tuple[Reader, int]]:
        """The consumers, each with a weight."""
        return {"known": (self.known, 3), "all": (self.all, 1)}

    def known(self) -> bytes:
        """Results and files as a resumed study uses them; a cell that is not known is computed again."""
        found = []
        for at, settings in enumerate(self.SETTINGS):
            cell = CellStore(self._root).result("train", settings, lambda folder, at=at: self._work(folder, at))
            check = getattr(cell, "check_files", None)
            if check is not None:
                check("model")
            found.append((cell.result, (cell.folder / "model" / "weights.bin").read_bytes()))
        return repr(found).encode()

    def all(self) -> bytes:
        """All cells, as a report reads them."""
        return repr([(one.kind, one.settings, one.result) for one in CellStore(self._root).all()]).encode()


class Training:
    """The folder of a finished training.

    Args:
        path: an empty folder.
    """

    MANIFEST: Mapping[str, Any] = {
        "kind": "training",
        "settings": {"lr": 1e-5, "epochs": 2},
        "model": {"identity": "local:1", "name": "m"},
        "data": {"fingerprint": "f", "rows": 9},
        "selected": {"rows": 9, "sha256": None},
    }

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fill(self.MANIFEST, bytes(range(200)), '{"layers": 2}', 0.25)

    def refill(self, settings: Mapping[str, Any], weights: bytes, config: str, loss: float) -> None:
        """Make it the folder of another training."""
        shutil.rmtree(self.path)
        self._fill({**self.MANIFEST, "settings": settings}, weights, config, loss)

    def _fill(self, manifest: Mapping[str, Any], weights: bytes, config: str, loss: float) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        folder = TrainingFolder(self.path)
        folder.begin(manifest)
        written = self.path / "written"
        written.mkdir()
        (written / "model.safetensors").write_bytes(weights)
        (written / "config.json").write_text(config)
        folder.finish(written, [(1, 0.5), (2, loss)], {"steps": 2, "loss": loss, "seconds": 3.5, "skipped": {}})

    def files(self) -> list[Path]:
        """The files of the folder."""
        return sorted(file for file in self.path.rglob("*") if file.is_file())

    def readers(self) -> Mapping[str, tuple[Reader, int]]:
        """The consumer: a run that finds the training finished, and then uses its files."""
        return {"train": (self.train, 1)}

    def train(self) -> bytes:
        """What a rerun reports, and the files that it vouches for."""
        folder = TrainingFolder(self.path)
        folder.begin(self.MANIFEST)
        result = folder.result()
        files = [(self.path / MODEL / name).read_bytes() for name in ("model.safetensors", "config.json")]
        return repr((result, files, (self.path / LOSSES).read_bytes())).encode()
