"""A setting's line in the studies of sensitivity and ablation: overlap, damage, separation and held-out loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.studies.core.finetune import RowLosses
from donod_fast.studies.core.statistics import Estimate, overlap
from donod_fast.studies.sensitivity.measures import Measured, Measures, Trained
from donod_fast.studies.sensitivity.settings import ALL, RANDOM, Setting

SAME = 0.95
"""Minimum overlap of two selections that count as practically the same."""


@dataclass(frozen=True)
class Outcome:
    """Result of a setting at one kept share.

    Attributes:
        setting: scoring and ranking.
        keep: share of the scored rows; 1 for ``all``.
        rows: rows kept.
        overlap: share of them that the reference also keeps; NaN for ``all`` (by chance it is ``keep``).
        damaged: share of them that is damaged, mean over draws.
        row_tokens: mean tokens of a kept row.
        separation: by score (``ranking``, ``don``, ``nod``) and kind of damage, see ``Measures.separation``;
            empty for selections that use no score.
        seeds: number of trainings.
        tokens, steps: tokens and steps of a training, mean over seeds.
        loss: held-out loss, mean over seeds, with its standard error over held-out rows.
        against_random: ``loss`` minus that of random draws of as many rows. The standard error combines the one over
            the same held-out rows and the one over trainings, see :func:`training_noise`.
    """

    setting: Setting
    keep: float
    rows: int
    overlap: float
    damaged: float
    row_tokens: float
    separation: Mapping[str, Mapping[str, Estimate]]
    seeds: int
    tokens: float
    steps: float
    loss: Measured | None
    against_random: Measured | None

    def ranking_auc(self, kind: str) -> Estimate | None:
        """Separation of one kind by the ranking itself."""
        return self.separation.get("ranking", {}).get(kind)

    def as_row(self) -> dict[str, Any]:
        """Plain values, for a CSV file."""
        update = self.setting.scoring.update
        row: dict[str, Any] = {
            "axis": self.setting.axis,
            "setting": self.setting.name,
            "method": self.setting.method,
            "optimizer": update.update if self.setting.ranked else "",
            "keep": self.keep,
            "rows": self.rows,
            "overlap": self.overlap,
            "damaged_share": self.damaged,
            "tokens_a_row": self.row_tokens,
            "trainings": self.seeds,
            "tokens_trained": self.tokens,
            "steps": self.steps,
        }
        for name, number in (("heldout_loss", self.loss), ("against_random", self.against_random)):
            row[name] = "" if number is None else number.value
            row[f"{name}_error"] = "" if number is None or not math.isfinite(number.error) else number.error
        return row

    def separation_rows(self) -> list[dict[str, Any]]:
        """Plain values, one row for each score and kind."""
        return [
            {
                "axis": self.setting.axis,
                "setting": self.setting.name,
                "score": score,
                "damage": kind,
                "auc": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
            for score, by_kind in self.separation.items()
            for kind, estimate in by_kind.items()
        ]


def outcomes(
    measures: Measures, settings: Sequence[Setting], keep: float, *, reference: Setting, seeds: Mapping[Setting, int]
) -> list[Outcome]:
    """Select by every setting, train each selection with the requested number of seeds, and compare.

    Args:
        measures: scores, selections and trainings of the corpus.
        settings: the settings, in the order of the lines.
        keep: share of the scored rows to keep.
        reference: setting with which ``overlap`` is computed.
        seeds: trainings of a setting; 0 for none. Every seed makes new random draws.

    Raises:
        InputError, ModelError, StoreError: as their names say.
    """
    trained: dict[Setting, list[Trained]] = {setting: [] for setting in settings}
    for seed in range(max(seeds.values(), default=0)):  # every setting once before any twice
        for setting in settings:
            if seed < seeds[setting]:
                trained[setting].append(measures.train(measures.select(setting, keep, seed), seed))
    chance_runs = [run for setting in settings if setting.method == RANDOM for run in trained[setting]]
    chance = [run.losses for run in chance_runs]
    known = measures.select(reference, keep)
    same = [
        trained[setting][0].losses.loss
        for setting in settings
        if trained[setting] and setting.ranked and overlap(known, measures.select(setting, keep)) >= SAME
    ]
    noise = training_noise(same, [draw.loss for draw in chance])
    return [_outcome(measures, setting, keep, reference, trained[setting], chance, noise) for setting in settings]


def training_noise(same: Sequence[float], draws: Sequence[float]) -> float:
    """Standard deviation of a held-out loss over trainings that should give nearly the same result.

    Args:
        same: losses of selections with almost the same rows; equal losses come from one training.
        draws: losses of random draws.

    Returns:
        The larger of the two standard deviations; 0 if neither has two trainings, so that it is unknown.
    """
    groups = (sorted(set(same)), draws)
    return max((statistics.stdev(group) for group in groups if len(group) > 1), default=0.0)


def _outcome(
    measures: Measures,
    setting: Setting,
    keep: float,
    reference: Setting,
    trained: Sequence[Trained],
    chance: Sequence[RowLosses],
    noise: float,
) -> Outcome:
    draws = [measures.select(setting, keep, seed) for seed in range(len(trained) or 1 if setting.seeded else 1)]
    known = measures.select(reference, keep)
    columns = measures.columns(setting.scoring)
    lengths = [measures.samples[row].tokens for rows in draws for row in rows]
    return Outcome(
        setting=setting,
        keep=1.0 if setting.method == ALL else keep,
        rows=len(draws[0]),
        overlap=math.nan if setting.method == ALL else statistics.fmean(overlap(known, rows) for rows in draws),
        damaged=statistics.fmean(measures.corpus.damaged_share(rows) for rows in draws),
        row_tokens=statistics.fmean(lengths),
        separation=measures.separation(columns, setting) if setting.ranked else {},
        seeds=len(trained),
        tokens=_mean([run.tokens for run in trained]),
        steps=_mean([run.steps for run in trained]),
        loss=_loss([run.losses for run in trained]),
        against_random=None
        if setting.method == RANDOM
        else _difference([run.losses for run in trained], chance, noise),
    )


def _loss(losses: Sequence[RowLosses]) -> Measured | None:
    if not losses:
        return None
    mean = RowLosses.mean(losses)
    return Measured(mean.loss, mean.error)


def _difference(losses: Sequence[RowLosses], chance: Sequence[RowLosses], noise: float) -> Measured | None:
    if not losses or not chance:
        return None
    value, error = RowLosses.mean(losses).less(RowLosses.mean(chance))
    return Measured(value, math.hypot(error, noise * math.sqrt(1 / len(losses) + 1 / len(chance))))


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


__all__ = ["SAME", "Outcome", "outcomes", "training_noise"]
