"""The paper's ablation (DONOD, arXiv 2504.14810, Table 5): is it DON, NOD, or their combination that selects well?

The corpus is scored once. The rows are ranked by DON alone, by NOD alone (in both directions, since §4.5 can be read
both ways), and by the ways to combine them, at several kept shares. Random draws, plain loss, undamaged rows and all
rows are reported for comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from donod_fast.models.loading import LoadedModel
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.sensitivity.ablation_report import write_ablation_report
from donod_fast.studies.sensitivity.measures import prepare
from donod_fast.studies.sensitivity.outcome import Outcome, outcomes
from donod_fast.studies.sensitivity.result import AblationStudy
from donod_fast.studies.sensitivity.settings import ALL, CLEAN, NOD_HIGH, RANDOM, Scoring, Setting
from donod_fast.studies.sensitivity.spread import spread
from donod_fast.studies.sensitivity.study_settings import AblationSettings


def ablation_settings(scoring: Scoring) -> list[Setting]:
    """The lines of the table except ``all``, TOPSIS first."""

    def line(name: str, method: str, weights: tuple[float, float] | None = (0.5, 0.5)) -> Setting:
        return Setting("ablation", name, scoring, method, weights)

    return [
        line("TOPSIS", "topsis"),
        line("DON alone", "don"),
        line("NOD alone, low first", "nod"),
        line("NOD alone, high first", NOD_HIGH),
        line("weighted sum (min–max)", "weighted"),
        line("Pareto fronts", "pareto"),
        line("TOPSIS, balanced", "topsis", None),
        line("NODON (reverse of TOPSIS)", "nodon"),
        line("loss, low first", "loss"),
        line("random", RANDOM),
        line("random of the clean rows", CLEAN),
    ]


def run_ablation(
    out: Path,
    model: str | Path | LoadedModel,
    data: StudyData,
    settings: AblationSettings | None = None,
    *,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> AblationStudy:
    """Run the study, or resume it.

    Writes ``report.md``, ``methods.csv``, ``separation.csv`` and ``result.json`` into ``out``. The arguments are those
    of :func:`donod_fast.studies.sensitivity.run.run_sensitivity`; the model may also be loaded, in float32.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    settings = settings or AblationSettings()
    prepared = prepare(CellStore(out if cells is None else cells, on_cell), model, data, settings)
    scoring = Scoring(settings.update)
    lines = ablation_settings(scoring)
    full = Setting("ablation", "all rows", scoring, ALL)
    often = ("topsis", "loss", RANDOM, CLEAN)
    counts = {
        line: settings.seeds if line.method in often and line.weights is not None else settings.setting_seeds
        for line in lines
    }
    counts[full] = settings.seeds
    found: list[Outcome] = []
    for keep in settings.keeps:
        with_full = [*lines, full] if keep == max(settings.keeps) else lines
        found += outcomes(prepared.measures, with_full, keep, reference=lines[0], seeds=counts)
    base = prepared.untrained(settings.seeds)
    study = AblationStudy(prepared.recorded, base, tuple(found), spread(prepared.measures.columns(scoring)))
    write_ablation_report(out, study)
    return study


__all__ = ["ablation_settings", "run_ablation"]
