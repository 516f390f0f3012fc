"""DaMoC's token compression: drop the words of lowest conditional perplexity, down to about half the length.

This is our reading of arXiv 2509.01221, whose formulas are not public. The conditional perplexity of a token is its
perplexity given everything before it in the rendered record (``token_losses.py``). Tokens that a model predicts well
carry little information and are dropped first. Only whole words are dropped, so that the text stays readable; a word's
perplexity is the mean over its tokens, in nats. Numbers, negations, the ends of questions and code are kept
(``words.py``), so a text that consists mostly of these stays longer than requested. Order, line breaks and all other
fields of a record are kept.

If a guard (``guard.py``) finds that a shortened text has lost its meaning, a rewriter (``rewriters.py``) is asked. If
there is no rewriter, or its answer is unusable (empty, not shorter, or refused by the guard too), the original text is
kept. By default only instructions are compressed, since a model is trained to write the answers. Programs in answers
are recognised only by a heuristic: do not compress answers that are code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from donod_fast.data.types import SampleError
from donod_fast.errors import InputError
from donod_fast.studies.damoc.fields import SIDES, TextField, read_fields, replaced
from donod_fast.studies.damoc.guard import Guard
from donod_fast.studies.damoc.rewriters import ManyRewriter, RewriteError, Rewriter, rewrite
from donod_fast.studies.damoc.token_losses import Placed, Rendered, TokenLosses
from donod_fast.studies.damoc.words import join_words, split_words
from donod_fast.system.wording import shortened

if TYPE_CHECKING:
    from donod_fast.scoring.scorer import Scorer

LEAST_WORDS = 4
"""A text with fewer words is not compressed."""

_CHUNK = 256  # records processed together


class CompressionStatus(StrEnum):
    """The result for a record; if it has several texts, the last of these that applies to any."""

    KEPT = "kept"  # unchanged: the detail says why
    COMPRESSED = "compressed"
    REWRITTEN = "rewritten"
    REWRITER_FAILED = "rewriter_failed"  # a text is unchanged, because the rewriter failed or its answer is unusable


@dataclass(frozen=True, slots=True)
class Compressed:
    """A record after compression.

    Attributes:
        record: record of the same format with some texts replaced.
        status: result of the compression.
        detail: why texts were kept or what failed, in one line; empty if nothing failed.
        tokens: tokens of the selected texts before compression.
        compressed_tokens: tokens of the same texts afterwards.
        f1: the guard's lowest F1 of a changed text; NaN if none was changed or there is no guard.
    """

    record: Mapping[str, Any]
    status: CompressionStatus
    detail: str
    tokens: int
    compressed_tokens: int
    f1: float = math.nan

    @property
    def ratio(self) -> float:
        """Remaining share of the tokens; 1 for a record without tokens."""
        return self.compressed_tokens / self.tokens if self.tokens else 1.0


@dataclass(slots=True)
class _Text:
    """A text during compression."""

    owner: int
    field: TextField
    status: CompressionStatus = CompressionStatus.KEPT
    text: str = ""
    detail: str = ""
    f1: float = math.nan
    refused: bool = False  # by the guard

    def keep(self, detail: str, status: CompressionStatus = CompressionStatus.KEPT) -> None:
        self.status, self.text, self.detail, self.f1 = status, self.field.text, detail, math.nan

    def take(self, text: str, status: CompressionStatus) -> None:
        self.status, self.text, self.detail = status, text, ""


def compress_records(
    records: Sequence[Mapping[str, Any]],
    scorer: Scorer,
    guard: Guard | None = None,
    rewriter: Rewriter | ManyRewriter | None = None,
    ratio: float = 0.5,
    *,
    fields: Sequence[str] = ("instruction", "input"),
) -> list[Compressed]:
    """Compress the texts of records, one result for each, in their order.

    A faulty record or rewriter affects no other record.

    Args:
        records: records in any format of :mod:`donod_fast.data.formats`, as read from a file; they are not changed.
        scorer: the model that measures token losses, with the template and format of the records.
        guard: refuses shortened texts; None accepts all.
        rewriter: rewrites the texts that the guard refuses.
        ratio: approximate share of a text's tokens to keep.
        fields: sides of a record to compress, of :data:`~donod_fast.studies.damoc.fields.SIDES`.

    Raises:
        InputError: ratio or fields have no valid value, or there is a rewriter and no guard.
        ModelError: the scorer's template cannot be used.
    """
    if not 0.0 < ratio <= 1.0:
        raise InputError(f"ratio is the share of tokens to keep, above 0 and at most 1, got {ratio}")
    unknown = [side for side in fields if side not in SIDES]
    if unknown or not fields:
        raise InputError(f"fields to compress are of {', '.join(SIDES)}; got {', '.join(unknown) or 'none'}")
    if rewriter is not None and guard is None:
        raise InputError("a rewriter needs a guard that refuses compressed texts; name a guard too")
    measure = TokenLosses(scorer)
    done: list[Compressed] = []
    for begin in range(0, len(records), _CHUNK):
        chunk = records[begin : begin + _CHUNK]
        texts, problems = _shortened(chunk, begin, scorer.masks.format, measure, ratio, frozenset(fields))
        if guard is not None:
            _judge([text for text in texts if text.status is CompressionStatus.COMPRESSED], guard)
            _rewrite(texts, guard, rewriter, measure)
        done += _assembled(chunk, texts, problems, measure)
    return done


def _shortened(
    records: Sequence[Mapping[str, Any]],
    begin: int,
    format: str,
    measure: TokenLosses,
    ratio: float,
    sides: frozenset[str],
) -> tuple[list[_Text], dict[int, str]]:
    """The shortened texts, and the problems of records that cannot be read, by position."""
    problems: dict[int, str] = {}
    owners: list[tuple[int, list[TextField], Rendered]] = []
    for at, record in enumerate(records):
        try:
            sample, found = read_fields(record, begin + at, format)
            owners.append((at, found, measure.render(sample, found, sides)))
        except SampleError as error:
            problems[at] = error.detail
    texts: list[_Text] = []
    losses = measure.measure([rendered for _, _, rendered in owners])
    for (at, found, rendered), tokens in zip(owners, losses, strict=True):
        for field, start in zip(found, rendered.starts, strict=True):
            if field.side in sides:
                text = _Text(at, field)
                texts.append(text)
                _shorten(text, start, tokens, ratio)
        if not any(field.side in sides for field in found):
            problems[at] = f"there is no text on its {' or '.join(sorted(sides))} side"
    return texts, problems


def _shorten(text: _Text, start: int | None, tokens: list[Placed] | SampleError, ratio: float) -> None:
    if isinstance(tokens, SampleError):
        text.keep(tokens.detail)
        return
    if start is None:
        text.keep("the template changes the text")
        return
    original = text.field.text
    words = split_words(original)
    if len(words) < LEAST_WORDS:
        text.keep(f"fewer than {LEAST_WORDS} words")
        return
    kept = _kept_words(
        [(word.start + start, word.end + start) for word in words], [word.stays for word in words], tokens, ratio
    )
    if len(kept) == len(words):
        text.keep("it has no word that could be dropped")
        return
    text.take(join_words(original, words, kept), CompressionStatus.COMPRESSED)


def _kept_words(
    bounds: Sequence[tuple[int, int]], stays: Sequence[bool], tokens: Sequence[Placed], ratio: float
) -> frozenset[int]:
    """Positions of the kept words: words of lowest mean loss are dropped until ``ratio`` of the tokens is left.

    A token belongs to every word with which it shares a character. A word with a token without a loss is kept.
    """
    losses: list[list[float]] = [[] for _ in bounds]
    at = 0
    for first, last, loss in tokens:
        while at < len(bounds) and bounds[at][1] <= first:
            at += 1
        for word in range(at, len(bounds)):
            if bounds[word][0] >= last:
                break
            losses[word].append(loss)
    left = sum(len(some) for some in losses)
    target = ratio * left
    open_words = [
        (math.fsum(some) / len(some), word)
        for word, some in enumerate(losses)
        if some and not stays[word] and not math.isnan(math.fsum(some))
    ]
    kept = set(range(len(bounds)))
    for _, word in sorted(open_words):
        if left <= target or len(kept) == 1:
            break
        kept.remove(word)
        left -= len(losses[word])
    return frozenset(kept)


def _judge(texts: Sequence[_Text], guard: Guard) -> None:
    """Measure shortened texts; refused ones are replaced by the original."""
    values = guard.f1([text.field.text for text in texts], [text.text for text in texts])
    for text, value in zip(texts, values, strict=True):
        if value >= guard.least_f1:
            text.f1 = float(value)
        else:  # NaN as well
            text.keep(f"the guard refuses it: F1 {value:.3f} is below {guard.least_f1:g}")
            text.refused = True


def _rewrite(
    texts: Sequence[_Text], guard: Guard, rewriter: Rewriter | ManyRewriter | None, measure: TokenLosses
) -> None:
    """Send every text that the guard refused to the rewriter, and judge the answers."""
    refused = [text for text in texts if text.refused]
    if rewriter is None or not refused:
        return
    answers = [
        answer.strip() if isinstance(answer, str) else answer
        for answer in rewrite(rewriter, [text.field.text for text in refused])
    ]
    lengths = measure.lengths([text.field.text for text in refused] + [one for one in answers if isinstance(one, str)])
    answered = []
    for text, answer in zip(refused, answers, strict=True):
        before = text.detail
        if isinstance(answer, Exception):
            said = shortened(answer, 300)
            problem = said if isinstance(answer, RewriteError) else f"{type(answer).__name__}: {said}"
        elif not answer:
            problem = "its answer is empty"
        elif lengths[answer] >= lengths[text.field.text]:
            problem = f"its answer is not shorter ({lengths[answer]} tokens of {lengths[text.field.text]})"
        else:
            text.take(answer, CompressionStatus.REWRITTEN)
            answered.append(text)
            continue
        text.keep(f"{before}; the rewriter fails: {problem}", CompressionStatus.REWRITER_FAILED)
    _judge(answered, guard)
    for text in answered:
        if text.status is CompressionStatus.KEPT:
            text.keep(f"the rewriter's answer is not usable: {text.detail}", CompressionStatus.REWRITER_FAILED)


def _assembled(
    records: Sequence[Mapping[str, Any]], texts: Sequence[_Text], problems: Mapping[int, str], measure: TokenLosses
) -> list[Compressed]:
    lengths = measure.lengths([one for text in texts for one in (text.field.text, text.text)])
    by_record: list[list[_Text]] = [[] for _ in records]
    for text in texts:
        by_record[text.owner].append(text)
    found = []
    for at, (record, own) in enumerate(zip(records, by_record, strict=True)):
        changed = [text for text in own if text.text != text.field.text]
        details = [f"{text.field.name}: {text.detail}" for text in own if text.detail]
        found.append(
            Compressed(
                replaced(record, {text.field.path: text.text for text in changed}) if changed else record,
                max((text.status for text in own), key=_ORDER.index, default=CompressionStatus.KEPT),
                "; ".join([problems[at], *details] if at in problems else details),
                sum(lengths[text.field.text] for text in own),
                sum(lengths[text.text] for text in own),
                min((text.f1 for text in changed if not math.isnan(text.f1)), default=math.nan),
            )
        )
    return found


_ORDER = list(CompressionStatus)

__all__ = ["Compressed", "CompressionStatus", "compress_records"]
