"""The masks of TRL's ``SFTTrainer``: of the assistant's turns by its training templates, and of whole conversations.

With ``assistant_only_loss=True`` the trainer takes the marks of the tokenizer's own template. A template without marks
is replaced by the one that TRL ships for it; that one decides about the newline after the end of a turn, thinking tags
and the like, so it is taken from the installed TRL.

By default the trainer scores every token of a conversation. Records whose prompt and completion are apart are scored
from the first token in which the rendering differs from the prompt with a generation prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from donod_fast.data.bounded import shared_length
from donod_fast.data.mask_profiles.base import Encode, Masked, ProfilePlan, as_given, check_flags, replies
from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.rendering import Renderer
from donod_fast.data.templates import ResolvedTemplate, replaced
from donod_fast.data.tokenizing import Encoded, TextEncoder
from donod_fast.data.types import Conversation, PlainText, PromptCompletion, Sample, SampleError, Status
from donod_fast.errors import InputError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSISTANT, WHOLE = "trl", "trl-whole"


def training_template(tokenizer: PreTrainedTokenizerBase, template: ResolvedTemplate) -> ResolvedTemplate:
    """The template with which TRL trains on the assistant's turns: the given one if it has marks, else TRL's own.

    Raises:
        InputError: TRL is needed, and not installed.
        ModelError: TRL has no training template for this one.
    """
    if template.has_marks:
        return template
    try:
        from trl.chat_template_utils import get_training_chat_template
    except ImportError as error:
        raise InputError(
            "--like trl takes the training template from TRL, since this chat template marks no assistant turns: "
            'pip install "donod-fast[train]", or score with --like trl-whole'
        ) from error
    stock = copy.copy(tokenizer)
    stock.chat_template = template.source_text
    try:
        text = get_training_chat_template(stock)
    except ValueError as error:
        raise ModelError(
            f"TRL has no training template for the chat template {template.name!r}, and would refuse it with "
            "assistant_only_loss=True: add {% generation %} marks to it, or score with --like trl-whole"
        ) from error
    return template if text is None else replaced(template, text)


class TrlMasks:
    """TRL's masks.

    Args:
        name: ``"trl"`` or ``"trl-whole"``.
        renderer: writes the template that TRL trains with.
        encoder: the tokenizer.

    Raises:
        InputError: the tokenizer is slow, and TRL finds assistant turns with fast ones only.
    """

    def __init__(self, name: str, renderer: Renderer, encoder: TextEncoder) -> None:
        self._name, self._facts = name, PROFILES[name]
        self._renderer, self._encoder = renderer, encoder
        if name == ASSISTANT and not encoder.is_fast:
            raise InputError("--like trl needs a fast tokenizer, as TRL does with assistant_only_loss=True")

    def plan(self, sample: Sample) -> ProfilePlan:
        """See :class:`donod_fast.data.mask_profiles.base.MaskProfile`."""
        match sample:
            case Conversation():
                return self._conversation(sample)
            case PromptCompletion(prompt, completion):
                text = self._ended(prompt + completion)
                return ProfilePlan((text, prompt), lambda encode: self._text(encode, text, prompt))
            case PlainText(text):
                ended = self._ended(text)
                return ProfilePlan((ended,), lambda encode: self._text(encode, ended, None))
        raise AssertionError("token rows have their own labels")

    def _conversation(self, conversation: Conversation) -> ProfilePlan:
        check_flags(conversation, self._facts)
        replies(conversation)
        rendering = as_given(self._renderer, conversation, self._facts)
        text, given, prompt = rendering.text, conversation.given, ""
        if given:
            prompt = self._renderer.render(conversation, given, add_generation_prompt=True).text

        def finish(encode: Encode) -> Masked:
            whole = encode(text)
            flags = [True] * len(whole.ids)
            if self._name == ASSISTANT:
                flags = _marked(whole, rendering.marked)
            if given:
                flags = _after(shared_length(_whole(encode(prompt)).ids, whole.ids), flags)
            return Masked(whole.ids, flags, self._name, False, rendering.recasts, whole.is_cut)

        return ProfilePlan((text, prompt) if given else (text,), finish)

    def _text(self, encode: Encode, text: str, prompt: str | None) -> Masked:
        whole, (front, back) = encode(text), self._encoder.frame
        ids = [*front, *whole.ids, *back]
        flags = [True] * len(ids)
        if prompt is not None:
            before = [*front, *_whole(encode(prompt)).ids, *back]
            flags = _after(shared_length(before, ids), flags)
        return Masked(ids, flags, self._name, False, (), whole.is_cut)

    def _ended(self, text: str) -> str:
        end = self._encoder.end_token
        return text if text.endswith(end) else text + end


def _whole(prompt: Encoded) -> Encoded:
    if prompt.is_cut:
        raise SampleError(Status.TOO_LONG, "the prompt alone is longer than the length limit")
    return prompt


def _after(start: int, flags: Sequence[bool]) -> list[bool]:
    return [flag and at >= start for at, flag in enumerate(flags)]


def _marked(whole: Encoded, marks: Sequence[tuple[int, int]]) -> list[bool]:
    """The tokens of generation marks, as ``apply_chat_template`` finds them: from a mark's first to its last character.

    A last character that no token covers, or that only the first token covers, leaves the mark open to the end.
    """
    flags = [False] * len(whole.ids)
    for start, end in marks:
        first, last = whole.token_at(start), whole.token_at(end - 1)
        if first is None:
            break
        stop = min(last + 1, len(flags)) if last else len(flags)
        flags[first:stop] = [True] * max(0, stop - first)
    return flags


__all__ = ["ASSISTANT", "WHOLE", "TrlMasks", "training_template"]
