"""Rotary positions whose frequencies depend on the longest sequence of a batch.

Two of transformers' RoPE types look at a batch before they choose: ``longrope`` (Phi-3) takes other frequencies
for the whole batch once one sequence passes the trained length, ``dynamic`` (NTK) stretches them by the longest
one. A short sample would then score otherwise beside a long one. So samples are batched with their kind only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.models.loading import text_config


@dataclass(frozen=True, slots=True)
class RopeSwitch:
    """When a batch's frequencies change.

    Attributes:
        limit: up to this many tokens the trained frequencies hold.
        by_length: beyond it they depend on the length itself; otherwise all longer ones share one set.
    """

    limit: int
    by_length: bool

    def kind(self, length: int) -> int:
        """Sequences of one kind have the same frequencies; 0 is that of all within the limit."""
        if length <= self.limit:
            return 0
        return length if self.by_length else self.limit + 1


def rope_switch(config: Any) -> RopeSwitch | None:
    """What a model's config says; None where the frequencies never change (nearly every model)."""
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
    # Layers that change at different lengths: only equal lengths are sure to agree everywhere.
    return RopeSwitch(min(limits), by_length or len(limits) > 1)


def _settings(config: Any) -> Iterator[Mapping[str, Any]]:
    """The RoPE settings of a config, one for all layers or one a layer type."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(config, name, None)
        if isinstance(found, Mapping):
            yield found
            yield from (inner for inner in found.values() if isinstance(inner, Mapping))
