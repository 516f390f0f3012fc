"""The scorers of one model: plain, compiled, and in float8; each is built on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from donod_fast.benchmark import table
from donod_fast.benchmark.models import random_model
from donod_fast.benchmark.record import short_error
from donod_fast.data.masking import MaskSettings
from donod_fast.errors import DonodError, ModelError
from donod_fast.models.loading import LoadedModel, find_decoder, load_model
from donod_fast.models.precision import refuse_precision, to_float8
from donod_fast.models.shapes import ModelShape
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.wording import plural

Load = Callable[[str], LoadedModel]
"""Loads the model; the argument is a precision of ``donod_fast.models.precision``."""


class Variants:
    """Scorers of one model, by the names of our rows.

    Args:
        name: the model's name in the table.
        load: loads the model.
        masks: mask settings of its scorers.
    """

    def __init__(self, name: str, load: Load, masks: MaskSettings) -> None:
        self.name = name
        self._load, self._masks = load, masks
        self._made: dict[str, Scorer | str] = {}

    @staticmethod
    def of_shape(shape: ModelShape, device: torch.device, dtype: str) -> Variants:
        """Random weights in a known shape; ``dtype`` "auto" is float32 on a CPU, else bfloat16."""
        name = dtype if dtype != "auto" else "float32" if device.type == "cpu" else "bfloat16"

        def load(precision: str) -> LoadedModel:
            refuse_precision(precision, dtype, device)
            loaded = random_model(shape, device=device, dtype=getattr(torch, name))
            if precision == "float8":
                decoder = find_decoder(loaded.name, loaded.model)
                made = to_float8(loaded.name, decoder, loaded.model.get_output_embeddings())
                loaded = replace(loaded, precision=made, quantised=True)
            return loaded

        return Variants(shape.name, load, MaskSettings(format="tokenized", template="plain"))

    @staticmethod
    def of_model(model: str, device: torch.device, dtype: str) -> Variants:
        """A user's own model, by folder or hub id."""

        def load(precision: str) -> LoadedModel:
            return load_model(model, device=device, dtype=dtype, precision=precision)

        return Variants(model.rstrip("/").rpartition("/")[2], load, MaskSettings())

    def get(self, name: str) -> Scorer:
        """The scorer of a row.

        Raises:
            ModelError: it cannot be built; the message gives the reason.
        """
        if name not in self._made:
            try:
                self._made[name] = self._make(name)
            except (DonodError, RuntimeError, MemoryError, AssertionError) as error:
                self._made[name] = short_error(error)
        found = self._made[name]
        if isinstance(found, str):
            raise ModelError(found)
        return found

    def note(self, name: str) -> str:
        """Description of the graphs compiled for a row so far."""
        compiled = getattr(self._made.get(name), "compiled", None)
        if compiled is None:
            return ""
        return f"{plural(compiled.compilations, 'graph')} compiled in {compiled.seconds:.0f} s, untimed"

    def bytes(self, name: str) -> int:
        """Bytes of the weights that a row uses; rows other than ours use the plain model."""
        scorer = self.get(name if name in (table.COMPILED, table.FLOAT8) else table.OURS)
        return sum(stored_bytes(weight) for weight in scorer.loaded.model.parameters())

    def drop(self) -> None:
        """Release the models."""
        self._made.clear()

    def _make(self, name: str) -> Scorer:
        if name == table.OURS:
            return Scorer(self._load("auto"), masks=self._masks)
        plain = self.get(table.OURS)
        scorer = partial(Scorer, masks=self._masks, token_budget=plain.sample_scorer.token_budget, compile=True)
        return scorer(plain.loaded if name == table.COMPILED else self._load("float8"))


def stored_bytes(tensor: Any) -> int:
    """Bytes of a tensor; for a quantised tensor, the bytes of its components."""
    parts = getattr(tensor, "__tensor_flatten__", None)
    if parts is None:
        return int(tensor.numel() * tensor.element_size())
    return sum(stored_bytes(getattr(tensor, part)) for part in parts()[0])
