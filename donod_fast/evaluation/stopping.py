"""Decide when a row of a batch is finished: stop string, end token, or its own token limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_EVERY = 4  # steps between two checks: text after a stop is cut off anyway, and decoding costs more than a token


class RowStops:
    """A stopping criterion for ``generate``: checks the tail of each row every few steps.

    Only the tail is decoded: as many tokens as the longest stop has characters, and a few more. The check does not
    decide what is kept of a row (the text is cut at its first stop afterwards), only when generation ends.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stops: Sequence[str],
        end_ids: Sequence[int],
        prompt_width: int,
        limits: Sequence[int],
    ) -> None:
        self._tokenizer, self._stops, self._end_ids = tokenizer, tuple(stops), frozenset(end_ids)
        self._width, self._limits = prompt_width, torch.tensor(limits)
        self._done = [False] * len(limits)
        self._tail = _EVERY + max(map(len, stops), default=0) + 3

    def __call__(self, input_ids: Tensor, _scores: Any = None, **_others: Any) -> Tensor:
        """Which rows are finished, (rows,) bool, given all ids so far, (rows, prompt + generated)."""
        generated = input_ids.shape[1] - self._width
        if self._stops and generated % _EVERY == 0:
            self._look(input_ids[:, max(self._width, input_ids.shape[1] - self._tail) :].tolist())
        done = torch.tensor(self._done) | (self._limits <= generated)
        return done.to(input_ids.device)

    def _look(self, tails: list[list[int]]) -> None:
        for row, tail in enumerate(tails):
            if self._done[row]:
                continue
            if not self._end_ids.isdisjoint(tail):
                self._done[row] = True
                continue
            text = self._tokenizer.decode(tail, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            self._done[row] = any(stop in text for stop in self._stops)
