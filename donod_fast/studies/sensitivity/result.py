"""Results of the sensitivity study and of the ablation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.sensitivity.measures import Measured
from donod_fast.studies.sensitivity.outcome import Outcome
from donod_fast.studies.sensitivity.spread import ScoringSpread, Spread


@dataclass(frozen=True)
class DamageStudy:
    """Results that both studies report.

    Attributes:
        settings: settings of the run, plain values.
        base: held-out loss of the untrained model; None without trainings.
        outcomes: one line for each selection, in the order of the report.
    """

    settings: Mapping[str, Any]
    base: Measured | None
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class SensitivityStudy(DamageStudy):
    """Result of the sensitivity study. Outcomes: the default, the settings by axis, the baselines.

    Attributes:
        spreads: one for each distinct way to score, in the order of the settings.
    """

    spreads: tuple[ScoringSpread, ...]


@dataclass(frozen=True)
class AblationStudy(DamageStudy):
    """Result of the ablation. Outcomes: by kept share, then method; ``all`` once, at the end.

    Overlaps are with TOPSIS at the same share.

    Attributes:
        spread: spread of DON and NOD, which determines what TOPSIS follows.
    """

    spread: Spread


__all__ = ["AblationStudy", "DamageStudy", "SensitivityStudy"]
