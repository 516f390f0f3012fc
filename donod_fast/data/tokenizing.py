"""Tokenise many texts per call and keep the character position of every token.

Only this module calls the tokenizer: without special tokens, truncation, padding or warnings. With a length limit,
only the beginning of a very long text is tokenised; see :mod:`donod_fast.data.bounded`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from donod_fast.data.bounded import longest_whole, proved_tokens
from donod_fast.data.types import SampleError, Status
from donod_fast.errors import ModelError
from donod_fast.system.limits import TOKENS_OF_A_LETTER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a text.

    Attributes:
        ids: token ids.
        encoding: the fast tokenizer's own result, which has the position of each token; None for a
            slow tokenizer.
        is_cut: whether these are only the first tokens of a very long text, more than the length limit.
    """

    ids: list[int]
    encoding: Any
    is_cut: bool = False

    def begins_with(self, ids: Sequence[int]) -> bool:
        """Whether the text's tokens begin with these; what lies beyond a cut is not compared."""
        known = ids[: len(self.ids)] if self.is_cut else ids
        return self.ids[: len(known)] == list(known)

    def ends_before(self, place: int) -> bool:
        """Whether the text was cut, and all known tokens start before the character ``place``.

        Always False for a slow tokenizer.
        """
        return self.is_cut and self.tokens_before(place) == len(self.ids)

    def bounds(self, token: int) -> tuple[int, int] | None:
        """Characters ``start`` to ``end`` (exclusive) of a token; None for a slow tokenizer."""
        return None if self.encoding is None else self.encoding.token_to_chars(token) or (0, 0)

    def tokens_before(self, place: int) -> int | None:
        """How many tokens start before the character ``place``; None for a slow tokenizer."""
        if self.encoding is None:
            return None
        # Querying the bounds of a few tokens is ten times faster than building the list of all bounds.
        return bisect_left(range(len(self.ids)), place, key=self._start)

    def token_at(self, place: int) -> int | None:
        """The token that covers the character ``place``; None if there is none, or for a slow tokenizer."""
        found = None if self.encoding is None or place < 0 else self.encoding.char_to_token(place)
        return None if found is None or found >= len(self.ids) else int(found)

    def offsets(self) -> list[tuple[int, int]]:
        """Characters ``start`` to ``end`` (exclusive) of every token; empty for a slow tokenizer."""
        return [] if self.encoding is None else list(self.encoding.offsets)[: len(self.ids)]

    def _start(self, token: int) -> int:
        bounds = self.bounds(token)
        return bounds[0] if bounds else 0


class TextEncoder:
    """The part of a tokenizer's interface that masking needs.

    Attributes:
        frame: ids that the tokenizer puts before a text (usually BOS; often none) and after it.
        front: the former.
        is_fast: whether it knows the place of each token in the text.
        begin_token: text of the BOS token, ``""`` if there is none.
        begin_id: id of the BOS token, or None.
        end_token: text of the EOS token, ``""`` if there is none.
        end_id: id of the EOS token, or None.
        longest: characters of the longest text that is tokenised whole; None without a length limit.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limit: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self.longest = None if limit is None else longest_whole(limit)
        self.end_token = str(tokenizer.eos_token or "")
        self.end_id: int | None = tokenizer.eos_token_id
        self.begin_token = str(tokenizer.bos_token or "")
        self.begin_id: int | None = tokenizer.bos_token_id
        self.is_fast = bool(tokenizer.is_fast)
        self.frame = _frame(tokenizer)
        self.front = self.frame[0]

    def encode(self, texts: Iterable[str]) -> dict[str, Encoded | SampleError]:
        """Tokenise each distinct text once; a text that fails maps to its error and does not affect the others."""
        unique = list(dict.fromkeys(texts))
        if not unique:
            return {}
        if len(unique) > 1 and any(map(self._is_very_long, unique)):
            # One at a time: an encoding takes about 200 bytes for a character.
            short = [text for text in unique if not self._is_very_long(text)]
            long = [self.encode([text]) for text in unique if self._is_very_long(text)]
            return self.encode(short) | {text: found for one in long for text, found in one.items()}
        try:
            if self._is_very_long(unique[0]):
                return {unique[0]: self._first_tokens(unique[0])}
            return dict(zip(unique, self._call(unique), strict=True))
        except BaseException as error:
            if not _is_tokenizers(error):
                raise
            if len(unique) == 1:
                return {unique[0]: SampleError(Status.TOKENIZER_FAILED, _cause(unique[0], error))}
        return {text: found for one in unique for text, found in self.encode([one]).items()}

    def framed(self, text: str, ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids to add before and after a text that was not rendered by a template.

        The tokenizer's own front ids go before it and the EOS token after it, unless the text already
        has them.
        """
        front = () if self.front and tuple(ids[: len(self.front)]) == self.front else self.front
        ends = self.end_id is None or text.endswith(self.end_token) or (bool(ids) and ids[-1] == self.end_id)
        return front, () if ends or self.end_id is None else (self.end_id,)

    def names(self, ids: Sequence[int]) -> list[str]:
        """The tokens' own spelling, for messages."""
        return [str(name) for name in self._tokenizer.convert_ids_to_tokens(list(ids))]

    def _is_very_long(self, text: str) -> bool:
        return self.longest is not None and len(text) > self.longest

    def _first_tokens(self, text: str) -> Encoded:
        """The first tokens of a very long text, at least one more than the limit; all where that is not proved."""
        assert self._limit is not None
        last: list[Encoded] = []

        def tokens_of(part: str) -> list[int]:
            last[:] = self._call([part])
            return last[0].ids

        proved = proved_tokens(text, self._limit, tokens_of)
        if proved is None:
            return self._call([text])[0]
        return Encoded(last[0].ids[:proved], last[0].encoding, is_cut=True)

    def _call(self, texts: list[str]) -> list[Encoded]:
        found = self._tokenizer(
            texts,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        encodings = found.encodings or [None] * len(texts)
        return [Encoded(list(i), e) for i, e in zip(found["input_ids"], encodings, strict=True)]


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    probe = "a"
    bare = list(tokenizer(probe, add_special_tokens=False, verbose=False)["input_ids"])
    whole = list(tokenizer(probe, add_special_tokens=True, verbose=False)["input_ids"])
    if len(whole) > TOKENS_OF_A_LETTER:
        raise ModelError(
            f"the tokenizer makes {len(whole):,} tokens of one letter; take tokenizer.json from its release"
        )
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return tuple(whole[:at]), tuple(whole[at + len(bare) :])
    return (), ()


def _is_tokenizers(error: BaseException) -> bool:
    # A panic in the tokenizer's Rust code arrives as a BaseException of this name.
    return (isinstance(error, Exception) and not isinstance(error, MemoryError)) or (
        type(error).__name__ == "PanicException"
    )


def _cause(text: str, error: BaseException) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as bad:
        return f"the text is not valid Unicode: a lone surrogate at character {bad.start}"
    lines = str(error).strip().splitlines()
    return f"the tokenizer failed: {lines[0] if lines else type(error).__name__}"
