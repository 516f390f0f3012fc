"""Paired differences: coverage on simulated studies, closed forms, words, and what it takes to show more."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from donod_fast.errors import InputError
from donod_fast.studies.core.paired import (
    Needed,
    PairedDifference,
    Spread,
    holm,
    in_words,
    is_shown,
    needed,
    paired_difference,
)

Array = np.ndarray


def simulated(
    random: np.random.Generator,
    *,
    seeds: int = 2,
    draws: int = 5,
    items: int = 30,
    of_seeds: float = 0.5,
    of_draws: float = 0.5,
    of_items: float = 1.0,
    together: float = 0.3,
    difference: float = 0.0,
) -> tuple[Array, Array, Array, Spread]:
    """Losses of a method and of random draws with known spreads; the true difference is ``difference``."""
    tokens = random.integers(5, 50, items).astype(float)
    own = random.normal(0, of_items, items)

    def training(spread: float, level: Array | float) -> Array:
        return (3 + level + random.normal(0, spread) + random.normal(0, together, items)) * tokens

    ours = np.array([training(of_seeds, own + difference) for _ in range(seeds)])
    theirs = np.array([training(of_draws, 0.0) for _ in range(draws)])
    others = [[random.normal(0, of_seeds) for _ in range(seeds)] for _ in range(5)]
    groups = [[float(row.sum() / tokens.sum()) for row in ours], *others]
    return ours, theirs, tokens, Spread.pooled(groups)


@pytest.mark.parametrize(
    "spreads",
    [
        {"of_seeds": 0.5, "of_draws": 0.5, "of_items": 1.0},
        {"of_seeds": 0.1, "of_draws": 1.0, "of_items": 0.3},
        {"of_seeds": 1.0, "of_draws": 0.1, "of_items": 0.2, "seeds": 3},
        {"of_seeds": 0.05, "of_draws": 0.05, "of_items": 1.0},
    ],
)
def test_the_interval_covers_the_truth_with_two_seeds(spreads: dict[str, float]) -> None:
    random = np.random.default_rng(3)
    hits, rounds = 0, 100
    for seed in range(rounds):
        *losses, spread = simulated(random, difference=0.4, **spreads)  # type: ignore[arg-type]
        found = paired_difference(*losses, seeds_spread=spread, seed=seed, replicates=150)
        # The rows are a sample: the truth is the expectation over rows as well.
        hits += found.low <= 0.4 <= found.high
    assert hits / rounds > 0.88


def test_percentiles_alone_would_not_cover() -> None:
    # What the correction is for: with two seeds and five draws, plain percentiles miss the truth too often.
    random = np.random.default_rng(4)
    corrected = plain = 0
    for seed in range(200):
        ours, theirs, tokens, spread = simulated(random, of_items=0.0, together=0.0)
        found = paired_difference(ours, theirs, tokens, seeds_spread=spread, seed=seed, replicates=100)
        corrected += found.low <= 0 <= found.high
        a, b = ours.sum(1) / tokens.sum(), theirs.sum(1) / tokens.sum()
        drawn = [random.choice(a, 2).mean() - random.choice(b, 5).mean() for _ in range(100)]
        plain += bool(np.quantile(drawn, 0.025) <= 0 <= np.quantile(drawn, 0.975))
    assert plain / 200 < 0.87 < 0.91 < corrected / 200


def test_the_value_is_the_difference_of_token_means() -> None:
    ours, theirs, tokens, _ = simulated(np.random.default_rng(5))
    found = paired_difference(ours, theirs, tokens)
    expected = ours.sum(1).mean() / tokens.sum() - theirs.sum(1).mean() / tokens.sum()
    assert found.value == pytest.approx(expected)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_the_parts_are_those_of_the_simulation() -> None:
    # Large numbers of everything, so that the parts are known: σ²/n each.
    found = paired_difference(
        *simulated(np.random.default_rng(6), seeds=300, draws=200, items=300, of_seeds=0.5, of_draws=0.7, together=0.0)[
            :3
        ]
    )
    assert found.parts["seeds"] == pytest.approx(0.5**2 / 300, rel=0.25)
    assert found.parts["draws"] == pytest.approx(0.7**2 / 200, rel=0.25)
    assert found.parts["items"] == pytest.approx(1.0 / 300 * 1.22, rel=0.35)  # rows have unequal tokens


def test_more_memory_than_a_block_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulated(np.random.default_rng(7))[:3]
    whole = paired_difference(*data)
    monkeypatch.setattr("donod_fast.studies.core.paired._CELLS", 600)  # 20 replicates
    blocks = paired_difference(*data)
    assert blocks.error == pytest.approx(whole.error, rel=0.1) and blocks.value == whole.value


def test_pooling_takes_all_groups_and_ignores_single_values() -> None:
    assert Spread.pooled([[1.0, 3.0], [5.0], [2.0, 2.0, 5.0]]) == Spread(pytest.approx((2 + 6) / 3), 3)
    assert Spread.pooled([[1.0]]).degrees == 0


def test_equal_losses_are_no_difference() -> None:
    losses = np.full((2, 4), 3.0)
    found = paired_difference(losses, np.full((5, 4), 3.0), np.ones(4))
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert "the losses are equal" in in_words(found, "don", "random") and not is_shown(found, found.p)


def test_holm_is_bonferroni_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    p = list(np.random.default_rng(8).random(20))
    adjusted = holm(p)
    assert sorted(adjusted, key=lambda value: p[adjusted.index(value)]) == sorted(adjusted)
    assert all(ours >= own for ours, own in zip(adjusted, p, strict=True)) and min(adjusted) == min(1, 20 * min(p))


def difference(value: float, **changes: object) -> PairedDifference:
    """A difference of a study with two seeds, five draws and 100 rows, where all three matter alike."""
    parts = {"seeds": 1e-4, "draws": 1e-4, "items": 1e-4}
    error = math.sqrt(3e-4)
    plain = PairedDifference(value, value - 0.04, value + 0.04, error, 8.0, 0.2, 2, 5, 100, parts, 4)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_is_needed_shows_the_difference_in_a_simulation() -> None:
    # A study as large as `needed` says finds the difference in about 80 % of cases.
    random = np.random.default_rng(9)
    *losses, spread = simulated(random, of_seeds=0.3, of_draws=0.3, of_items=0.5)
    asked = needed(paired_difference(*losses, seeds_spread=spread), 0.5)
    assert asked is not None and asked.draws > 5
    found = 0
    for seed in range(200):
        study = simulated(
            random, seeds=asked.seeds, draws=asked.draws, items=asked.items, of_seeds=0.3, of_draws=0.3, of_items=0.5,
            difference=0.5,
        )  # fmt: skip
        one = paired_difference(*study[:3], seeds_spread=study[3], seed=seed, replicates=100)
        found += is_shown(one, one.p)
    assert 0.65 < found / 200 <= 0.97


def test_smaller_differences_and_more_comparisons_need_more() -> None:
    sizes = [needed(difference(0.1), effect) for effect in (0.2, 0.05, 0.02)]
    assert all(sizes) and [one.draws for one in sizes if one] == sorted(one.draws for one in sizes if one)
    few, many = needed(difference(0.03)), needed(difference(0.03), compared=40)
    assert few is not None and many is not None and all(a <= b for a, b in zip(few, many, strict=True)) and few != many
    assert needed(difference(0.2), 10.0) == Needed(2, 5, 100)
    assert needed(difference(0.0)) is None and needed(difference(1e-9)) is None
    assert difference(0.1).detectable(40) > difference(0.1).detectable() > 1.96 * math.sqrt(3e-4)


def test_the_words_agree_with_the_numbers() -> None:
    shown = in_words(difference(-0.1, low=-0.14, high=-0.06, p=1e-4), "loss", "random, same rows")
    assert shown.startswith("shown: loss − random, same rows = −0.1000 [−0.1400, −0.0600]") and "lower" in shown
    includes = in_words(difference(0.01), "loss", "random")
    assert includes.startswith("not shown") and "includes 0" in includes and "takes about" in includes
    by_chance = in_words(difference(0.1, low=0.06, high=0.14, p=0.01), "loss", "random", adjusted=0.3, compared=30)
    assert by_chance.startswith("not shown") and "one of 30 may by chance" in by_chance
    assert "out of reach" in in_words(difference(1e-7), "loss", "random")


@pytest.mark.parametrize(
    ("ours", "theirs", "tokens", "words"),
    [
        (np.ones((1, 3)), np.ones((5, 3)), np.ones(3), "two training seeds"),
        (np.ones((2, 3)), np.ones((1, 3)), np.ones(3), "two random draws"),
        (np.ones((2, 1)), np.ones((5, 1)), np.ones(1), "held-out rows"),
        (np.ones((2, 3)), np.ones((5, 4)), np.ones(3), "same held-out rows"),
        (np.full((2, 3), math.nan), np.ones((5, 3)), np.ones(3), "finite"),
        (np.ones((2, 3)), np.ones((5, 3)), np.zeros(3), "tokens in each"),
    ],
)
def test_what_cannot_be_compared_is_refused(ours: Array, theirs: Array, tokens: Array, words: str) -> None:
    with pytest.raises(InputError, match=words):
        paired_difference(ours, theirs, tokens)
