"""Recipes: what to score, train, evaluate and study, as one validated value read from a YAML file.

A recipe is strict: an unknown key or a value of a wrong type is refused with its place and a remedy, since ignoring a
misspelt learning rate would waste a training. Numbers may be written as ``2e-5``. Relative paths are relative to the
recipe's own folder, and ``package:…`` names files inside the installed package. In overrides and on the command line
paths are relative to the current folder.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from donod_fast.data.masking import MaskSettings
from donod_fast.errors import InputError
from donod_fast.scoring.settings import DEFAULT_NORMALISE, UpdateSettings

try:
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        SerializerFunctionWrapHandler,
        StringConstraints,
        model_serializer,
        model_validator,
    )
except ImportError as error:
    raise InputError("recipes need pydantic: pip install 'donod-fast[train]'") from error

Name = Annotated[str, StringConstraints(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Like = Literal["trl", "trl-whole", "axolotl", "llama-factory"]

_MASKS: Any = MaskSettings()
_UPDATE: Any = UpdateSettings()
"""The defaults of scoring, which recipes share."""

_READING: dict[str, Any] = {"columns": None, "preference": None, "text_only": False, "like": None}
_LATER: dict[str, Any] = {"packing": "none", "parameter_mask": None, **_READING}
"""Training settings that later releases added, with their defaults."""


MASK_FIELDS = {"format", "template", "train_on", "max_length", *_READING}
"""Names of the settings that decide how rows become tokens and masks."""


class Section(BaseModel):
    """A part of a recipe: frozen; refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoraSettings(Section):
    """Low-rank adapters (Hu et al., arXiv 2106.09685); for ``qlora`` on a 4-bit base (arXiv 2305.14314).

    Attributes:
        rank: r of the two factors.
        alpha: the update is scaled by alpha / rank.
        dropout: in front of the adapters, while training.
        targets: ``"all-linear"`` (all but the output layer), or names of modules.
        merge: write the merged model, which transformers loads alone; else the adapter only.
    """

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    targets: Literal["all-linear"] | tuple[Name, ...] = "all-linear"
    merge: bool = True


class TrainSettings(Section):
    """How a model is fine-tuned.

    Global batch, micro-batch, learning rate, AdamW and warm-up are those of DONOD (arXiv 2504.14810). Where
    that paper is silent the default is ours: one epoch, cosine decay, no weight decay, gradients clipped at 1.

    Attributes:
        model: folder or hub id of the model to train; its tokenizer makes the masks.
        revision: of a hub model.
        dtype: of the weights: ``"auto"`` is bfloat16 on an accelerator and float32 on the CPU.
        method: ``"full"``, ``"lora"`` or ``"qlora"``.
        lora: the adapters' settings; nothing to ``full``.
        global_batch: samples of an optimizer step over all processes.
        micro_batch: samples of one forward on one device; the steps between are accumulated.
        packing: whether the samples of a micro-batch are put into few rows of ``max_length`` tokens:
            ``"isolated"`` keeps them from attending to each other and gives the gradients of ``"none"``, ``"paper"``
            lets them (see :mod:`donod_fast.training.dynamic_pack`).
        learning_rate: the highest, after warm-up.
        optimizer: a name of transformers' ``OptimizerNames``.
        weight_decay: of matrices; norms and biases have none.
        adam_beta1, adam_beta2, adam_epsilon: of AdamW.
        warmup_ratio: share of the steps with a rising rate, from 0 (rounded up; a training of one step has none).
        schedule: after that.
        epochs: passes over the rows; the last step of an epoch may have fewer than ``global_batch`` samples.
        max_steps: maximum number of optimizer steps, regardless of ``epochs``; None for all.
        max_grad_norm: gradients are clipped to this norm; 0 leaves them.
        max_length: tokens kept of a row, from its start; None for the model's own limit.
        format, template, train_on, columns, preference, text_only, like: see
            :class:`donod_fast.data.masking.MaskSettings`; the same as in scoring.
        seed: of the order of rows, of adapters and of dropout.
        mixed_precision: with float32 weights, forward and backward in bfloat16 (autocast). Weights that are
            bfloat16 themselves lose updates that are smaller than half their last digit.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        attention: ``attn_implementation`` of transformers; None for its choice.
        parameter_mask: a file of :mod:`donod_fast.models.parameter_mask`: only its entries of the parameters
            change (``full`` only). Its content identifies it, not its path.
        save_steps: optimizer steps between checkpoints to resume from; None for none.
        trust_remote_code: run Python code that comes with the model.
    """

    model: Name
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    method: Literal["full", "lora", "qlora"] = "full"
    lora: LoraSettings = LoraSettings()
    global_batch: Positive = 16
    micro_batch: Positive = 1
    packing: Literal["none", "paper", "isolated"] = "none"
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-5
    optimizer: Name = "adamw_torch"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    adam_epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    warmup_ratio: Probability = 0.025
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    epochs: Annotated[float, Field(gt=0.0)] = 1.0
    max_steps: Positive | None = None
    max_grad_norm: Annotated[float, Field(ge=0.0)] = 1.0
    max_length: Annotated[int, Field(ge=2)] | None = None
    format: Name = _MASKS.format
    template: Name = _MASKS.template
    train_on: Literal["all", "last"] = _MASKS.train_on
    columns: Name | None = None
    preference: Literal["chosen", "rejected"] | None = None
    text_only: bool = False
    like: Like | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    mixed_precision: bool = False
    gradient_checkpointing: bool = False
    attention: str | None = None
    parameter_mask: Name | None = None
    save_steps: Positive | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainSettings:
        if self.global_batch % self.micro_batch:
            raise ValueError(
                f"global_batch {self.global_batch} is not a multiple of micro_batch {self.micro_batch}; "
                "choose a micro-batch that divides it"
            )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_pack(self) -> TrainSettings:
        if self.packing != "none" and self.micro_batch == 1:
            raise ValueError(
                f"packing {self.packing!r} packs the samples of a micro-batch, and micro_batch is 1; "
                "raise it, for example to 8"
            )
        return self

    @model_validator(mode="after")
    def _columns_make_a_record(self) -> TrainSettings:
        self.masks()
        return self

    @model_validator(mode="after")
    def _masks_are_of_the_model(self) -> TrainSettings:
        if self.parameter_mask is not None and self.method != "full":
            raise ValueError(
                f"a parameter mask says which entries of the model itself change, and method {self.method} trains "
                "adapters in addition; use method: full"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_they_came(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later settings at their defaults, so that older manifests and cells describe the same training."""
        found: dict[str, Any] = plain(self)
        return {name: value for name, value in found.items() if _LATER.get(name, ...) != value}

    def masks(self, max_length: int | None = None) -> MaskSettings:
        """How rows become tokens and labels; ``max_length`` is the model's limit, for settings that name none."""
        own = _mask_settings(self, self.max_length)
        return own if self.max_length is not None else own.limited(max_length)


class ScoreSection(Section):
    """The scored data, the model and the update. The settings are those of ``donod-fast score``.

    Attributes:
        model: the scoring model; None for the one that is trained.
        revision: of a hub model.
        data: files, globs, saved datasets or hub ids: the corpus to select from.
        split, data_revision: of a saved or hub dataset.
        references: reference sets, for a study's methods by influence.
        format, template, train_on, max_length, columns, preference, text_only, like: how rows are read and masked.
        dtype: of the scoring model.
        update, lr, weight_decay, eps, reduction, storage_dtype: see ``UpdateSettings``.
        stated_rows, stated_tokens: rows of the corpus and mean tokens of one, for plans made without the corpus.
    """

    model: Name | None = None
    revision: str | None = None
    data: tuple[Name, ...] = ()
    split: Name = "train"
    data_revision: str | None = None
    references: tuple[Name, ...] = ()
    format: Name = _MASKS.format
    template: Name = _MASKS.template
    train_on: Literal["all", "last"] = _MASKS.train_on
    max_length: Annotated[int, Field(ge=2)] | None = None
    columns: Name | None = None
    preference: Literal["chosen", "rejected"] | None = None
    text_only: bool = False
    like: Like | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    update: Literal["adamw", "sgd", "sign"] = _UPDATE.update
    lr: Annotated[float, Field(gt=0.0)] = _UPDATE.lr
    weight_decay: Annotated[float, Field(ge=0.0)] = _UPDATE.weight_decay
    eps: Annotated[float, Field(gt=0.0)] = _UPDATE.eps
    reduction: Literal["mean", "sum"] = _UPDATE.reduction
    storage_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    stated_rows: Positive | None = None
    stated_tokens: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _columns_make_a_record(self) -> ScoreSection:
        self.masks()
        return self

    @model_serializer(mode="wrap")
    def _as_before_they_came(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later settings at their defaults, so that older manifests and cells describe the same scores."""
        found: dict[str, Any] = plain(self)
        return {name: value for name, value in found.items() if _READING.get(name, ...) != value}

    def masks(self) -> MaskSettings:
        """Settings of reading and masking rows for scoring."""
        return _mask_settings(self, self.max_length)

    def update_settings(self) -> UpdateSettings:
        """The update that scores a sample."""
        return UpdateSettings(self.update, self.lr, self.weight_decay, self.eps, self.reduction, self.storage_dtype)


def _mask_settings(section: TrainSettings | ScoreSection, max_length: int | None) -> MaskSettings:
    return MaskSettings(
        section.format,
        section.template,
        section.train_on,
        max_length,
        columns=section.columns,
        preference=section.preference,
        text_only=section.text_only,
        like=section.like,
    )


class EvalSection(Section):
    """One benchmark and how samples are drawn for it.

    Attributes:
        benchmark: ``humaneval``, ``humaneval+``, ``mbpp``, ``mbpp+``, ``mbpp-sanitized``, or ``family`` for the
            generated tasks (with the problems ``family:problems``).
        problems: a local problems file; None for the hub's.
        limit: use only this many problems; None for all.
        style: the prompt's style; None for the benchmark's default.
        samples_per_task: n of the unbiased pass@k.
        temperature: 0 is greedy.
        top_p: of sampling.
        max_new_tokens: of an answer.
        batch_size: prompts at once.
        pass_at: the k of pass@k.
        seed: of sampling.
    """

    benchmark: Name
    problems: Name | None = None
    limit: Positive | None = None
    style: Name | None = None
    samples_per_task: Positive = 1
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    top_p: Share = 1.0
    max_new_tokens: Positive = 512
    batch_size: Positive = 16
    pass_at: tuple[Positive, ...] = (1,)
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _enough_samples(self) -> EvalSection:
        if max(self.pass_at, default=0) > self.samples_per_task:
            raise ValueError(
                f"pass@{max(self.pass_at)} needs as many samples of a task; samples_per_task is {self.samples_per_task}"
            )
        if self.temperature == 0.0 and self.samples_per_task > 1:
            raise ValueError("greedy samples are all the same: set temperature, or samples_per_task to 1")
        return self


class StudySection(Section):
    """The cells of the threshold study: methods × how much is kept × seeds.

    Attributes:
        methods: names of ``OWN_METHODS`` or ``column_methods.py`` (``el2n``, ``ifd``, ``loss@high``;
            what they need is scored), ``kmeans-ifd``, and ``all`` for the whole corpus.
        keeps: fractions of the scored rows.
        normalise: what ``topsis``, ``nodon`` and ties of ``pareto`` divide DON and NOD by.
        don_quantiles: for the method ``don-threshold``: rows with a DON at or above this quantile are kept.
        don_thresholds: the same, as values of DON itself.
        seeds: of training (and of ``random``).
    """

    methods: tuple[Name, ...] = ("all", "random", "don", "nod", "weighted", "pareto", "topsis", "nodon", "loss")
    keeps: tuple[Share, ...] = (0.1, 0.2, 0.3, 0.5, 0.7)
    normalise: Literal["vector", "range", "sum"] = DEFAULT_NORMALISE
    don_quantiles: tuple[Probability, ...] = (0.3, 0.5, 0.7, 0.8, 0.9)
    don_thresholds: tuple[float, ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)


class Recipe(Section):
    """A whole recipe. Only ``train`` is needed to train; a study needs all of it.

    Attributes:
        name: short, for folders and reports.
        description: one paragraph for a reader.
        score: what is scored.
        train: how a model is trained.
        eval: the benchmarks, in order.
        study: the cells.
        heldout: files whose loss is a second measure; read with ``train``'s format and template.
    """

    name: Name
    description: str = ""
    score: ScoreSection = ScoreSection()
    train: TrainSettings
    eval: tuple[EvalSection, ...] = ()
    study: StudySection = StudySection()
    heldout: tuple[Name, ...] = ()

    @property
    def scoring_model(self) -> tuple[str, str | None]:
        """Folder or hub id, and revision, of the model that scores."""
        if self.score.model is None:
            return self.train.model, self.train.revision
        return self.score.model, self.score.revision

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


__all__ = [
    "MASK_FIELDS",
    "EvalSection",
    "LoraSettings",
    "Recipe",
    "ScoreSection",
    "Section",
    "StudySection",
    "TrainSettings",
]
