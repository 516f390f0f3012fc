"""Fast trainings for the tests of evidence studies: a loss is computed from the rows, by a rule that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from donod_fast.data.types import TokenizedSample
from donod_fast.studies.core.finetune import FineTuned, RowLosses, planned_course
from donod_fast.studies.core.settings import FineTuneSettings, LoraTuning

Rule = Callable[[Sequence[TokenizedSample], int], float]
"""The samples that were trained on (each once), and the tokens of the training → the mean loss afterwards."""


@dataclass
class FakeTrainings:
    """Stands in for training and measuring.

    Attributes:
        rule: the loss after a training.
        noise: standard deviation of a training's loss over seeds.
        done: a line for each training: the rows, the seed, and the tokens.
    """

    rule: Rule
    noise: float = 0.002
    done: list[tuple[tuple[int, ...], int, int]] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeTrainings:
        """Replace training and measuring of evidence studies."""
        monkeypatch.setattr("donod_fast.studies.evidence.workshop.fine_tune", self.fine_tune)
        monkeypatch.setattr("donod_fast.studies.evidence.workshop.row_losses", self.row_losses)
        return self

    def fine_tune(
        self,
        loaded: Any,
        samples: Sequence[TokenizedSample],
        settings: FineTuneSettings,
        lora: LoraTuning | None = None,
    ) -> FineTuned:
        course = planned_course(samples, settings)
        tokens = sum(len(sample.input_ids) for sample in course)
        scored = sum(sample.scored_tokens for sample in course)
        rows = tuple(sample.row for sample in samples)
        self.done.append((rows, settings.seed, tokens))
        wobble = Random(f"{rows} {settings.seed} {lora}").gauss(0, self.noise)
        loss = self.rule(samples, tokens) + wobble
        return FineTuned(_Model(loss), len(course), tokens, scored, 1, 0.01, loss)

    def row_losses(
        self, model: Any, tokenizer: Any, records: Sequence[Mapping[str, Any]], masks: Any = None, **_: Any
    ) -> RowLosses:
        loss = model.loss if isinstance(model, _Model) else 2.0
        tokens = [10 + at % 7 for at in range(len(records))]
        shifts = [Random(f"row {at}").gauss(0, 0.3) for at in range(len(records))]
        sums = [count * (loss + shift) for count, shift in zip(tokens, shifts, strict=True)]
        return RowLosses(tuple(sums), tuple(tokens))


@dataclass
class _Model:
    loss: float
