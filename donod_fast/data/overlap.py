"""Find rows that stand in two sets, such as held-out rows that are also in the training data.

Rows are compared by their text as scoring reads it, whatever their format: the turns of a conversation without system
messages, or the columns of a table row. Case, white space, punctuation and Unicode forms do not count.

- **same**: the texts are equal.
- **same prompt**: the prompts are equal and have at least eight words; the answers may differ.
- **near**: at least four fifths of the shingles (runs of five words) of the shorter text are in the other one, and it
  has at least eight of them. Shingles that more than a tenth of the first set has are boilerplate and do not count.

The first set is held in memory as hashes, the second one is read once, row by row.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.data.formats import read_record
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import Conversation, PlainText, PromptCompletion, Record, Sample, SampleError, TokenRow
from donod_fast.errors import InputError
from donod_fast.system.wording import plural

SAME, SAME_PROMPT, NEAR = "same", "same prompt", "near"

SHINGLE = 5
"""Words of a shingle."""

CONTAINED = 0.8
"""Share of the shorter text's shingles from which two texts are near duplicates."""

_LEAST = 8  # shingles of a text, or words of a prompt, below which only equality counts
_COMMON, _COMMON_ROWS = 0.1, 10  # share of the first set, and rows, from which a shingle is boilerplate
_SHOWN = 3

# Languages that are written without spaces: each character is a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """A row of the first set that the second set has as well.

    Attributes:
        first: position in the first set.
        second: position in the second set, of the first such row with the most in common.
        kind: ``"same"``, ``"same prompt"`` or ``"near"``.
        share: share of the shorter text's shingles that the other one has; 1.0 unless ``near``.
    """

    first: int
    second: int
    kind: str
    share: float


def find_overlaps(
    first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]], rules: ReadRules | None = None
) -> list[Overlap]:
    """Find the rows of ``first`` that are in ``second`` too, in the order of ``first``, one overlap for each.

    Args:
        first: records, fewer if possible; their hashes are held in memory.
        second: records, read once.
        rules: how records are read; None finds the format of each record.
    """
    rules = rules or ReadRules()
    known = _Index([_texts(record, rules) for record in first])
    best: dict[int, Overlap] = {}
    for place, record in enumerate(second):
        for found in known.overlaps(place, *_texts(record, rules)):
            before = best.get(found.first)
            if before is None or _strength(found) > _strength(before):
                best[found.first] = found
    return [best[place] for place in sorted(best)]


def refuse_overlaps(
    overlaps: Sequence[Overlap],
    total: int,
    first: str,
    second: str,
    *,
    first_skip: int = 0,
    second_skip: int = 0,
    remedy: str = "or give --allow-overlap",
) -> None:
    """Refuse a first set that has rows of the second one.

    Args:
        overlaps: result of :func:`find_overlaps`.
        total: rows of the first set.
        first, second: names of the sets, with their files.
        first_skip, second_skip: rows of the files before the sets begin, so that rows are named by their places.
        remedy: what else the user may do.

    Raises:
        InputError: there is an overlap; the message names rows of both.
    """
    if not overlaps:
        return
    shown = ", ".join(
        f"row {one.first + first_skip} ({'the ' if one.kind != NEAR else ''}{_WORDS[one.kind]} row "
        f"{one.second + second_skip})"
        for one in overlaps[:_SHOWN]
    )
    more = f" and {len(overlaps) - _SHOWN} more" if len(overlaps) > _SHOWN else ""
    raise InputError(
        f"{len(overlaps)} of {plural(total, 'row')} of {first} are also in {second}: {shown}{more} (rows counted from "
        f"0); use other rows, {remedy}"
    )


_WORDS = {SAME: "same as", SAME_PROMPT: "same prompt as", NEAR: "nearly"}


def _strength(overlap: Overlap) -> tuple[int, float]:
    return (SAME, SAME_PROMPT, NEAR).index(overlap.kind) * -1, overlap.share


class _Index:
    """The first set by hashes of its texts, prompts and shingles."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        self._texts: dict[str, list[int]] = {}
        self._prompts: dict[str, list[int]] = {}
        shingles = []
        for place, (whole, prompt) in enumerate(texts):
            self._texts.setdefault(whole, []).append(place)
            if prompt.count(" ") + 1 >= _LEAST:
                self._prompts.setdefault(prompt, []).append(place)
            shingles.append(_shingles(whole))
        often = Counter(shingle for some in shingles for shingle in some)
        limit = max(_COMMON_ROWS, _COMMON * len(texts))
        self._common = {shingle for shingle, count in often.items() if count > limit}
        self._places: dict[int, list[int]] = {}
        self._sizes: list[int] = []
        for place, some in enumerate(shingles):
            own = some - self._common
            self._sizes.append(len(own))
            for shingle in own:
                self._places.setdefault(shingle, []).append(place)

    def overlaps(self, place: int, whole: str, prompt: str) -> Iterator[Overlap]:
        """The overlaps with one row of the second set."""
        for first in self._texts.get(whole, ()):
            yield Overlap(first, place, SAME, 1.0)
        for first in self._prompts.get(prompt, ()):
            yield Overlap(first, place, SAME_PROMPT, 1.0)
        own = _shingles(whole) - self._common
        common = Counter(first for shingle in own for first in self._places.get(shingle, ()))
        for first, count in common.items():
            smaller = min(self._sizes[first], len(own))
            if smaller >= _LEAST and count >= CONTAINED * smaller:
                yield Overlap(first, place, NEAR, count / smaller)


def _texts(record: Mapping[str, Any], rules: ReadRules) -> tuple[str, str]:
    """The normalised text of a record, and that of its prompt."""
    sample = read_record(Record(0, "-", "record", record), rules).sample
    if isinstance(sample, SampleError):
        return _normalised(" ".join(_strings(record))), ""
    prompt, answer = _parts(sample)
    return _normalised(f"{prompt} {answer}"), _normalised(prompt)


def _parts(sample: Sample) -> tuple[str, str]:
    match sample:
        case Conversation():
            turns = [turn for turn in sample.messages if turn.role != "system"]
            last = max((at for at, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
            return " ".join(turn.content for turn in turns[:last]), " ".join(turn.content for turn in turns[last:])
        case PromptCompletion():
            return sample.prompt, sample.completion
        case PlainText():
            return "", sample.text
        case TokenRow():
            return "", " ".join(map(str, sample.input_ids))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)
    elif value is not None:
        yield str(value)


def _normalised(text: str) -> str:
    """Words separated by single spaces; a text without words as it is, without spaces at its ends."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded)) or folded.strip()


def _shingles(text: str) -> set[int]:
    words = text.split(" ")
    return {hash(tuple(words[at : at + SHINGLE])) for at in range(len(words) - SHINGLE + 1)}


__all__ = ["CONTAINED", "NEAR", "SAME", "SAME_PROMPT", "SHINGLE", "Overlap", "find_overlaps", "refuse_overlaps"]
