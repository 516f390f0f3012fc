"""Find rows of one corpus in another, as they are or nearly so.

A row counts as found in three cases. Case, punctuation and white space, system messages and the record's format do not
matter.

1. Both rows have the same words.
2. Both have the same question (all before the last answer) of at least five words, unless many rows have it.
3. At least 80 % of its sequences of five words occur in one row of the other corpus, or 80 % of those of its question.
   Sequences that many rows share (a frame around each question) do not count; four others are needed.

Rows that cannot be read, or have no word, are not compared. The rows that are looked for are held in memory as
hashes. Of more than 5,000 of them only a share of the sequences is held, so that case 3 becomes an estimate.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from donod_fast.data.formats import read_record
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import (
    IGNORE_INDEX,
    Conversation,
    PlainText,
    PromptCompletion,
    Record,
    Sample,
    SampleError,
    TokenRow,
)
from donod_fast.data.words import words_of

SEQUENCE = 5
"""Words of a sequence, and of the shortest question that is compared alone."""
SHARE = 0.8
"""Share of a row's sequences that makes it a near-duplicate."""
_LEAST_SEQUENCES = 4
_COMMON = 0.01  # sequences that more than this share of the rows (and more than 20) have do not tell rows apart
_ROWS_IN_FULL = 5000


@dataclass(frozen=True, slots=True)
class Known:
    """A row that is looked for.

    Attributes:
        source: its corpus, as the user named it.
        row: its number there.
        place: where in its file.
    """

    source: str
    row: int
    place: str


@dataclass(frozen=True, slots=True)
class Match:
    """A row that was found.

    Attributes:
        known: the row that was looked for.
        record: where it was found.
        why: what both have in common.
    """

    known: Known
    record: Record
    why: str


@dataclass(slots=True)
class _Unit:
    """The sequences of a known row, or of its question.

    Attributes:
        row: number of the row among the known ones.
        what: whose sequences, in words.
        sequences: how many are in the index.
    """

    row: int
    what: str
    sequences: int = 0


class Lookout:
    """Looks for known rows among others.

    Args:
        known: the rows to look for, with the name of their corpus.
        count: about how many there are.
        rules: how records are read. Rows that cannot be read are not looked for.
    """

    def __init__(self, known: Iterable[tuple[str, Record]], count: int, rules: ReadRules) -> None:
        self._rules = rules
        self._step = max(1, count // _ROWS_IN_FULL)
        self._known: list[Known] = []
        self._units: list[_Unit] = []
        self._whole: dict[bytes, list[int]] = {}
        self._questions: dict[bytes, list[int]] = {}
        self._index: dict[int, list[int]] = {}
        for source, record in known:
            self._add(source, record)
        self._drop_common()

    def matches(self, records: Iterable[Record]) -> Iterator[Match]:
        """The known rows that occur among some records, each once, as they are found."""
        found: set[int] = set()
        for record in records:
            texts = _texts(read_record(record, self._rules).sample)
            if texts is None:
                continue
            for number, why in self._of(*texts):
                if number not in found:
                    found.add(number)
                    yield Match(self._known[number], record, why)

    def _add(self, source: str, record: Record) -> None:
        texts = _texts(read_record(record, self._rules).sample)
        if texts is None:
            return
        question, whole = texts
        number = len(self._known)
        self._known.append(Known(source, record.row, record.place))
        same = self._whole.setdefault(_digest(whole), [])
        same.append(number)
        if len(question) >= SEQUENCE:
            self._questions.setdefault(_digest(question), []).append(number)
        if len(same) > 1:  # rows that are equal are found as equal; they would make each other's sequences common
            return
        for words, what in ((whole, "its"), (question, "its question's")):
            unit = _Unit(number, what)
            self._units.append(unit)
            for sequence in self._sequences_of(words):
                unit.sequences += 1
                self._index.setdefault(sequence, []).append(len(self._units) - 1)

    def _drop_common(self) -> None:
        limit = 2 * max(20, _COMMON * len(self._known))  # a row has two units
        for sequence in [sequence for sequence, rows in self._index.items() if len(rows) > limit]:
            for number in self._index.pop(sequence):
                self._units[number].sequences -= 1
        for question in [question for question, rows in self._questions.items() if 2 * len(rows) > limit]:
            del self._questions[question]

    def _of(self, question: list[str], whole: list[str]) -> Iterator[tuple[int, str]]:
        for number in self._whole.get(_digest(whole), ()):
            yield number, "the same text"
        if len(question) >= SEQUENCE:
            for number in self._questions.get(_digest(question), ()):
                yield number, "the same question"
        shared: Counter[int] = Counter()
        for sequence in self._sequences_of(whole):
            shared.update(self._index.get(sequence, ()))
        for at, count in shared.items():
            unit = self._units[at]
            if unit.sequences >= _LEAST_SEQUENCES and count >= SHARE * unit.sequences:
                yield unit.row, f"{count / unit.sequences:.0%} of {unit.what} sequences of {SEQUENCE} words"

    def _sequences_of(self, words: list[str]) -> set[int]:
        # CRC-32 is the same in every process, unlike Python's hash; chance equality of a few cannot make a match.
        hashes = (
            zlib.crc32(" ".join(words[at : at + SEQUENCE]).encode("utf-8", "surrogatepass"))
            for at in range(len(words) - SEQUENCE + 1)
        )
        return {one for one in hashes if one % self._step == 0}


def _texts(sample: Sample | SampleError) -> tuple[list[str], list[str]] | None:
    """The words of a sample's question, and all its words; None if it has none."""
    match sample:
        case Conversation(messages):
            turns = [turn for turn in messages if turn.role != "system"]
            last = max((at for at, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
            parts = [f"{turn.content}\n{[dict(call) for call in turn.tool_calls] or ''}" for turn in turns]
            question, rest = "\n".join(parts[:last]), "\n".join(parts[last:])
        case PromptCompletion(prompt, completion):
            question, rest = prompt, completion
        case PlainText(text):
            question, rest = "", text
        case TokenRow(ids, labels):
            first = next((at for at, label in enumerate(labels) if label != IGNORE_INDEX), len(ids))
            numbers = list(map(str, ids))
            return numbers[:first], numbers
        case _:
            return None
    asked = words_of(question)
    whole = [*asked, *words_of(rest)]
    return (asked, whole) if whole else None


def _digest(words: list[str]) -> bytes:
    return blake2b("\0".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


__all__ = ["SEQUENCE", "SHARE", "Known", "Lookout", "Match"]
