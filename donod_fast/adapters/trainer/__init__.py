"""Scores inside the training of transformers' ``Trainer`` and TRL's ``SFTTrainer``; see ``docs/guides/trainer.md``."""

from __future__ import annotations

from donod_fast.adapters.trainer.callback import DonodCallback

__all__ = ["DonodCallback"]
