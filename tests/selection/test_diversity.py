"""Spread candidates against literal programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from donod_fast.errors import InputError
from donod_fast.selection.clustering import cluster_labels
from donod_fast.selection.diversity import spread

pytest.importorskip("sklearn", reason="the extra `criteria` is not installed")


def made(count: int = 80, seed: int = 0) -> Any:
    draw = np.random.default_rng(seed)
    found = draw.normal(size=(count, 4)) * draw.uniform(0.1, 9, (count, 1))
    found[10:20] = found[30:40]
    found[5] = np.nan
    found[41] = 0
    return found.astype(np.float32)


def unit(embeddings: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return embeddings.astype(np.float64) / np.linalg.norm(embeddings.astype(np.float64), axis=1)[:, None]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_facility_location_is_the_greedy_choice(seed: int, count: int) -> None:
    embeddings = made(seed=seed)
    units = unit(embeddings)
    places = [at for at in range(len(units)) if np.isfinite(units[at]).all()]
    likeness = np.maximum(units[places] @ units[places].T, 0)
    nearest = np.zeros(len(places))
    expected: list[int] = []
    for _ in range(count):
        gains = np.maximum(likeness - nearest[:, None], 0).sum(0).round(4)
        gains[expected] = -1
        best = int(gains.argmax())
        expected.append(best)
        nearest = np.maximum(nearest, likeness[:, best])
    found = spread("facility", embeddings, count)
    value = np.maximum(likeness[:, [places.index(at) for at in found.chosen]].max(1), 0).sum()
    assert value == pytest.approx(nearest.sum(), rel=1e-4)  # near ties may differ, the sum may not
    if count == 1:
        assert found.chosen.tolist() == [places[expected[0]]]


def test_k_centre_begins_with_the_best_and_goes_farthest() -> None:
    embeddings = made()
    units = unit(embeddings)
    found = spread("kcenter", embeddings, 10)
    assert 0 in found.chosen
    others = [at for at in range(len(units)) if np.isfinite(units[at]).all() and at not in found.chosen]
    radius = max(np.linalg.norm(units[at] - units[found.chosen], axis=1).min() for at in others)
    apart = [np.linalg.norm(units[a] - units[b]) for a in found.chosen for b in found.chosen if a < b]
    assert min(apart) >= radius - 1e-6


def test_k_means_takes_the_best_of_each_cluster() -> None:
    embeddings = made()
    there = [at for at in range(80) if at not in (5, 41)]
    labels = cluster_labels(unit(embeddings)[there].astype(np.float32), 9, 3, "test")
    best = sorted(there[int(np.flatnonzero(labels == one)[0])] for one in range(9))
    assert spread("kmeans", embeddings, 9, seed=3).chosen.tolist() == best


@pytest.mark.parametrize("kind", ["kcenter", "kmeans", "facility"])
def test_every_count_gives_as_many_distinct_candidates(kind: str) -> None:
    embeddings = np.r_[made()[:4], made()[:4], np.full((2, 4), np.nan)].astype(np.float32)
    for count in range(len(embeddings) + 1):
        found = spread(kind, embeddings, count)
        assert len(set(found.chosen.tolist())) == count == len(found.chosen)
        assert found.without == 2
        assert set(found.chosen) >= ({8} if count == 9 else {8, 9} if count == 10 else set())
        units = unit(embeddings)
        for at, near, cosine in zip(found.others, found.nearest, found.cosine, strict=True):
            cosines = [float(units[at] @ units[one]) for one in found.chosen if one < 8]
            assert near in found.chosen and cosine == pytest.approx(max(cosines), abs=1e-5)


def test_wrong_kinds_and_counts_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'kcenter'"):
        spread("kcentre", made(), 3)
    with pytest.raises(InputError, match="among 80 candidates"):
        spread("kmeans", made(), 81)
