"""Run ``study which``: probe, plan within the budget, run the study, write its report and verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from donod_fast.criteria.reference import short_names
from donod_fast.criteria.registry import SIGNALS
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.scored import digest, model_key
from donod_fast.studies.core.selecting import criteria_for
from donod_fast.studies.core.tables import need, read_rows
from donod_fast.studies.evidence.arms import check_methods
from donod_fast.studies.evidence.leaks import Rows, files_of, reference_rows, refuse_leaks
from donod_fast.studies.evidence.plan import EvidencePlan, HeldOut, Pair, Pool, RandomDraws, Tuning
from donod_fast.studies.evidence.report import write_evidence_report
from donod_fast.studies.evidence.result import EvidenceStudy
from donod_fast.studies.evidence.run import run_evidence
from donod_fast.studies.evidence.verdict import Verdict
from donod_fast.studies.which.planning import Limits, Speeds, WhichPlan, in_time, plan_study
from donod_fast.studies.which.probing import one_thread, probe
from donod_fast.studies.which.settings import BASE_METHODS, REFERENCE_CRITERIA, WhichData, WhichSettings
from donod_fast.system.wording import plural

_PROBED = 40
DATA, HELDOUT = "data", "held-out"


@dataclass(frozen=True)
class Prepared:
    """A planned study.

    Attributes:
        evidence: what the engine runs.
        plan: its sizes and expected time.
        speeds: what the probe measured.
    """

    evidence: EvidencePlan
    plan: WhichPlan
    speeds: Speeds

    def text(self) -> str:
        """What is planned, and the speeds that it rests on, for a reader."""
        plan, speeds = self.plan, self.speeds
        kinds = ", ".join(plan.kinds)
        return (
            f"measured here: scoring {1 / speeds.scoring:,.1f} rows/s, training {1 / speeds.training:,.1f} rows/s and "
            f"{speeds.training_start:.1f} s a start\n"
            f"plan: {plural(plan.methods, 'method')} with {plural(plan.seeds, 'training seed')}, "
            f"{plural(plan.draws, 'random draw')} matched in {kinds}: {plural(plan.trainings, 'training')} on about "
            f"{plural(plan.selected, 'row')} of {plan.pool:,}, each measured on "
            f"{plural(plan.heldout, 'held-out row')}\n"
            f"expected time: {in_time(plan.seconds)}"
        )


@dataclass(frozen=True)
class WhichOutcome:
    """Result of the study.

    Attributes:
        prepared: what was planned.
        study: every training.
        verdict: what was shown, what was not, and what it would take.
    """

    prepared: Prepared
    study: EvidenceStudy
    verdict: Verdict


def default_methods(references: Sequence[str]) -> tuple[str, ...]:
    """The methods that are compared if none is named."""
    by_reference = [method for name, method in REFERENCE_CRITERIA.items() if name in SIGNALS]
    names = short_names(references) if len(references) > 1 else []
    sets = [f":{name}" for name in names] or [""]  # a single set needs no name
    return (*BASE_METHODS, *(method + name for method in by_reference for name in sets if references))


def prepare_which(
    model: str | Path | LoadedModel,
    data: WhichData,
    settings: WhichSettings,
    *,
    out: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> Prepared:
    """Read the rows, probe this machine and plan the study.

    Args:
        model: folder, hub id or loaded model; it scores and is trained.
        data: rows to select from and to measure on.
        settings: budget, methods and training.
        out: the study's folder, where the sizes of a plan are kept: a second run resumes the same study although it
            would measure other speeds. None makes a new plan and writes nothing.
        on_cell: called with the plan's cell.

    Raises:
        InputError: the budget is too small, a method is unknown, or held-out rows are in the data.
        CorpusError, ModelError, StoreError: as their names say.
    """
    need("scipy", "study")
    need("trl", "train")
    if settings.tuning == "lora":
        need("peft", "train")
    began = time.perf_counter()
    methods = tuple(settings.methods) or default_methods(data.reference)
    check_methods(methods)
    criteria = criteria_for(methods, data.reference)
    rows = read_rows(data.data, skip=data.skip, count=data.rows)
    heldout = read_rows(data.heldout, skip=data.heldout_skip, count=data.heldout_rows)
    if not data.allow_overlap:
        held = Rows(f"the held-out data {files_of(data.heldout)}", heldout, data.heldout_skip)
        trained = Rows(f"the data {files_of(data.data)}", rows, data.skip)
        refuse_leaks([held], [trained, *reference_rows(data.reference)])
    loaded = model if isinstance(model, LoadedModel) else load_model(model, dtype="float32")
    rows, heldout = _shuffled(rows), _shuffled(heldout)
    tuning = Tuning(settings.tuning, settings.training, settings.lora)
    limits = Limits(
        len(rows),
        len(heldout),
        len(methods),
        settings.keep,
        settings.training.epochs,
        settings.seeds,
        settings.removal,
        settings.jobs,
    )

    def work(_: Path) -> Mapping[str, Any]:
        with one_thread(settings.jobs > 1):
            measured = probe(loaded, rows[:_PROBED], heldout[:_PROBED], tuning, criteria, data.masks)
        speeds = Speeds(
            measured.scoring,
            measured.training,
            measured.training_start,
            measured.measuring,
            measured.measuring_start,
            spent=time.perf_counter() - began,
        )
        plan = plan_study(settings.budget, speeds, limits)
        return {"plan": plan.as_dict(), "speeds": {name: getattr(speeds, name) for name in Speeds.__slots__}}

    if out is None:
        found = work(Path())
    else:
        key = {
            **model_key(loaded, data.masks),
            "settings": settings.as_dict(),
            "methods": list(methods),
            "rows": digest(rows),
            "heldout": digest(heldout),
            "references": list(data.reference),
        }
        found = CellStore(out, on_cell).result("which-plan", key, work).result
    plan = WhichPlan(**{**found["plan"], "kinds": tuple(found["plan"]["kinds"])})
    evidence = EvidencePlan(
        pairs=(Pair(loaded if settings.jobs == 1 or isinstance(model, LoadedModel) else model),),
        pools=(Pool(DATA, rows[: plan.pool], masks=data.masks),),
        heldouts=(HeldOut(HELDOUT, heldout[: plan.heldout], masks=data.masks),),
        methods=methods,
        shares=(settings.keep,),
        random=RandomDraws(plan.draws, plan.kinds),
        seeds=tuple(range(plan.seeds)),
        tunings=(tuning,),
        removal=settings.removal,
        references=data.reference,
        allow_overlap=True,  # looked for above, in all rows
    )
    return Prepared(evidence, plan, Speeds(**found["speeds"]))


def run_which(
    out: Path,
    prepared: Prepared,
    *,
    jobs: int = 1,
    command: str = "",
    on_cell: Callable[[Cell], None] | None = None,
) -> WhichOutcome:
    """Run or resume a planned study and write ``report.md``, ``cells.csv``, ``comparisons.csv`` and ``result.json``.

    Raises:
        InputError, ModelError, StoreError, WorkerError: as their names say.
    """
    study = run_evidence(out, prepared.evidence, on_cell=on_cell, jobs=jobs)
    title = "Which selection to use"
    said = write_evidence_report(out, study, title=title, command=command)
    return WhichOutcome(prepared, study, said)


def _shuffled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in a fixed random order, since files are often sorted and a study may use only a part."""
    return Random("which").sample(list(rows), len(rows))


__all__ = ["Prepared", "WhichOutcome", "default_methods", "prepare_which", "run_which"]
