"""Time a short probe of scoring, training and measuring on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from donod_fast.criteria.base import Criterion
from donod_fast.data.settings import MaskSettings
from donod_fast.data.types import Status
from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel
from donod_fast.scoring.scorer import Scorer
from donod_fast.studies.core.finetune import fine_tune, row_losses, tokenized
from donod_fast.studies.core.settings import FineTuneSettings
from donod_fast.studies.evidence.plan import Tuning
from donod_fast.studies.which.planning import Speeds

_FEW, _MANY = 2, 8
"""Rows of a short and of a long probe; the difference is what a row costs, and the rest what a start costs."""


def probe(
    loaded: LoadedModel,
    rows: Sequence[Mapping[str, Any]],
    heldout: Sequence[Mapping[str, Any]],
    tuning: Tuning,
    criteria: Sequence[Criterion] = (),
    masks: MaskSettings | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Speeds:
    """Measure how long a row takes to score, to train on, and to measure.

    Args:
        loaded: the model.
        rows: some rows of the data, in random order.
        heldout: some held-out rows, in random order.
        tuning: how the study trains.
        criteria: criteria that scoring computes as well.
        masks: settings of reading and masking rows.
        clock: seconds; another one for tests.

    Raises:
        InputError: no row can be trained on, or no held-out row has a loss.
    """
    samples = tokenized(loaded, rows, masks)
    ready = [at for at, sample in enumerate(samples) if sample.status is Status.SCORED][: _FEW + _MANY]
    if not ready:
        detail = next((sample.detail for sample in samples if sample.detail), "")
        raise InputError(f"none of the first {len(samples)} rows can be trained on{f': {detail}' if detail else ''}")
    scorer = Scorer(loaded, masks=masks, signals=criteria)
    chosen = [rows[at] for at in ready]
    scoring, _ = _line(clock, lambda count: scorer.score_table(list(chosen[:count])), len(ready))
    once = FineTuneSettings(
        epochs=1.0, learning_rate=tuning.training.learning_rate, step_tokens=tuning.training.step_tokens
    )

    def train(count: int) -> None:
        fine_tune(loaded, [samples[at] for at in ready[:count]], once, tuning.adapters)

    training, training_start = _line(clock, train, len(ready))

    def measure(count: int) -> None:
        row_losses(loaded.model, loaded.tokenizer, heldout[:count], masks)

    measuring, measuring_start = _line(clock, measure, len(heldout))
    return Speeds(scoring, training, training_start, measuring, measuring_start)


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Compute in one thread, as each of several processes of a study does."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _line(clock: Callable[[], float], work: Callable[[int], object], most: int) -> tuple[float, float]:
    """Seconds of a row, and of a start, from a short and a long run; neither is negative."""
    few, many = min(_FEW, most), min(_MANY, most)
    work(few)  # the first run imports and allocates
    short = _timed(clock, work, few)
    long = _timed(clock, work, many)
    if many == few:
        return long / many, 0.0
    row = max(0.0, (long - short) / (many - few))
    if row == 0.0:  # too short to tell apart: all of it is counted for the rows, which overestimates
        row = long / many
    return row, max(0.0, long - many * row)


def _timed(clock: Callable[[], float], work: Callable[[int], object], count: int) -> float:
    began = clock()
    work(count)
    return clock() - began


__all__ = ["one_thread", "probe"]
