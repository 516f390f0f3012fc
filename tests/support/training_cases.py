"""Records, models and settings for the tests of training."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import VOCAB, tiny_tokenizer

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record
from donod_fast.training import TrainSettings
from donod_fast.training.samples import TrainingRows, prepare_rows


def question_rows(count: int) -> list[dict[str, Any]]:
    """Short questions and answers of differing length."""
    return [
        {"question": f"What is {i} + {i * 7 % 13}?", "answer": f"{i + i * 7 % 13} " * (1 + i % 3)} for i in range(count)
    ]


def prepared(records: list[dict[str, Any]], tokenizer: Any = None, **masks: Any) -> TrainingRows:
    """Records through the masks of scoring."""
    masker = Masker(tokenizer or tiny_tokenizer(), MaskSettings(**masks), vocab_size=VOCAB)
    return prepare_rows([Record(at, "data.jsonl", f"line {at + 1}", data) for at, data in enumerate(records)], masker)


def settings(**given: Any) -> TrainSettings:
    """Quick settings; a rate at which a random model moves."""
    return TrainSettings(**{"model": "unused", "learning_rate": 1e-3, "micro_batch": 8, **given})


def weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of a model's parameters."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
