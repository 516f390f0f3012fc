"""Settings of the stability study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.errors import InputError
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.settings import BY_EMBEDDINGS
from donod_fast.studies.core.settings import (
    STUDY,
    EpochTraining,
    damage,
    normalise,
    parse_names,
    rows_of_a_seed,
    seeds,
    shares_of,
)
from donod_fast.system.options import check_choices, option, python_only


@dataclass(frozen=True)
class StabilitySettings:
    """Settings of selections and trainings in the stability study.

    Attributes:
        rows: rows of each seed. Seeds have different rows if the data has enough.
        seeds: number of draws of rows, damage and orders.
        proportions: shares of the rows to keep.
        methods: ranking methods, also by columns (``el2n``, ``ifd``), whose signals are scored; not ``kmeans-ifd``.
        references: reference sets, for methods by influence.
        update: the update that scores.
        training: training of each selection; the study replaces its seed.
        planted: share of rows to damage beforehand, by kind of damage.
        normalise: what TOPSIS divides the columns by.

    Raises:
        InputError: names a setting with a wrong value.
    """

    rows: int = rows_of_a_seed(400)
    seeds: int = seeds(3)
    proportions: Sequence[float] = option(
        text="0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0",
        parse=shares_of("proportions"),
        help="Shares to keep.",
        panel=STUDY,
    )
    methods: Sequence[str] = option(
        text="topsis,random,nod,loss", parse=parse_names, help="Ranking methods, as for select.", panel=STUDY
    )
    references: Sequence[str] = ()
    update: UpdateSettings = python_only(UpdateSettings)
    training: EpochTraining = field(default_factory=EpochTraining)
    planted: Mapping[str, float] = damage({})
    normalise: str = normalise()

    def __post_init__(self) -> None:
        from donod_fast.studies.core.selecting import Selection  # imports torch

        check_choices(self)
        wrong = any(not 0 < proportion <= 1 for proportion in self.proportions)
        if self.seeds < 1 or not self.methods or not self.proportions or wrong:
            raise InputError("seeds ≥ 1, at least one method, and proportions in (0, 1] are needed")
        for method in self.methods:
            Selection(method, keep=0.5)  # refuses an unknown method
        embedded = [method for method in self.methods if method in BY_EMBEDDINGS]
        if embedded:
            raise InputError(
                f"this study does not embed questions, which {embedded[0]} needs; the threshold study does"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        references = {"references": list(self.references)} if self.references else {}
        return {
            "proportions": list(self.proportions),
            "methods": list(self.methods),
            "normalise": self.normalise,
            "update": self.update.as_dict(),
            "training": self.training.as_dict(),
            "planted": dict(self.planted),
            **references,
        }


__all__ = ["StabilitySettings"]
