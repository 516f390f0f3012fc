"""Tokens of a recipe's corpora, held-out rows and benchmarks for a plan: counted where they can be, else as stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import CorpusError, DonodError, InputError, ModelError
from donod_fast.models.shapes import ModelShape
from donod_fast.studies.core.tables import read_rows
from donod_fast.studies.paper.recipe import PaperRecipe
from donod_fast.studies.paper.sections import BenchmarkSection, HeldOutSection, ModelSection, PoolSection, TuningSection
from donod_fast.system.places import path_of
from donod_fast.system.wording import shortened
from donod_fast.training.counting import CHARACTERS_A_TOKEN, count_tokens, guess_tokens, hub_answers, is_hub_id
from donod_fast.training.model_size import model_config
from donod_fast.training.planning import TokenCounts
from donod_fast.training.recipe import TrainSettings


def shape_of(model: ModelSection) -> Any:
    """The config of a model: its folder's, that of a shape known here, the recipe's shape, or the hub's.

    Raises:
        InputError: no config is found.
    """
    shape = model.shape
    if shape is None or path_of(model.model).is_dir():
        return model_config(model.model)
    config = ModelShape(model.name, **shape.model_dump(exclude={"tied"})).config()
    config.tie_word_embeddings = shape.tied
    return config


def training_of(recipe: PaperRecipe, model: ModelSection, pool: PoolSection, *, batch: int = 1) -> TrainSettings:
    """The training of a selection as settings of ``donod_fast.training``, for its plan.

    Args:
        recipe: the recipe.
        model: the model that is trained.
        pool: the corpus.
        batch: rows of a step, which are one forward pass.
    """
    tuning: TuningSection = recipe.tuning
    return TrainSettings(
        model=model.model,
        method=tuning.method,
        lora=tuning.lora,
        epochs=tuning.epochs,
        learning_rate=tuning.learning_rate,
        warmup_ratio=tuning.warmup_ratio,
        weight_decay=tuning.weight_decay,
        max_grad_norm=tuning.max_grad_norm,
        gradient_checkpointing=tuning.gradient_checkpointing,
        mixed_precision=tuning.mixed_precision,
        dtype="float32",
        format=pool.format,
        template=pool.template,
        global_batch=batch,
        micro_batch=batch,
    )


def corpus_counts(
    section: PoolSection | HeldOutSection, settings: TrainSettings, config: Any, unknown: list[str]
) -> TokenCounts:
    """Rows and tokens of a corpus.

    Args:
        section: the corpus.
        settings: model, format and template.
        config: the model's.
        unknown: gets a sentence for each assumption.

    Raises:
        InputError: the corpus is not available, and the recipe states no numbers.
    """
    stated = section.stated_tokens
    try:
        if any(map(is_hub_id, section.data)) and not hub_answers():
            raise CorpusError("the hub cannot be reached")
        rows = read_rows(section.data, skip=section.skip, count=section.rows)
    except (CorpusError, ModelError) as error:
        count = section.stated_rows if section.rows is None else section.rows
        if count is None or stated is None:
            raise InputError(
                f"{section.name} is not available ({_first_line(error)}); for a plan without it the recipe states "
                "stated_rows and stated_tokens"
            ) from error
        unknown.append(f"{section.name} is not available: {count:,} rows of {stated:g} tokens, as the recipe states")
        return TokenCounts.guessed(count, stated, "stated")
    from donod_fast.scoring.scorer import as_corpus

    corpus = as_corpus(rows)
    try:
        return count_tokens(settings, config, corpus)
    except ModelError:
        if stated is not None:
            unknown.append(f"{section.name}: {stated:g} tokens a row, as the recipe states; its tokenizer is not here")
            return TokenCounts.guessed(len(rows), stated, "rows counted, tokens stated")
        unknown.append(f"{section.name}: tokens at {CHARACTERS_A_TOKEN} characters each; its tokenizer is not here")
        return guess_tokens(settings, corpus)


@dataclass(frozen=True)
class BenchmarkCounts:
    """What a benchmark costs for one model.

    Attributes:
        problems: number of problems.
        tokens: mean tokens of a prompt.
        passes: how often a prompt is read: once for each answer that is compared, once if an answer is generated.
        new_tokens: most tokens of a generated answer; 0 for none.
    """

    problems: int
    tokens: float
    passes: float
    new_tokens: int

    @property
    def read_tokens(self) -> float:
        """Tokens of all prompts, each pass counted."""
        return self.problems * self.tokens * self.passes

    @property
    def squares(self) -> float:
        """Sum of the squares of the tokens of what is read, for rows of mean length."""
        return self.read_tokens * self.tokens


def benchmark_counts(section: BenchmarkSection, unknown: list[str]) -> BenchmarkCounts:
    """Count a benchmark's problems and tokens, or take what the recipe states.

    Raises:
        InputError: neither is there.
    """
    problems, tokens, choices = section.stated_problems, section.stated_tokens, section.stated_choices
    if section.problems is not None:
        try:
            found = _problem_files(Path(path_of(section.problems)), section.limit)
        except (DonodError, OSError) as error:
            if problems is None or tokens is None:
                raise InputError(
                    f"{section.benchmark}: {section.problems} cannot be read ({_first_line(error)}); name its file or "
                    "folder, or state stated_problems and stated_tokens for a plan"
                ) from error
        else:
            problems = len(found)
            tokens = tokens or sum(one.characters for one in found) / max(1, problems) / CHARACTERS_A_TOKEN
            choices = choices or sum(one.choices for one in found) / max(1, problems)
    assert problems is not None and tokens is not None  # the recipe's own check
    if section.few_shot:
        tokens *= 1 + section.few_shot
    generated = section.benchmark == "ifeval"
    reads = "generated answers" if generated else f"{choices:.2g} answers each by log-likelihood"
    unknown.append(f"{section.benchmark}: {problems:,} problems with prompts of {tokens:,.0f} tokens, {reads}")
    return BenchmarkCounts(
        problems, tokens, 1.0 if generated else max(1.0, choices), section.max_new_tokens if generated else 0
    )


@dataclass(frozen=True)
class _Problem:
    characters: int
    choices: int


def _problem_files(place: Path, limit: int | None) -> list[_Problem]:
    """Problems of a JSON Lines file, or of each such file of a folder, by their characters and answers."""
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if not files:
        raise CorpusError(f"{place} has no .jsonl files")
    return [
        _Problem(
            _characters([value for key, value in row.items() if key not in _NO_PROMPT]), len(row.get("options") or ())
        )
        for file in files
        for row in read_rows([str(file)], count=limit)
    ]


_NO_PROMPT = ("label", "answer", "other", "explanation", "instruction_id_list", "kwargs", "key")


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_characters, value)) if isinstance(value, Sequence) else 0


def _first_line(error: Exception) -> str:
    return shortened(str(error).partition("\n")[0], 120)


__all__ = ["BenchmarkCounts", "benchmark_counts", "corpus_counts", "shape_of", "training_of"]
