"""Training and measures of the threshold study, by a recipe: training, code evaluation and held-out loss."""

from __future__ import annotations

import copy
import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError, WorkerError
from donod_fast.studies.core.grid import MODEL, TRAINING
from donod_fast.system.files import atomic_writer

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.data.types import TokenizedSample
    from donod_fast.evaluation import GenerationSettings, Problem
    from donod_fast.models.loading import LoadedModel
    from donod_fast.training import EvalSection, Recipe, TrainSettings

HELD_OUT = "heldout"
VERDICTS = "verdicts.jsonl"
_NOT_DECISIVE = {"model", "revision", "seed", "save_steps", "trust_remote_code"}


@dataclass(frozen=True, slots=True)
class MakeParts:
    """Creates :class:`RecipeParts` in any process.

    Attributes:
        recipe: recipe with absolute paths.
        root: the study's folder, in which verdicts are shared.
        unsafe: run programs even if no sandbox is available.
        workers: number of programs judged in parallel; None for all cores.
        launch: a command that starts a training in separate processes.
    """

    recipe: Recipe
    root: Path
    unsafe: bool = False
    workers: int | None = None
    launch: tuple[str, ...] = ()

    def __call__(self) -> RecipeParts:
        """Make the parts; models and data are loaded on first use."""
        return RecipeParts(self)


class RecipeParts:
    """Trains and measures by a recipe.

    Without ``train.save_steps`` trainings are assumed to be short: they run in memory, on copies of a base model that
    is loaded once. With it each training is a folder with checkpoints that resumes from the last one, no other model
    is in memory while it runs, and measures use 16 bits on an accelerator.
    """

    def __init__(self, options: MakeParts) -> None:
        self._options = options
        self._recipe = options.recipe
        self._short = self._recipe.train.save_steps is None
        self._held: tuple[Path | None, LoadedModel] | None = None  # the measured model, in addition to the base

    @cached_property
    def training(self) -> Mapping[str, Any]:
        """Settings, the base model's identity and the corpus."""
        settings = self._recipe.train.model_dump(mode="json", exclude=_NOT_DECISIVE)
        return {"settings": settings, "base": self._identity, "corpus": self._corpus.fingerprint}

    @cached_property
    def base(self) -> Mapping[str, Any]:
        """The base model's identity and the settings of loading it."""
        return {"model": self._identity, "dtype": self._recipe.train.dtype}

    @cached_property
    def measures(self) -> Mapping[str, Mapping[str, Any]]:
        """Every benchmark of the recipe, then the held-out loss."""
        from donod_fast.evaluation.run import problems_digest

        found: dict[str, Mapping[str, Any]] = {}
        for name, section in self._sections.items():
            settings = section.model_dump(mode="json", exclude={"problems", "batch_size", "pass_at", "limit"})
            settings["style"] = self._generation(section).style
            found[name] = {**settings, "problems": problems_digest(self._problems[name])}
        if self._recipe.heldout:
            from donod_fast.data.reading import open_corpus
            from donod_fast.training.recipe import MASK_FIELDS

            corpus = open_corpus(list(self._recipe.heldout))
            train = self._recipe.train
            masks = train.model_dump(mode="json", include=MASK_FIELDS)
            found[HELD_OUT] = {"data": corpus.fingerprint, "masks": masks}
        return found

    def train(self, rows: Sequence[int], seed: int, folder: Path) -> Mapping[str, Any]:
        """Run one training; its model is saved in ``folder / MODEL``."""
        settings = self._recipe.train.model_copy(update={"seed": seed})
        self._held = None
        if self._short:
            return self._train_in_memory(settings, rows, folder)
        from donod_fast.training.run import train

        if self._options.launch:
            corpus = self._launched(rows, seed, folder)
            done = train(settings, corpus, folder / TRAINING)  # already finished, so this only reads it
        else:
            done = train(settings, self._corpus, folder / TRAINING, rows=rows)
        return {
            "tokens": done.tokens,
            "scored_tokens": done.scored_tokens,
            "steps": done.steps,
            "seconds": done.seconds,
            "loss": done.loss,
            "skipped": dict(done.skipped),
            "truncated": done.truncated,
            "peak_bytes": done.peak_bytes,
        }

    def measure(self, name: str, model: Path | None) -> Mapping[str, Any]:
        """A benchmark's passed samples of each task, or the held-out loss."""
        loaded = self._loaded(model)
        if name == HELD_OUT:
            from donod_fast.studies.core.heldout import heldout_loss

            masks = self._recipe.train.masks(loaded.max_length)
            return heldout_loss(loaded, list(self._recipe.heldout), masks=masks)._asdict()
        return self._evaluate(name, loaded)

    def _train_in_memory(self, settings: TrainSettings, rows: Sequence[int], folder: Path) -> Mapping[str, Any]:
        from donod_fast.models.loading import quiet, wrap_model
        from donod_fast.training.samples import TrainingRows
        from donod_fast.training.trainer import train_model

        samples = TrainingRows.of(self._samples[row] for row in rows)
        model = copy.deepcopy(self._base.model)
        stats = train_model(model, self._base.tokenizer, samples, settings)
        path = folder / MODEL
        with quiet():
            model.save_pretrained(path)
            self._base.tokenizer.save_pretrained(path)
        self._held = path, wrap_model(model, self._base.tokenizer)
        return {
            "tokens": stats.tokens,
            "scored_tokens": stats.scored_tokens,
            "steps": stats.steps,
            "seconds": stats.seconds,
            "loss": stats.loss,
            "skipped": dict(samples.skipped),
            "truncated": samples.truncated,
        }

    def _launched(self, rows: Sequence[int], seed: int, folder: Path) -> Corpus:
        """Train on a subset file with ``launch … -m donod_fast.training``."""
        from donod_fast.data.reading import open_corpus
        from donod_fast.selection.subset import write_subset

        subset, recipe = folder / "subset.jsonl", folder / "recipe.yaml"
        if not subset.exists():
            write_subset(self._corpus, list(rows), subset)
        with atomic_writer(recipe) as file:
            file.write(json.dumps(self._recipe.as_dict()).encode())  # JSON is YAML
        arguments = ["--data", str(subset), "--out", str(folder / TRAINING), "--seed", str(seed), "--quiet"]
        command = [*self._options.launch, "-m", "donod_fast.training", str(recipe), *arguments]
        try:
            code = subprocess.run(command, check=False).returncode
        except OSError as error:
            raise InputError(f"cannot start {command[0]}: {error.strerror or error}") from error
        if code:
            raise WorkerError(f"a training ended with code {code}: {shlex.join(command)}; rerun the study to resume")
        return open_corpus([str(subset)])

    def _evaluate(self, name: str, loaded: LoadedModel) -> Mapping[str, Any]:
        from donod_fast.evaluation import JudgeSettings, evaluate_samples, generate
        from donod_fast.evaluation.prompts import find_shots

        section, problems = self._sections[name], self._problems[name]
        settings = self._generation(section)
        shots: Sequence[Problem] = ()
        if settings.style == "3-shot":
            from donod_fast.evaluation import load_problems

            # They are taken from the whole file, before the limit is applied.
            shots = find_shots(load_problems(section.benchmark, section.problems))
        samples = list(generate(loaded.model, loaded.tokenizer, problems, settings, shots=shots))
        options = self._options
        judging = JudgeSettings(unsafe=options.unsafe, workers=options.workers, cache=options.root / VERDICTS)
        result = evaluate_samples(problems, samples, judging=judging)
        return {
            "tasks": {one.task_id: [one.passed, one.samples] for one in result.per_task},
            "by_status": result.by_status,
            "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
            "isolation": result.settings["isolation"],
            "generated_tokens": sum(sample.tokens for sample in samples),
        }

    def _loaded(self, model: Path | None) -> LoadedModel:
        if self._short and model is None:
            return self._base
        if self._held is None or self._held[0] != model:
            from donod_fast.models.loading import load_model
            from donod_fast.training.loading import training_device, training_dtype

            train, device = self._recipe.train, training_device()
            dtype = training_dtype(train, device)
            if not self._short and device.type == "cuda":
                dtype = "bfloat16"
            self._held = None  # free the previous model first
            loaded = load_model(
                train.model if model is None else model,
                revision=train.revision if model is None else None,
                dtype=dtype,
                device=device,
                trust_remote_code=train.trust_remote_code,
            )
            self._held = model, loaded
        return self._held[1]

    def _generation(self, section: EvalSection) -> GenerationSettings:
        from donod_fast.evaluation import GenerationSettings
        from donod_fast.evaluation.prompts import choose_style

        return GenerationSettings(
            style=choose_style(section.benchmark, section.style),
            samples_per_task=section.samples_per_task,
            temperature=section.temperature,
            top_p=section.top_p,
            seed=section.seed,
            max_new_tokens=section.max_new_tokens,
            batch_rows=section.batch_size,
        )

    @cached_property
    def _sections(self) -> Mapping[str, EvalSection]:
        return named_sections(self._recipe)

    @cached_property
    def _problems(self) -> Mapping[str, Sequence[Problem]]:
        return {name: section_problems(section) for name, section in self._sections.items()}

    @cached_property
    def _identity(self) -> str:
        from donod_fast.training.loading import model_identity

        return model_identity(self._recipe.train)

    @cached_property
    def _corpus(self) -> Corpus:
        return open_score_corpus(self._recipe)

    @cached_property
    def _base(self) -> LoadedModel:
        from donod_fast.training.loading import load_for_training

        return load_for_training(self._recipe.train)

    @cached_property
    def _samples(self) -> Mapping[int, TokenizedSample]:
        from donod_fast.data.masking import Masker

        vocabulary = int(self._base.model.get_output_embeddings().weight.shape[0])
        masks = self._recipe.train.masks(self._base.max_length)
        masker = Masker(self._base.tokenizer, masks, vocab_size=vocabulary)
        samples = masker.tokenize_many(list(self._corpus.records()))
        return {sample.row: sample for sample in samples}


def named_sections(recipe: Recipe) -> dict[str, EvalSection]:
    """The recipe's benchmarks by unique names: a second section of one benchmark is ``humaneval #2``."""
    found: dict[str, EvalSection] = {}
    for section in recipe.eval:
        same = sum(name.split(" #")[0] == section.benchmark for name in found)
        found[section.benchmark if not same else f"{section.benchmark} #{same + 1}"] = section
    return found


def section_problems(section: EvalSection) -> list[Problem]:
    """The tasks of a benchmark; for MBPP the test split, whose tasks no prompt shows.

    Raises:
        CorpusError: the problems cannot be read.
    """
    from donod_fast.evaluation import load_problems
    from donod_fast.evaluation.benchmarks import find_benchmark

    split = "test" if find_benchmark(section.benchmark).split else "all"
    return load_problems(section.benchmark, section.problems, section.limit, split=split)


def open_score_corpus(recipe: Recipe) -> Corpus:
    """Open the corpus to select from.

    Raises:
        InputError: the recipe names no corpus.
        CorpusError: the corpus cannot be read.
    """
    from donod_fast.data.reading import open_corpus

    if not recipe.score.data:
        raise InputError(f"recipe {recipe.name}: score.data is empty; name the corpus to select from")
    return open_corpus(list(recipe.score.data), split=recipe.score.split, revision=recipe.score.data_revision)


__all__ = ["HELD_OUT", "VERDICTS", "MakeParts", "RecipeParts", "named_sections", "open_score_corpus"]
