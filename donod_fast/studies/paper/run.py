"""``run_paper``: run a recipe's grid and the paper's further experiments in one folder of cells, and report.

The grid is an evidence study (:mod:`donod_fast.studies.evidence`). Noise, kept share, output layer and ablation are the
studies of these names. All share one folder of cells and the loaded models, so nothing is computed twice, and a killed
study resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.scored import ScoringCells
from donod_fast.studies.core.selecting import criteria_for
from donod_fast.studies.core.settings import EpochTraining, FineTuneSettings, LoraTuning, TokenTraining
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.evidence.leaks import Rows, reference_rows, refuse_leaks
from donod_fast.studies.evidence.plan import IN, OUT, EvidencePlan, HeldOut, Pair, Pool, RandomDraws, Tuning
from donod_fast.studies.evidence.result import ALL, EvidenceStudy
from donod_fast.studies.evidence.run import run_evidence
from donod_fast.studies.focus.result import FocusResult
from donod_fast.studies.focus.run import run_focus
from donod_fast.studies.focus.settings import FocusSettings
from donod_fast.studies.noise.result import NoiseResult
from donod_fast.studies.noise.run import run_noise
from donod_fast.studies.noise.settings import UPDATES, NoiseSettings
from donod_fast.studies.paper.comparisons import compare
from donod_fast.studies.paper.measures import (
    ALL_GROUPS,
    NON_TARGET,
    Run,
    benchmark_measures,
    domain_of,
    measure_name,
    with_averages,
)
from donod_fast.studies.paper.plane import draw_plane, plane_ends
from donod_fast.studies.paper.published import (
    ABLATION,
    ACROSS,
    FOCUS,
    GRID,
    ITEMS,
    NOISE,
    PLANE,
    STABILITY,
    Ran,
    verdict,
)
from donod_fast.studies.paper.recipe import PaperRecipe
from donod_fast.studies.paper.report import PLANE_PICTURE, write_paper_report
from donod_fast.studies.paper.result import PaperStudy
from donod_fast.studies.paper.sections import HeldOutSection, PoolSection, TuningSection
from donod_fast.studies.sensitivity.ablation import run_ablation
from donod_fast.studies.sensitivity.result import AblationStudy
from donod_fast.studies.sensitivity.study_settings import AblationSettings
from donod_fast.studies.stability.result import StabilityResult
from donod_fast.studies.stability.run import run_stability
from donod_fast.studies.stability.settings import StabilitySettings


def run_paper(
    recipe: PaperRecipe,
    out: Path,
    *,
    command: str = "",
    run_benchmark: Run | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> PaperStudy:
    """Run the study, or resume it.

    Writes ``report.md``, ``result.json``, ``tables/*.csv``, pictures, and the folders of the parts into ``out``.

    Args:
        recipe: what to run.
        out: the study's folder; finished work is cached in its ``cells``.
        command: the command, for the report.
        run_benchmark: what measures a benchmark; None for lm-eval.
        on_cell: called with each finished cell.

    Raises:
        InputError: names a setting with a wrong value, or held-out rows that are also trained on.
        CorpusError, ModelError, StoreError: as their names say.
    """
    return _Study(recipe, out, on_cell).run(command, run_benchmark)


class _Study:
    def __init__(self, recipe: PaperRecipe, out: Path, on_cell: Callable[[Cell], None] | None) -> None:
        self.recipe, self.out, self._watch = recipe, out, on_cell
        self._loaded: dict[str, LoadedModel] = {}
        self._seen: dict[Path, Cell] = {}

    def run(self, command: str, run_benchmark: Run | None) -> PaperStudy:
        measures = benchmark_measures(self.recipe, run_benchmark)
        self._check_rows()
        models = {name: self._model(name) for name in self._used()}
        plan = replace(evidence_plan(self.recipe, models), benchmarks=measures)
        grid = with_averages(run_evidence(self.out, plan, on_cell=self._on_cell), self.recipe)
        columns = {pool.name: self._columns(plan, pool) for pool in plan.pools}
        scored_by = self.recipe.pairs[0].score
        ends = [end for name, some in columns.items() for end in plane_ends(some, pool=name, model=scored_by)]
        draw_plane(self.out / PLANE_PICTURE, list(columns.items()))
        noise, stability, ablation = self._noise(), self._stability(), self._ablation()
        focus = self._focus()
        differences, words = compare(grid, self._domain)
        study = PaperStudy(
            recipe=self.recipe,
            command=command,
            grid=grid,
            comparisons=differences,
            verdict=words,
            plane=ends,
            noise=noise,
            stability=stability,
            ablation=ablation,
            focus=focus,
            verdicts={item.name: verdict(item, self._ran(grid)) for item in ITEMS},
            cells=len(self._seen),
            cached=sum(cell.cached for cell in self._seen.values()),
            seconds=sum(cell.seconds for cell in self._seen.values()),
        )
        write_paper_report(self.out, study, self._domain)
        return study

    def _check_rows(self) -> None:
        """Refuse what a part could not use, before hours of work on the grid."""
        plan = evidence_plan(self.recipe, {name: self.recipe.model(name).model for name in self._used()})
        pools = {one.name: one.read() for one in plan.pools}
        if not plan.allow_overlap:
            trained = [Rows(f"the corpus {one.name}", pools[one.name], one.skip) for one in plan.pools]
            held = [Rows(f"the held-out data {one.name}", one.read(), one.skip) for one in plan.heldouts]
            refuse_leaks(held, [*trained, *reference_rows(plan.references)], remedy="or set allow_overlap to true")
        for name, rows in pools.items():
            for part in ("noise", "stability", "ablation"):
                section = getattr(self.recipe, part)
                if section is not None and section.rows > len(rows):
                    raise InputError(f"{part}.rows is {section.rows}, but {name} has only {len(rows)} rows; lower it")

    def _on_cell(self, cell: Cell) -> None:
        self._seen.setdefault(cell.folder, cell)
        if self._watch is not None:
            self._watch(cell)

    def _used(self) -> list[str]:
        return list(dict.fromkeys(name for pair in self.recipe.pairs for name in (pair.score, pair.train)))

    def _model(self, name: str) -> LoadedModel:
        if name not in self._loaded:
            # In float32: AdamW's steps on 16-bit weights are lost.
            self._loaded[name] = load_model(self.recipe.model(name).model, dtype="float32")
        return self._loaded[name]

    def _domain(self, pool: str, number: str) -> str:
        """Whether a benchmark's number is of a corpus's domain."""
        if number in (NON_TARGET, ALL_GROUPS):
            return OUT
        own = next(one.domain for one in self.recipe.pools if one.name == pool)
        name, _, part = number.partition("/")
        section = next(one for one in self.recipe.benchmarks if measure_name(one) == name)
        return IN if domain_of(part, section) == own else OUT

    def _columns(self, plan: EvidencePlan, pool: Pool) -> ScoreColumns:
        """Scores of a corpus by the first pair's model; the grid has made their cells."""
        store = CellStore(self.out, self._on_cell)
        criteria = criteria_for([method for method in plan.methods if method != ALL], plan.references)
        scoring = ScoringCells(store, self._model(self.recipe.pairs[0].score), pool.masks, criteria)
        return scoring.score(pool.read(), plan.update).columns()

    def _noise(self) -> Mapping[str, NoiseResult]:
        section = self.recipe.noise
        if section is None:
            return {}
        settings = NoiseSettings(
            rows=section.rows, seeds=section.seeds, kinds=section.kinds, updates={"adamw": UPDATES["adamw"]}
        )
        loaded = self._model(self.recipe.pairs[0].score)
        return {
            pool.name: run_noise(
                self.out / f"noise-{pool.name}",
                loaded,
                study_data(pool),
                settings,
                cells=self.out,
                on_cell=self._on_cell,
            )
            for pool in self.recipe.pools
        }

    def _stability(self) -> Mapping[str, StabilityResult]:
        section = self.recipe.stability
        if section is None:
            return {}
        settings = StabilitySettings(
            rows=section.rows,
            seeds=section.seeds,
            proportions=section.proportions,
            methods=section.methods,
            training=EpochTraining(**_training(self.recipe.tuning)),
        )
        loaded = self._model(self.recipe.pairs[0].train)
        return {
            pool.name: run_stability(
                self.out / f"stability-{pool.name}",
                loaded,
                study_data(pool, target(self.recipe, pool)),
                settings,
                cells=self.out,
                on_cell=self._on_cell,
            )
            for pool in self.recipe.pools
        }

    def _focus(self) -> FocusResult | None:
        section = self.recipe.focus
        if section is None:
            return None
        settings = FocusSettings(
            train_rows=section.train_rows, seeds=section.seeds, training={"epochs": section.epochs}, rows=section.rows
        )
        corpora = {pool.name: study_data(pool) for pool in self.recipe.pools}
        loaded = self._model(self.recipe.pairs[0].train)
        return run_focus(self.out / "focus", loaded, corpora, settings, cells=self.out, on_cell=self._on_cell)

    def _ablation(self) -> Mapping[str, AblationStudy]:
        section = self.recipe.ablation
        if section is None:
            return {}
        training = {**_training(self.recipe.tuning), "tokens": section.tokens}
        settings = AblationSettings(
            keeps=section.keeps,
            seeds=section.seeds,
            setting_seeds=section.setting_seeds,
            training=TokenTraining(**training),
            shares={},
        )
        loaded = self._model(self.recipe.pairs[0].train)
        return {
            pool.name: run_ablation(
                self.out / f"ablation-{pool.name}",
                loaded,
                study_data(pool, target(self.recipe, pool), rows=section.rows),
                settings,
                cells=self.out,
                on_cell=self._on_cell,
            )
            for pool in self.recipe.pools
        }

    def _ran(self, grid: EvidenceStudy) -> Ran:
        recipe = self.recipe
        models = [(recipe.model(pair.score).model, recipe.model(pair.train).model) for pair in recipe.pairs]
        there = {
            GRID: True,
            ACROSS: any(pair.crosses for pair in recipe.pairs),
            ABLATION: recipe.ablation is not None,
            FOCUS: recipe.focus is not None,
            STABILITY: recipe.stability is not None,
            PLANE: True,
            NOISE: recipe.noise is not None,
        }
        return Ran(
            scored_by=[score for score, _ in models],
            trained=[trained for _, trained in models],
            corpora=[name for pool in recipe.pools for name in (pool.name, *pool.data)],
            shares=list(recipe.shares),
            is_whole=all(pool.skip == 0 and pool.rows is None for pool in recipe.pools),
            benchmarks=[one.benchmark for one in recipe.benchmarks if one.limit is None],
            sections=[name for name, is_there in there.items() if is_there],
        )


def evidence_plan(recipe: PaperRecipe, models: Mapping[str, LoadedModel | str]) -> EvidencePlan:
    """The grid of a recipe, without its benchmarks.

    Args:
        recipe: the recipe.
        models: loaded models or their places, by name.

    Raises:
        InputError: a part of the plan is wrong.
    """
    tuning = recipe.tuning
    training = FineTuneSettings(**_training(tuning))
    targets = tuning.lora.targets
    lora = LoraTuning(tuning.lora.rank, tuning.lora.alpha, targets if isinstance(targets, str) else tuple(targets))
    random = RandomDraws(recipe.random.draws, recipe.random.kinds, recipe.random.seeds_each)
    return EvidencePlan(
        pairs=[
            Pair(
                models[pair.score],
                models[pair.train],
                pair.train if not pair.crosses else f"{pair.score} → {pair.train}",
            )
            for pair in recipe.pairs
        ],
        pools=[Pool(one.name, one.data, one.skip, one.rows, one.masks()) for one in recipe.pools],
        heldouts=[
            HeldOut(
                one.name,
                one.data,
                one.skip,
                one.rows,
                {pool.name: IN if pool.domain == one.domain else OUT for pool in recipe.pools},
                one.masks(),
            )
            for one in recipe.heldouts
        ],
        methods=(ALL, *recipe.methods),
        shares=recipe.shares,
        random=random,
        seeds=recipe.seeds,
        tunings=(Tuning(tuning.method, training, lora),),
        removal=recipe.removal,
        references=recipe.reference,
        allow_overlap=recipe.allow_overlap,
    )


def study_data(pool: PoolSection, heldout: HeldOutSection | None = None, rows: int | None = None) -> StudyData:
    """A corpus, with held-out rows, as data of the studies of noise, kept share, output layer and ablation."""
    held = heldout
    return StudyData(
        pool.data,
        skip=pool.skip,
        rows=pool.rows if rows is None else min(rows, pool.rows or rows),
        heldout=None if held is None else held.data,
        heldout_skip=0 if held is None else held.skip,
        heldout_rows=None if held is None else held.rows,
        masks=pool.masks(),
    )


def target(recipe: PaperRecipe, pool: PoolSection) -> HeldOutSection:
    """The held-out rows of a corpus's own domain; the first ones if only a benchmark measures it."""
    return next((one for one in recipe.heldouts if one.domain == pool.domain), recipe.heldouts[0])


def _training(tuning: TuningSection) -> dict[str, Any]:
    names = ("tokens", "epochs", "learning_rate", "step_tokens", "warmup_ratio", "weight_decay", "max_grad_norm")
    return {name: getattr(tuning, name) for name in names}


__all__ = ["evidence_plan", "run_paper", "study_data", "target"]
