"""Damage the responses of records on purpose, so that a study knows which rows are bad.

A record keeps its columns; only the scored text changes. Every kind uses a seeded ``random.Random``, so that a seed
determines the damage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from donod_fast.errors import InputError

Row = Mapping[str, Any]

MASK = "[MASK]"
SHARE = 0.3
"""Part of the words that ``masked`` and ``dropped`` damage."""

_RESPONSES = ("output", "response", "answer", "completion")


def response_column(record: Row) -> str:
    """The column that holds the response.

    If a row has both ``output`` and ``response``, it is ``output``, as in ``formats.py``.

    Raises:
        InputError: none of the known columns of the record holds text.
    """
    for name in _RESPONSES:
        if isinstance(record.get(name), str):
            return name
    raise InputError(
        f"a record with the columns {', '.join(sorted(map(str, record)))} has no response as text; "
        f"corruptions are made in one of {', '.join(_RESPONSES)}"
    )


def corrupt(record: Row, kind: str, rng: Random, others: Sequence[Row]) -> dict[str, Any]:
    """The record with a damaged response.

    Args:
        record: the record, which is not changed.
        kind: one of :data:`KINDS`.
        rng: source of randomness.
        others: records from which a wrong answer is taken.

    Raises:
        InputError: the kind is unknown, or the record has no response.
    """
    check_kind(kind)
    column = response_column(record)
    return {**record, column: KINDS[kind](record[column], rng, others)}


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of damage.

    Raises:
        InputError: names the known kinds.
    """
    if kind not in KINDS:
        raise InputError(f"unknown corruption {kind!r}; known are {', '.join(KINDS)}")


def plant(
    records: Sequence[Row],
    shares: Mapping[str, float],
    *,
    seed: int,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Corrupt a share of the records with each kind, no record twice.

    A record that a kind cannot damage (no number to replace, one word to shuffle) is left to the other kinds, and
    another record takes its place. So every row that is labelled as corrupted is corrupted.

    Returns:
        The records in their order, and the kind of each (``""`` if it is clean).

    Raises:
        InputError: a kind is unknown, the shares add up to more than all rows, or a kind can damage too few rows.
    """
    rng = Random(seed)
    places = list(range(len(records)))
    rng.shuffle(places)
    kinds = [""] * len(records)
    planted = [dict(record) for record in records]
    for kind, share in shares.items():
        count = round(share * len(records))
        if count > len(places):
            raise InputError(f"shares of {sum(shares.values()):g} in all leave no row for corruption {kind!r}")
        left = list(places[count:])
        proof: list[int] = []
        chosen = sorted(places[:count])
        missing = count
        while missing and chosen:
            for place in chosen:
                damaged = corrupt(records[place], kind, rng, records)
                if damaged == records[place]:
                    proof.append(place)
                    continue
                planted[place], kinds[place] = damaged, kind
                missing -= 1
            chosen, left = left[:missing], left[missing:]
        if missing:
            raise InputError(
                f"corruption {kind!r} can damage only {count - missing} of the {count} rows of its share; "
                "lower the share, or leave the kind out for this corpus"
            )
        places = proof + left
    return planted, kinds


def _words(text: str) -> list[str]:
    """Words at even positions, the white space between them at odd ones."""
    return re.split(r"(\s+)", text)


def _chosen(parts: Sequence[str], rng: Random) -> list[int]:
    places = [place for place in range(0, len(parts), 2) if parts[place]]
    return sorted(rng.sample(places, max(1, round(SHARE * len(places))))) if places else []


def _masked(text: str, rng: Random, others: Sequence[Row]) -> str:
    parts = _words(text)
    for place in _chosen(parts, rng):
        parts[place] = MASK
    return "".join(parts)


def _dropped(text: str, rng: Random, others: Sequence[Row]) -> str:
    parts = _words(text)
    gone = set(_chosen(parts, rng))
    if len(gone) * 2 >= len(parts):  # keep the only word: an empty response is not a sample
        return text
    return "".join(part for i, part in enumerate(parts) if i not in gone and i - 1 not in gone).strip() or text


def _shuffled(text: str, rng: Random, others: Sequence[Row]) -> str:
    parts = _words(text)
    places = [place for place in range(0, len(parts), 2) if parts[place]]  # skip empty strings at the ends
    words = [parts[place] for place in places]
    if len(set(words)) < 2:
        return text
    while (mixed := rng.sample(words, len(words))) == words:
        pass
    for place, word in zip(places, mixed, strict=True):
        parts[place] = word
    return "".join(parts)


def _wrong(text: str, rng: Random, others: Sequence[Row]) -> str:
    candidates = [row[response_column(row)] for row in others]
    if all(candidate == text for candidate in candidates):
        raise InputError("a wrong answer needs another record with another response")
    while (answer := rng.choice(candidates)) == text:
        pass
    return str(answer)


def _cut(text: str, rng: Random, others: Sequence[Row]) -> str:
    parts = _words(text)
    words = (len(parts) + 1) // 2
    return "".join(parts[: 2 * max(1, words // 2) - 1])


def _digits(text: str, rng: Random, others: Sequence[Row]) -> str:
    """Replace every number by another with the same number of digits: fluent, but wrong."""

    def other(match: re.Match[str]) -> str:
        digits = match.group()
        while (changed := "".join(rng.choice("0123456789") for _ in digits)) == digits:
            pass
        return changed

    return re.sub(r"[0-9]+", other, text)


KINDS: dict[str, Callable[[str, Random, Sequence[Row]], str]] = {
    "masked": _masked,
    "dropped": _dropped,
    "shuffled": _shuffled,
    "wrong_answer": _wrong,
    "truncated": _cut,
    "wrong_numbers": _digits,
}
"""The kinds by name: 30 % of the words masked or dropped; the words shuffled; another record's response; the second
half cut off; every number replaced by another."""
