"""What an evidence study compares: models, pools, held-out sets, methods, amounts, random draws and trainings.

Plain values, so that a command or a recipe can make a plan, print it, and run it with
:func:`donod_fast.studies.evidence.run.run_evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.random_draws import LEAST_DRAWS, LENGTHS, ROWS, TOKENS
from donod_fast.studies.core.settings import EpochTraining, FineTuneSettings, LoraTuning
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.core.tables import Data

if TYPE_CHECKING:
    from donod_fast.models.loading import LoadedModel

COMPUTE = "compute"
KINDS = (ROWS, TOKENS, LENGTHS, COMPUTE)
"""What a random draw has in common with the selection that it is compared with."""

IN, OUT = "in", "out"
DOMAINS = (IN, OUT)

LEAST_SEEDS = 2
"""Fewer training seeds have no spread."""

Measure = Callable[[Any, Any], float | Mapping[str, float]]
"""A trained model and its tokenizer → a number, or numbers by name. Its name in a plan identifies it in the cells."""


@dataclass(frozen=True)
class Pool:
    """Rows to select from.

    Attributes:
        name: its name in tables.
        data: records, or paths of files.
        skip: rows to skip at the start, such as those that the model was trained on.
        rows: rows to use after these; None for all.
        masks: settings of reading and masking rows.
    """

    name: str
    data: Data = field(repr=False)
    skip: int = 0
    rows: int | None = None
    masks: MaskSettings = field(default_factory=MaskSettings)

    def read(self) -> list[dict[str, Any]]:
        """The rows.

        Raises:
            CorpusError: the data cannot be read, or has no rows after ``skip``.
        """
        return StudyData(self.data, skip=self.skip, rows=self.rows).read()


@dataclass(frozen=True)
class HeldOut:
    """Rows to measure the loss on, which no training uses.

    Attributes:
        name, data, skip, rows, masks: as for :class:`Pool`.
        domain: whether the rows are of the target domain of a pool (``"in"``) or not (``"out"``): one word for all
            pools, or a word by the name of the pool.
    """

    name: str
    data: Data = field(repr=False)
    skip: int = 0
    rows: int | None = None
    domain: str | Mapping[str, str] = IN
    masks: MaskSettings = field(default_factory=MaskSettings)

    def __post_init__(self) -> None:
        words = [self.domain] if isinstance(self.domain, str) else list(self.domain.values())
        for word in words:
            if word not in DOMAINS:
                raise InputError(f"the domain of held-out set {self.name} must be in or out, got {word!r}")

    def domain_of(self, pool: str) -> str:
        """``"in"`` or ``"out"``, for a pool by its name."""
        return self.domain if isinstance(self.domain, str) else self.domain.get(pool, IN)

    def read(self) -> list[dict[str, Any]]:
        """The rows.

        Raises:
            CorpusError: the data cannot be read, or has no rows after ``skip``.
        """
        return StudyData(self.data, skip=self.skip, rows=self.rows).read()


@dataclass(frozen=True)
class Pair:
    """The model that scores and the model that is trained.

    Attributes:
        score_model: folder, hub id or loaded model.
        train_model: the same; None for the model that scores.
        name: its name in tables; None for the names of the models.
    """

    score_model: str | Path | LoadedModel
    train_model: str | Path | LoadedModel | None = None
    name: str | None = None

    @property
    def trained(self) -> str | Path | LoadedModel:
        """The model that is trained."""
        return self.score_model if self.train_model is None else self.train_model

    @property
    def label(self) -> str:
        """The name in tables: ``a → b`` if a scores and b is trained."""
        if self.name is not None:
            return self.name
        if self.train_model is None or _name(self.train_model) == _name(self.score_model):
            return _name(self.score_model)
        return f"{_name(self.score_model)} → {_name(self.train_model)}"


@dataclass(frozen=True)
class RandomDraws:
    """Random selections that the methods are compared with.

    Attributes:
        draws: number of draws of each kind, at least :data:`LEAST_DRAWS`.
        kinds: what a draw has in common with a selection, of :data:`KINDS`: as many rows, as many tokens, the same
            lengths, or as much compute when the selection's scoring is counted. See
            :mod:`donod_fast.selection.random_draws`.
        seeds_each: trainings of each draw. The training seeds are used in turn, so one training each covers all seeds
            if there are at least as many draws as seeds.
    """

    draws: int = LEAST_DRAWS
    kinds: Sequence[str] = (ROWS, TOKENS, LENGTHS)
    seeds_each: int = 1

    def __post_init__(self) -> None:
        if self.draws < LEAST_DRAWS:
            raise InputError(f"draws must be at least {LEAST_DRAWS}, got {self.draws}")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise InputError(f"kinds of random draws are {', '.join(KINDS)}; got {', '.join(unknown) or 'none'}")
        if len(set(self.kinds)) != len(self.kinds):
            raise InputError(f"name each kind of random draw once, got {', '.join(self.kinds)}")
        if self.seeds_each < 1:
            raise InputError(f"seeds_each must be at least 1, got {self.seeds_each}")


@dataclass(frozen=True)
class Tuning:
    """How a selection is trained.

    Attributes:
        method: ``"full"`` or ``"lora"``.
        training: budget and optimizer; the study replaces its seed.
        lora: the adapters of ``"lora"``; they are merged before anything is measured.
        name: its name in tables; None for the method.
    """

    method: str = "full"
    training: FineTuneSettings = field(default_factory=EpochTraining)
    lora: LoraTuning = field(default_factory=LoraTuning)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.method not in ("full", "lora"):
            raise InputError(f"a tuning is full or lora, got {self.method!r}")

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name or self.method

    @property
    def adapters(self) -> LoraTuning | None:
        """The adapters to train; None if all parameters are trained."""
        return self.lora if self.method == "lora" else None

    def seeded(self, seed: int) -> FineTuneSettings:
        """The training with this seed."""
        return replace(self.training, seed=seed)


@dataclass(frozen=True)
class EvidencePlan:
    """Everything that an evidence study runs.

    Attributes:
        pairs: models that score and are trained.
        pools: rows to select from.
        heldouts: rows to measure on; the first one of a pool's domain decides its verdict.
        methods: methods as in :func:`donod_fast.studies.core.selecting.check_method`, without ``random``.
        shares: shares of the pool to keep.
        random: the random draws.
        seeds: training seeds; at least two have a spread.
        tunings: how selections are trained.
        removal: also train on the pool without each selection (QLD), and without as many random rows.
        benchmarks: further measures by name, with which they are identified in the cells.
        references: reference sets, for criteria that compare with them.
        update: the update that scores.
        allow_overlap: accept held-out rows that are also in a pool.

    Raises:
        InputError: a wrong or missing part.
    """

    pairs: Sequence[Pair]
    pools: Sequence[Pool]
    heldouts: Sequence[HeldOut]
    methods: Sequence[str] = ("topsis", "don", "nod", "loss", "tokens@high")
    shares: Sequence[float] = (0.3,)
    random: RandomDraws = RandomDraws()
    seeds: Sequence[int] = (0, 1)
    tunings: Sequence[Tuning] = field(default_factory=lambda: (Tuning(),))
    removal: bool = False
    benchmarks: Mapping[str, Measure] = field(default_factory=dict, repr=False)
    references: Sequence[str] = ()
    update: UpdateSettings = field(default_factory=UpdateSettings)
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        for name in ("pairs", "pools", "heldouts", "methods", "shares", "tunings"):
            if not getattr(self, name):
                raise InputError(f"an evidence study needs {name}; none is given")
        for name in ("pools", "heldouts"):
            _refuse_twice(name, [one.name for one in getattr(self, name)])
        for name in ("pairs", "tunings"):
            _refuse_twice(name, [one.label for one in getattr(self, name)])
        _refuse_twice("methods", list(self.methods))
        if "random" in self.methods:
            raise InputError("random is always compared with; do not name it as a method")
        if len(self.seeds) < LEAST_SEEDS or len(set(self.seeds)) != len(self.seeds):
            raise InputError(
                f"seeds must be {LEAST_SEEDS} different numbers or more, got {list(self.seeds)}; "
                "one seed has no spread to judge by"
            )
        for share in self.shares:
            if not 0 < share < 1:
                raise InputError(f"shares must be between 0 and 1, got {share}; at 1 all selections are the same")
        if self.random.seeds_each > len(self.seeds):
            raise InputError(f"seeds_each is {self.random.seeds_each}, but there are only {len(self.seeds)} seeds")


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{what}: {name} is named twice; give each its own name")


def _name(model: str | Path | LoadedModel) -> str:
    return model.rstrip("/").rpartition("/")[2] if isinstance(model, str) else model.name.rpartition("/")[2]


__all__ = [
    "COMPUTE",
    "IN",
    "KINDS",
    "LEAST_DRAWS",
    "LEAST_SEEDS",
    "LENGTHS",
    "OUT",
    "ROWS",
    "TOKENS",
    "EvidencePlan",
    "HeldOut",
    "Measure",
    "Pair",
    "Pool",
    "RandomDraws",
    "Tuning",
]
