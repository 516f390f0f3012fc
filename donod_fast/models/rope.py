"""Rotary positions whose frequencies depend on the longest sequence of a batch.

Two RoPE types of transformers choose their frequencies per batch: ``longrope`` (Phi-3) uses other frequencies for the
whole batch once one sequence exceeds the trained length, and ``dynamic`` (NTK) scales them by the longest sequence. The
score of a short sample would then depend on the other samples of its batch. So only samples that use the same
frequencies share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.models.loading import text_config


@dataclass(frozen=True, slots=True)
class RopeSwitch:
    """Lengths at which the frequencies of a batch change.

    Attributes:
        limit: the trained frequencies are used up to this many tokens.
        by_length: whether the frequencies of longer sequences depend on the length; otherwise they share one set.
    """

    limit: int
    by_length: bool

    def kind(self, length: int) -> int:
        """Kind of a sequence: sequences of one kind have the same frequencies; 0 is within the limit."""
        if length <= self.limit:
            return 0
        return length if self.by_length else self.limit + 1


def rope_switch(config: Any) -> RopeSwitch | None:
    """Switch of a model according to its config; None if the frequencies never change (nearly every model)."""
    config = text_config(config)
    trained = getattr(config, "max_position_embeddings", None)
    limits: set[int] = set()
    by_length = False
    for settings in _settings(config):
        kind = settings.get("rope_type", settings.get("type"))
        if kind == "longrope":
            limit = settings.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", trained
            )
        elif kind == "dynamic":
            limit, by_length = trained, True
        else:
            continue
        if isinstance(limit, int):
            limits.add(limit)
    if not limits:
        return None
    # Layers change at different lengths: only sequences of equal length agree in every layer.
    return RopeSwitch(min(limits), by_length or len(limits) > 1)


def _settings(config: Any) -> Iterator[Mapping[str, Any]]:
    """RoPE settings of a config: one for all layers, or one per layer type."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(config, name, None)
        if isinstance(found, Mapping):
            yield found
            yield from (inner for inner in found.values() if isinstance(inner, Mapping))
