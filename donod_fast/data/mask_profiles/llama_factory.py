"""The masks of LLaMA-Factory: every reply with its whole closing, white space included, in pieces.

LLaMA-Factory writes a conversation by templates of its own: a prefix, a system message, then for each pair of turns a
question with the header of the reply, and the reply with its closing. Each of these texts is tokenised alone. Here the
texts are learned from the chat template, and put together again for each row: only where that gives the rendering of
the chat template to the last character are the tokens those of LLaMA-Factory.

A row above the length limit is cut pair by pair, question and reply in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from donod_fast.data.mask_profiles.base import (
    Encode,
    Masked,
    ProfilePlan,
    as_given,
    check_flags,
    only_conversations,
    replies,
)
from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.probes import EMPTY_THINKING
from donod_fast.data.rendering import Renderer
from donod_fast.data.tokenizing import TextEncoder
from donod_fast.data.types import Conversation, Message, Sample, SampleError, Status

NAME = "llama-factory"
_FACTS = PROFILES[NAME]
_SYSTEM, _ASKED, _SAID, _ASKED_AGAIN, _SAID_AGAIN = "zqsystemqz", "zqaskedqz", "zqsaidqz", "zqagainqz", "zqfinallyqz"

Pair = tuple[list[int], list[int]]
"""The tokens of a question, with everything before it, and of its reply."""


@dataclass(frozen=True, slots=True)
class _Slots:
    """What the template writes around the words of a conversation.

    Attributes:
        front: before the first question's own header: begin token, default system message.
        asked: header of a question.
        answered: closing of a question and header of the reply.
        lead: between the header of the reply and its words: white space or an empty block of thinking.
        closing: after the reply's words.
        system: what stands before a system message, and between it and the header of the first question.
        is_uniform: whether every turn is written alike; otherwise this is the form of a single pair.
    """

    front: str
    asked: str
    answered: str
    lead: str
    closing: str
    system: tuple[str, str] | None
    is_uniform: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text that is tokenised alone; ``closing`` is its end, if it is a reply."""

    text: str
    closing: str = ""


class LlamaFactoryMasks:
    """LLaMA-Factory's masks.

    Args:
        renderer: writes the chat template.
        encoder: the tokenizer, without a length limit.
        limit: tokens of a row (``cutoff_len``), None for no limit.
        last: train on the last reply alone (``mask_history``).
    """

    def __init__(self, renderer: Renderer, encoder: TextEncoder, limit: int | None, *, last: bool) -> None:
        self._renderer, self._encoder, self._limit, self._last = renderer, encoder, limit, last

    def plan(self, sample: Sample) -> ProfilePlan:
        """See :class:`donod_fast.data.mask_profiles.base.MaskProfile`."""
        if not isinstance(sample, Conversation):
            raise only_conversations(_FACTS)
        check_flags(sample, _FACTS)
        replies(sample)
        _check_turns(sample)
        rendering = as_given(self._renderer, sample, _FACTS)
        slots = self._slots
        if isinstance(slots, str):
            raise _refused(slots)
        # Without a header of questions, a system message may be a text of its own, or a part of the first question.
        has_header, pairs = bool(slots.asked), self._pieces(slots, sample)
        if "".join(piece.text for pair in pairs for pieces in pair for piece in pieces) != rendering.text:
            raise _refused("the chat template writes this conversation in another way than its turns one by one")
        texts = [text for pair in pairs for pieces in pair for piece in pieces for text in self._texts(piece)]

        def finish(encode: Encode) -> Masked:
            whole: list[Pair] = []
            for question, reply in pairs:
                asked = [one for piece in question for one in self._tokens(piece, encode)]
                together = _Piece("".join(piece.text for piece in question))
                if not has_header and asked != self._tokens(together, encode):
                    raise _refused(
                        "this tokenizer gives other tokens for a system message apart than with the question"
                    )
                whole.append((asked, [one for piece in reply for one in self._tokens(piece, encode)]))
            total = sum(len(asked) + len(said) for asked, said in whole)
            kept = _shortened(whole, self._limit, last_first=self._last)
            ids = [one for asked, said in kept for one in (*asked, *said)]
            flags: list[bool] = []
            for number, (asked, said) in enumerate(kept, 1):
                flags += [False] * len(asked) + [not self._last or number == len(kept)] * len(said)
            return Masked(ids, flags, NAME, False, rendering.recasts, total=total)

        return ProfilePlan(tuple(dict.fromkeys(texts)), finish)

    @cached_property
    def _slots(self) -> _Slots | str:
        """The template's texts; why there are none, if it cannot be divided into them."""
        render = self._renderer.text
        asked, said = Message("user", _ASKED), Message("assistant", _SAID)
        again = (asked, said, Message("user", _ASKED_AGAIN), Message("assistant", _SAID_AGAIN))
        one = _between(render(Conversation((asked, said))), _ASKED, _SAID)
        two = _between(render(Conversation(again)), *(turn.content for turn in again))
        prompt = _between(render(Conversation((asked,)), add_generation_prompt=True), _ASKED)
        if one is None or two is None or prompt is None:
            return "the chat template does not write plain turns as they are"
        if not two[2].startswith(two[4]) or one[2] != two[4]:
            return "the chat template closes the last reply in another way than earlier ones"
        if not one[2].strip():
            return "the chat template writes no end token after a reply, which LLaMA-Factory may add"
        header = two[2][len(two[4]) :]
        if one[0] != two[0] or prompt[0] != one[0] or not one[1].startswith(prompt[1]):
            return "the chat template's generation prompt is not how it begins a reply"
        lead = one[1][len(prompt[1]) :]
        if EMPTY_THINKING.sub("", lead, count=1).strip():
            return "the chat template has no generation prompt to tell the header of a reply by"
        told = _between(render(Conversation((Message("system", _SYSTEM), asked, said))), _SYSTEM, _ASKED, _SAID)
        system = None if told is None or told[2:] != one[1:] else (told[0], told[1].removesuffix(header))
        # A system message within the first question is a part of its text.
        if system is not None and told is not None and not told[1].endswith(header):
            system = (told[0], told[1]) if told[0].startswith(one[0]) else None
        front = one[0].removesuffix(header)
        return _Slots(front, header, prompt[1], lead, one[2], system, two[1] == two[3] == one[1])

    def _pieces(self, slots: _Slots, conversation: Conversation) -> list[tuple[list[_Piece], list[_Piece]]]:
        """For each pair the pieces of the question, and those of the reply."""
        messages = conversation.messages
        system = messages[0].content if messages[0].role == "system" else None
        turns = messages[1:] if system is not None else messages
        if len(turns) > 2 and not slots.is_uniform:
            raise _refused("the chat template writes the last reply in another way than earlier ones")
        if system is not None and slots.system is None:
            raise _refused("the chat template's place of a system message is not known")
        pairs = []
        for at in range(0, len(turns), 2):
            begin = "" if at else slots.front
            within = ""
            if system is not None and not at:
                assert slots.system is not None
                before, after = slots.system
                is_apart = not after or not before.startswith(slots.front + slots.asked)
                begin = before + system + after if is_apart else ""
                within = "" if is_apart else before + system + after
            question = _Piece((within or slots.asked) + turns[at].content + slots.answered)
            thinking = EMPTY_THINKING.match(slots.lead)
            block = thinking[0] if thinking else ""
            reply = _Piece(slots.lead[len(block) :] + turns[at + 1].content + slots.closing, slots.closing)
            asked = [_Piece(begin), question] if begin else [question]
            pairs.append((asked, [_Piece(block), reply] if block else [reply]))
        return pairs

    def _parts(self, piece: _Piece) -> Iterator[str | int]:
        """A piece as texts and single tokens: begin and end token are no text in LLaMA-Factory's templates."""
        text, encoder = piece.text, self._encoder
        begin = encoder.begin_token
        if begin and encoder.begin_id is not None and not piece.closing and text.startswith(begin):
            yield encoder.begin_id
            text = text[len(begin) :]
        if encoder.end_token and encoder.end_id is not None and encoder.end_token in piece.closing:
            place = len(text) - len(piece.closing) + piece.closing.index(encoder.end_token)
            yield text[:place]
            yield encoder.end_id
            text = text[place + len(encoder.end_token) :]
        yield text

    def _texts(self, piece: _Piece) -> list[str]:
        parts = [part for part in self._parts(piece) if isinstance(part, str) and part]
        return [*parts, piece.text] if piece.closing else parts

    def _tokens(self, piece: _Piece, encode: Encode) -> list[int]:
        ids: list[int] = []
        for part in self._parts(piece):
            ids += [part] if isinstance(part, int) else encode(part).ids if part else []
        # The templates write an end token as a token or as a part of the text.
        if piece.closing and ids != encode(piece.text).ids:
            raise _refused("this tokenizer gives other tokens for a reply and its end token apart than together")
        return ids


def _shortened(pairs: Sequence[Pair], limit: int | None, *, last_first: bool) -> list[Pair]:
    """The pairs within a limit of tokens, each cut at its end; ``last_first`` keeps the last ones."""
    if limit is None:
        return list(pairs)
    kept: list[Pair] = []
    for asked, said in reversed(pairs) if last_first else pairs:
        left = limit - sum(len(one) + len(other) for one, other in kept)
        if left <= 0:
            break
        most = left
        if len(said) * 2 >= left:
            most = left - len(asked) if len(asked) * 2 < left else int(left * (len(said) / (len(asked) + len(said))))
        said = said[:most]
        kept.append((asked[: max(left - len(said), 0)], said))
    return kept[::-1] if last_first else kept


def _check_turns(conversation: Conversation) -> None:
    """Refuse conversations that are no pairs of a question and a reply, or need a tool format."""
    if conversation.tools or conversation.documents or any(turn.tool_calls for turn in conversation.messages):
        raise _refused("LLaMA-Factory writes tools and their calls in formats of its own")
    roles = [turn.role for turn in conversation.messages]
    roles = roles[1:] if roles[0] == "system" else roles
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            "LLaMA-Factory drops conversations that are not questions and replies in turn after a system message",
        )


def _between(text: str | None, *words: str) -> tuple[str, ...] | None:
    """What stands before, between and after words; None unless each is there once, in this order."""
    if text is None or any(text.count(word) != 1 for word in words):
        return None
    found = []
    for word in words:
        before, there, text = text.partition(word)
        if not there:
            return None
        found.append(before)
    return (*found, text)


def _refused(cause: str) -> SampleError:
    return SampleError(
        Status.TEMPLATE_FAILED,
        f"{cause}, so LLaMA-Factory's tokens are not known; score the folder of its tokenized_path instead",
    )


__all__ = ["NAME", "LlamaFactoryMasks"]
