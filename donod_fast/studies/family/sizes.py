"""The base models' shapes and trainings; light, so that a name can be checked before torch is there."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError


@dataclass(frozen=True, slots=True)
class Size:
    """A base model's shape and training.

    Attributes:
        hidden, layers, intermediate, heads: Llama's shape.
        texts: how many texts it sees, each once.
        batch: texts a step.
        learning_rate: AdamW's peak; after a warm-up it falls along a cosine to a fiftieth.
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
    """The size of that name.

    Raises:
        InputError: there is none.
    """
    if name not in SIZES:
        raise InputError(f"size {name!r} is not known; known are {', '.join(SIZES)}")
    return SIZES[name]
