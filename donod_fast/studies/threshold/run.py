"""``run_threshold``: how much training selection can save, and how it changes the model.

Score once; select by methods × fractions and by thresholds of DON; train each selection with each seed; measure;
report. Every step is a cached cell: a killed study resumes where it stopped and ends with the same report.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from donod_fast.criteria.running import fingerprints
from donod_fast.errors import InputError, StoreError
from donod_fast.evaluation.benchmarks import FAMILY
from donod_fast.selection.column_methods import OWN_METHODS
from donod_fast.selection.kmeans_ifd import Questions
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.selection.settings import BY_EMBEDDINGS
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.grid import Grid, Measured, Parts, Unit, make_grid, measure_all
from donod_fast.studies.core.row_links import RowLinks, report_methods, write_rows
from donod_fast.studies.core.selecting import (
    ALL,
    BY_THRESHOLD,
    Selection,
    check_method,
    criteria_for,
    questions_for,
)
from donod_fast.studies.threshold.family_files import rename_former_measures, with_family
from donod_fast.studies.threshold.findings import Costs
from donod_fast.studies.threshold.parts import MakeParts, named_sections, open_score_corpus
from donod_fast.studies.threshold.report import ThresholdStudy, write_study
from donod_fast.studies.threshold.table import lines, separations, train_seconds
from donod_fast.system.files import storage_error
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from donod_fast.data.reading import Corpus
    from donod_fast.training import Recipe

SCORES = "scores"
_PACKAGES = ("donod-fast", "torch", "transformers", "trl", "peft", "accelerate", "scipy")


class Progress(Protocol):
    """Called with the progress of a study."""

    def __call__(self, step: str, done: int, total: int, detail: str) -> None:
        """``step`` is ``score`` or ``train``; ``detail`` says what was done last."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a study.

    Attributes:
        study: its numbers.
        markdown, page: the report.
        computed: trainings of this run; the others were cached.
    """

    study: ThresholdStudy
    markdown: Path
    page: Path
    computed: int


def run_threshold(
    recipe: Recipe,
    out: Path,
    *,
    jobs: int | None = None,
    unsafe: bool = False,
    keep_models: bool = False,
    launch: Sequence[str] = (),
    command: str = "",
    progress: Progress | None = None,
    make_parts: Callable[[], Parts] | None = None,
    row_report: bool = False,
) -> Outcome:
    """Run the study of a recipe, or resume it.

    Args:
        recipe: settings of scoring, training and measuring; its section ``study`` is the grid.
        out: the study's folder; cells with other settings in it are ignored.
        jobs: parallel trainings, each a process with one thread; None for one per core on a CPU, one on an accelerator.
        unsafe: run model-written programs even if no sandbox is available.
        keep_models: leave the trained models in their cells.
        launch: a command that starts each training in separate processes, for several accelerators: ``accelerate
            launch --num_processes 2``; for recipes with ``train.save_steps``.
        command: the command line to print in the report.
        progress: called after each step.
        make_parts: replaces our training and evaluation.
        row_report: also write ``rows.html``, the report of the scores, to which the methods in the report lead.

    Raises:
        InputError: the recipe lacks an entry that a study needs, or a package is not installed.
        CorpusError, ModelError, SandboxError: as scoring, training and evaluation raise them.
        StoreError: the folder is in use or cannot be written.
        WorkerError: a process was killed; finished cells stay cached.
    """
    selections = selections_of(recipe)  # before anything is written
    if launch and recipe.train.save_steps is None:
        raise InputError("--launch needs checkpoints: set train.save_steps in the recipe")
    tell = progress or (lambda *_: None)
    with _held(out):
        recipe = with_family(recipe, out)
        jobs = default_jobs() if jobs is None else jobs
        make_parts = make_parts or MakeParts(recipe, out.resolve(), unsafe, 1 if jobs > 1 else None, tuple(launch))
        store = CellStore(out)
        if any(section.benchmark == FAMILY for section in recipe.eval):
            rename_former_measures(store, make_parts().measures)
        scored = _score(recipe, out, store, tell)
        columns = ScoreColumns.from_table(scored.table)
        grid = make_grid(
            columns, selections, recipe.study.seeds, normalise=recipe.study.normalise, questions=scored.questions
        )
        results, computed = _measure(out, store, make_parts, grid, jobs, keep_models, tell)
        study = _study(recipe, grid, columns, scored, results, jobs, command)
        links = _row_links(recipe, out, store, scored) if row_report else None
        markdown, page = write_study(study, out, links)
    return Outcome(study, markdown, page, computed)


def selections_of(recipe: Recipe) -> list[Selection]:
    """The selections of a recipe's study: ``all`` once, each other method at each fraction, then thresholds of DON.

    Raises:
        InputError: a method is unknown, or the study has no cells.
    """
    study = recipe.study
    for method in study.methods:
        try:
            check_method(method)
        except InputError as error:
            raise InputError(f"study.methods: {error}") from None
    found = [Selection(ALL)] if ALL in study.methods else []
    for method in study.methods:
        if method not in (ALL, BY_THRESHOLD):
            found += [Selection(method, keep=float(share)) for share in study.keeps]
    found += [Selection(BY_THRESHOLD, don_quantile=float(quantile)) for quantile in study.don_quantiles]
    found += [Selection(BY_THRESHOLD, don_threshold=float(bound)) for bound in study.don_thresholds]
    if not found or not study.seeds:
        raise InputError(
            f"recipe {recipe.name}: the study has no cells; give study.methods, study.keeps and study.seeds"
        )
    return list(dict.fromkeys(found))


def default_jobs() -> int:
    """Number of parallel trainings: one on an accelerator, else one per core (threads do not help small models)."""
    import os

    import torch

    if torch.cuda.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Scored:
    table: Any
    cell: Cell
    corpus: Corpus
    corruption: list[str] | None
    questions: Questions | None


def _score(recipe: Recipe, out: Path, store: CellStore, tell: Progress) -> _Scored:
    """Score the corpus into ``out/scores``, an ordinary scores folder."""
    from donod_fast.engines.local import score_corpus
    from donod_fast.scores.folder import ScoresFolder, locked
    from donod_fast.scoring.scorer import Scorer
    from donod_fast.training.loading import model_identity

    corpus = open_score_corpus(recipe)
    section = recipe.score
    model, revision = recipe.scoring_model
    criteria = criteria_for(recipe.study.methods, section.references)
    elsewhere = {"data", "split", "data_revision", "model", "revision", "references"}
    how = section.model_dump(mode="json", exclude=elsewhere)
    named = recipe.train.model_copy(update={"model": model, "revision": revision})
    settings = {"score": how, "model": model_identity(named), "corpus": corpus.fingerprint}
    if criteria:
        settings["signals"] = dict(fingerprints(criteria))

    def work(folder: Path) -> Mapping[str, Any]:
        scorer = Scorer.from_pretrained(
            model,
            revision=revision,
            dtype=section.dtype,
            trust_remote_code=recipe.train.trust_remote_code,
            update=section.update_settings(),
            masks=section.masks(),
            signals=criteria,
        )
        done = 0

        def advance(rows: int, tokens: int) -> None:
            nonlocal done
            done += rows
            tell("score", done, corpus.rows, "")

        began = time.perf_counter()
        with locked(folder / SCORES):
            outcome = score_corpus(corpus, scorer, folder / SCORES, progress=advance)
        seconds = time.perf_counter() - began
        rest = corpus.rows - outcome.resumed_rows
        return {
            "rows": corpus.rows,
            "scored": outcome.counts["scored"],
            "statuses": dict(outcome.counts),
            # A resumed run has timed only a part, so the time of the whole is estimated from its rate.
            "seconds": seconds * corpus.rows / rest if rest else seconds,
            "timed_rows": rest,
            "update": section.update,
            "device": str(scorer.loaded.device),
            "dtype": str(scorer.loaded.dtype).removeprefix("torch."),
        }

    cell = store.result("score", settings, work)
    scores = ScoresFolder.open(cell.folder / SCORES)
    tell("score", corpus.rows, corpus.rows, f"{cell.result['seconds']:.1f} s")
    questions = questions_for(scores, recipe.study.methods)
    return _Scored(scores.table(), cell, corpus, _corruption(corpus.records()), questions)


def _row_links(recipe: Recipe, out: Path, store: CellStore, scored: _Scored) -> RowLinks:
    from donod_fast.scores.folder import ScoresFolder

    scores = ScoresFolder.open(scored.cell.folder / SCORES)
    shown = report_methods(recipe.study.methods, recipe.study.normalise)
    return write_rows(store, scores, scored.corpus, shown, out, settings=scored.cell.settings)


def _corruption(records: Any) -> list[str] | None:
    """The column ``corruption`` of each row, "" if it is empty; None if no row has it."""
    found = [(record.data or {}).get("corruption") if not record.problem else None for record in records]
    if all(kind is None for kind in found):
        return None
    return ["" if kind is None else str(kind) for kind in found]


def _measure(
    out: Path,
    store: CellStore,
    make_parts: Callable[[], Parts],
    grid: Grid,
    jobs: int,
    keep_models: bool,
    tell: Progress,
) -> tuple[dict[Unit | None, Measured], int]:
    units: list[Unit | None] = [None, *grid.units]
    known = sum(1 for _ in store.all())
    results: dict[Unit | None, Measured] = {}
    for found in measure_all(out, make_parts, units, jobs=jobs, keep_models=keep_models):
        results[found.unit] = found
        what = (
            "before training"
            if found.unit is None
            else f"{plural(len(found.unit.rows), 'row')}, seed {found.unit.seed}"
        )
        tell("train", len(results), len(units), what)
    return results, sum(1 for _ in store.all()) - known


def _study(
    recipe: Recipe,
    grid: Grid,
    columns: ScoreColumns,
    scored: _Scored,
    results: Mapping[Unit | None, Measured],
    jobs: int,
    command: str,
) -> ThresholdStudy:
    everything = Selection(ALL)
    whole = [results[grid.of[everything, seed]] for seed in grid.seeds] if everything in grid.selections else []
    scoring = scored.cell.result
    table = lines(
        grid,
        results,
        scored_rows=int(scoring["scored"]),
        tokens_of_all=_tokens_of_all(recipe, scored, whole, results),
        corruption=scored.corruption,
        pass_at={name: section.pass_at for name, section in named_sections(recipe).items()},
    )
    costs = Costs(float(scoring["seconds"]), sum(map(train_seconds, whole)) / len(whole) if whole else None)
    return ThresholdStudy(
        name=recipe.name,
        description=recipe.description,
        lines=tuple(table),
        separations=tuple(separations(columns, scored.corruption, _further(grid), normalise=recipe.study.normalise)),
        costs=costs,
        scoring=scoring,
        seeds=grid.seeds,
        trainings=len(grid.units),
        settings=recipe.as_dict(),
        machine=_machine(jobs, results),
        command=command,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _further(grid: Grid) -> tuple[str, ...]:
    """Methods of the grid that rank by a column of a further criterion."""
    known = (ALL, *BY_EMBEDDINGS, *OWN_METHODS)
    return tuple(dict.fromkeys(chosen.method for chosen in grid.selections if chosen.method not in known))


def _tokens_of_all(
    recipe: Recipe, scored: _Scored, whole: Sequence[Measured], results: Mapping[Unit | None, Measured]
) -> float:
    """Tokens of training on everything: measured if the study has it, else in proportion to the scored tokens."""
    if whole:
        return sum(float(one.training["tokens"]) for one in whole) / len(whole)
    tokens = scored.table.column("tokens").to_numpy()
    status = scored.table.column("status").to_pylist()
    usable = float(sum(count for count, how in zip(tokens, status, strict=True) if how == "scored"))
    unit, one = max(
        ((unit, one) for unit, one in results.items() if unit is not None), key=lambda pair: len(pair[0].rows)
    )
    return float(one.training["tokens"]) * usable / float(tokens[list(unit.rows)].sum())


def _machine(jobs: int, results: Mapping[Unit | None, Measured]) -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    isolation = {
        found["isolation"] for one in results.values() for found in one.measures.values() if "isolation" in found
    }
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "device": torch.cuda.get_device_name() if cuda else f"CPU ({platform.machine()}, {default_jobs()} cores)",
        "processes": jobs,
        "isolation": ", ".join(sorted(isolation)),
        "platform": platform.platform(),
        "versions": versions,
    }


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Lock the study's folder for this process."""
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise StoreError(f"{out} is in use: another study runs in it; wait for it to end") from None
    except OSError as error:
        raise storage_error(out, error) from error


__all__ = ["Outcome", "default_jobs", "run_threshold", "selections_of"]
