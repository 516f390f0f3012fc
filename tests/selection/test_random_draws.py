"""Random draws: what each kind has in common with a selection, over generated pools and selections."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.errors import InputError
from donod_fast.selection.random_draws import draw_lengths, draw_rows, draw_tokens, shared

POOLS = st.lists(st.integers(1, 400), min_size=2, max_size=150)
SEEDS = st.integers(0, 10**6)


def pool_of(lengths: list[int]) -> dict[int, int]:
    """Lengths by row number; the numbers have gaps, as those of a pool with rows that cannot be scored."""
    return {3 * at + 1: length for at, length in enumerate(lengths)}


@settings(deadline=None, max_examples=50)
@given(POOLS, st.data(), SEEDS)
def test_a_draw_of_rows_has_the_count_and_no_row_twice(lengths: list[int], data: st.DataObject, seed: int) -> None:
    pool = pool_of(lengths)
    count = data.draw(st.integers(1, len(pool)))
    drawn = draw_rows(list(pool), count, seed)
    assert len(drawn) == count == len(set(drawn)) and set(drawn) <= set(pool) and list(drawn) == sorted(drawn)
    assert drawn == draw_rows(list(reversed(pool)), count, seed)  # the order of the candidates does not matter


@settings(deadline=None, max_examples=50)
@given(POOLS, st.data(), SEEDS)
def test_a_draw_of_tokens_is_within_half_a_row(lengths: list[int], data: st.DataObject, seed: int) -> None:
    pool = pool_of(lengths)
    total = data.draw(st.integers(1, 2 * sum(lengths)))
    drawn = draw_tokens(pool, total, seed)
    assert drawn and len(set(drawn)) == len(drawn) and set(drawn) <= set(pool)
    missed = abs(sum(pool[row] for row in drawn) - min(total, sum(lengths)))
    # One row is always drawn, even if it is longer than twice the total.
    assert missed <= max(lengths) / 2 or len(drawn) == 1


@settings(deadline=None, max_examples=50)
@given(POOLS, st.data(), SEEDS, st.integers(1, 30))
def test_a_draw_of_lengths_is_near_row_by_row(lengths: list[int], data: st.DataObject, seed: int, stratum: int) -> None:
    pool = pool_of(lengths)
    selected = data.draw(st.lists(st.sampled_from(sorted(pool)), min_size=1, unique=True))
    drawn = draw_lengths(pool, selected, seed, stratum=stratum)
    assert len(drawn) == len(selected) == len(set(drawn)) and set(drawn) <= set(pool)
    # Sorted by length, each drawn row has a counterpart in the selection that is less than a stratum away by rank.
    order = sorted(pool.values())
    for own, other in zip(sorted(pool[row] for row in drawn), sorted(pool[row] for row in selected), strict=True):
        low, high = sorted((own, other))
        assert sum(low < length < high for length in order) < stratum


def test_lengths_match_where_rows_alone_do_not() -> None:
    random = Random(0)
    pool = pool_of([random.randint(10, 400) for _ in range(400)])
    longest = sorted(pool, key=pool.__getitem__)[-200:-80]
    wanted = sum(pool[row] for row in longest)

    def missed(draws: list[tuple[int, ...]]) -> float:
        return max(abs(sum(pool[row] for row in draw) / wanted - 1) for draw in draws)

    assert missed([draw_lengths(pool, longest, seed) for seed in range(10)]) < 0.05
    assert missed([draw_rows(list(pool), len(longest), seed) for seed in range(10)]) > 0.2
    assert missed([draw_tokens(pool, wanted, seed) for seed in range(10)]) < 0.02


@pytest.mark.parametrize("kind", ["rows", "tokens", "lengths"])
def test_every_row_has_its_chance(kind: str) -> None:
    pool = pool_of([20] * 40)  # equal lengths: all kinds are plain draws
    selected = sorted(pool)[:10]
    draw = {
        "rows": lambda seed: draw_rows(list(pool), 10, seed),
        "tokens": lambda seed: draw_tokens(pool, 200, seed),
        "lengths": lambda seed: draw_lengths(pool, selected, seed, stratum=40),
    }[kind]
    counts = Counter(row for seed in range(1000) for row in draw(seed))
    # 250 each expected, standard deviation 14
    assert set(counts) == set(pool) and all(180 < count < 320 for count in counts.values())


def test_an_extreme_selection_is_nearly_its_own_draw() -> None:
    pool = pool_of(list(range(1, 201)))
    longest = sorted(pool)[-60:]
    assert shared(draw_lengths(pool, longest, 0), longest) > 0.8
    assert 0.1 < shared(draw_rows(list(pool), 60, 0), longest) < 0.5


def test_impossible_draws_are_refused() -> None:
    with pytest.raises(InputError, match="number of candidates"):
        draw_rows([1, 2], 3, 0)
    with pytest.raises(InputError, match="at least 1 candidate"):
        draw_tokens({}, 5, 0)
    with pytest.raises(InputError, match="at least 1 token"):
        draw_tokens({1: 5}, 0, 0)
    with pytest.raises(InputError, match="row 7"):
        draw_lengths({1: 5}, [7], 0)
    with pytest.raises(InputError, match="empty"):
        draw_lengths({1: 5}, [], 0)
