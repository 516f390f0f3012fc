"""Near vectors against an oracle that compares all pairs, for any blocks and any order of the parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from donod_fast.selection.dedupe import near_vectors as module
from donod_fast.selection.dedupe.near_vectors import near_vectors


def made(count: int, size: int, seed: int) -> Any:
    """Vectors of any length around a few directions; exact copies and zeros among them."""
    draw = np.random.default_rng(seed)
    found = draw.normal(size=(count // 4, size))[draw.integers(0, count // 4, count)]
    found = (found + draw.normal(size=(count, size)) * 0.2) * draw.uniform(0.1, 9, (count, 1))
    found[draw.integers(0, count, 9)] = found[draw.integers(0, count, 9)]
    found[draw.integers(0, count, 4)] = 0
    return found.astype(np.float32)


def literal(vectors: Any, threshold: float) -> dict[int, int]:
    unit = [v / np.sqrt((v * v).sum()) if v.any() else None for v in vectors.astype(np.float64)]
    kept: list[int] = []
    dropped = {}
    for place, vector in enumerate(unit):
        if vector is None:
            continue
        near = next((other for other in kept if float(vector @ unit[other]) >= threshold), None)
        if near is None:
            kept.append(place)
        else:
            dropped[place] = near
    return dropped


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("block", [3, 64, 1024])
def test_dropped_vectors_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch, threshold: float, block: int) -> None:
    monkeypatch.setattr(module, "_FEWEST", 1)
    monkeypatch.setattr(module, "_BLOCK", block)
    for seed in range(3):
        vectors = made(160, 5, seed)
        draw = np.random.default_rng(seed)
        parts = np.split(draw.permutation(160), [10, 90])
        near = near_vectors(((part, vectors[part]) for part in parts), 160, threshold)
        assert dict(zip(near.dropped.tolist(), near.kept.tolist(), strict=True)) == literal(vectors, threshold)
        assert near.empty == int((~vectors.any(1)).sum())


def test_rounding_at_the_threshold_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs whose cosine is the threshold to the last bits of float32: only float64 can decide."""
    draw = np.random.default_rng(0)
    first = draw.normal(size=(1, 384))
    other = draw.normal(size=(200, 384))
    other -= (other @ first.T) / (first @ first.T) * first
    first, other = first / np.linalg.norm(first), other / np.linalg.norm(other, axis=1)[:, None]
    near = np.r_[first, 0.9 * first + np.sqrt(1 - 0.81) * other].astype(np.float32)
    found = []
    for block in (1, 7, 50, 1024):
        monkeypatch.setattr(module, "_FEWEST", 1)
        monkeypatch.setattr(module, "_BLOCK", block)
        result = near_vectors([(np.arange(201), near)], 201, 0.9)
        found.append((result.dropped.tolist(), result.similarity.tolist()))
    assert all(one == found[0] for one in found)
    assert 0 < len(found[0][0]) < 200  # the case is as tight as it claims


def test_no_vectors_at_all_are_near_to_nothing() -> None:
    for vectors in ([], [(np.arange(2), np.zeros((2, 3), np.float32))]):
        near = near_vectors(vectors, 2, 0.9)
        assert len(near.dropped) == 0 and near.empty == 2
