"""Settings of scoring and ranking that the sensitivity study compares: the default, and one change at a time.

The paper (DONOD, arXiv 2504.14810) does not specify them: which optimizer's step, its eps and decay, which tokens,
which precision. They are plain data, so that a report can describe each line of its table.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from donod_fast.errors import InputError
from donod_fast.scoring.settings import DEFAULT_NORMALISE, NORMALISATIONS, UpdateSettings

RESPONSE, EVERY = "response", "every"
"""Scored tokens: those of the response (the default), or all tokens including the prompt."""

NOD_HIGH = "nod-high"
"""NOD alone, high first: the other reading of the paper's §4.5."""

ALL, RANDOM, CLEAN = "all", "random", "clean"
"""Selections that use no score: all rows, random rows, random undamaged rows (which no method can know)."""

Weights = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Scoring:
    """Settings of scoring.

    Attributes:
        update: the optimizer step.
        scope: :data:`RESPONSE` or :data:`EVERY`.
        dtype: dtype of the model, ``"float32"`` or ``"bfloat16"``.
    """

    update: UpdateSettings = field(default_factory=UpdateSettings)
    scope: str = RESPONSE
    dtype: str = "float32"

    def base(self) -> Scoring:
        """The scoring from which this one can be computed by arithmetic: at the default rate, without decay.

        If W′ is rounded, the rate decides what is rounded away, so the scoring is this one itself.
        """
        if self.update.storage_dtype is not None:
            return self
        plain = UpdateSettings()
        return replace(self, update=replace(self.update, lr=plain.lr, weight_decay=plain.weight_decay))

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"update": self.update.as_dict(), "scope": self.scope, "dtype": self.dtype}


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the study: scoring and ranking.

    Attributes:
        axis: the choice that differs from the default.
        name: its value.
        scoring: settings of scoring.
        method: one of ``column_methods.OWN_METHODS``, or :data:`NOD_HIGH`, :data:`ALL`, :data:`CLEAN`.
        weights: weights of DON and NOD; None computes the weights that give both columns the same influence
            (:func:`donod_fast.studies.sensitivity.spread.balanced_weights`).
        normalise: what TOPSIS divides the columns by.
    """

    axis: str
    name: str
    scoring: Scoring = field(default_factory=Scoring)
    method: str = "topsis"
    weights: Weights = (0.5, 0.5)
    normalise: str = DEFAULT_NORMALISE

    @property
    def ranked(self) -> bool:
        """Whether the selection looks at scores."""
        return self.method not in (ALL, RANDOM, CLEAN)

    @property
    def seeded(self) -> bool:
        """Whether the selection depends on a seed."""
        return self.method in (RANDOM, CLEAN)


DEFAULT = Setting("default", "AdamW, TOPSIS")

BASELINES = (
    Setting("baseline", "random", method=RANDOM),
    Setting("baseline", "all rows", method=ALL),
    Setting("baseline", "loss, low first", method="loss"),
    Setting("baseline", "random of the clean rows", method=CLEAN),
)
"""Baselines; the last one is the selection of a perfect detector of damage."""


def _update(**changes: Any) -> Scoring:
    return Scoring(replace(UpdateSettings(), **changes))


AXES: dict[str, tuple[Setting, ...]] = {
    "optimizer": (
        Setting("optimizer", "SGD", _update(update="sgd")),
        Setting("optimizer", "sign", _update(update="sign")),
    ),
    "eps": tuple(Setting("eps", f"{eps:g}", _update(eps=eps)) for eps in (1e-6, 1e-5, 1e-4, 1e-2)),
    "decay": tuple(Setting("decay", f"{decay:g}", _update(weight_decay=decay)) for decay in (0.01, 0.1)),
    "direction": (
        Setting("direction", "NOD alone, low first", method="nod"),
        Setting("direction", "NOD alone, high first", method=NOD_HIGH),
    ),
    "weights": (
        *(
            Setting("weights", f"TOPSIS {don:g} : {nod:g}", weights=(don, nod))
            for don, nod in ((0.8, 0.2), (0.2, 0.8), (1.0, 0.0), (0.0, 1.0))
        ),
        Setting("weights", "TOPSIS, balanced", weights=None),
        Setting("weights", "weighted sum (min–max)", method="weighted"),
    ),
    "normalise": tuple(
        Setting("normalise", f"TOPSIS, columns by {name}", normalise=name)
        for name in NORMALISATIONS
        if name != DEFAULT_NORMALISE
    ),
    "storage": (Setting("storage", "W′ in bfloat16", _update(storage_dtype="bfloat16")),),
    "rate": tuple(Setting("rate", f"{lr:g}", _update(lr=lr)) for lr in (2e-6, 2e-4)),
    "reduction": (Setting("reduction", "sum", _update(reduction="sum")),),
    "mask": (Setting("mask", "prompt scored, too", Scoring(scope=EVERY)),),
    "precision": (Setting("precision", "model in bfloat16", Scoring(dtype="bfloat16")),),
}
"""Settings that are compared with the default, by axis."""


def settings_of(axes: tuple[str, ...] | None = None) -> list[Setting]:
    """The default and the settings of some axes (None: all), in the order of :data:`AXES`.

    Raises:
        InputError: an unknown axis.
    """
    for axis in axes or ():
        if axis not in AXES:
            raise InputError(f"unknown axis {axis!r}; known are {', '.join(AXES)}")
    return [DEFAULT, *(setting for axis in AXES if axes is None or axis in axes for setting in AXES[axis])]


__all__ = [
    "ALL",
    "AXES",
    "BASELINES",
    "CLEAN",
    "DEFAULT",
    "EVERY",
    "NOD_HIGH",
    "RANDOM",
    "RESPONSE",
    "Scoring",
    "Setting",
    "settings_of",
]
