"""The grid of a study that trains: rows and seeds, with each distinct training done and measured once.

Two selections that keep the same rows are one training at a given seed. :class:`Parts` hides what is trained and
measured, so the grid does not depend on models.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from donod_fast.selection.kmeans_ifd import Questions
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.processes import in_processes
from donod_fast.studies.core.selecting import Selection, rows_digest, selected_rows

TRAINING, MODEL = "training", "training/model"
"""Names in a training's cell: the working folder, and the model, which is kept until it is measured."""


class Parts(Protocol):
    """Trainer and measures. Their settings are JSON values; together with rows and seed they determine every result."""

    @property
    def training(self) -> Mapping[str, Any]:
        """Everything that determines a training, except rows and seed."""

    @property
    def base(self) -> Mapping[str, Any]:
        """Identification of the model before training."""

    @property
    def measures(self) -> Mapping[str, Mapping[str, Any]]:
        """Measures of every model: everything that determines each of them, by name."""

    def train(self, rows: Sequence[int], seed: int, folder: Path) -> Mapping[str, Any]:
        """Train on rows of the corpus and save the model in ``folder / MODEL``; returns the result to record."""

    def measure(self, name: str, model: Path | None) -> Mapping[str, Any]:
        """Compute one measure of a model's folder, or of the model before training."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One training: rows of the corpus in ascending order, and a seed."""

    rows: tuple[int, ...]
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """Settings that identify it among a study's cells."""
        return {"rows": rows_digest(self.rows), "count": len(self.rows), "seed": self.seed}


@dataclass(frozen=True, slots=True)
class Grid:
    """Selections × seeds.

    Attributes:
        selections: selections in the order of the report.
        seeds: seeds of training and of random draws.
        units: the distinct trainings; all selections of the first seed come first, so that a study that stops early
            has a complete table with fewer seeds.
        of: the unit of each selection and seed.
    """

    selections: tuple[Selection, ...]
    seeds: tuple[int, ...]
    units: tuple[Unit, ...]
    of: Mapping[tuple[Selection, int], Unit] = field(repr=False)


def make_grid(
    columns: ScoreColumns,
    selections: Sequence[Selection],
    seeds: Sequence[int],
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    questions: Questions | None = None,
) -> Grid:
    """Select for every selection and seed, and find equal trainings.

    ``questions`` are needed only for ``kmeans-ifd``.

    Raises:
        InputError: a selection keeps no row.
    """
    fixed = {
        chosen: selected_rows(columns, chosen, weights=weights, questions=questions)
        for chosen in selections
        if not chosen.seeded
    }
    of = {
        (chosen, seed): Unit(
            fixed[chosen] if chosen in fixed else selected_rows(columns, chosen, seed=seed, weights=weights), seed
        )
        for seed in seeds
        for chosen in selections
    }
    return Grid(tuple(selections), tuple(seeds), tuple(dict.fromkeys(of.values())), of)


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished unit, or the model before training (``unit`` None).

    Attributes:
        unit: the unit.
        training: result of its training; empty before training.
        seconds: wall time of that training.
        measures: result of each measure.
        measure_seconds: total wall time of the measures.
    """

    unit: Unit | None
    training: Mapping[str, Any]
    seconds: float
    measures: Mapping[str, Mapping[str, Any]]
    measure_seconds: float


def measured(store: CellStore, parts: Parts, unit: Unit | None, *, keep_models: bool = False) -> Measured:
    """Train and measure one unit, except for finished cells.

    The model stays in the training's folder until all measures are done, so that a killed study resumes with it. A
    measure that is requested later, when the model is gone, requires the training again.

    Raises:
        StoreError: a cell cannot be read or written.
    """
    if unit is None:
        of: dict[str, Any] = {"base": dict(parts.base)}
        cells = {
            name: store.result("measure", {**of, "measure": name, "how": dict(how)}, _measure(parts, name, None))
            for name, how in parts.measures.items()
        }
        return _as_measured(None, None, cells)

    of = {**parts.training, **unit.key}
    wanted = {name: {"training": of, "measure": name, "how": dict(how)} for name, how in parts.measures.items()}
    missing = [name for name, settings in wanted.items() if store.known("measure", settings) is None]
    model = store.folder("train", of) / MODEL
    if missing and store.known("train", of) is not None and not model.exists():
        store.forget("train", of)
    trained = store.result("train", of, lambda folder: parts.train(unit.rows, unit.seed, folder))
    if missing:
        trained.check_files(MODEL)
    cells = {name: store.result("measure", settings, _measure(parts, name, model)) for name, settings in wanted.items()}
    if not keep_models and model.exists():
        shutil.rmtree(model.parent, ignore_errors=True)
    return _as_measured(unit, trained, cells)


def _measure(parts: Parts, name: str, model: Path | None) -> Callable[[Path], Mapping[str, Any]]:
    return lambda _: parts.measure(name, model)


def _as_measured(unit: Unit | None, trained: Cell | None, cells: Mapping[str, Cell]) -> Measured:
    return Measured(
        unit,
        {} if trained is None else trained.result,
        0.0 if trained is None else trained.seconds,
        {name: cell.result for name, cell in cells.items()},
        sum(cell.seconds for cell in cells.values()),
    )


def measure_all(
    root: Path,
    make_parts: Callable[[], Parts],
    units: Sequence[Unit | None],
    *,
    jobs: int = 1,
    keep_models: bool = False,
) -> Iterator[Measured]:
    """Yield every unit when it is finished; runs in this process for one job, else in ``jobs`` one-thread processes.

    The processes are spawned, so a program that uses several must be importable without running
    (``if __name__ == "__main__"``). They end when this process ends for any reason.

    Args:
        root: the study's folder.
        make_parts: creates trainer and measures, once in each process; must be picklable if ``jobs`` > 1.
        units: the units, started in this order.
        jobs: number of processes.
        keep_models: leave the trained models in their cells.

    Raises:
        WorkerError: a process was killed; finished cells stay cached.
    """
    make = partial(_Place.made, root, make_parts, keep_models)
    yield from in_processes(make, _one, units, jobs)


@dataclass(frozen=True)
class _Place:
    store: CellStore
    parts: Parts
    keep_models: bool

    @staticmethod
    def made(root: Path, make_parts: Callable[[], Parts], keep_models: bool) -> _Place:
        return _Place(CellStore(root), make_parts(), keep_models)


def _one(place: _Place, unit: Unit | None) -> Measured:
    return measured(place.store, place.parts, unit, keep_models=place.keep_models)


__all__ = ["MODEL", "TRAINING", "Grid", "Measured", "Parts", "Unit", "make_grid", "measure_all", "measured"]
