"""The sections of the recipe of ``donod-fast study paper``; :mod:`.recipe` has the whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from donod_fast.data.masking import MaskSettings
from donod_fast.errors import InputError
from donod_fast.studies.evidence.plan import LEAST_DRAWS
from donod_fast.training.recipe import LoraSettings, Name, Positive, Section, Share

try:
    from pydantic import Field, StringConstraints
except ImportError as error:
    raise InputError("recipes need pydantic: pip install 'donod-fast[train]'") from error

_MASKS: Any = MaskSettings()

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=80)]
"""A name that is also part of file names: letters, digits and ``_.+-``."""

Rate = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]


class ShapeSection(Section):
    """Shape of a model whose config need not be available, for the plan. See ``models.shapes.ModelShape``.

    Attributes:
        kind: ``model_type`` of transformers.
        vocab, dim: rows and columns of the output layer.
        layers, inner: decoder layers, and the width of their feed-forward part.
        heads, key_value_heads: attention heads.
        positions: longest sequence.
        tied: whether the output layer is the embedding.
    """

    kind: Name
    vocab: Positive
    dim: Positive
    layers: Positive
    inner: Positive
    heads: Positive
    key_value_heads: Positive
    positions: Positive = 4096
    tied: bool = False


class ModelSection(Section):
    """A model that scores or is trained.

    Attributes:
        name: unique name for pairs and reports.
        model: folder, hub id, or ``smollm2``.
        shape: its shape, for a plan without its config.
    """

    name: FileName
    model: Name
    shape: ShapeSection | None = None


class PairSection(Section):
    """Who scores and who is trained: two names of ``models``; two different ones are the paper's cross-architecture.

    Attributes:
        score: name of the model that scores.
        train: name of the model that is trained and measured.
    """

    score: Name
    train: Name

    @property
    def crosses(self) -> bool:
        """Whether the rows are selected by another model than the one that is trained on them."""
        return self.score != self.train


class PoolSection(Section):
    """A corpus to select from.

    Attributes:
        name: unique name for reports.
        data: files, or hub ids.
        domain: its domain, such as ``math``: for a corpus, the measures of its own domain are the target.
        skip, rows: rows to skip at the start, and to use after these; None for all.
        format, template: how rows are read and rendered.
        stated_rows, stated_tokens: rows and mean tokens of one, for a plan without the corpus.
    """

    name: FileName
    data: tuple[Name, ...] = Field(min_length=1)
    domain: Name
    skip: Count = 0
    rows: Positive | None = None
    format: Name = _MASKS.format
    template: Name = _MASKS.template
    stated_rows: Positive | None = None
    stated_tokens: Rate | None = None

    def masks(self) -> MaskSettings:
        """How its rows become tokens and labels."""
        return MaskSettings(self.format, self.template)


class HeldOutSection(PoolSection):
    """Rows whose loss is a measure. See :class:`PoolSection`."""


class BenchmarkSection(Section):
    """A benchmark as a measure.

    Attributes:
        benchmark: ``agieval`` or ``ifeval``.
        problems: its file or folder.
        domains: domains that it belongs to: each set of AGIEval by its group, or one for the whole benchmark.
        limit: use only this many problems of each set; None for all.
        few_shot: solved examples before each question (AGIEval).
        max_new_tokens: longest answer (IFEval).
        chat_template: render prompts by the model's chat template; a model without one needs ``false``.
        batch_size: prompts at once.
        stated_problems, stated_tokens: problems and mean tokens of a prompt, for a plan without the file.
        stated_choices: mean answers of a problem that are compared by log-likelihood; 0 if answers are generated.
    """

    benchmark: Literal["agieval", "ifeval"]
    problems: Name | None = None
    domains: tuple[Name, ...] = Field(min_length=1)
    limit: Positive | None = None
    few_shot: Count = 0
    max_new_tokens: Positive = 512
    chat_template: bool = True
    batch_size: Positive = 16
    stated_problems: Positive | None = None
    stated_tokens: Rate | None = None
    stated_choices: Annotated[float, Field(ge=0.0)] = 0.0


class RandomSection(Section):
    """Random draws that every selection is compared with.

    Attributes:
        draws: draws of each kind, at least 5.
        kinds: as many rows, as many tokens, the same distribution of lengths as the selection, or as much compute
            with the selection's scoring counted; see ``studies.evidence.plan.RandomDraws``.
        seeds_each: trainings of each draw.
    """

    draws: Annotated[int, Field(ge=LEAST_DRAWS)] = LEAST_DRAWS
    kinds: tuple[Literal["rows", "tokens", "lengths", "compute"], ...] = Field(
        default=("rows", "tokens", "lengths"), min_length=1
    )
    seeds_each: Positive = 1


class TuningSection(Section):
    """How a model is trained on a selection.

    Attributes:
        method: ``full`` or ``lora``.
        lora: rank, alpha and targets of ``lora``.
        tokens: tokens of each training; None for ``epochs``.
        epochs: passes over each selection.
        learning_rate, warmup_ratio, weight_decay, max_grad_norm: of AdamW with a cosine schedule.
        step_tokens: mean tokens of an optimizer step.
        gradient_checkpointing, mixed_precision: for the plan only.
    """

    method: Literal["full", "lora"] = "full"
    lora: LoraSettings = LoraSettings()
    tokens: Positive | None = None
    epochs: Rate = 1.0
    learning_rate: Rate = 2e-5
    warmup_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.025
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    max_grad_norm: Rate = 1.0
    step_tokens: Positive = 2048
    gradient_checkpointing: bool = False
    mixed_precision: bool = False


class NoiseSection(Section):
    """§4.4 for each corpus: see ``studies.noise.settings.NoiseSettings``."""

    rows: Annotated[int, Field(ge=10)] = 100
    seeds: Positive = 2
    kinds: tuple[Name, ...] = Field(("masked",), min_length=1)


class StabilitySection(Section):
    """Figure 4: see ``studies.stability.settings.StabilitySettings``."""

    rows: Positive = 100
    seeds: Positive = 2
    proportions: tuple[Share, ...] = Field((0.1, 0.2, 0.3, 0.5, 1.0), min_length=1)
    methods: tuple[Name, ...] = Field(("topsis", "random"), min_length=1)


class FocusSection(Section):
    """Figure 3: see ``studies.focus.settings.FocusSettings``."""

    train_rows: Positive = 100
    seeds: Positive = 1
    epochs: Rate = 1.0
    rows: Count = 0


class AblationSection(Section):
    """Table 5: DON, NOD and their combinations; see ``studies.sensitivity.study_settings.AblationSettings``."""

    rows: Annotated[int, Field(ge=10)] = 100
    keeps: tuple[Share, ...] = Field((0.3,), min_length=1)
    seeds: Positive = 2
    setting_seeds: Positive = 1
    tokens: Positive = 20_000


__all__ = [
    "AblationSection",
    "BenchmarkSection",
    "Count",
    "FileName",
    "FocusSection",
    "HeldOutSection",
    "ModelSection",
    "NoiseSection",
    "PairSection",
    "PoolSection",
    "RandomSection",
    "Rate",
    "ShapeSection",
    "StabilitySection",
    "TuningSection",
]
