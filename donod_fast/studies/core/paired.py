"""Paired differences between a method and random draws, on the same held-out rows, with an interval and in words.

A difference varies for three reasons: the training seeds of the method, the draws (and seeds) of random, and the
held-out rows. All three are resampled in a two-level bootstrap: seeds and draws, and independently of them the held-out
rows, the same ones for both sides (a crossed, "pigeonhole" bootstrap: Owen, Annals of Applied Statistics 1, 2007; it
overestimates the variance slightly, never underestimates it in expectation).

With two seeds and five draws the percentiles of a bootstrap are too narrow. So the bootstrap gives the standard error,
with resampled deviations scaled by √(n / (n − 1)), and the interval is Student's t with the degrees of freedom of Welch
and Satterthwaite. The spread over training seeds may be pooled over methods, since two seeds estimate it badly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from donod_fast.errors import InputError

REPLICATES = 2000
CONFIDENCE, POWER = 0.95, 0.8
_CELLS = 1 << 22  # of a block of replicates, to bound the memory
_ROUNDING = 1e-12  # of the losses: differences below are those of the order of additions
FAR = 10_000
"""Draws or rows from which a difference counts as out of reach."""

Array = NDArray[np.float64]


class Spread(NamedTuple):
    """A variance with its degrees of freedom."""

    variance: float
    degrees: int

    @staticmethod
    def pooled(groups: Sequence[Sequence[float]]) -> Spread:
        """The variance within groups, over all groups; groups of one value say nothing."""
        squares, degrees = 0.0, 0
        for values in groups:
            if len(values) > 1:
                squares += float(np.var(values)) * len(values)
                degrees += len(values) - 1
        return Spread(squares / degrees if degrees else math.nan, degrees)


@dataclass(frozen=True)
class PairedDifference:
    """A method's measure minus that of random, with its interval.

    Attributes:
        value: the difference of the means; below 0 the method has less.
        low, high: its interval.
        error: its standard error.
        degrees: degrees of freedom of the interval.
        p: two-sided p-value of no difference, not adjusted for other comparisons.
        seeds, draws, items: trainings of the method, random draws, and held-out rows.
        parts: variance of ``value`` from ``seeds``, ``draws`` and ``items`` (with what seeds and items have together).
        seeds_degrees: degrees of freedom of the variance over seeds, more than ``seeds`` − 1 if it was pooled.
    """

    value: float
    low: float
    high: float
    error: float
    degrees: float
    p: float
    seeds: int
    draws: int
    items: int
    parts: Mapping[str, float]
    seeds_degrees: int = 1

    def detectable(self, compared: int = 1) -> float:
        """The smallest true difference that a study like this one shows in 80 % of cases.

        Args:
            compared: number of comparisons that are adjusted for, each at a part of 5 % (Bonferroni).
        """
        return self.error * _quantiles(self.degrees, compared) if self.error else 0.0

    def text(self, digits: int = 4) -> str:
        """``−0.0132 [−0.0210, −0.0051]``."""
        return f"{signed(self.value, digits)} [{signed(self.low, digits)}, {signed(self.high, digits)}]"


class Needed(NamedTuple):
    """What shows a difference in 80 % of cases: numbers of training seeds, random draws and held-out rows."""

    seeds: int
    draws: int
    items: int


def paired_difference(
    ours: ArrayLike,
    random: ArrayLike,
    weights: ArrayLike,
    *,
    seed: int = 0,
    replicates: int | None = None,
    seeds_spread: Spread | None = None,
) -> PairedDifference:
    """Difference of two means over the same held-out rows.

    Args:
        ours: (S, M) value of each held-out row, summed over its tokens, for each training seed of the method.
        random: (D, M) the same for each random draw (the mean over its seeds if it has several).
        weights: (M,) tokens of each held-out row: the means are Σ values / Σ tokens.
        seed: seed of the bootstrap.
        replicates: bootstrap replicates; None for :data:`REPLICATES`.
        seeds_spread: variance of a training's mean over seeds, pooled over methods; None for that of ``ours`` alone.

    Raises:
        InputError: fewer than two seeds, draws or held-out rows; shapes that do not match; a value that is not finite.
    """
    from scipy.stats import t

    a, b, tokens = (np.asarray(values, dtype=np.float64) for values in (ours, random, weights))
    _check(a, b, tokens)
    total = tokens.sum()
    (seeds, items), draws = a.shape, len(b)
    noise = _ROUNDING * float(np.abs(a).sum(1).max() + np.abs(b).sum(1).max()) / total
    value = float((a.mean(0) - b.mean(0)).sum() / total)
    value = 0.0 if abs(value) < noise else value
    own = float(np.var(a.sum(1) / total, ddof=1)) / seeds
    of_draws = float(np.var(b.sum(1) / total, ddof=1)) / draws
    whole = _bootstrap_variance(a, b, tokens, np.random.default_rng(seed), replicates or REPLICATES)
    of_items = max(0.0, whole - own - of_draws)
    degrees_of_seeds = seeds - 1
    if seeds_spread is not None and seeds_spread.degrees:
        own, degrees_of_seeds = seeds_spread.variance / seeds, seeds_spread.degrees
    parts = {"seeds": own, "draws": of_draws, "items": of_items}
    numbers = {"seeds": degrees_of_seeds, "draws": draws - 1, "items": items - 1}
    error, degrees = _error(parts, numbers)
    error = 0.0 if error < noise else error
    half, p = 0.0, 1.0 if value == 0 else 0.0
    if error:
        half = float(t.ppf(0.5 + CONFIDENCE / 2, degrees)) * error
        p = float(2 * t.sf(abs(value) / error, degrees))
    return PairedDifference(
        value, value - half, value + half, error, degrees, p, seeds, draws, items, parts, degrees_of_seeds
    )


def _error(parts: Mapping[str, float], degrees: Mapping[str, float]) -> tuple[float, float]:
    """Standard error of a sum of independent parts, and its degrees of freedom (Welch and Satterthwaite)."""
    variance = math.fsum(parts.values())
    if variance == 0:
        return 0.0, math.inf
    return math.sqrt(variance), variance**2 / math.fsum(parts[name] ** 2 / degrees[name] for name in parts)


def _quantiles(degrees: float, compared: int) -> float:
    """How many standard errors a difference needs to be shown in 80 % of cases, among some comparisons."""
    from scipy.stats import t

    return float(t.ppf(1 - (1 - CONFIDENCE) / 2 / compared, degrees) + t.ppf(POWER, degrees))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6, 1979), in the order given.

    At most 5 % of families of comparisons then have a false difference among those with an adjusted value below 0.05,
    however the comparisons depend on each other.
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def needed(difference: PairedDifference, effect: float | None = None, *, compared: int = 1) -> Needed | None:
    """What it takes to show a difference of ``effect`` in 80 % of cases; None if nothing below ten thousand does.

    Seeds and draws grow by the same factor. More held-out rows are asked for only if they are half of the uncertainty
    that is allowed.

    Args:
        difference: the spread of a study that was run.
        effect: size of the true difference; None for the one that was observed.
        compared: number of comparisons that are adjusted for.
    """
    size = abs(difference.value if effect is None else effect)
    if size == 0:
        return None
    allowed = (size / _quantiles(math.inf, compared)) ** 2
    more_items = max(1.0, 2 * difference.parts["items"] / allowed)

    def suffices(factor: float) -> bool:
        growth = {"seeds": factor, "draws": factor, "items": more_items}
        parts = {name: variance / growth[name] for name, variance in difference.parts.items()}
        degrees = {
            "seeds": factor * difference.seeds_degrees,
            "draws": factor * difference.draws - 1,
            "items": more_items * difference.items - 1,
        }
        error, freedom = _error(parts, degrees)
        return error == 0 or error * _quantiles(freedom, compared) <= size

    most = FAR / max(difference.seeds, difference.draws)
    if more_items * difference.items > FAR or not suffices(most):
        return None
    low, high = 1.0, most
    if suffices(low):
        high = low
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if suffices(middle) else (middle, high)
    numbers = (high * difference.seeds, high * difference.draws, more_items * difference.items)
    return Needed(*(math.ceil(number - 1e-9) for number in numbers))


def is_shown(difference: PairedDifference, adjusted: float) -> bool:
    """Whether the interval excludes 0 and the adjusted p-value is below 5 %."""
    return (difference.low > 0 or difference.high < 0) and adjusted < 1 - CONFIDENCE


def in_words(
    difference: PairedDifference,
    method: str,
    other: str,
    *,
    adjusted: float | None = None,
    compared: int = 1,
    unit: str = "nats per token",
) -> str:
    """Say in one line whether a lower loss was shown, and what it would take to show more.

    Args:
        difference: the method's loss minus that of the random draws.
        method: name of the method.
        other: name of the random draws.
        adjusted: p-value adjusted for all comparisons; None for a single one.
        compared: number of comparisons that the adjusted value counts.
        unit: unit of the measure.
    """
    about = f"{method} − {other} = {difference.text()} {unit}"
    p = difference.p if adjusted is None else adjusted
    excludes = difference.low > 0 or difference.high < 0
    if is_shown(difference, p):
        kind = "lower" if difference.value < 0 else "higher"
        among = f" among {compared} comparisons" if compared > 1 else ""
        return f"shown: {about}; the loss is {kind}{among} (adjusted p {p:.2g})"
    if difference.error == 0:
        return f"not shown: {about}; the losses are equal"
    why = "the interval includes 0"
    if excludes:
        why = f"the interval excludes 0, as one of {compared} may by chance (adjusted p {p:.2g})"
    return f"not shown: {about}; {why}; {what_it_takes(difference, compared=compared)}"


def what_it_takes(difference: PairedDifference, *, compared: int = 1) -> str:
    """Say in half a sentence what this study can show, and what it takes to show the observed difference."""
    shown = f"such a study shows differences from {difference.detectable(compared):.2g} on in 80 % of cases"
    asked = needed(difference, compared=compared)
    if asked is None:
        return f"{shown}; the observed one is out of reach"
    parts = [f"{asked.draws:,} random draws", f"{asked.seeds:,} seeds"]
    if asked.items > difference.items:
        parts.append(f"{asked.items:,} held-out rows")
    return f"{shown}; one of {abs(difference.value):.2g} takes about {', '.join(parts[:-1])} and {parts[-1]}"


def signed(number: float, digits: int = 4) -> str:
    """A number with its sign, a proper minus."""
    return f"{number:+.{digits}f}".replace("-", "−")


def _check(a: Array, b: Array, tokens: Array) -> None:
    if a.ndim != 2 or b.ndim != 2 or tokens.ndim != 1 or not a.shape[1] == b.shape[1] == len(tokens):
        raise InputError("a paired difference needs the same held-out rows for the method, random and the tokens")
    if min(*a.shape, *b.shape) < 2:
        raise InputError(
            "a paired difference needs at least two training seeds, two random draws and two held-out rows, got "
            f"{a.shape[0]}, {b.shape[0]} and {a.shape[1]}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all() and (tokens > 0).all() and np.isfinite(tokens).all()):
        raise InputError("a paired difference needs finite losses, and tokens in each held-out row")


def _bootstrap_variance(a: Array, b: Array, tokens: Array, rng: np.random.Generator, replicates: int) -> float:
    """Variance of the difference over replicates; the ratio of sums is linear in the weights of the held-out rows."""
    items, total = len(tokens), tokens.sum()
    found = []
    block = max(1, min(replicates, _CELLS // items))
    for begin in range(0, replicates, block):
        count = min(block, replicates - begin)
        differences = _weights(rng, len(a), count) @ a - _weights(rng, len(b), count) @ b  # (count, M)
        mean = differences.sum(1) / total
        residual = differences - mean[:, None] * tokens
        shift = items * _weights(rng, items, count) - 1
        found.append(mean + (shift * residual).sum(1) / total)
    return float(np.var(np.concatenate(found), ddof=1))


def _weights(rng: np.random.Generator, size: int, count: int) -> Array:
    """(count, size) weights of a mean over a resample, with deviations scaled by √(n / (n − 1)); each row sums to 1."""
    drawn = rng.multinomial(size, np.full(size, 1 / size), size=count) / size
    return np.asarray(1 / size + math.sqrt(size / (size - 1)) * (drawn - 1 / size), dtype=np.float64)


__all__ = [
    "CONFIDENCE",
    "FAR",
    "Needed",
    "PairedDifference",
    "Spread",
    "holm",
    "in_words",
    "is_shown",
    "needed",
    "paired_difference",
    "signed",
    "what_it_takes",
]
