"""A record as the model sees it: its tokens as text, which of them are scored, and what was rewritten or left out.

:func:`view_rows` is the Python side of ``donod-fast show``. The text is decoded from the ids that would be scored: it
shows special tokens, white space and truncation as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from donod_fast.data.grouping import grouped
from donod_fast.data.masking import Masker
from donod_fast.data.types import Record, TokenizedSample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTEXT = 3  # pieces before a token that are decoded with it: enough for the rules about spaces
_LONGEST_CHARACTER = 4  # bytes, and therefore tokens
_LONGEST_PIECE = 2 * _LONGEST_CHARACTER
_UNREADABLE = "\ufffd"
_CHUNK = 64

RECORDED, COMPUTED = "recorded", "computed"
"""Where losses come from: the scores folder, or the model as it is now."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token, or several that spell one character together.

    Attributes:
        text: the text; ``""`` for a token that writes nothing.
        ids: the token ids.
        names: the tokens' own spelling.
        scored: whether these tokens are scored.
        special: whether it is a special token, such as BOS or an end-of-turn marker.
        losses: cross entropy of each token in nats; empty if it is not known.
    """

    text: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    scored: bool
    special: bool
    losses: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RowView:
    """Everything that a person needs to check the mask of a row.

    Attributes:
        row: 0-based position in the input.
        id: the record's own id, else a hash of its content.
        file: the file's name.
        place: where in the file.
        status: the status of the tokenised row, or the one that its scores have.
        detail: cause of a status without a score, or remarks.
        format: record format; ``""`` if none was found.
        template: name of the chat template.
        mask: how the mask was made; ``""`` if there is none.
        tokens: tokens before truncation; a lower bound for very long texts (see ``detail``).
        scored_tokens: number of scored tokens.
        truncated: whether the length limit cut tokens off.
        recasts: what was rewritten so that the chat template can express it.
        unused: columns that no score depends on.
        excluded: number of assistant turns that the record's own flags leave out.
        pieces: the tokens in order; empty for a row without a mask.
        text: for a row without a mask, the text that would have been tokenised; None if there is none either.
        record: the parsed record; None if it cannot be parsed.
        raw: the record's line in its file, for a line that cannot be parsed; otherwise None.
        scores: what a scores folder holds for the row, by name; empty if there is none.
        losses_from: where the losses of the pieces come from, ``RECORDED`` or ``COMPUTED``; "" if nobody
            said.
    """

    row: int
    id: str
    file: str
    place: str
    status: str
    detail: str
    format: str
    template: str
    mask: str
    tokens: int
    scored_tokens: int
    truncated: bool
    recasts: tuple[str, ...]
    unused: tuple[str, ...]
    excluded: int
    pieces: tuple[Piece, ...]
    text: str | None = None
    record: Mapping[str, Any] | None = field(default=None, repr=False)
    raw: str | None = None
    scores: Mapping[str, float | str] = field(default_factory=dict)
    losses_from: str = ""


def view_rows(
    records: Iterable[Record],
    masker: Masker,
    tokenizer: PreTrainedTokenizerBase,
    *,
    statuses: Sequence[str] = (),
    losses: Callable[[TokenizedSample], Sequence[float]] | None = None,
) -> Iterator[RowView]:
    """View records one by one, in order.

    Args:
        records: the records; they are read as they are needed.
        masker: how they are read and masked.
        tokenizer: the masker's tokenizer.
        statuses: only rows with one of these statuses; empty for all rows.
        losses: gives the cross entropy of each scored token of a row in nats, in order; None if it is not wanted.
    """
    for chunk in grouped(records, 1 if not statuses else _CHUNK):
        for record, sample in zip(chunk, masker.tokenize_many(chunk), strict=True):
            if not statuses or sample.status in statuses:
                yield view_row(record, sample, masker, tokenizer, None if losses is None else losses(sample))


def view_row(
    record: Record,
    sample: TokenizedSample,
    masker: Masker,
    tokenizer: PreTrainedTokenizerBase,
    losses: Sequence[float] | None = None,
) -> RowView:
    """View one tokenised record.

    Args:
        record: the record.
        sample: the record as the masker tokenised it.
        masker: the masker.
        tokenizer: its tokenizer.
        losses: cross entropy of each scored token in nats, in order; None if it is not known.
    """
    return RowView(
        row=record.row,
        id=sample.id,
        file=record.file,
        place=record.place,
        status=str(sample.status),
        detail=sample.detail,
        format=sample.format,
        template=masker.describe()["template"],
        mask=sample.mask,
        tokens=sample.tokens,
        scored_tokens=sample.scored_tokens,
        truncated=sample.truncated,
        recasts=sample.recasts,
        unused=sample.unused,
        excluded=sample.excluded,
        pieces=tuple(pieces_of(tokenizer, sample.input_ids, sample.scored, losses)),
        text=None if sample.input_ids else masker.text_of(record),
        record=record.data,
        raw=record.raw.decode("utf-8", "backslashreplace") if record.data is None and record.raw is not None else None,
    )


def pieces_of(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    scored: Sequence[bool],
    losses: Sequence[float] | None = None,
) -> Iterator[Piece]:
    """Decode tokens one by one; tokens that spell a character together form one piece.

    A piece never mixes scored tokens with others: where the border lies within a character, its parts are unreadable.

    Args:
        tokenizer: a transformers tokenizer, fast or slow.
        ids: token ids.
        scored: one flag per token.
        losses: cross entropy of each scored token in nats, in order; None if it is not known.
    """
    return _single(_Decoder(tokenizer), ids, scored, iter(losses or ()), 0, len(ids))


def runs_of(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    scored: Sequence[bool],
    losses: Sequence[float] | None = None,
) -> Iterator[Piece]:
    """Like :func:`pieces_of`, but neighbours of one kind are one piece, which is decoded at once: much faster.

    Tokens are of one kind if they are all scored or not, and all special or not. With losses, scored tokens are pieces
    of their own. A piece has names only if it writes nothing. The texts joined are those of :func:`pieces_of`.
    """
    decoder = _Decoder(tokenizer)
    values = iter(losses or ())
    kinds = [(flag, decoder.is_special(token)) for token, flag in zip(ids, scored, strict=True)]
    begin = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or kinds[end] != kinds[begin]:
            if losses is not None and scored[begin]:
                yield from _single(decoder, ids, scored, values, begin, end)
            else:
                yield decoder.run(ids[begin:end], *kinds[begin])
            begin = end


def _single(
    decoder: _Decoder, ids: Sequence[int], scored: Sequence[bool], values: Iterator[float], begin: int, stop: int
) -> Iterator[Piece]:
    """The tokens from ``begin`` to ``stop`` one by one; ``values`` are the losses of the scored ones."""
    for at in range(begin, stop):
        flag, end = scored[at], at + 1
        text = decoder.text_of(ids[begin:end])
        is_border = end == stop or scored[end] != flag or end - begin == _LONGEST_PIECE
        is_whole = not text.endswith(_UNREADABLE) or decoder.is_whole(ids, begin, end, text)
        if is_whole or is_border:
            own = tuple(islice(values, end - begin)) if flag else ()
            yield decoder.piece(ids[begin:end], text, flag, own, is_whole=is_whole)
            begin = end


class _Decoder:
    """Decodes tokens after those before them, since many tokenizers write a space only between tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = {*tokenizer.all_special_ids, *(token for token, one in added.items() if one.special)}
        self._context: list[tuple[int, ...]] = []

    def text_of(self, ids: Sequence[int]) -> str:
        before = [token for piece in self._context for token in piece]
        known, whole = self._decode(before), self._decode([*before, *ids])
        return whole[len(known) :] if whole.startswith(known) else self._decode(ids)

    def is_whole(self, ids: Sequence[int], begin: int, end: int, text: str) -> bool:
        """Whether a text that ends unreadably stays so with the tokens after it: they begin another character."""
        for stop in range(end + 1, min(end + _LONGEST_CHARACTER, len(ids) + 1)):
            longer = self.text_of(ids[begin:stop])
            if len(longer) <= len(text) or not longer.startswith(text):
                return False
        return True

    def is_special(self, token: int) -> bool:
        return token in self._special

    def run(self, ids: Sequence[int], scored: bool, special: bool) -> Piece:
        text = self.text_of(ids)
        self._context = [] if text.endswith(_UNREADABLE) else [tuple(ids[-_CONTEXT:])]
        return Piece(text, tuple(ids), () if text else self._names(ids), scored, special)

    def _names(self, ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(str(name) for name in self._tokenizer.convert_ids_to_tokens(list(ids)))

    def piece(self, ids: Sequence[int], text: str, scored: bool, losses: tuple[float, ...], *, is_whole: bool) -> Piece:
        # The rest of a character that is cut here must not be decoded together with its beginning.
        self._context = [*self._context, tuple(ids)][-_CONTEXT:] if is_whole else []
        return Piece(text, tuple(ids), self._names(ids), scored, ids[0] in self._special, losses)

    def _decode(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


__all__ = ["Piece", "RowView", "pieces_of", "runs_of", "view_row", "view_rows"]
