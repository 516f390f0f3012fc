"""Options that several studies share, and settings of fine-tuning. It imports no torch, so that help texts are fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.errors import InputError
from donod_fast.selection.settings import normalise_option
from donod_fast.system.options import option, parse_names

INPUT = "Input"
STUDY = "Study"
TRAINING = "Training"
KEEP = 0.3
"""Share of the rows that a study keeps by default."""


def shares_of(name: str) -> Callable[[str], tuple[float, ...]]:
    """A parser of shares separated by commas, for the option ``--NAME``. It raises InputError for other text."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in parse_names(text))
        except ValueError:
            raise InputError(f"--{name} takes shares separated by commas, such as 0.1,0.2, not {text!r}") from None

    return parse


def damage(default: Mapping[str, float]) -> Any:
    """A field with the share of the rows to damage, by kind of damage: the option ``--damage``."""

    def parse(given: Sequence[str]) -> dict[str, float]:
        found = {}
        for text in given:
            kind, _, share = text.partition("=")
            try:
                found[kind] = float(share)
            except ValueError:
                raise InputError(f"--damage takes KIND=SHARE, such as masked=0.05, not {text!r}") from None
        return found or dict(default)

    shown = ", ".join(f"{kind}={share:g}" for kind, share in default.items())
    return option(
        text=[],
        parse=parse,
        name="damage",
        help="Rows to damage beforehand: KIND=SHARE; repeat for several kinds.",
        panel=INPUT,
        shown=shown or "none",
    )


def seeds(default: int) -> Any:
    """A field with the number of draws: the option ``--seeds``."""
    return option(default, help="Number of draws of rows, damage and orders; intervals are over these.", panel=STUDY)


def rows_of_a_seed(default: int) -> Any:
    """A field with the number of rows of each draw: the option ``--rows``."""
    return option(default, help="Rows of each seed.", panel=INPUT)


def normalise() -> Any:
    """A field with what TOPSIS divides the columns by: the option ``--normalise``."""
    return normalise_option(STUDY)


def kept_share() -> Any:
    """A field with the share of the rows that is kept: the option ``--keep``."""
    return option(KEEP, help="Share of the rows to keep.", panel=STUDY)


@dataclass(frozen=True, slots=True)
class FineTuneSettings:
    """Settings of training a selection.

    Attributes:
        tokens: tokens to train on, including prompts; None for ``epochs`` passes over the rows.
        epochs: passes over the rows if ``tokens`` is None.
        learning_rate: peak learning rate of AdamW, after warm-up; it then falls to 0 by a cosine.
        step_tokens: mean tokens of an optimizer step; a step has at least one row.
        warmup_ratio: share of the steps with a rising rate, rounded up.
        weight_decay: weight decay of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        seed: seed of the order of rows.

    Raises:
        InputError: names the setting with a wrong value.
    """

    tokens: int | None = None
    epochs: float = 1.0
    learning_rate: float = 2e-5
    step_tokens: int = 2048
    warmup_ratio: float = 0.025
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "epochs", "learning_rate", "step_tokens", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0 and finite, got {value}")
        if not 0 <= self.warmup_ratio <= 1:
            raise InputError(f"warmup_ratio must be from 0 to 1, got {self.warmup_ratio}")

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able record of the settings."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LoraTuning:
    """Low-rank adapters to train in place of the parameters; they are merged into the model afterwards.

    Attributes:
        rank: rank of the two factors.
        alpha: the update is scaled by ``alpha / rank``.
        targets: names of modules, or ``"all-linear"`` for all linear layers but the output layer.

    Raises:
        InputError: names the setting with a wrong value.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"the rank of adapters must be at least 1, got {self.rank}")
        if not 0 < self.alpha < math.inf:
            raise InputError(f"alpha of adapters must be above 0 and finite, got {self.alpha}")
        if not self.targets or (isinstance(self.targets, str) and self.targets != "all-linear"):
            raise InputError(f"targets of adapters are names of modules or all-linear, got {self.targets!r}")

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able record of the settings."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SelectionTraining(FineTuneSettings):
    """Training of a selection with a small model: a step is about five rows of GSM8K.

    The learning rate was chosen once for the small model of the project's own runs, from the loss after training on
    all rows.
    """

    learning_rate: float = option(1e-4, help="Learning rate of the fine-tuning.", panel=TRAINING)
    step_tokens: int = 1024


@dataclass(frozen=True, slots=True)
class TokenTraining(SelectionTraining):
    """Training on the same number of tokens for every selection."""

    tokens: int | None = option(20_000, name="train_tokens", help="Tokens of each training.", panel=TRAINING, minimum=1)


@dataclass(frozen=True, slots=True)
class EpochTraining(SelectionTraining):
    """Training for the same number of epochs for every selection."""

    epochs: float = option(1.0, help="Epochs over each selection.", panel=TRAINING)


__all__ = [
    "INPUT",
    "KEEP",
    "STUDY",
    "TRAINING",
    "EpochTraining",
    "FineTuneSettings",
    "LoraTuning",
    "SelectionTraining",
    "TokenTraining",
    "damage",
    "kept_share",
    "parse_names",
    "rows_of_a_seed",
    "seeds",
    "shares_of",
]
