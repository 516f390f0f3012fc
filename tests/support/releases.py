"""What the installed releases of transformers and torch can do: the only place where tests ask for a version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import transformers

from donod_fast.models.releases import release

TRANSFORMERS = release(transformers.__version__)
TORCH = release(torch.__version__)

_PACKS_SINCE = {"gptj": (5, 24), "opt": (5, 6), "qwen2_moe": (5,)}
"""Model types whose decoder passes the bounds of samples on to attention since this release of transformers."""

_USUAL_LAST_LAYER_SINCE = {"mixtral": (5,)}
"""Model types whose last layer has the usual parts (``last_layer.py``) since this release."""

needs_transformers_5 = pytest.mark.skipif(TRANSFORMERS < (5,), reason="transformers 4 does not read what 5 wrote")


def packs(model_type: str) -> bool:
    """Whether this release can pack samples of a model type that release 5.24 packs."""
    return _PACKS_SINCE.get(model_type, (0,)) <= TRANSFORMERS


def has_usual_last_layer(kind: str) -> bool:
    """Whether the last layer of a kind of ``tiny_models`` has the parts of most models."""
    return _USUAL_LAST_LAYER_SINCE.get(kind, (0,)) <= TRANSFORMERS


def stacks_experts() -> bool:
    """Whether mixtures of experts have one tensor for all experts, not one nn.Linear each."""
    return TRANSFORMERS >= (5,)


def opens_old_tokenizer_paths() -> bool:
    """Whether a ``tokenizer_file`` of another machine in tokenizer_config.json stops this release."""
    return TRANSFORMERS < (5, 16)


def loses_on_disk(name: str, tied: bool = False) -> bool:
    """Whether this release loses weights under a map of ``test_large_models.py``; then the model is refused.

    Args:
        name: of the map there.
        tied: whether the model's output layer is its embedding.
    """
    if name == "all on disk by size":
        return TRANSFORMERS < (5, 7)
    return TRANSFORMERS < (5,) and (name == "all on disk" or (tied and name == "embedding and head on disk"))


def keeps_long_frequencies() -> bool:
    """Whether dynamic RoPE keeps the frequencies of an earlier, longer sequence (a fault of these releases)."""
    return (5,) <= TRANSFORMERS < (5, 7)


def rope_settings(rope_theta: float, **settings: Any) -> dict[str, Any]:
    """RoPE settings of a config, where this release reads them."""
    if TRANSFORMERS >= (5,):
        return {"rope_parameters": {**settings, "rope_theta": rope_theta}}
    # longrope's trained length is an attribute of the config there, as Phi-3 writes it.
    length = settings.pop("original_max_position_embeddings", None)
    outside = {} if length is None else {"original_max_position_embeddings": length}
    return {"rope_theta": rope_theta, "rope_scaling": settings, **outside}


def skip_shared(items: Iterable[pytest.Item]) -> None:
    """Skip the tests of the trained model of ../shared where its tokenizer, written by transformers 5, is refused."""
    if TRANSFORMERS < (5,):
        for item in items:
            if item.get_closest_marker("shared") is not None:
                item.add_marker(needs_transformers_5)
