"""How much the choices that the paper leaves open decide which rows DONOD keeps, and whether it matters.

One thing is changed at a time against the default (AdamW's first step from fresh state, TOPSIS at equal weights). Of
each setting: how much of the default's best rows it keeps, how well it separates planted damage of each kind from the
rest, and the held-out loss after training on its selection, beside random, all rows and plain loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.finetune import FineTuneSettings
from donod_fast.studies.core.statistics import spearman
from donod_fast.studies.core.tables import Data
from donod_fast.studies.sensitivity.measures import SHARES, TRAINING, Measures, damaged_corpus
from donod_fast.studies.sensitivity.outcome import Measured, Outcome, outcomes
from donod_fast.studies.sensitivity.report import write_sensitivity_report
from donod_fast.studies.sensitivity.settings import BASELINES, DEFAULT, Scoring, Setting, settings_of
from donod_fast.studies.sensitivity.spread import ScoringSpread, balanced_weights, spread


@dataclass(frozen=True)
class SensitivityStudy:
    """What the study found.

    Attributes:
        settings: of the run, plain values.
        base: held-out loss of the untrained model; None without trainings.
        outcomes: the default, the settings by axis, the baselines.
        spreads: of each distinct way to score, in the order of the settings.
    """

    settings: Mapping[str, Any]
    base: Measured | None
    outcomes: tuple[Outcome, ...]
    spreads: tuple[ScoringSpread, ...]


def run_sensitivity(
    out: Path,
    model: str | Path,
    data: Data,
    heldout: Data,
    *,
    skip: int = 0,
    rows: int | None = 700,
    heldout_skip: int = 0,
    heldout_rows: int | None = 100,
    shares: Mapping[str, float] | None = None,
    keep: float = 0.3,
    axes: Sequence[str] | None = None,
    seeds: int = 3,
    setting_seeds: int = 1,
    damage_seed: int = 0,
    training: FineTuneSettings = TRAINING,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> SensitivityStudy:
    """Run the study, or go on with one; writes ``report.md``, ``settings.csv``, ``separation.csv``, ``spreads.csv`` and
    ``result.json`` into ``out``.

    Args:
        out: the study's folder, made if need be.
        model: folder or hub id of the model that scores and is trained.
        data: records or paths of files to select from; rows that the model was not trained on tell most.
        heldout: likewise, to measure the loss on.
        skip, rows: rows of ``data`` to leave out at the start, and to take after these (None: all).
        heldout_skip, heldout_rows: the same of ``heldout``.
        shares: by kind of ``corruptions.KINDS``, the share of rows to damage; None for 4 % each.
        keep: share of the rows that each setting keeps.
        axes: of :data:`donod_fast.studies.sensitivity.settings.AXES`; None for all.
        seeds: trainings of the default and the baselines; 0 for a study without training.
        setting_seeds: trainings of every other setting; at most ``seeds``.
        damage_seed: of the damage.
        training: of each selection.
        cells: a folder whose finished cells are used and added to; None for ``out``.
        on_cell: called with each finished cell.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    if not 0 < keep < 1:
        raise InputError(f"keep is a share between 0 and 1, got {keep}")
    if not 0 <= setting_seeds <= seeds:
        raise InputError(f"setting_seeds is from 0 to seeds, got {setting_seeds} and {seeds}")
    chosen = settings_of(None if axes is None else tuple(axes))
    corpus = damaged_corpus(
        data,
        heldout,
        skip=skip,
        rows=rows,
        heldout_skip=heldout_skip,
        heldout_rows=heldout_rows,
        shares=shares,
        seed=damage_seed,
    )
    store = CellStore(out if cells is None else cells, on_cell)
    measures = Measures(store, model, corpus, training)
    lines = [*chosen, *BASELINES]
    spreads = _spreads(measures, chosen)
    counts = {line: seeds if line in (DEFAULT, *BASELINES) else setting_seeds for line in lines}
    found = outcomes(measures, lines, keep, reference=DEFAULT, seeds=counts)
    untrained = measures.train((), 0).losses if seeds else None
    study = SensitivityStudy(
        settings={
            "model": str(model),
            "rows": len(corpus.records),
            "skip": skip,
            "heldout_rows": len(corpus.heldout),
            "heldout_skip": heldout_skip,
            "damaged": {kind: corpus.kinds.count(kind) for kind in (SHARES if shares is None else shares)},
            "damage_seed": damage_seed,
            "keep": keep,
            "seeds": seeds,
            "setting_seeds": setting_seeds,
            "training": {**training.as_dict(), "seed": "each of seeds"},
        },
        base=None if untrained is None else Measured(untrained.loss, untrained.error),
        outcomes=tuple(found),
        spreads=tuple(spreads),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_sensitivity_report(out, study.settings, study.base, study.outcomes, study.spreads)
    return study


def _spreads(measures: Measures, settings: Sequence[Setting]) -> list[ScoringSpread]:
    """One for each way to score, compared with the default's and with SGD's DON."""
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


__all__ = ["SensitivityStudy", "run_sensitivity"]
