"""Shapes and trainings of the base models; this module does not import torch, so that names are checked quickly."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError


@dataclass(frozen=True, slots=True)
class Size:
    """A base model's shape and training.

    Attributes:
        hidden, layers, intermediate, heads: Llama's shape.
        texts: number of training texts, each seen once.
        batch: texts per step.
        learning_rate: AdamW's peak learning rate; after a warm-up it decays by a cosine to a fiftieth.
    """

    hidden: int
    layers: int
    intermediate: int
    heads: int
    texts: int
    batch: int
    learning_rate: float


SIZES = {
    "tiny": Size(hidden=128, layers=4, intermediate=384, heads=4, texts=57_600, batch=24, learning_rate=3e-3),
    "medium": Size(hidden=512, layers=8, intermediate=1536, heads=8, texts=192_000, batch=64, learning_rate=6e-4),
}


def size_named(name: str) -> Size:
    """The size of a name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in SIZES:
        raise InputError(f"size {name!r} is not known; known are {', '.join(SIZES)}")
    return SIZES[name]
