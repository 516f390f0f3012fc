"""The masks of Axolotl's ``chat_template`` strategy with its defaults.

These are ``roles_to_train: [assistant]`` and ``train_on_eos: turn``, without ``eot_tokens``.

The trainer renders the conversation once more with a placeholder instead of the turn, and trains on the tokens of the
characters that differ: neither header nor white space nor an empty block of thinking, but reasoning and calls. To these
comes the next EOS token of the tokenizer, if it follows within three tokens. A turn that it does not find this way is
left out. Rows above the length limit are dropped.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from donod_fast.data.bounded import shared_length
from donod_fast.data.mask_profiles.base import (
    Encode,
    Masked,
    ProfilePlan,
    as_given,
    only_conversations,
    replies,
    text_content,
)
from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.rendering import Renderer
from donod_fast.data.tokenizing import Encoded, TextEncoder
from donod_fast.data.types import Conversation, Message, Sample, SampleError, Status
from donod_fast.errors import InputError

NAME = "axolotl"
_FACTS = PROFILES[NAME]
_PLACEHOLDERS = ("[[dummy_message]]", "zzdummymessagezz")
"""Axolotl's own: no first or last character in common, so that one of them shows where a reply begins and ends."""
_PADDING = 3
"""Tokens that may stand between a turn and its EOS."""
_ALWAYS = frozenset({"role", "content", "reasoning_content"})
"""Keys of a message that the template always gets."""
_READ = re.compile(r"""(?<![\w.])message(?:\.(\w+)|\[\s*["'](\w+)["']\s*\])""")
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


class AxolotlMasks:
    """Axolotl's masks.

    Args:
        renderer: writes the chat template.
        encoder: the tokenizer.

    Raises:
        InputError: the tokenizer is slow. Axolotl finds turns of slow tokenizers in another way.
    """

    def __init__(self, renderer: Renderer, encoder: TextEncoder) -> None:
        if not encoder.is_fast:
            raise InputError(
                "--like axolotl needs a fast tokenizer: Axolotl finds the turns of a slow one in another way"
            )
        self._renderer, self._encoder = renderer, encoder
        # The template gets further keys only if it reads them from a variable of this name.
        self._known = _ALWAYS | {one or other for one, other in _READ.findall(_COMMENT.sub("", renderer.source))}

    def plan(self, sample: Sample) -> ProfilePlan:
        """See :class:`donod_fast.data.mask_profiles.base.MaskProfile`."""
        if not isinstance(sample, Conversation):
            raise only_conversations(_FACTS)
        plain = replace(
            sample,
            messages=tuple(_parsed(text_content(message)) for message in sample.messages),
            tools=tuple(_with_object(tool, "parameters") for tool in sample.tools),
        )
        wanted = [at for at in replies(plain) if plain.messages[at].scored or at < plain.given]
        if not wanted:
            raise SampleError(Status.ALL_MASKED, "the record's own flags leave out every assistant turn")
        rendering = as_given(self._renderer, plain, _FACTS)
        self._check_keys(plain, rendering.text)
        places = [self._place(plain, at, rendering.text) for at in wanted]

        def finish(encode: Encode) -> Masked:
            whole = encode(rendering.text)
            if whole.is_cut:
                raise SampleError(Status.TOO_LONG, "Axolotl drops rows above the length limit")
            flags = self._flags(whole, places)
            return Masked(whole.ids, flags, NAME, False, rendering.recasts)

        return ProfilePlan((rendering.text,), finish)

    def _check_keys(self, conversation: Conversation, text: str) -> None:
        """Refuse keys of messages that the template may not get from Axolotl, if they matter."""
        given = [message.for_template() for message in conversation.messages]
        unknown = sorted({key for message in given for key in message} - self._known)
        if not unknown:
            return
        bare = [{key: value for key, value in message.items() if key in self._known} for message in given]
        messages = tuple(
            replace(message, tool_calls=(), own=own) for message, own in zip(conversation.messages, bare, strict=True)
        )
        if self._renderer.text(replace(conversation, messages=messages)) != text:
            raise SampleError(
                Status.TEMPLATE_FAILED,
                f"Axolotl may leave out {', '.join(unknown)} of the messages, since the chat template does not read "
                "them from a variable named message; choose another template, or leave --like out",
            )

    def _place(self, conversation: Conversation, at: int, text: str) -> tuple[int, int]:
        """The characters that differ where a placeholder stands instead of the turn."""
        bounds = []
        for word in _PLACEHOLDERS:
            own = conversation.messages[at].own
            role = conversation.messages[at].role if own is None else str(own["role"])
            changed = Message("assistant", word, own={"role": role, "content": word})
            messages = (*conversation.messages[:at], changed, *conversation.messages[at + 1 :])
            other = self._renderer.render(replace(conversation, messages=messages)).text
            start = shared_length(text, other)
            left = min(len(text), len(other)) - start
            bounds.append((start, len(text) - min(left, shared_length(text[::-1], other[::-1]))))
        return min(start for start, _ in bounds), max(end for _, end in bounds)

    def _flags(self, whole: Encoded, places: Sequence[tuple[int, int]]) -> list[bool]:
        flags = [False] * len(whole.ids)
        offsets = whole.offsets()
        starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
        for start, end in places:
            first, stop = bisect_right(ends, start), bisect_left(starts, end)
            if end <= start or stop <= first:
                stop = -1  # not found, and its EOS is looked for from the last token on
            else:
                flags[first:stop] = [True] * (stop - first)
            closing = self._next_end(whole.ids, stop)
            if closing is not None and abs(closing - stop) <= _PADDING:
                flags[closing] = True
        return flags

    def _next_end(self, ids: Sequence[int], start: int) -> int | None:
        """The next EOS token; None if there is none, or if the last token is one and the turn was not found."""
        end = self._encoder.end_id
        if start < 0 and ids and ids[-1] == end:
            return None
        return next((at for at in range(max(start, 0), len(ids)) if ids[at] == end), None)


def _parsed(message: Message) -> Message:
    """A message whose calls have their arguments as objects, also where the record has them as JSON text."""
    if message.own is None or not message.own.get("tool_calls"):
        return message
    calls = [_with_object(call, "arguments") for call in message.own["tool_calls"]]
    return replace(message, own={**message.own, "tool_calls": calls})


def _with_object(tool: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A tool or a call whose function has an object under a key, instead of its JSON text."""
    function = tool.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get(key), str):
        return tool
    try:
        return {**tool, "function": {**function, key: json.loads(function[key])}}
    except ValueError as error:
        raise SampleError(Status.UNKNOWN_FORMAT, f"{key} of a function are not valid JSON: {error}") from error


__all__ = ["NAME", "AxolotlMasks"]
