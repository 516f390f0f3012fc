"""The text of a sample, and the words and shingles by which two texts are compared."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import Any

import numpy as np
import numpy.typing as npt

from donod_fast.data.probes import REASONING_KEYS
from donod_fast.data.types import Conversation, Message, PlainText, PromptCompletion, Sample

SHINGLE = 5
"""Words of a shingle."""

# Thai, Lao, Tibetan, Burmese, Khmer, kana and Han have no spaces between words: each character counts as a word.
_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORDS = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+|[^\\w\\s]")
_REMEMBERED = 1 << 19  # words whose hashes are kept, some 80 MB
_MIX = np.uint64(0x9E3779B97F4A7C15)

Hashes = npt.NDArray[np.uint64]


def sample_text(sample: Sample) -> str:
    """The text of a sample: roles, reasoning, contents and tool calls of all turns, and documents to answer from.

    Ids, carried columns and descriptions of tools are not part of it. A row of tokens is written as its numbers.
    """
    match sample:
        case Conversation(messages):
            documents = [_json(dict(one)) for one in sample.documents]
            return "\n".join([*documents, *map(_turn_text, messages)])
        case PromptCompletion(prompt, completion):
            return f"{prompt}\n{completion}"
        case PlainText(text):
            return text
        case _:
            return " ".join(map(str, sample.input_ids))


def normalised(text: str) -> str:
    """A text in Unicode's form NFC, with one space for each run of white space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def text_hash(text: str) -> bytes:
    """16 bytes that two texts share only if they are equal once they are :func:`normalised`."""
    return hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def words(text: str) -> list[str]:
    """The words of a text without regard to case; each sign of punctuation is a word as well."""
    return _WORDS.findall(unicodedata.normalize("NFC", text).casefold())


class Shingler:
    """Turns texts into sets of shingles: hashes of all runs of :data:`SHINGLE` words.

    The hashes are the same in every process and on every machine.
    """

    def __init__(self) -> None:
        self._known = _WordHashes()

    def shingles(self, text: str) -> Hashes:
        """The distinct shingles of a text as 64-bit hashes, rising; a shorter text is one shingle, "" has none."""
        found = words(text)
        if not found:
            return np.zeros(0, np.uint64)
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        hashes = np.fromiter(map(self._known.__getitem__, found), np.uint64, len(found))
        length = min(SHINGLE, len(hashes))
        runs = len(hashes) - length + 1
        mixed = np.full(runs, length, np.uint64)
        for at in range(length):
            mixed = _mixed(mixed ^ hashes[at : at + runs])
        mixed.sort()
        differs = np.ones(runs, bool)
        np.not_equal(mixed[1:], mixed[:-1], out=differs[1:])
        return mixed[differs]


class _WordHashes(dict[str, int]):
    """Hashes of words, computed when they are first asked for; a dict, because this is asked for each word."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        found = self[word] = int.from_bytes(digest, "little")
        return found


def jaccard(one: Hashes, other: Hashes) -> float:
    """Shared shingles of two texts as a share of all their shingles; 0 if both have none."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    total = len(one) + len(other) - shared
    return shared / total if total else 0.0


def _mixed(hashes: Hashes) -> Hashes:
    """One round of splitmix64: a bijection, so that the order of words counts."""
    hashes = hashes + _MIX
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _turn_text(turn: Message) -> str:
    own = turn.own or {}
    reasoning = [own[key] for key in REASONING_KEYS if isinstance(own.get(key), str)]
    calls = [_json(dict(call)) for call in turn.tool_calls]
    return f"{turn.role}: " + "\n".join([*reasoning, turn.content, *calls])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=repr)


__all__ = ["SHINGLE", "Hashes", "Shingler", "jaccard", "normalised", "sample_text", "text_hash", "words"]
