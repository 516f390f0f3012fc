"""Split a text into words that can be dropped one by one, and determine which words must stay.

A word is a run of characters without white space; in scripts without white space (Han, Kana) each character is a word.
Words must stay if the meaning depends on them: numbers and number words, negations and comparisons, the ends of
questions, and code (fenced, between backticks, or lines and words that look like code). The detection of code is a
heuristic that keeps too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_EDGES = re.compile(r"^\W+|\W+$")
_FENCED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_CODE_SIGN = re.compile(r"[_(){}\[\]<>=;\\/*+%&|^~@#$]")
_CODE_LINE = re.compile(
    r"^(?:"
    r"(?:\t| {4}).*\S"  # indented
    r"|.*[;{}][ \t]*"  # ends like a statement or a block
    r"|[ \t]*(?:def|class|import|from|return|for|while|if|elif|else|try|except|with|print|public|private|static|void"
    r"|int|const|let|var|function|using|SELECT|INSERT|UPDATE|DELETE|CREATE|\#include|//)\b.*[(){}\[\];:=<>*].*"
    r"|[ \t]*</?\w.*"  # a tag
    r")$",
    re.MULTILINE,
)
_NEGATIONS = "no not never none nobody nothing nowhere neither nor cannot without except unless but only"
_COMPARISONS = "more less fewer than most least before after"
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half "
    "halves third thirds quarter quarters once twice thrice double triple dozen percent per each every both all"
)
_MEANING = frozenset(" ".join((_NEGATIONS, _COMPARISONS, _NUMBERS)).split())
"""English words that stay. In other languages only numbers in digits stay."""


@dataclass(frozen=True, slots=True)
class Word:
    """Characters ``start`` to ``end`` (exclusive) of a text; ``stays`` if it must not be dropped."""

    start: int
    end: int
    stays: bool


def split_words(text: str) -> list[Word]:
    """The words of a text, in order."""
    code = [match.span() for pattern in (_FENCED, _CODE_LINE) for match in pattern.finditer(text)]
    code.sort()
    words, at, reach = [], 0, 0  # reach: end of the code that starts before the word
    for match in _WORD.finditer(text):
        start, end = match.span()
        while at < len(code) and code[at][0] < end:
            reach = max(reach, code[at][1])
            at += 1
        words.append(Word(start, end, start < reach or carries_meaning(match[0])))
    return words


def carries_meaning(word: str) -> bool:
    """Whether the meaning depends on this word: a number, a negation, the end of a question, code."""
    bare = _EDGES.sub("", word).lower()
    return (
        not bare  # a sign alone: a minus, a bullet
        or bare in _MEANING
        or bare.endswith(("n't", "n\u2019t"))
        or any(character.isnumeric() for character in word)
        or "?" in word
        or "\uff1f" in word
        or _CODE_SIGN.search(word) is not None
        or any(part in _MEANING for part in bare.split("-"))
    )


def join_words(text: str, words: Sequence[Word], kept: Collection[int]) -> str:
    """The text with only the words at the positions ``kept``, in order.

    Between two of them stands the white space that stood before the second. Where words were left out in between, it
    is the first that breaks the line, else the last that there is: no two words are glued together. What surrounds all
    words stays.
    """
    if not words:
        return text
    out, gaps = [text[: words[0].start]], []
    for at, word in enumerate(words):
        if at:
            gaps.append(text[words[at - 1].end : word.start])
        if at not in kept:
            continue
        if len(out) > 1:
            breaking = [gap for gap in gaps if "\n" in gap][:1]
            out += breaking or [gap for gap in gaps if gap][-1:]  # none between characters of a script without
        out.append(text[word.start : word.end])
        gaps = []
    return "".join(out) + text[words[-1].end :]


__all__ = ["Word", "carries_meaning", "join_words", "split_words"]
