"""Settings of the noise study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.errors import InputError, suggest
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.corruptions import KINDS, check_kind
from donod_fast.studies.core.settings import STUDY, kept_share, normalise, parse_names, rows_of_a_seed, seeds
from donod_fast.system.options import check_choices, option

UPDATES: Mapping[str, UpdateSettings] = {
    "adamw": UpdateSettings("adamw"),
    "sgd": UpdateSettings("sgd"),
    "adamw-bfloat16": UpdateSettings("adamw", storage_dtype="bfloat16"),
}
"""Updates by name: AdamW from fresh state, plain SGD, and AdamW with W′ rounded to bfloat16."""


def _kinds(text: str) -> tuple[str, ...]:
    return parse_names(text) or tuple(KINDS)


def _updates(text: str) -> dict[str, UpdateSettings]:
    names = parse_names(text)
    for name in names:
        if name not in UPDATES:
            raise InputError(f"unknown update {name!r}; known are {', '.join(UPDATES)}{suggest(name, UPDATES)}")
    return {name: UPDATES[name] for name in names}


@dataclass(frozen=True)
class NoiseSettings:
    """Settings of damage and scores in the noise study.

    Attributes:
        rows: rows of each seed. Seeds have different rows if the data has enough.
        seeds: number of draws of rows and damage.
        kinds: kinds of damage, see :data:`donod_fast.studies.core.corruptions.KINDS`.
        updates: updates to score with, by the name that reports give them.
        top: share of the best rows that is damaged for the overlap.
        planted: share of the rows that is damaged for the separation.
        keep: share of the rows that is kept.
        normalise: what TOPSIS divides the columns by.

    Raises:
        InputError: names a setting with a wrong value.
    """

    rows: int = rows_of_a_seed(300)
    seeds: int = seeds(5)
    kinds: Sequence[str] = option(
        text="", parse=_kinds, help="Kinds of damage: a,b for several.", panel=STUDY, shown="all"
    )
    updates: Mapping[str, UpdateSettings] = option(
        text=",".join(UPDATES),
        parse=_updates,
        help=f"Updates to score with: {', '.join(UPDATES)}; a,b for several.",
        panel=STUDY,
    )
    top: float = option(0.2, help="Share of the best rows to damage for the overlap.", panel=STUDY)
    planted: float = option(0.2, help="Share of the rows to damage for the separation.", panel=STUDY)
    keep: float = kept_share()
    normalise: str = normalise()

    def __post_init__(self) -> None:
        check_choices(self)
        if self.rows < 10 or self.seeds < 1:
            raise InputError(f"rows must be at least 10 and seeds at least 1, got {self.rows} and {self.seeds}")
        if not self.kinds or not self.updates:
            raise InputError("at least one kind of damage and one update are needed")
        for kind in self.kinds:
            check_kind(kind)
        for name in ("top", "planted", "keep"):
            share = getattr(self, name)
            if not 0 < share < 1:
                raise InputError(f"{name} is a share between 0 and 1, got {share}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {
            "kinds": list(self.kinds),
            "updates": {name: update.as_dict() for name, update in self.updates.items()},
            "top": self.top,
            "planted": self.planted,
            "keep": self.keep,
            "normalise": self.normalise,
        }


__all__ = ["UPDATES", "NoiseSettings"]
