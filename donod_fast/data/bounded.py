"""Find the first tokens of a very long text without tokenising all of it.

A tokenizer decides locally: by words, by merges of neighbours, or by the best path through a few pieces. What follows
a token influences it only over a short distance. That distance cannot be known for every tokenizer, so it is measured
on the text itself: two beginnings of different length are tokenised, and only tokens that they share are used. Where
too few tokens agree, longer beginnings are compared, in the end the whole text.

A distance can also be periodic: digits in groups of three from the right, or equal characters that are divided into
equal pieces. The difference between the two lengths is therefore no multiple of any period up to 16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BOUND_CHARACTERS = 1 << 18
"""Texts up to this length are always tokenised whole, so that the number of their tokens is exact."""

BOUND_PER_TOKEN = 16
"""The same, in characters for each token of the length limit."""

_FIRST_CHARACTERS = 1 << 14
_FIRST_PER_TOKEN = 8
_MARGIN = 64  # tokens between the last one that is used and the first that differs
_STEP = 1 << 12  # characters or tokens that are looked at together
_PRIMES = (2, 3, 5, 7, 11, 13)


def longest_whole(limit: int) -> int:
    """Characters of the longest text that is tokenised whole, for a length limit in tokens."""
    return max(BOUND_CHARACTERS, BOUND_PER_TOKEN * limit)


def proved_tokens(text: str, limit: int, tokens_of: Callable[[str], Sequence[int]]) -> int | None:
    """Tokenise beginnings of a text until one proves more than ``limit`` tokens.

    Args:
        text: the text.
        limit: number of tokens that are needed; one more is proved, which shows that the text has more.
        tokens_of: tokenises a text.

    Returns:
        How many tokens of the last beginning given to ``tokens_of`` the whole text begins with as well; None if the
        text must be tokenised whole.
    """
    near = max(_FIRST_CHARACTERS, _FIRST_PER_TOKEN * limit)
    before: Sequence[int] | None = None
    while (far := near + _without_period(near)) < len(text):
        before = tokens_of(text[:near]) if before is None else before
        after = tokens_of(text[:far])
        proved = shared_length(before, after) - _MARGIN
        if proved > limit:
            return proved
        near, before = far, after
    return None


def shared_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the common prefix of two texts or token lists."""
    shared, step = 0, _STEP
    length = min(len(first), len(second))
    while shared < length and first[shared : shared + step] == second[shared : shared + step]:
        shared = min(shared + step, length)
    pairs = enumerate(zip(first[shared : shared + step], second[shared : shared + step], strict=False))
    return next((shared + at for at, (a, b) in pairs if a != b), length)


def stripped_length(text: str, end: int | None = None) -> int:
    """Length of ``text[:end]`` without the white space at its end; nothing long is copied."""
    end = len(text) if end is None else min(end, len(text))
    while end > 0:
        last = text[max(0, end - _STEP) : end]
        kept = len(last.rstrip())
        end -= len(last) - kept
        if kept:
            break
    return end


def _without_period(length: int) -> int:
    """The next number that is no multiple of any number from 2 to 16."""
    while any(length % prime == 0 for prime in _PRIMES):
        length += 1
    return length


__all__ = [
    "BOUND_CHARACTERS",
    "BOUND_PER_TOKEN",
    "longest_whole",
    "proved_tokens",
    "shared_length",
    "stripped_length",
]
