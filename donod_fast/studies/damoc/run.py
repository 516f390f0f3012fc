"""DaMoC from a recipe: filter → compress → prune → train → measure → rank, and full fine-tuning for comparison.

DaMoC (arXiv 2509.01221) estimates which of several models to fine-tune without full fine-tuning of all of them: less
data, shorter rows, fewer layers, one epoch. The paper's code is not public; the steps here are our reading of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from donod_fast.data.reading import open_corpus
from donod_fast.scores.folder import locked
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.core.tables import need
from donod_fast.studies.damoc.candidates import CandidateRun
from donod_fast.studies.damoc.preparation import prepare, whole
from donod_fast.studies.damoc.recipe import DamocRecipe
from donod_fast.studies.damoc.report import DamocOutcome, rank_candidates, write_report


class Progress(Protocol):
    """Called with the progress of a run."""

    def __call__(self, step: str, done: int, total: int, detail: str) -> None:
        """``step`` is ``data``, ``damoc`` or ``full``; ``detail`` names what was done last."""


def run_damoc(
    recipe: DamocRecipe,
    out: str | Path,
    *,
    unsafe: bool = False,
    workers: int | None = None,
    keep_models: bool = False,
    progress: Progress | None = None,
) -> DamocOutcome:
    """Rank the candidates of a recipe, and write the results to a folder. Call it again to resume.

    If loading, pruning, training or evaluating a candidate fails, the ranking lists it with the reason, and the other
    candidates continue.

    Args:
        recipe: the recipe.
        out: the folder for ``report.md``, ``report.json`` and the cells.
        unsafe: run a benchmark's programs even if no sandbox is available.
        workers: number of programs judged in parallel; None is the number of cores.
        keep_models: leave pruned and trained models in their cells.
        progress: called with the progress.

    Raises:
        CorpusError: the data, held-out rows or problems cannot be read.
        InputError, ModelError: a step that all candidates share cannot be done, or a package is missing.
        SandboxError: no sandbox is available for a benchmark's programs, and ``unsafe`` is false.
        StoreError: the folder cannot be written, or is in use.
    """
    root = Path(out).absolute()
    need("trl", "train")
    if recipe.compare:
        need("scipy", "study")
    if recipe.eval is not None:
        from donod_fast.evaluation.sandbox import find_isolation

        find_isolation(unsafe=unsafe)  # checked before hours of work
    _import_trainer()
    tell = progress or (lambda step, done, total, detail: None)
    with locked(root):
        recipe = _with_family(recipe, root)
        store = CellStore(root)
        corpus = open_corpus(list(recipe.data), split=recipe.split, revision=recipe.data_revision)
        runs = {
            one.name: CandidateRun(recipe, one, store, unsafe=unsafe, workers=workers, keep_models=keep_models)
            for one in recipe.candidates
        }
        measure = next(iter(next(iter(runs.values())).measures))  # held-out rows and problems are read here, once
        tell("data", 0, 1, "")
        prepared = prepare(recipe, corpus, store)
        tell("data", 1, 1, "")
        ways, fulls = {}, {}
        for at, (name, run) in enumerate(runs.items()):
            tell("damoc", at, len(runs), name)
            ways[name] = run.damoc(prepared)
        tell("damoc", len(runs), len(runs), "")
        everything = whole(corpus)
        for at, (name, run) in enumerate(runs.items() if recipe.compare else ()):
            tell("full", at, len(runs), name)
            fulls[name] = run.full(everything)
        shared = {"seconds": dict(prepared.seconds), **prepared.summary}
        ranking = rank_candidates(ways, fulls if recipe.compare else None)
        return write_report(recipe, root, ranking, shared, measure)


def _import_trainer() -> None:
    """Seconds that would otherwise be counted as the first candidate's."""
    from donod_fast.models.precision import silence_torchao

    silence_torchao()
    import trl

    _ = trl.SFTTrainer  # it is lazy


def _with_family(recipe: DamocRecipe, out: Path) -> DamocRecipe:
    """The recipe with the generated family's files in place of ``family:`` names."""
    from donod_fast.studies.threshold.family_files import is_family, with_family
    from donod_fast.training.recipe import Recipe, ScoreSection, TrainSettings

    sections = () if recipe.eval is None else (recipe.eval,)
    score, train = ScoreSection(data=recipe.data), TrainSettings(model="candidate")
    inner = Recipe(name=recipe.name, train=train, score=score, eval=sections, heldout=recipe.heldout)
    if not is_family(inner):
        return recipe
    inner = with_family(inner, out)
    update = {"data": inner.score.data, "heldout": inner.heldout, "eval": inner.eval[0] if inner.eval else None}
    return recipe.model_copy(update=update)


__all__ = ["Progress", "run_damoc"]
