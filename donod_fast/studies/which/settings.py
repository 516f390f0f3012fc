"""Settings of ``donod-fast study which``. It imports no torch, so that help texts are fast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError
from donod_fast.studies.core.settings import INPUT, KEEP, STUDY, TRAINING, EpochTraining, LoraTuning, parse_names
from donod_fast.studies.core.tables import Data
from donod_fast.system.options import option, python_only

BASE_METHODS = ("topsis", "don", "nod", "loss", "ifd", "tokens@high")
"""Default methods. The last one, the longest rows, is the plain baseline that others have to beat."""

REFERENCE_CRITERIA = {"rds": "rds", "bm25": "bm25", "influence": "influence_cos"}
"""Criteria that compare with a reference set, and the methods by them, used where they exist."""

_UNITS = {"s": 1, "m": 60, "h": 3600}
_BUDGET = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smh])")
LONGEST = 30 * 24 * 3600


def parse_budget(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``1.5h`` or ``1h30m``.

    Raises:
        InputError: the text is something else, or the time is 0 or more than 30 days.
    """
    stripped = text.strip().lower()
    parts = _BUDGET.findall(stripped)
    if not parts or _BUDGET.sub("", stripped).strip():
        raise InputError(f"--budget takes a time with its unit, such as 30m, 90s or 1h30m, not {text!r}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= LONGEST:
        raise InputError(f"--budget must be above 0 and at most 720h, got {text!r}")
    return seconds


def _parse_seeds(text: str) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--seeds takes a number of training seeds, not {text!r}") from None


@dataclass(frozen=True, kw_only=True)
class WhichData:
    """The data of the study.

    Attributes:
        data: files to select from.
        skip: rows to skip at the start of ``data``.
        rows: rows to use after these; None for all.
        heldout: files to measure the loss on.
        heldout_skip: rows to skip at the start of ``heldout``.
        heldout_rows: rows to use after these, at most; None for as many as the budget allows.
        reference: reference sets, for methods that compare rows with them.
        allow_overlap: accept held-out rows that are also in the data or a reference set.
        masks: settings of reading and masking rows.
    """

    data: Data = option(help="Files to select rows from.", panel=INPUT, is_argument=True, type=tuple[str, ...])
    skip: int = option(0, help="Rows to skip at the start, such as those the model was trained on.", panel=INPUT)
    rows: int | None = option(None, help="Rows to select from, at most.", panel=INPUT, minimum=1, shown="all")
    heldout: Data = option(
        help="Files to measure the loss on; none of their rows may be in DATA.", panel=INPUT, type=tuple[str, ...]
    )
    heldout_skip: int = option(0, help="Held-out rows to skip at the start.", panel=INPUT)
    heldout_rows: int | None = option(
        None, help="Held-out rows to use, at most.", panel=INPUT, minimum=2, shown="as many as the budget allows"
    )
    reference: tuple[str, ...] = option(
        (), help="Reference set, for methods that compare rows with it; may be repeated.", panel=INPUT
    )
    allow_overlap: bool = option(
        False, help="Accept held-out rows that are also in DATA or in a reference set.", panel=INPUT
    )
    masks: MaskSettings = python_only(MaskSettings)


@dataclass(frozen=True, kw_only=True)
class WhichSettings:
    """What is compared and how it is trained.

    Attributes:
        budget: wall time for everything, in seconds.
        methods: ranking methods; empty for :data:`BASE_METHODS` and the methods by a reference set, if one is given.
        seeds: training seeds of each method; None for as many as the budget allows, at least two.
        keep: share of the rows that each method keeps.
        tuning: ``"full"`` or ``"lora"``.
        lora_rank: rank of the adapters of ``"lora"``.
        training: learning rate and epochs of each training.
        removal: also train without the rows of each selection, and without as many random rows.
        jobs: trainings in parallel, each in a process of one thread.

    Raises:
        InputError: names the setting with a wrong value.
    """

    budget: float = option(text="30m", parse=parse_budget, help="Time for everything, such as 30m or 2h.", panel=STUDY)
    methods: Sequence[str] = option(
        text="", parse=parse_names, help="Ranking methods, as for select.", panel=STUDY,
        shown=",".join(BASE_METHODS) + ", and rds,bm25,influence_cos with --reference",
    )  # fmt: skip
    seeds: int | None = option(
        text="", parse=_parse_seeds, help="Training seeds of each method, at least 2.", panel=STUDY,
        shown="as many as the budget allows",
    )  # fmt: skip
    keep: float = option(KEEP, help="Share of the rows that each method keeps.", panel=STUDY)
    removal: bool = option(
        False, help="Also train without each selection, against removing as many random rows.", panel=STUDY
    )
    jobs: int = option(1, help="Trainings in parallel, each in a process of one thread.", panel=STUDY, minimum=1)
    tuning: str = option("full", help="Train all parameters (full) or adapters (lora).", panel=TRAINING,
                         choices=("full", "lora"))  # fmt: skip
    lora_rank: int = option(16, help="Rank of the adapters of --tuning lora.", panel=TRAINING, minimum=1)
    training: EpochTraining = field(default_factory=EpochTraining)

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise InputError(f"--keep must be between 0 and 1, got {self.keep:g}; at 1 all selections are the same")
        if self.seeds is not None and self.seeds < 2:
            raise InputError(f"--seeds must be at least 2, got {self.seeds}; one seed has no spread to judge by")
        if self.tuning not in ("full", "lora"):
            raise InputError(f"--tuning is full or lora, not {self.tuning!r}")
        if "random" in self.methods:
            raise InputError("random is always compared with; leave it out of --methods")

    @property
    def lora(self) -> LoraTuning:
        """The adapters of ``"lora"``."""
        return LoraTuning(rank=self.lora_rank, alpha=2.0 * self.lora_rank)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a cell."""
        return {
            "budget": self.budget,
            "methods": list(self.methods),
            "seeds": self.seeds,
            "keep": self.keep,
            "tuning": self.tuning,
            "lora_rank": self.lora_rank,
            "training": self.training.as_dict(),
            "removal": self.removal,
            "jobs": self.jobs,
        }


__all__ = ["BASE_METHODS", "REFERENCE_CRITERIA", "WhichData", "WhichSettings", "parse_budget"]
