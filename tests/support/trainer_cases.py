"""Small trainings with transformers and TRL, and what is seen in their steps."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from tiny_models import tiny_model, tiny_tokenizer
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

from donod_fast.kernels.reference import reference_don_nod

ROWS = 14
TOKENIZER = tiny_tokenizer()
KINDS = ("assistant", "completion", "padding-free", "lora", "smoothed", "trainer", "trainer-smoothed", "trainer-lora")
_OPTIONS: dict[str, dict[str, Any]] = {
    "assistant": {
        "assistant_only_loss": True,
        "bf16": False,
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    "completion": {"bf16": True, "gradient_accumulation_steps": 2},
    "padding-free": {"padding_free": True, "max_length": None},
    "lora": {"bf16": True},
    "smoothed": {"label_smoothing_factor": 0.1},
    "trainer": {"bf16": True, "gradient_accumulation_steps": 2},
    "trainer-smoothed": {"label_smoothing_factor": 0.1},
    "trainer-lora": {"bf16": True},
}


def conversations(rows: int = ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Short conversations; the last one repeats the first."""
    draw = random.Random(seed)
    words = ["red", "sea", "ten", "of", "it"]

    def text(most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(1, most)))

    found = [
        {"messages": [{"role": "user", "content": f"{text(3)}?"}, {"role": "assistant", "content": text(4)}], "at": at}
        for at in range(rows - 1)
    ]
    return [*found, {**found[0], "at": rows - 1}]


def dataset_of(kind: str, rows: int = ROWS) -> datasets.Dataset:
    """The data set of a kind of training, as its user would give it."""
    talks = conversations(rows)
    if kind == "completion":
        return datasets.Dataset.from_list(
            [{"prompt": one["messages"][:1], "completion": one["messages"][1:], "at": one["at"]} for one in talks]
        )
    if kind.startswith("trainer"):
        texts = [TOKENIZER.apply_chat_template(one["messages"], tokenize=False) for one in talks]
        return datasets.Dataset.from_list(
            [{"input_ids": TOKENIZER(text)["input_ids"], "at": at} for at, text in enumerate(texts)]
        )
    return datasets.Dataset.from_list(talks)


def trainer_of(
    kind: str,
    folder: Path,
    callbacks: Iterable[TrainerCallback] = (),
    *,
    model: Any = None,
    rows: int = ROWS,
    data: Any = None,
    **options: Any,
) -> Any:
    """A trainer of a kind of :data:`KINDS`; the same arguments give the same training."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "seed": 3,
        **_OPTIONS[kind],
        **options,
    }
    torch.manual_seed(0)
    model = tiny_model("llama", attention_dropout=0.2) if model is None else model
    common: dict[str, Any] = {
        "model": model,
        "train_dataset": dataset_of(kind, rows) if data is None else data,
        "processing_class": TOKENIZER,
        "callbacks": list(callbacks),
    }
    if kind.startswith("trainer"):
        collator = DataCollatorForLanguageModeling(TOKENIZER, mlm=False)
        if kind == "trainer-lora":  # TRL refuses an adapter of the output layer
            from peft import LoraConfig, get_peft_model

            common["model"] = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
        return Trainer(args=TrainingArguments(**settings), data_collator=collator, **common)
    if kind.startswith("lora"):
        from peft import LoraConfig

        common["peft_config"] = LoraConfig(
            r=2, lora_dropout=0.3, target_modules=["q_proj"], modules_to_save=["lm_head"]
        )
    settings.setdefault("max_length", 96)
    return SFTTrainer(args=SFTConfig(**settings), **common)


@dataclass
class SeenRow:
    """A row of a training step with all that its score depends on.

    Attributes:
        step: optimizer steps before it.
        ids: its token ids without padding.
        labels: its labels, aligned with the ids; the first is -100.
        hidden: (n, d) hidden states of the step that predict the trained tokens.
        weight: (V, d) W at that time.
    """

    step: int
    ids: list[int]
    labels: list[int]
    hidden: torch.Tensor
    weight: torch.Tensor

    def scores(self) -> dict[str, float]:
        """DON and NOD by float64 autograd and a real optimizer step."""
        targets = torch.tensor([label for label in self.labels if label != -100])
        bounds = torch.tensor([0, len(targets)], dtype=torch.int32)
        found = reference_don_nod(self.hidden.double(), self.weight.double(), targets, bounds, lr=2e-5)
        return {name: float(getattr(found, name)) for name in ("don", "nod", "loss")}


@dataclass
class Steps(TrainerCallback):
    """Sees the rows of every training step by hooks of its own: the oracle of what a trainer trains."""

    rows: list[SeenRow] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        batch: dict[str, Any] = {}

        def before(module: Any, _args: Any, inputs: Mapping[str, Any]) -> None:
            batch.clear()
            batch.update(inputs)

        def after(module: Any, _args: Any, output: Any) -> None:
            if module.training and torch.is_grad_enabled():
                weight = _weight(inner.get_output_embeddings())
                self._see(batch, output.last_hidden_state.detach().clone(), weight, state.global_step)

        model.register_forward_pre_hook(before, with_kwargs=True)
        inner.get_decoder().register_forward_hook(after)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.epochs.append(len(self.rows))

    def _see(self, batch: Mapping[str, Any], hidden: torch.Tensor, weight: torch.Tensor, step: int) -> None:
        ids = batch["input_ids"]
        labels = batch.get("labels", ids)  # a trainer that smooths labels takes them out: it trains on all tokens
        if "attention_mask" in batch:
            spans = [(row, 0, int(batch["attention_mask"][row].sum())) for row in range(len(ids))]
        else:
            bounds = batch["cu_seq_lens_q"].tolist()
            spans = [(0, start, stop) for start, stop in pairwise(bounds)]
        for row, start, stop in spans:
            own = [-100, *labels[row, start + 1 : stop].tolist()]
            predicting = [start + at - 1 for at, label in enumerate(own) if label != -100]
            self.rows.append(SeenRow(step, ids[row, start:stop].tolist(), own, hidden[row, predicting], weight))


def _weight(layer: Any) -> torch.Tensor:
    """(V, d) W of the output layer, with the adapters on it."""
    weight: torch.Tensor = layer.weight.detach().double()
    for name in getattr(layer, "lora_A", {}):
        a, b = (part[name].weight.detach().double() for part in (layer.lora_A, layer.lora_B))
        weight = weight + layer.scaling[name] * (a.T @ b.T).T
    return weight.clone()


def generators() -> tuple[Any, ...]:
    """States of all random number generators, comparable."""
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
