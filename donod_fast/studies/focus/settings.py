"""Settings of the output-layer study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.errors import InputError
from donod_fast.studies.core.settings import INPUT, STUDY, TRAINING, kept_share, normalise, parse_names, seeds
from donod_fast.system.options import check_choices, option

OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "adamw": {"optimizer": "adamw_torch", "learning_rate": 2e-5},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
}
"""Optimizers as fields of ``TrainSettings``. At 2e-5 SGD would move float32 weights only by their rounding."""


def _epochs(number: float) -> dict[str, Any]:
    return {"epochs": number}


@dataclass(frozen=True)
class FocusSettings:
    """Settings of trainings and scores in the output-layer study.

    Attributes:
        train_rows: rows of each corpus to fine-tune on.
        seeds: number of fine-tunings with different orders of rows.
        optimizers: by name, the fields of ``TrainSettings`` that define an optimizer.
        training: further fields of ``TrainSettings``: epochs, batches, …
        rows: samples to score layer by layer; 0 leaves that part out.
        updates: updates to score them with.
        lr: learning rate of these updates.
        keep: share of the samples that is kept.
        normalise: what TOPSIS divides the columns by.

    Raises:
        InputError: names a setting with a wrong value.
    """

    train_rows: int = option(300, help="Rows of each corpus to fine-tune on.", panel=TRAINING)
    seeds: int = seeds(2)
    optimizers: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: OPTIMIZERS)
    training: Mapping[str, Any] = option(
        text=1.0, parse=_epochs, name="epochs", help="Epochs of the fine-tuning.", panel=TRAINING
    )
    rows: int = option(
        200, help="Samples of the first corpus to score layer by layer; 0: none.", panel=INPUT, minimum=0
    )
    updates: Sequence[str] = option(
        text="adamw,sgd", parse=parse_names, help="Updates that score the samples; a,b for several.", panel=STUDY
    )
    lr: float = 2e-5
    keep: float = kept_share()
    normalise: str = normalise()

    def __post_init__(self) -> None:
        check_choices(self)
        if self.seeds < 1 or not 0 < self.keep < 1:
            raise InputError(f"seeds ≥ 1 and 0 < keep < 1 are needed, got {self.seeds} and {self.keep}")
        if self.rows and self.rows < 10:
            raise InputError(f"rows must be 0, or at least 10 for a correlation, got {self.rows}")

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of ``TrainSettings`` that all trainings share."""
        return {"epochs": 1.0, "micro_batch": 4, **self.training}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {
            "train_rows": self.train_rows,
            "seeds": self.seeds,
            "optimizers": {name: dict(fields) for name, fields in self.optimizers.items()},
            "training": self.fields,
            "updates": list(self.updates),
            "lr": self.lr,
            "keep": self.keep,
            "normalise": self.normalise,
        }


__all__ = ["OPTIMIZERS", "FocusSettings"]
