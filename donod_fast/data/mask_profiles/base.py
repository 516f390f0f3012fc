"""Interface of a mask profile: a sample becomes texts to tokenise, and their tokens become ids and flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from donod_fast.data.mask_profiles.names import ProfileFacts
from donod_fast.data.rendering import Renderer, Rendering
from donod_fast.data.spans import assistant_turns
from donod_fast.data.tokenizing import Encoded
from donod_fast.data.types import Conversation, Message, Sample, SampleError, Status


@dataclass(frozen=True, slots=True)
class Masked:
    """The tokens of a row, before the checks that all masks have in common.

    Attributes:
        ids: token ids.
        flags: which of them are scored.
        mask: how the mask was made, see :class:`donod_fast.data.types.TokenizedSample`.
        has_prompt: whether a part of the row must stay unscored.
        recasts: what was rewritten for the template, in words.
        is_cut: whether these are only the first tokens of a very long text.
        total: number of tokens before any cut; 0 for the number of ``ids``.
    """

    ids: Sequence[int]
    flags: list[bool]
    mask: str
    has_prompt: bool
    recasts: tuple[str, ...] = ()
    is_cut: bool = False
    total: int = 0


Encode = Callable[[str], Encoded]
"""The tokens of a text; raises SampleError if the tokenizer fails."""


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """Texts to tokenise, and what makes a row of their tokens.

    Attributes:
        texts: every text that ``finish`` asks for.
        finish: makes the row; raises SampleError if the trainer's mask cannot be told.
    """

    texts: tuple[str, ...]
    finish: Callable[[Encode], Masked]


class MaskProfile(Protocol):
    """The mask of a trainer."""

    def plan(self, sample: Sample) -> ProfilePlan:
        """Plan one sample. Raises SampleError if the trainer would not take it, or its mask cannot be told."""


def as_given(renderer: Renderer, conversation: Conversation, facts: ProfileFacts) -> Rendering:
    """Render a conversation as a trainer does, which rewrites nothing for the template.

    Raises:
        SampleError: TEMPLATE_FAILED if the template cannot express the conversation without a rewrite.
    """
    rendering = renderer.write(conversation)
    if rendering.conversation != conversation or rendering.missing:
        what = f"leaves out {rendering.missing}" if rendering.missing else "cannot express the conversation as it is"
        raise SampleError(
            Status.TEMPLATE_FAILED,
            f"the chat template {what}, and {facts.trainer} rewrites nothing; choose another template, "
            "or leave --like out",
        )
    return rendering


def check_flags(conversation: Conversation, facts: ProfileFacts) -> None:
    """Refuse turns that the record's own flags leave out, if the trainer would train on them nevertheless.

    Raises:
        SampleError: UNKNOWN_FORMAT.
    """
    turns = conversation.messages[conversation.given :]
    if not facts.reads_flags and any(turn.role == "assistant" and not turn.scored for turn in turns):
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"the record's own flags leave out a turn, and {facts.trainer} does not read them: remove the flags, "
            "or leave --like out",
        )


def replies(conversation: Conversation) -> list[int]:
    """Positions of the assistant's messages. Raises SampleError if there is none."""
    found = assistant_turns(conversation.messages)
    if not found:
        raise SampleError(Status.ALL_MASKED, "the conversation has no assistant turn to be scored")
    return found


def only_conversations(facts: ProfileFacts) -> SampleError:
    """Why a text is refused."""
    return SampleError(
        Status.UNKNOWN_FORMAT,
        f"--like covers the conversations of {facts.trainer}, and this record is a text; name its columns "
        "(--columns prompt=…,response=…) to read it as a conversation, or leave --like out",
    )


def text_content(message: Message) -> Message:
    """A message whose content is one text, also where the record has a list of parts."""
    if message.own is None or not isinstance(message.own.get("content"), list):
        return message
    return replace(message, own={**message.own, "content": message.content})


__all__ = [
    "Encode",
    "MaskProfile",
    "Masked",
    "ProfilePlan",
    "as_given",
    "check_flags",
    "only_conversations",
    "replies",
    "text_content",
]
