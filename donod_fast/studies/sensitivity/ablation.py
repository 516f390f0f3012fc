"""The paper's ablation (DONOD, arXiv 2504.14810, Table 5): is it DON, NOD, or their combination that selects well?

One table of scores, ranked by DON alone, by NOD alone (§4.5 can be read both ways, so both), and by the ways to combine
them, at several kept shares; random draws, plain loss, undamaged rows and all rows beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.finetune import FineTuneSettings
from donod_fast.studies.core.tables import Data
from donod_fast.studies.sensitivity.ablation_report import write_ablation_report
from donod_fast.studies.sensitivity.measures import SHARES, TRAINING, Measures, damaged_corpus
from donod_fast.studies.sensitivity.outcome import Measured, Outcome, outcomes
from donod_fast.studies.sensitivity.settings import ALL, CLEAN, NOD_HIGH, RANDOM, Scoring, Setting
from donod_fast.studies.sensitivity.spread import Spread, spread

KEEPS = (0.1, 0.2, 0.3)


@dataclass(frozen=True)
class AblationStudy:
    """What the study found.

    Attributes:
        settings: of the run, plain values.
        base: held-out loss of the untrained model; None without trainings.
        outcomes: by kept share, then method; ``all`` once, at the end. Overlaps are with TOPSIS at the same share.
        spread: of the columns, which says what TOPSIS follows.
    """

    settings: Mapping[str, Any]
    base: Measured | None
    outcomes: tuple[Outcome, ...]
    spread: Spread


def ablation_settings(scoring: Scoring) -> list[Setting]:
    """The lines of the table but for ``all``, TOPSIS first."""

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
    model: str | Path,
    data: Data,
    heldout: Data,
    *,
    skip: int = 0,
    rows: int | None = 700,
    heldout_skip: int = 0,
    heldout_rows: int | None = 100,
    shares: Mapping[str, float] | None = None,
    keeps: Sequence[float] = KEEPS,
    update: UpdateSettings | None = None,
    seeds: int = 3,
    setting_seeds: int = 1,
    damage_seed: int = 0,
    training: FineTuneSettings = TRAINING,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> AblationStudy:
    """Run the study, or go on with one; writes ``report.md``, ``methods.csv``, ``separation.csv`` and ``result.json``.

    Arguments are those of :func:`donod_fast.studies.sensitivity.run.run_sensitivity`, and:

    Args:
        keeps: shares of the rows to keep.
        update: that scores; AdamW by default.
        seeds: trainings of TOPSIS, random, loss, undamaged and all rows; 0 for a study without training.
        setting_seeds: trainings of every other method; at most ``seeds``.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    if not keeps or not all(0 < keep < 1 for keep in keeps):
        raise InputError(f"keeps are shares between 0 and 1, at least one, got {list(keeps)}")
    if not 0 <= setting_seeds <= seeds:
        raise InputError(f"setting_seeds is from 0 to seeds, got {setting_seeds} and {seeds}")
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
    measures = Measures(CellStore(out if cells is None else cells, on_cell), model, corpus, training)
    scoring = Scoring(update or UpdateSettings())
    lines = ablation_settings(scoring)
    full = Setting("ablation", "all rows", scoring, ALL)
    often = ("topsis", "loss", RANDOM, CLEAN)
    counts = {line: seeds if line.method in often and line.weights is not None else setting_seeds for line in lines}
    counts[full] = seeds
    found: list[Outcome] = []
    for keep in keeps:
        with_full = [*lines, full] if keep == max(keeps) else lines
        found += outcomes(measures, with_full, keep, reference=lines[0], seeds=counts)
    untrained = measures.train((), 0).losses if seeds else None
    study = AblationStudy(
        settings={
            "model": str(model),
            "update": scoring.update.as_dict(),
            "rows": len(corpus.records),
            "skip": skip,
            "heldout_rows": len(corpus.heldout),
            "heldout_skip": heldout_skip,
            "damaged": {kind: corpus.kinds.count(kind) for kind in (SHARES if shares is None else shares)},
            "damage_seed": damage_seed,
            "keeps": list(keeps),
            "seeds": seeds,
            "setting_seeds": setting_seeds,
            "training": {**training.as_dict(), "seed": "each of seeds"},
        },
        base=None if untrained is None else Measured(untrained.loss, untrained.error),
        outcomes=tuple(found),
        spread=spread(measures.columns(scoring)),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_ablation_report(out, study.settings, study.base, study.outcomes, study.spread)
    return study


__all__ = ["KEEPS", "AblationStudy", "ablation_settings", "run_ablation"]
