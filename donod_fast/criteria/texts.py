"""Text of a tokenised row, for criteria that compare words: what the model reads, without special tokens.

A criterion sees tokens only, so that it works alike for every record format and on every engine. The text therefore has
the words that the chat template writes (``user``, ``assistant``), and ends at the length limit.
"""

from __future__ import annotations

from typing import Any

from donod_fast.data.types import TokenizedSample


def whole_text(tokenizer: Any, sample: TokenizedSample) -> str:
    """The text of all tokens of a row, prompt and answer."""
    return _decoded(tokenizer, list(sample.input_ids))


def answer_text(tokenizer: Any, sample: TokenizedSample) -> str:
    """The text of the scored tokens of a row."""
    return _decoded(tokenizer, [token for token, flag in zip(sample.input_ids, sample.scored, strict=True) if flag])


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


__all__ = ["answer_text", "whole_text"]
