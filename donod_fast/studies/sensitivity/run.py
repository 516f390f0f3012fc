"""Measure how much unspecified choices of the paper change which rows DONOD keeps, and whether this matters.

The study changes one thing at a time against the default (AdamW's first step from fresh state, TOPSIS at equal
weights). For each setting it reports how many of the default's best rows the setting keeps, how well it separates
planted damage of each kind from the other rows, and the held-out loss after training on its selection. Random, all
rows and plain loss are reported for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from donod_fast.selection.rank_correlation import spearman
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.sensitivity.measures import Measures, prepare
from donod_fast.studies.sensitivity.outcome import outcomes
from donod_fast.studies.sensitivity.report import write_sensitivity_report
from donod_fast.studies.sensitivity.result import SensitivityStudy
from donod_fast.studies.sensitivity.settings import BASELINES, DEFAULT, Scoring, Setting, settings_of
from donod_fast.studies.sensitivity.spread import ScoringSpread, balanced_weights, spread
from donod_fast.studies.sensitivity.study_settings import SensitivitySettings


def run_sensitivity(
    out: Path,
    model: str | Path,
    data: StudyData,
    settings: SensitivitySettings | None = None,
    *,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> SensitivityStudy:
    """Run the study, or resume it.

    Writes ``report.md``, ``settings.csv``, ``separation.csv``, ``spreads.csv`` and ``result.json`` into ``out``.

    Args:
        out: the study's folder; it is created if needed.
        model: folder or hub id of the model that scores and is trained.
        data: the rows to select from, and the held-out rows.
        settings: damage, axes and trainings; None for the defaults.
        cells: a folder whose finished cells are used and added to; None for ``out``.
        on_cell: called with each finished cell.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    settings = settings or SensitivitySettings()
    chosen = settings_of(None if settings.axes is None else tuple(settings.axes))
    prepared = prepare(CellStore(out if cells is None else cells, on_cell), model, data, settings)
    lines = [*chosen, *BASELINES]
    spreads = _spreads(prepared.measures, chosen)
    counts = {line: settings.seeds if line in (DEFAULT, *BASELINES) else settings.setting_seeds for line in lines}
    found = outcomes(prepared.measures, lines, settings.keep, reference=DEFAULT, seeds=counts)
    base = prepared.untrained(settings.seeds)
    study = SensitivityStudy(prepared.recorded, base, tuple(found), tuple(spreads))
    write_sensitivity_report(out, study)
    return study


def _spreads(measures: Measures, settings: Sequence[Setting]) -> list[ScoringSpread]:
    """Spread of each scoring, with rank correlations to the DON of the default and of SGD."""
    default, sgd = measures.columns(DEFAULT.scoring), _sgd(measures, settings)
    names: dict[Scoring, str] = {}
    for setting in settings:
        names.setdefault(setting.scoring, f"{setting.axis}: {setting.name}")
    found = []
    for scoring, name in names.items():
        columns = measures.columns(scoring)
        found.append(
            ScoringSpread(
                name,
                spread(columns),
                balanced_weights(columns),
                _agreement(columns, default),
                None if sgd is None else _agreement(columns, sgd),
            )
        )
    return found


def _sgd(measures: Measures, settings: Sequence[Setting]) -> ScoreColumns | None:
    return next((measures.columns(s.scoring) for s in settings if s.scoring.update.update == "sgd"), None)


def _agreement(columns: ScoreColumns, other: ScoreColumns) -> float:
    there = ~(columns.don.isnan() | other.don.isnan())
    return spearman(columns.don[there], other.don[there])


__all__ = ["run_sensitivity"]
