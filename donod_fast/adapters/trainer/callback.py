"""``DonodCallback``: scores the rows that a trainer trains, before training, every n steps, or in every batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from donod_fast.adapters.trainer.kept_rows import keep_rows_of
from donod_fast.adapters.trainer.trained_rows import TrainedRows
from donod_fast.adapters.trainer.watching import Watcher
from donod_fast.adapters.trainer.writing import ROWS, watched_folder
from donod_fast.data.masking import MaskSettings
from donod_fast.data.reading import Corpus, open_corpus
from donod_fast.data.shards import default_part_rows
from donod_fast.engines.local import manifest_of, score_corpus
from donod_fast.errors import InputError
from donod_fast.kernels import DEFAULT_WORKSPACE, topsis
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import WARM, UpdateSettings
from donod_fast.selection.frozen_constants import topsis_constants
from donod_fast.selection.keeping import kept_count
from donod_fast.system.locking import locked

_log = logging.getLogger(__name__)

_DON, _NOD = (SCORE_COLUMNS.index(name) for name in ("don", "nod"))


class DonodCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Scores a trainer's own rows: the token ids and labels that its collator makes of its data set.

    The scores are folders that ``donod-fast status``, ``show`` and ``select`` read: ``OUT/before``, ``OUT/step-…`` and
    ``OUT/epoch-…``. Beside each are its constants of TOPSIS, ``….topsis.json``. Their rows are the rows of
    the trainer's data set, in its order, which are written to ``OUT/rows.parquet``. Without ``keep`` the callback only
    watches: the trained weights are bit for bit the same (but for ``batches`` in a model that the trainer compiles,
    where the hooks divide what is compiled).

    Args:
        out: folder of the results.
        before: score all rows with the weights that training begins with.
        every_steps: score all rows again after each so many optimizer steps.
        batches: score the rows of every batch while it trains, from the hidden states of the training step, at the
            cost of the head mathematics only. A folder for each epoch holds each row's scores of its last step. Dropout
            and autocast are in these hidden states, and each row is scored with the weights of its own step.
        keep: share of the scored rows to train on, above 0 and below 1: after each folder is complete, the best by
            TOPSIS; from the next epoch on. Rows without a score stay.
        dataset: the trainer's data set (``trainer.train_dataset``), whose other columns are then written along with the
            tokens; the trainer does not hand them to a callback.
        tokenizer: the tokenizer; the trainer's ``processing_class`` by default.
        update: the update that scores a row.
        backend: which kernels serve the head.
        token_budget: slots of a batch for ``before`` and ``every_steps``; by default found from free memory.
        workspace_bytes: memory limit of the head mathematics.

    Attributes:
        folders: the complete folders, in the order of their making.

    Raises:
        InputError: an argument has a wrong value; when training begins: the rows of the trainer cannot be named, or it
            runs in several processes.
        ModelError: when training begins: the model cannot be scored.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        before: bool = True,
        every_steps: int | None = None,
        batches: bool = False,
        keep: float | None = None,
        dataset: Any = None,
        tokenizer: Any = None,
        update: UpdateSettings | None = None,
        backend: str = "auto",
        token_budget: int | None = None,
        workspace_bytes: int = DEFAULT_WORKSPACE,
    ) -> None:
        if every_steps is not None and every_steps < 1:
            raise InputError(f"every_steps must be at least 1, got {every_steps}")
        if keep is not None and not 0.0 < keep < 1.0:
            raise InputError(f"keep must be above 0 and below 1, got {keep}")
        if not (before or batches or every_steps):
            raise InputError("nothing to score: give before=True, every_steps= or batches=True")
        if update is not None and update.update == WARM:
            raise InputError(f"update {WARM} needs a state from a corpus, which training changes; use adamw")
        self.out = Path(out)
        self.before, self.every_steps, self.batches, self.keep = before, every_steps, batches, keep
        self.folders: list[Path] = []
        self._dataset, self._tokenizer = dataset, tokenizer
        self._options: dict[str, Any] = {
            "update": update,
            "backend": backend,
            "token_budget": token_budget,
            "workspace_bytes": workspace_bytes,
        }
        self._forget()

    def _forget(self) -> None:
        """Drop what holds the model."""
        self._scorer: Scorer | None = None
        self._watcher: Watcher | None = None
        self._loader: Any = None
        self._manifest: dict[str, Any] = {}
        self._epoch = 0
        self._known: np.ndarray[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The arguments and the folders; no model, data set or hook is pickled with a trainer."""
        kept = {**vars(self), "_scorer": None, "_watcher": None, "_loader": None, "_dataset": None, "_tokenizer": None}
        return {**kept, "_manifest": {}, "_known": None}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the rows, prove the head, and score before the first step."""
        self.detach()
        self._forget()
        self.folders = []
        resumed = state.global_step > 0
        self._refuse(args, resumed)
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        tokenizer = self._tokenizer or kwargs.get("processing_class")
        if tokenizer is None:
            raise InputError("the trainer has no tokenizer: give it processing_class=, or DonodCallback tokenizer=")
        self._loader, self._epoch = loader, int(state.epoch or 0) - 1
        scorer = Scorer(
            model,
            getattr(tokenizer, "tokenizer", tokenizer),  # of a processor
            masks=MaskSettings(format="tokenized"),
            live=True,
            **self._options,
        )
        self._scorer = scorer
        with scorer.neutral():  # a data set or a collator may draw random numbers
            rows = TrainedRows(loader.dataset, loader.collate_fn)
            rows.write(self.out / ROWS, self._dataset)
        limit = scorer.masks.max_length
        if limit is not None and rows.longest > limit:
            raise InputError(
                f"a row of the trainer has {rows.longest} tokens, and the model has {limit} positions; "
                f"give the trainer max_length={limit}"
            )
        if self.before and not resumed:
            self._score_all("before")
        if self.batches:
            self._watcher = Watcher(scorer, rows)
            self._watcher.attach(model)
        if self.keep is not None:
            self._drop(args)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the scores of an epoch."""
        self._epoch += 1
        if self._watcher is not None and self._scorer is not None:
            self._watcher.begin()
            with self._scorer.neutral():
                self._manifest = self._new_manifest(self._corpus())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the scores of a step; every n steps score all rows."""
        if self._watcher is not None:
            self._watcher.collect()
        if self.every_steps and state.global_step % self.every_steps == 0:
            self._score_all(f"step-{state.global_step:06d}")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the scores of an epoch, and drop rows for the next one."""
        watcher, scorer = self._watcher, self._scorer
        if watcher is not None and scorer is not None:
            watcher.collect()
            with self._at(f"epoch-{self._epoch:03d}") as folder, scorer.neutral():
                watched_folder(folder, self._corpus(), self._manifest, scorer.masker, watcher.values, watcher.seen)
        if self.keep is not None:
            self._drop(args)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let go of the model."""
        self.detach()
        self._forget()

    def detach(self) -> None:
        """Take the hooks off the model, after a training that was interrupted. The end of a training does it too."""
        if self._watcher is not None:
            self._watcher.detach()

    def _refuse(self, args: Any, resumed: bool) -> None:
        processes = max(getattr(args, "world_size", 1), getattr(args, "n_gpu", 1))
        if processes > 1:
            raise InputError(
                f"DonodCallback works in training on one device, and this one has {processes}; score the rows with "
                "`donod-fast score` on all devices instead"
            )
        if getattr(args, "packing", False):
            raise InputError(
                "the trainer packs several rows into one (packing=True), so a row of it is no row of your data; set "
                "packing=False (padding_free=True, max_length=None also trains without padding)"
            )
        if resumed and self.keep is not None:
            raise InputError(
                "keep= drops rows by the scores of this run, and training resumes from a checkpoint: the trainer would "
                "skip other rows than were trained; train from the beginning, or select rows before training"
            )

    def _corpus(self) -> Corpus:
        return open_corpus([str(self.out / ROWS)])

    def _new_manifest(self, corpus: Corpus) -> dict[str, Any]:
        assert self._scorer is not None
        return manifest_of(corpus, self._scorer, default_part_rows(corpus.rows))

    @contextmanager
    def _at(self, name: str) -> Iterator[Path]:
        """The folder of some scores, which is known as complete after the block."""
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield folder
        with suppress(InputError):  # no row has a score
            topsis_constants(folder).save(self.out / f"{name}.topsis.json")
        self.folders.append(folder)
        _log.info("scores of the trainer's rows: %s", folder)

    def _score_all(self, name: str) -> None:
        assert self._scorer is not None
        corpus = self._corpus()
        with self._at(name) as folder:
            score_corpus(
                corpus, self._scorer, folder, part_rows=default_part_rows(corpus.rows), overwrite=True, workers=0
            )

    def _drop(self, args: Any) -> None:
        """Train on the best rows of the latest scores from the next epoch on."""
        if not self.folders or self.keep is None:
            return
        scores = _columns(self.folders[-1])
        known = scores if self._known is None else self._known
        new = ~np.isnan(scores[:, _DON])
        known[new] = scores[new]
        self._known = known
        if getattr(args, "max_steps", 0) > 0:
            _log.warning("with keep= the epochs are shorter: training may end before max_steps=%d", args.max_steps)
        sampler = keep_rows_of(self._loader, len(known), args.gradient_accumulation_steps)
        sampler.kept = kept_rows(known, self.keep)
        if not len(sampler):
            left = int(sampler.kept.sum())
            raise InputError(f"keep={self.keep} leaves {left} rows, fewer than an optimizer step has")
        _log.info("%d of %d rows are trained from the next epoch on", int(sampler.kept.sum()), len(known))


def kept_rows(scores: np.ndarray[Any, Any], share: float) -> np.ndarray[Any, Any]:
    """Which rows are kept, (rows,) bool: the best of the scored ones by TOPSIS, and all that have no score.

    Args:
        scores: (rows, 6) in the order of ``SCORE_COLUMNS``, NaN without a score.
        share: share of the scored rows.
    """
    scored = np.flatnonzero(~np.isnan(scores[:, _DON]))
    kept = np.ones(len(scores), bool)
    if len(scored):
        don, nod = (torch.from_numpy(scores[scored, at].copy()) for at in (_DON, _NOD))
        best_first = torch.argsort(topsis(don, nod), descending=True, stable=True).numpy()
        kept[scored[best_first[kept_count(share, len(scored)) :]]] = False
    return kept


def _columns(place: Path) -> np.ndarray[Any, Any]:
    """(rows, 6) scores of a complete folder."""
    folder = ScoresFolder.open(place)
    found = np.full((folder.rows, len(SCORE_COLUMNS)), np.nan)
    for part in range(folder.parts):
        table = folder.read_part(part)
        assert table is not None, "it was written just now"
        start, stop = folder.part_range(part)
        found[start:stop] = np.stack([table.column(name).to_numpy() for name in SCORE_COLUMNS], 1)
    return found


__all__ = ["DonodCallback"]
