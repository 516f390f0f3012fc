"""Conversations, tokenizers and rows to compare our masks with those of other trainers."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tiny_chat import record, tiny_tokenizer

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Status

Row = tuple[list[int], list[int]]
"""Ids and labels."""

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}

ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
    "<|eot|>",
)
"""Ends of turns, one of which is the EOS token where a template does not write ``eos_token``."""

_MARKERS = re.compile(r"<\|[^|<>\s]+\|>|<[a-z_]+>|</[a-z_]+>|<｜[^<>]*?｜>|\[/?[A-Z_]+\]")


def said(*turns: str) -> list[dict[str, Any]]:
    """Messages of a question, its answer, the next question, and so on."""
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]


PLAIN: Mapping[str, Sequence[dict[str, Any]]] = {
    "one pair": said("How many apples?", "She has 3 apples left."),
    "two pairs": said("How many apples?", "She has 3.", "And now?\n", "2 left, 5 - 2 = 3."),
    "white space": said(" How many?\n", "\n\n She has 3.\n"),
    "three pairs": said("One?", "1", "Two?", "2, 2", "Three?", "[[3 zz"),
    "system": [{"role": "system", "content": "Be short."}, *said("How many apples?", "She has 3.")],
    "thinking": said("How many?", "<think>\nlet me count\n</think>\n\nShe has 3."),
}
"""Conversations of texts alone."""

CONVERSATIONS: Mapping[str, Sequence[dict[str, Any]]] = {
    **PLAIN,
    "reasoning": [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "reasoning_content": "let me count", "content": "She has 3."},
    ],
    "call": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
    ],
    "reply first": [{"role": "assistant", "content": "Hello."}, *said("How many?", "She has 3.")],
}
"""Conversations of all kinds."""


def tokenizer_for(template: str, base: Any = None) -> Any:
    """A small tokenizer with a chat template, whose markers are single tokens."""
    tokenizer = copy.deepcopy(tiny_tokenizer() if base is None else base)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(_MARKERS.findall(template)))})
    ends = [end for end in ENDS if end in template]
    if ends and "eos_token" not in template:
        tokenizer.eos_token = ends[0]
    tokenizer.chat_template = template
    tokenizer.model_max_length = 1 << 20
    return tokenizer


def row_like(tokenizer: Any, data: Mapping[str, Any], like: str, **settings: Any) -> Row | str:
    """Our ids and labels of a record; why there are none. The first label is never used, and is -100."""
    masker = Masker(copy.deepcopy(tokenizer), MaskSettings(like=like, **settings), vocab_size=1 << 20)
    row = masker.tokenize(record(copy.deepcopy(dict(data))))
    if row.status is not Status.SCORED:
        return f"{row.status}: {row.detail}"
    return list(row.input_ids), [one if flag else -100 for one, flag in zip(row.input_ids, row.scored, strict=True)]


def as_row(ids: Sequence[int], labels: Sequence[int]) -> Row:
    """A trainer's row in the form of :func:`row_like`."""
    return list(ids), [-100, *labels[1:]]


def pin_date(patch: Any) -> None:
    """Let chat templates write the date that ours writes, in the trainer as well.

    Args:
        patch: pytest's ``monkeypatch``.
    """
    from datetime import datetime

    class Pinned(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Pinned:
            return cls(2024, 7, 26, tzinfo=tz)

    patch.setattr("transformers.utils.chat_template_utils.datetime", Pinned)
