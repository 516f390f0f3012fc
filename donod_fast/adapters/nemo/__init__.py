"""Stages of NeMo Curator: :class:`DonodScoreStage`, :class:`DonodTopsisStage` and :class:`DonodFrozenTopsisStage`.

A YAML file reaches them by ``_target_``. The executors of Curator give no order and deliver a batch at least once. So a
row carries an identity (where it was read, or the user's own id), a batch that is scored twice gives the same rows, and
the ranking drops a batch that arrives twice.

Each worker of the host imports this package, those of readers and writers too. PyTorch is imported where it is used.
"""

from __future__ import annotations

from donod_fast.adapters.nemo.frozen_stage import DonodFrozenTopsisStage
from donod_fast.adapters.nemo.score_stage import DonodScoreStage
from donod_fast.adapters.nemo.stage import ROW, SOURCE
from donod_fast.adapters.nemo.topsis_stage import DonodTopsisStage

__all__ = ["ROW", "SOURCE", "DonodFrozenTopsisStage", "DonodScoreStage", "DonodTopsisStage"]
