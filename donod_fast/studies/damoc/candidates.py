"""One candidate: pruned, trained for an epoch on little data and measured; for comparison also fine-tuned unpruned.

Each step is a cell of the run's folder, identified by everything that determines its result. A killed run therefore
resumes where it stopped, and a candidate that is added later causes no other work. A step that fails ends only this
candidate and records the reason; a rerun tries it again. Models stay in their cells until everything is measured.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from donod_fast.errors import InputError, ModelError, SandboxError, StoreError
from donod_fast.models.loading import LoadedModel, load_model, quiet
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.finetune import tokenized
from donod_fast.studies.core.grid import TRAINING
from donod_fast.studies.damoc.preparation import Prepared
from donod_fast.studies.damoc.pruning import choose_layers, decoder_layers, layer_similarity, remove_layers
from donod_fast.studies.damoc.recipe import CandidateSection, DamocRecipe
from donod_fast.studies.damoc.task_vectors import merge_dropped
from donod_fast.studies.threshold.parts import HELD_OUT, MakeParts, RecipeParts
from donod_fast.system.wording import plural, shortened
from donod_fast.training.folder import MODEL
from donod_fast.training.loading import load_for_training, model_identity, training_device, training_dtype
from donod_fast.training.recipe import MASK_FIELDS, Recipe, TrainSettings

_T = TypeVar("_T")
_NOT_DECISIVE = {"model", "revision", "save_steps", "trust_remote_code"}
_PRUNE, _TRAIN, _MEASURE = "prune", "train", "measure"
Measures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Way:
    """A candidate after DaMoC's steps, or after full fine-tuning.

    Attributes:
        failed_at: the step that failed (``load``, ``prune``, ``train``, ``evaluate``), "" if all steps worked.
        reason: reason of the failure.
        measures: results by name (the benchmark's, ``heldout``), each with a ``score``.
        seconds: wall time by step.
        pruning: similarities, layers dropped and merged; None without pruning.
        training: counts of the training.
    """

    failed_at: str = ""
    reason: str = ""
    measures: Measures = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    pruning: Mapping[str, Any] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


class _FailedError(Exception):
    """A step of one candidate failed."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step, self.reason = step, reason


class CandidateRun:
    """The steps of one candidate.

    Args:
        recipe: recipe with absolute paths.
        candidate: the candidate.
        store: the run's cells.
        unsafe: run a benchmark's programs even if no sandbox is available.
        workers: number of programs judged in parallel.
        keep_models: leave pruned and trained models in their cells.
    """

    def __init__(
        self,
        recipe: DamocRecipe,
        candidate: CandidateSection,
        store: CellStore,
        *,
        unsafe: bool = False,
        workers: int | None = None,
        keep_models: bool = False,
    ) -> None:
        self._recipe, self._candidate, self._store, self._keep = recipe, candidate, store, keep_models
        own = recipe.train.model_dump() | {"model": candidate.model, "revision": candidate.revision}
        self._settings = TrainSettings.model_validate(own)
        sections = () if recipe.eval is None else (recipe.eval,)
        inner = Recipe(name=recipe.name, train=self._settings, eval=sections, heldout=recipe.heldout)
        self._parts: RecipeParts = MakeParts(inner, store.root, unsafe, workers)()

    @property
    def measures(self) -> Measures:
        """The measures, the ranking one first; the same for every candidate.

        Raises:
            CorpusError: held-out rows or problems cannot be read.
        """
        return self._parts.measures

    def damoc(self, data: Prepared) -> Way:
        """Prune, train on the prepared data, measure."""
        return self._way(data, self._settings, prunes=self._recipe.prune.method != "none")

    def full(self, data: Prepared) -> Way:
        """Train the unpruned model on all the data and measure it."""
        return self._way(data, self._settings.model_copy(update={"epochs": self._recipe.full_epochs}), prunes=False)

    def _way(self, data: Prepared, settings: TrainSettings, *, prunes: bool) -> Way:
        seconds: dict[str, float] = {}
        pruning: Mapping[str, Any] | None = None
        training: Mapping[str, Any] = {}
        try:
            start = _attempt("load", lambda: self._start(data, prunes))
            key = {"start": start, "data": dict(data.key), "settings": _decisive(settings)}
            wanted = {name: {"training": key, "measure": name, "how": dict(how)} for name, how in self.measures.items()}
            self._forget_what_must_be_redone(key, wanted)
            if prunes:
                pruned = _attempt(
                    "prune", lambda: self._store.result(_PRUNE, start["pruned"], lambda to: self._prune(data, to))
                )
                pruning, seconds["prune"] = pruned.result, pruned.seconds
                if pruned.result["dropped"]:
                    pruned.check_files(MODEL)
                    settings = settings.model_copy(update={"model": str(pruned.folder / MODEL), "revision": None})
            trained = _attempt("train", lambda: self._store.result(_TRAIN, key, lambda to: _train(settings, data, to)))
            # A resumed training took longer than its last run.
            training, seconds["train"] = trained.result, max(trained.seconds, float(trained.result["seconds"]))
            if any(self._store.known(_MEASURE, one) is None for one in wanted.values()):
                trained.check_files(f"{TRAINING}/{MODEL}")
            measured = _attempt("evaluate", lambda: self._measured(wanted, trained.folder / TRAINING / MODEL))
            seconds["evaluate"] = sum(cell.seconds for cell in measured.values())
        except _FailedError as failure:
            return Way(failure.step, failure.reason, {}, seconds, pruning, training)
        finally:
            if torch.cuda.is_available():  # the next candidate needs the memory
                gc.collect()
                torch.cuda.empty_cache()
        if not self._keep:
            shutil.rmtree(trained.folder / TRAINING, ignore_errors=True)
            if prunes:
                shutil.rmtree(pruned.folder / MODEL, ignore_errors=True)
        results = {name: cell.result for name, cell in measured.items()}
        return Way("", "", results, seconds, pruning, training)

    def _start(self, data: Prepared, prunes: bool) -> dict[str, Any]:
        """What identifies the start of training in a cell's settings."""
        start: dict[str, Any] = {"model": model_identity(self._settings), "pruned": None}
        if prunes:
            base = None
            if self._candidate.base is not None:
                update = {"model": self._candidate.base, "revision": self._candidate.base_revision}
                base = model_identity(self._settings.model_copy(update=update))
            start["pruned"] = {
                "model": start["model"],
                "base": base,
                "how": self._recipe.prune.model_dump(mode="json"),
                "data": dict(data.key),
                "masks": self._settings.model_dump(mode="json", include={*MASK_FIELDS, "dtype"}),
            }
        return start

    def _forget_what_must_be_redone(self, key: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Delete cells whose model is missing but needed.

        A new measure needs the trained model, and training needs the pruned model.
        """
        store, pruned = self._store, key["start"]["pruned"]
        missing = any(store.known(_MEASURE, one) is None for one in wanted.values())
        if missing and not (store.folder(_TRAIN, key) / TRAINING / MODEL).exists():
            store.forget(_TRAIN, key)
        if pruned is not None and store.known(_TRAIN, key) is None:
            known = store.known(_PRUNE, pruned)
            if known is not None and known.result["dropped"] and not (known.folder / MODEL).exists():
                store.forget(_PRUNE, pruned)

    def _prune(self, data: Prepared, folder: Path) -> dict[str, Any]:
        how = self._recipe.prune
        loaded = load_for_training(self._settings)
        samples = tokenized(loaded, data.records(how.rows), self._settings.masks(loaded.max_length))
        similarity = layer_similarity(loaded, samples)
        dropped = choose_layers(similarity, how.threshold, how.max_share)
        found: dict[str, Any] = {
            "layers": len(similarity),
            "similarity": list(similarity),
            "dropped": dropped,
            "merged": {},
            "not_merged": "",
            "parameters": [_parameters(loaded)] * 2,
        }
        if not dropped:
            return found
        if self._candidate.base is None:
            found["not_merged"] = "the recipe names no base: without the pre-trained weights there is no task vector"
        else:
            layers, base = list(decoder_layers(loaded)), self._base_layers(loaded, len(similarity), dropped)
            into = merge_dropped(layers, base, dropped, density=how.density, scale=how.scale)
            found["merged"] = {str(at): target for at, target in into.items()}
            alone = [at for at in dropped if at not in into]
            found["not_merged"] = f"no kept layer has the shapes of layers {alone}" if alone else ""
        remove_layers(loaded, dropped)
        found["parameters"][1] = _parameters(loaded)
        written = folder / f"{MODEL}.tmp"
        shutil.rmtree(written, ignore_errors=True)
        with quiet():
            loaded.model.save_pretrained(written)
            loaded.tokenizer.save_pretrained(written)
        written.rename(folder / MODEL)
        return found

    def _base_layers(self, tuned: LoadedModel, count: int, wanted: Sequence[int]) -> dict[int, Any]:
        """Some pre-trained layers by number, in the CPU's memory.

        Raises:
            ModelError: they cannot be loaded, or their number differs.
        """
        candidate = self._candidate
        base = load_model(
            str(candidate.base),
            revision=candidate.base_revision,
            dtype=str(tuned.dtype).removeprefix("torch."),
            device="cpu",
            trust_remote_code=self._settings.trust_remote_code,
        )
        layers = decoder_layers(base)
        if len(layers) != count:
            raise ModelError(
                f"{candidate.base} has {len(layers)} layers and {candidate.model} {count}: it is not its base model; "
                "name the right base, or none"
            )
        return {at: layers[at] for at in wanted}

    def _measured(self, wanted: Mapping[str, Mapping[str, Any]], model: Path) -> dict[str, Cell]:
        def work(name: str) -> Callable[[Path], Mapping[str, Any]]:
            return lambda _: self._measure(name, model)

        return {name: self._store.result(_MEASURE, one, work(name)) for name, one in wanted.items()}

    def _measure(self, name: str, model: Path) -> dict[str, Any]:
        """A measure's result with its ``score``: nats per held-out row, or pass@k."""
        if name == HELD_OUT:
            return _held_out(self._settings, model, self._recipe.heldout)
        from donod_fast.evaluation.passk import mean_pass_at_k

        assert self._recipe.eval is not None
        found = dict(self._parts.measure(name, model))
        counts = [(samples, passed) for passed, samples in found["tasks"].values()]
        k = self._recipe.eval.pass_at[0]
        return {**found, "k": k, "score": mean_pass_at_k(counts, k)}


def _held_out(settings: TrainSettings, model: Path, files: tuple[str, ...]) -> dict[str, Any]:
    """Held-out loss, and that loss per row.

    A loss per token cannot be compared between models with different tokenizers, which split the same text into
    different numbers of tokens. The loss per row can, since the texts are the same; so it is the score.
    """
    from donod_fast.data.masking import Masker
    from donod_fast.data.reading import open_corpus
    from donod_fast.studies.core.heldout import heldout_loss

    device = training_device()
    loaded = load_model(
        model,
        dtype=training_dtype(settings, device),
        device=device,
        trust_remote_code=settings.trust_remote_code,
    )
    masks = settings.masks(loaded.max_length)
    found = heldout_loss(loaded, list(files), masks=masks)
    masker = Masker(loaded.tokenizer, masks, vocab_size=int(loaded.model.get_output_embeddings().weight.shape[0]))
    cut = sum(sample.truncated for sample in masker.tokenize_many(list(open_corpus(list(files)).records())))
    return {**found._asdict(), "truncated": cut, "score": found.loss * found.tokens / found.rows}


def _train(settings: TrainSettings, data: Prepared, folder: Path) -> dict[str, Any]:
    """A training and its counts.

    Raises:
        InputError: it was a single step of a warm-up, which trains nothing.
    """
    from donod_fast.training.run import train

    done = train(settings, data.corpus, folder / TRAINING, rows=data.rows)
    if done.steps == 1 and settings.warmup_ratio:
        raise InputError(
            f"its training of {plural(done.rows, 'row')} is one optimizer step, whose learning rate is 0 "
            "(warm-up): nothing is "
            "learned; lower train.global_batch, give more rows, or set train.warmup_ratio to 0"
        )
    return {
        "rows": done.rows,
        "tokens": done.tokens,
        "scored_tokens": done.scored_tokens,
        "steps": done.steps,
        "seconds": done.seconds,
        "loss": done.loss,
        "skipped": dict(done.skipped),
        "truncated": done.truncated,
    }


def _attempt(step: str, work: Callable[[], _T]) -> _T:
    """Run a step of one candidate. Errors of the folder or the sandbox affect all candidates and are raised."""
    try:
        return work()
    except (StoreError, SandboxError):
        raise
    except Exception as error:  # transformers, TRL and a model's own code raise many kinds of errors
        raise _FailedError(step, shortened(error, 400) or type(error).__name__) from error


def _decisive(settings: TrainSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude=_NOT_DECISIVE)


def _parameters(loaded: LoadedModel) -> int:
    return sum(parameter.numel() for parameter in loaded.model.parameters())


__all__ = ["CandidateRun", "Measures", "Way"]
