"""Settings of the sensitivity study and of the ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.errors import InputError
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.corruptions import KINDS
from donod_fast.studies.core.settings import INPUT, STUDY, TokenTraining, damage, kept_share, parse_names, shares_of
from donod_fast.system.options import option, python_only

SHARES: Mapping[str, float] = dict.fromkeys(KINDS, 0.04)
"""Share of the rows that get each kind of damage."""


def _axes(text: str) -> tuple[str, ...] | None:
    return parse_names(text) or None


@dataclass(frozen=True, kw_only=True)
class DamageStudySettings:
    """Damage and trainings of both studies.

    Attributes:
        shares: by kind of ``corruptions.KINDS``, the share of rows to damage.
        damage_seed: seed of the damage.
        seeds: trainings of the reference, random, loss, undamaged and all rows; 0 for a study without training.
        setting_seeds: trainings of every other setting; at most ``seeds``.
        training: training of each selection.

    Raises:
        InputError: names a setting with a wrong value.
    """

    shares: Mapping[str, float] = damage(SHARES)
    damage_seed: int = option(0, help="Seed of the planted damage.", panel=INPUT, minimum=0)
    seeds: int = option(3, help="Trainings of the default and of the baselines; 0: train nothing.", panel=STUDY)
    setting_seeds: int = option(1, help="Trainings of every other setting; 0: none.", panel=STUDY)
    training: TokenTraining = field(default_factory=TokenTraining)

    def __post_init__(self) -> None:
        if not 0 <= self.setting_seeds <= self.seeds:
            raise InputError(f"setting_seeds must be from 0 to seeds, got {self.setting_seeds} and {self.seeds}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {
            "damage_seed": self.damage_seed,
            "seeds": self.seeds,
            "setting_seeds": self.setting_seeds,
            "training": {**self.training.as_dict(), "seed": "each of seeds"},
        }


@dataclass(frozen=True, kw_only=True)
class SensitivitySettings(DamageStudySettings):
    """Settings of the sensitivity study.

    Attributes:
        keep: share of the rows that each setting keeps.
        axes: axes of :data:`donod_fast.studies.sensitivity.settings.AXES`; None for all.
    """

    keep: float = kept_share()
    axes: Sequence[str] | None = option(
        text="", parse=_axes, help="Axes to vary: a,b for several.", panel=STUDY, shown="all"
    )

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise InputError(f"keep is a share between 0 and 1, got {self.keep}")
        super().__post_init__()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {**super().as_dict(), "keep": self.keep}


@dataclass(frozen=True, kw_only=True)
class AblationSettings(DamageStudySettings):
    """Settings of the ablation.

    Attributes:
        keeps: shares of the rows to keep.
        update: the update that scores.
    """

    keeps: Sequence[float] = option(text="0.1,0.2,0.3", parse=shares_of("keeps"), help="Shares to keep.", panel=STUDY)
    update: UpdateSettings = python_only(UpdateSettings)

    def __post_init__(self) -> None:
        if not self.keeps or not all(0 < keep < 1 for keep in self.keeps):
            raise InputError(f"keeps are shares between 0 and 1, at least one, got {list(self.keeps)}")
        super().__post_init__()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {**super().as_dict(), "keeps": list(self.keeps), "update": self.update.as_dict()}


__all__ = ["SHARES", "AblationSettings", "DamageStudySettings", "SensitivitySettings"]
