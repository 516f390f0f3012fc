"""The losses of the tokens of rows that were scored without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import StoreError
from donod_fast.scores.loss_files import scored_lengths
from donod_fast.scoring.sample_scorer import Progress, SampleScorer
from donod_fast.system.profiling import NO_STAGES, Stages

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


def added_losses(
    scorer: SampleScorer,
    samples: Sequence[TokenizedSample],
    scores: pa.Table,
    folder: str,
    progress: Progress | None = None,
    stages: Stages = NO_STAGES,
) -> dict[int, npt.NDArray[np.float32]]:
    """The losses of the tokens of a part's scored rows, by row.

    Args:
        scorer: the model and the settings.
        samples: the rows of the part, as they are read now.
        scores: their scores.
        folder: name of the folder, for messages.
        progress: called with rows and tokens as they are done.
        stages: records where the time goes.

    Raises:
        StoreError: a row has another mask now than when it was scored, does not fit in memory, or no process
            survives it now.
    """
    wanted = scored_lengths(scores)
    scored = [sample for sample in samples if sample.row in wanted]
    for sample in scored:
        if sample.status is Status.WORKER_LOST:
            raise StoreError(
                f"{folder}: the losses of row {sample.row}, which was scored, cannot be added: {sample.detail}"
            )
        now = sample.scored_tokens if sample.status is Status.SCORED else 0
        if now != wanted[sample.row]:
            raise StoreError(
                f"{folder}: row {sample.row} has {now} scored tokens now ({sample.status}), and had "
                f"{wanted[sample.row]} when it was scored: tokenizer, template or this package have changed; score it "
                "with --token-losses into another folder, or add --overwrite"
            )
    if progress is not None and len(scored) < len(samples):
        progress(len(samples) - len(scored), 0)
    found: dict[int, npt.NDArray[np.float32]] = {}
    for sample, losses in zip(scored, scorer.token_losses(scored, progress, stages=stages), strict=True):
        if losses is None:
            raise StoreError(
                f"{folder}: row {sample.row} was scored, but its {len(sample.input_ids):,} tokens do not fit in memory "
                "now, even alone, so that their losses cannot be added; use a device with more memory"
            )
        found[sample.row] = losses
    return found


__all__ = ["added_losses"]
