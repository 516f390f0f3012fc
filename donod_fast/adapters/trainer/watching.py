"""Scores of each batch from the training step itself: its hidden states, before the step changes the weights.

Two hooks see the step: one what goes into the model (tokens and labels), one what comes out of its decoder. The head
mathematics runs on the detached hidden states, so nothing of the step changes, and no second forward pass is needed.
Dropout and autocast are in the hidden states, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from donod_fast.adapters.trainer.trained_rows import BatchRow, TrainedRows, batch_rows
from donod_fast.errors import InputError
from donod_fast.models.head import read_head
from donod_fast.models.live_model import with_adapters
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.sample_scorer import to_host
from donod_fast.scoring.scorer import Scorer

_INPUTS = ("input_ids", "labels", "attention_mask", "position_ids")


class Watcher:
    """Scores of the rows of a trainer's batches while it trains.

    Attributes:
        values: (rows, 6) float64, the columns of ``SCORE_COLUMNS`` of each row of the data set, as of its last step.
        seen: (rows,) whether the row was in a step since :meth:`begin`.

    Args:
        scorer: a live scorer of the model; its proof of the head covers the decoder that is watched.
        rows: the rows of the data set.
    """

    def __init__(self, scorer: Scorer, rows: TrainedRows) -> None:
        self._scorer, self._rows = scorer, rows
        self._batch: dict[str, Callable[[], Tensor]] = {}
        self._waiting: list[tuple[list[int], Callable[[], Tensor]]] = []
        self._handles: list[Any] = []
        self.begin()

    def begin(self) -> None:
        """Forget all scores."""
        self._waiting.clear()
        self.values = np.full((len(self._rows), len(SCORE_COLUMNS)), np.nan)
        self.seen = np.zeros(len(self._rows), bool)

    def attach(self, model: Any) -> None:
        """Watch a model, wrapped by peft or not, until :meth:`detach`."""
        self.detach()
        # A trainer may compile the model: the hooks are no part of what it compiles.
        before, after = map(torch.compiler.disable, (self._before, self._after))
        self._handles = [
            model.register_forward_pre_hook(before, with_kwargs=True),
            self._scorer.trunk.decoder.register_forward_hook(after, with_kwargs=True),
        ]

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def collect(self) -> None:
        """Take over the scores that the device has computed; waits for it."""
        for numbers, values in self._waiting:
            self.values[numbers] = values().double().numpy()
        self._waiting.clear()

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._batch = {}
        if module.training and torch.is_grad_enabled():
            self._batch = _host_copies(kwargs)

    def _after(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        inputs, self._batch = self._batch, {}
        if not (module.training and torch.is_grad_enabled()):
            return
        inputs = inputs or _host_copies(kwargs)  # a model that was compiled as a whole shows the decoder's call only
        hidden = output[0] if isinstance(output, tuple) else output.last_hidden_state
        batch = {name: value() for name, value in inputs.items()}
        if batch.get("input_ids") is None or batch["input_ids"].shape != hidden.shape[:-1]:
            raise InputError(
                "the trainer calls the model without input_ids, or with others than the decoder gets, so the rows of a "
                "batch cannot be named; use DonodCallback(before=True) or every_steps= instead of batches=True"
            )
        self._score(hidden, batch_rows(batch), batch["input_ids"].shape[1])

    def _score(self, hidden: Tensor, rows: list[BatchRow], width: int) -> None:
        numbers: list[int] = []
        slots: list[np.ndarray[Any, Any]] = []
        labels: list[np.ndarray[Any, Any]] = []
        for row in rows:
            if row.labels is not None and not len(row.targets()):
                continue  # padding, or nothing to score
            number = self._number(row)
            trained = row if row.labels is not None else replace(row, labels=self._rows.row(number).labels)
            targets = trained.targets()
            if not len(targets):
                continue
            assert trained.labels is not None
            numbers.append(number)
            slots.append(row.batch_row * width + row.start + targets - 1)  # of the tokens that predict them
            labels.append(trained.labels[targets])
        if not numbers:
            return
        bounds = torch.tensor([0, *accumulate(map(len, slots))], dtype=torch.int32)
        with torch.inference_mode(), torch.autocast(hidden.device.type, enabled=False):
            model = self._scorer.loaded.model
            head = with_adapters(read_head(model), model)
            call = replace(self._scorer.sample_scorer.forward.call, head=head, weight_norm=None)
            chosen = hidden.reshape(-1, hidden.shape[-1])[_on(hidden.device, slots)]
            found = call.scores(
                chosen.to(head.weight.device, head.weight.dtype),
                _on(head.weight.device, labels),
                bounds,
                workspace_bytes=self._scorer.sample_scorer.forward.workspace_bytes,
            )
            scores = torch.stack([getattr(found, name).double() for name in SCORE_COLUMNS], 1)
        self._waiting.append((numbers, to_host(scores)))

    def _number(self, row: BatchRow) -> int:
        """The row's number; of rows that are alike the first that was not seen yet."""
        found = self._rows.find(row)
        number = next((one for one in found if not self.seen[one]), found[0])
        self.seen[number] = True
        return number


def _on(device: torch.device, values: list[np.ndarray[Any, Any]]) -> Tensor:
    """The joined values on a device; the host does not wait for it."""
    joined = torch.from_numpy(np.concatenate(values))
    return joined.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else joined.to(device)


def _host_copies(inputs: Mapping[str, Any]) -> dict[str, Callable[[], Tensor]]:
    """Copies that are under way before the device has the forward pass to do."""
    found = ((name, inputs.get(name)) for name in _INPUTS)
    return {name: to_host(value) for name, value in found if isinstance(value, Tensor) and value.dim() == 2}


__all__ = ["Watcher"]
