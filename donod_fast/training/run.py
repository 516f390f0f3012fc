"""One resumable training in a folder: it writes a model, a manifest and a loss curve."""

from __future__ import annotations

import hashlib
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from donod_fast.data.masking import Masker
from donod_fast.data.reading import Corpus, corpus_from_rows
from donod_fast.data.templates import resolve_template
from donod_fast.errors import CorpusError, InputError
from donod_fast.models.loading import LoadedModel, quiet
from donod_fast.models.parameter_mask import read_mask
from donod_fast.scores.folder import locked
from donod_fast.system.wording import plural
from donod_fast.training.folder import MODEL, TrainingFolder
from donod_fast.training.loading import load_for_training, merged_from_adapter, model_identity
from donod_fast.training.recipe import TrainSettings
from donod_fast.training.samples import TrainingRows, check_rows, prepare_rows
from donod_fast.training.trainer import Checkpoints, StepReport, TrainStats, is_spread, train_model

# What does not change the trained weights: where the model and the parameter mask lie (their contents count), and how
# often to save.
_NOT_DECISIVE = {"model", "revision", "save_steps", "trust_remote_code", "parameter_mask"}
_PACKAGES = ("donod-fast", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")


@dataclass(frozen=True)
class TrainOutcome:
    """A finished training.

    Attributes:
        folder: the model, with its tokenizer, for transformers (an adapter if merging is off).
        out: the training's folder around it.
        selected: requested rows of the corpus.
        rows: rows trained on, each epoch's counted.
        tokens: their tokens, without padding.
        scored_tokens: their targets, which the loss is over.
        steps: optimizer steps.
        seconds: training time over all runs.
        loss: loss of the last step.
        skipped: rows that could not be trained on, by status.
        first_skipped: why the first of those could not.
        truncated: rows that the length limit cut.
        resumed: the step that this run began at; None if the folder was already finished.
        peak_bytes: peak memory of the accelerator; None on a CPU.
    """

    folder: Path
    out: Path
    selected: int
    rows: int
    tokens: int
    scored_tokens: int
    steps: int
    seconds: float
    loss: float
    skipped: Counter[str]
    first_skipped: str
    truncated: int
    resumed: int | None
    peak_bytes: int | None


def train(
    settings: TrainSettings,
    corpus: Corpus | Sequence[Mapping[str, Any]],
    out: str | Path,
    *,
    rows: Sequence[int] | None = None,
    progress: StepReport | None = None,
) -> TrainOutcome:
    """Fine-tune a model on a corpus, or on some of its rows, into a folder.

    A finished folder is left untouched. An interrupted run resumes from its last checkpoint (``settings.save_steps``)
    and ends with the same weights as an uninterrupted one. Under ``accelerate launch`` every process calls this
    function with the same arguments.

    Args:
        settings: how; ``settings.model`` is loaded, and its tokenizer makes the masks.
        corpus: an opened corpus, or records as dicts.
        out: the folder to write, or to finish.
        rows: positions in the corpus, as a set (the seed decides the order of training); None for all.
        progress: called after each step with step, steps and loss.

    Raises:
        CorpusError: a row that the corpus does not have, or no row that can be trained on.
        InputError: settings that contradict each other, or a missing package.
        ModelError: the model cannot be loaded or trained.
        SettingsMismatchError: the folder holds another training; names each difference.
        StoreError: it cannot be written, or is in use.
    """
    corpus = corpus if isinstance(corpus, Corpus) else corpus_from_rows(corpus)
    folder = TrainingFolder(Path(out))
    chosen = _chosen(corpus, rows)
    manifest = _manifest(settings, corpus, chosen)
    with _processes() as main:
        with locked(folder.path) if main.first else _nothing():
            if main.first:
                folder.begin(manifest)
                if folder.result() is None:
                    folder.drop_unfinished()
                else:
                    folder.drop_checkpoints()
            main.wait()
            done = folder.result()
            if done is not None:
                return _outcome(folder, done, resumed=None)
            done = _trained(settings, corpus, chosen, folder, progress, main)
            main.wait()
        return _outcome(folder, done, resumed=int(done["resumed_steps"]))


def _trained(
    settings: TrainSettings,
    corpus: Corpus,
    chosen: Sequence[int] | None,
    folder: TrainingFolder,
    progress: StepReport | None,
    main: _Processes,
) -> dict[str, Any]:
    """Load, train and save; return the content of ``result.json``."""
    loaded = load_for_training(settings)
    masks = settings.masks(loaded.max_length)
    vocabulary = int(loaded.model.get_output_embeddings().weight.shape[0])
    masker = Masker(loaded.tokenizer, masks, vocab_size=vocabulary)
    samples = prepare_rows(corpus, masker, chosen)
    resume, step, before = folder.newest_checkpoint()
    begin = time.perf_counter()

    def mark(checkpoint: Path) -> None:
        at = int(checkpoint.name.rpartition("-")[2])
        folder.mark(checkpoint, at, before + time.perf_counter() - begin)

    written = folder.path / f"{MODEL}.tmp"
    saver = _Saver(settings, loaded, samples, written, main)
    stats = train_model(
        loaded.model,
        loaded.tokenizer,
        samples,
        settings,
        progress=progress,
        checkpoints=Checkpoints(folder.checkpoints, resume, step, mark),
        on_trained=saver.save_unmerged,
    )
    main.wait()
    result = _result(stats, samples, masker, loaded, before, _chosen_count(corpus, chosen))
    if main.first:
        saver.save_merged()
        folder.finish(written, stats.losses, result)
    return result


class _Saver:
    """Writes the trained model: from the trainer if its parameters are sharded, else from the model itself."""

    def __init__(
        self, settings: TrainSettings, loaded: LoadedModel, samples: TrainingRows, path: Path, main: _Processes
    ) -> None:
        self._settings, self._loaded, self._samples, self._path, self._main = settings, loaded, samples, path, main
        self._adapter = settings.method == "qlora" or (settings.method == "lora" and not settings.lora.merge)
        self._written = False

    def save_unmerged(self, trainer: Any) -> None:
        """While the trainer is there: spread parameters, and adapters that the base in memory cannot take up."""
        if is_spread(trainer):
            self._adapter = self._settings.method != "full"
            trainer.save_model(str(self._path))  # every process takes part
            self._written = True
        elif self._adapter:
            if self._main.first:
                trainer.accelerator.unwrap_model(trainer.model).save_pretrained(self._path)
            self._written = True

    def save_merged(self) -> None:
        """The whole model and its tokenizer."""
        with quiet():
            if not self._written:
                self._loaded.model.save_pretrained(self._path)
            elif self._adapter and self._settings.lora.merge:
                adapter = self._path.with_name("adapter")
                self._path.rename(adapter)
                merged_from_adapter(self._settings, adapter).save_pretrained(self._path)
            tokenizer = self._loaded.tokenizer
            if self._samples.templated and not getattr(tokenizer, "chat_template", None):
                # The saved template must be the one that the model was trained with.
                tokenizer.chat_template = resolve_template(tokenizer, self._settings.template).source_text
            tokenizer.save_pretrained(self._path)


class _Processes:
    """The processes of this training: which one is first, and a barrier."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.first = state is None or bool(state.is_main_process)

    def wait(self) -> None:
        if self._state is not None:
            self._state.wait_for_everyone()


@contextmanager
def _processes() -> Iterator[_Processes]:
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield _Processes(None)
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise InputError("several processes need accelerate: pip install 'donod-fast[train]'") from error
    yield _Processes(PartialState(cpu=not torch.cuda.is_available()))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _chosen(corpus: Corpus, rows: Sequence[int] | None) -> list[int] | None:
    """The rows as a sorted set; None if they are all rows."""
    if rows is None:
        return None
    chosen = sorted({int(row) for row in rows})
    if len(chosen) != len(rows):
        raise CorpusError(f"{plural(len(rows) - len(chosen), 'row')} to train on named twice; name each once")
    check_rows(chosen, corpus.rows)
    return None if len(chosen) == corpus.rows else chosen


def _chosen_count(corpus: Corpus, chosen: Sequence[int] | None) -> int:
    return corpus.rows if chosen is None else len(chosen)


def _manifest(settings: TrainSettings, corpus: Corpus, chosen: Sequence[int] | None) -> dict[str, Any]:
    digest = None if chosen is None else hashlib.sha256(np.asarray(chosen, dtype=np.int64).tobytes()).hexdigest()
    return {
        "kind": "training",
        "settings": {**settings.model_dump(mode="json", exclude=_NOT_DECISIVE), **_mask_digest(settings)},
        "model": {"name": settings.model, "revision": settings.revision, "identity": model_identity(settings)},
        "data": corpus.describe(),
        "selected": {"rows": _chosen_count(corpus, chosen), "sha256": digest},
        "save_steps": settings.save_steps,
        "versions": {"python": platform.python_version(), **dict(_versions())},
    }


def _mask_digest(settings: TrainSettings) -> dict[str, str]:
    """The parameter mask by its content; nothing without one, as in folders from before there were masks."""
    file = settings.parameter_mask
    return {} if file is None else {"parameter_mask_sha256": read_mask(file).digest}


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _result(
    stats: TrainStats, samples: TrainingRows, masker: Masker, loaded: LoadedModel, before: float, selected: int
) -> dict[str, Any]:
    cuda = loaded.device.type == "cuda"
    return {
        "selected": selected,
        "trained_rows": len(samples),
        "trained_rows_sha256": samples.digest(),
        "rows": stats.rows,
        "tokens": stats.tokens,
        "scored_tokens": stats.scored_tokens,
        "tokens_per_epoch": int(samples.lengths.sum()),
        "scored_tokens_per_epoch": int(samples.scored_lengths.sum()),
        "epochs": stats.epochs,
        "steps": stats.steps,
        "seconds": before + stats.seconds,
        "loss": stats.loss,
        "loss_is": "mean over the scored tokens of the global batch",
        "skipped": dict(samples.skipped),
        "first_skipped": samples.first_skipped,
        "truncated": samples.truncated,
        "resumed_steps": stats.resumed_steps,
        "processes": stats.processes,
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "trained_parameters": stats.trainable,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(loaded.device) if cuda else platform.processor() or platform.machine(),
        "peak_bytes": torch.cuda.max_memory_allocated(loaded.device) if cuda else None,
        "masks": masker.describe(),
    }


def _outcome(folder: TrainingFolder, result: Mapping[str, Any], resumed: int | None) -> TrainOutcome:
    return TrainOutcome(
        folder=folder.model,
        out=folder.path,
        selected=result["selected"],
        rows=result["rows"],
        tokens=result["tokens"],
        scored_tokens=result["scored_tokens"],
        steps=result["steps"],
        seconds=result["seconds"],
        loss=result["loss"],
        skipped=Counter(result["skipped"]),
        first_skipped=result["first_skipped"],
        truncated=result["truncated"],
        resumed=resumed,
        peak_bytes=result["peak_bytes"],
    )


__all__ = ["TrainOutcome", "train"]
