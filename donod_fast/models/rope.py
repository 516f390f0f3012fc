"""Rotary positions whose frequencies depend on the longest sequence of a batch.

Two RoPE types of transformers choose their frequencies per batch: ``longrope`` (Phi-3) uses other frequencies for the
whole batch once one sequence exceeds the trained length, and ``dynamic`` (NTK) scales them by the longest sequence. The
score of a short sample would then depend on the other samples of its batch. So only samples that use the same
frequencies share a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from donod_fast.models.loading import text_config
from donod_fast.models.releases import installed_transformers


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


def wrong_frequencies(decoder: nn.Module, switch: RopeSwitch) -> str:
    """Why the frequencies of a model do not change where its switch says, measured on copies of its RoPE modules.

    transformers 5.0 to 5.6 keep the frequencies of the longest sequence so far under ``dynamic``, and transformers 4
    reads the trained length of ``longrope`` in one of its two places. A sample's score would depend on other samples.

    Args:
        decoder: the module that runs. Modules that are not RoPE modules of transformers are not looked at.
        switch: its lengths by the config.

    Returns:
        The reason, with release and remedy; "" if they change as they should.
    """
    measured = [_Frequencies.of(copy.deepcopy(module), kind, switch) for module, kind in _rope_modules(decoder)]
    known = [one for one in measured if one is not None]
    who = f"transformers {installed_transformers()}"
    remedy = "so that a score would depend on other samples; pip install 'transformers>=5.7'"
    if any(one.kept for one in known):
        return f"{who} keeps the RoPE frequencies of an earlier, longer sequence, {remedy}"
    if known and (any(one.early or one.late for one in known) or not any(one.changed for one in known)):
        return f"its RoPE frequencies do not change after {switch.limit} tokens, as its config says, in {who}, {remedy}"
    return ""


@dataclass(frozen=True, slots=True)
class _Frequencies:
    """How the frequencies of one RoPE module differ between sequences of several lengths.

    Attributes:
        changed: between the limit and twice the limit.
        early: between two lengths within the limit.
        late: between two lengths beyond the limit, though the config has one set of frequencies for them.
        kept: between two runs within the limit, with a longer sequence in between.
    """

    changed: bool
    early: bool
    late: bool
    kept: bool

    @staticmethod
    def of(module: nn.Module, kind: str | None, switch: RopeSwitch) -> _Frequencies | None:
        """Measure; ``kind`` is the layer type, None if the module has one for all. None if it cannot be called."""
        more = {} if kind is None else {"layer_type": kind}
        buffer = next(iter(module.buffers()))

        def at(length: int) -> Tensor:
            places = torch.tensor([[1, length - 1]], device=buffer.device)
            fake = torch.zeros((1, 2, 1), dtype=torch.float32, device=buffer.device)
            return torch.stack([table[0, 0] for table in module(fake, places, **more)])  # cos and sin at position 1

        try:
            with torch.inference_mode():
                lengths = (2, switch.limit, switch.limit + 1, 2 * switch.limit, 2, switch.limit)
                short, limit, over, far, _, again = [at(length).clone() for length in lengths]
        except Exception:  # a module with another interface
            return None
        return _Frequencies(
            changed=not torch.equal(limit, far),
            early=not torch.equal(short, limit),
            late=not switch.by_length and not torch.equal(over, far),
            kept=not torch.equal(limit, again),
        )


def _rope_modules(decoder: nn.Module) -> Iterator[tuple[nn.Module, str | None]]:
    """RoPE modules of transformers that have their values, each with its layer types (None for all layers)."""
    for module in decoder.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if hasattr(module, "rope_type") and buffers and all(one.device.type != "meta" for one in buffers.values()):
            for kind in getattr(module, "layer_types", None) or (None,):
                yield module, kind
