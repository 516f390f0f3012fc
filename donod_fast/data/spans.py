"""Find the assistant's text in a rendered conversation, as character bounds.

There are two methods. A template's own ``{% generation %}`` marks are used only if they can
be verified: stock templates have none, and some put them around the wrong text. Otherwise
each turn is located between the prompt before it, rendered separately, and the end-of-turn
marker after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from donod_fast.data.bounded import shared_length
from donod_fast.data.rendering import Renderer, Rendering
from donod_fast.data.types import Message, SampleError, Status

_THINKING_END = "</think>"
_THINKING = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` (exclusive) of a text; the text before ``start`` is the prompt."""

    start: int
    end: int


def assistant_turns(messages: Iterable[Message]) -> list[int]:
    """Positions of the assistant messages."""
    return [at for at, message in enumerate(messages) if message.role == "assistant"]


def marked_spans(rendering: Rendering) -> list[Span] | None:
    """Bounds of every assistant turn by the template's own marks, or None if they fail the check.

    They pass if there are as many marked texts as assistant turns, each contains the content
    of its turn (or the names of the tools it calls), and none contains that of a neighbouring turn.
    """
    text, messages = rendering.text, rendering.conversation.messages
    turns = assistant_turns(messages)
    bounds = [(start, end) for start, end in rendering.marked if end > start]
    if len(bounds) != len(turns):
        return None
    spans = []
    for at, (start, end) in zip(turns, bounds, strict=True):
        marked = text[start:end]
        words = _visible_words(messages[at], marked)
        if words is None:
            return None
        # Strict on purpose (last match for the head, first for the tail): a turn that is refused here is
        # located by the prompt method, which has its own check.
        head, tail = marked[: marked.rfind(words[0])], marked[marked.find(words[0]) + len(words[0]) :]
        before = messages[at - 1].content.strip() if at else ""
        after = messages[at + 1].content.strip() if at + 1 < len(messages) else ""
        if (before and before in head) or (after and after in tail):
            return None
        # The model is not asked to write the white space after the end-of-turn marker.
        spans.append(Span(start, start + len(marked.rstrip())))
    return spans


def prompt_spans(renderer: Renderer, rendering: Rendering, wanted: Iterable[int]) -> list[Span]:
    """Bounds of the assistant turns at the positions ``wanted``, found from the prompts before them.

    A turn starts where the rendering of all messages before it (with the template's generation prompt)
    ends, which must be a prefix of the full text. It ends after the marker that follows its content.

    Raises:
        SampleError: PROMPT_NOT_PREFIX if the prompt is not a prefix of the full text;
            TEMPLATE_FAILED if the template cannot render the prompt or leaves out the turn's words.
    """
    return [_prompt_span(renderer, rendering, at) for at in wanted]


def _prompt_span(renderer: Renderer, rendering: Rendering, at: int) -> Span:
    text, conversation = rendering.text, rendering.conversation
    prompt = renderer.render(conversation, at, add_generation_prompt=True).text
    if not text.startswith(prompt):
        raise SampleError(Status.PROMPT_NOT_PREFIX, _parting(prompt, text, at))
    start = len(prompt)
    message = conversation.messages[at]
    is_last = at + 1 == len(conversation.messages)
    alone = text if is_last else renderer.render(conversation, at + 1).text
    whole = alone.rstrip()
    if len(whole) > start and text.startswith(whole):
        end = len(whole)
        if _visible_words(message, text[start:end]) is None:
            raise SampleError(Status.TEMPLATE_FAILED, _lost(at))
    else:
        end = _end_of_changed_turn(message, text, alone, start, at)
    return Span(_after_header(renderer, rendering, at, start, end), end)


def _end_of_changed_turn(message: Message, text: str, alone: str, start: int, at: int) -> int:
    """The turn's end if the template writes it differently from ``alone``, where it is the last turn.

    From the visible words on, both are the same up to and including the end-of-turn marker.
    """
    words = _visible_words(message, text[start:])
    if words is None:
        raise SampleError(Status.TEMPLATE_FAILED, _lost(at))
    here, there = _find_visible(text, words[0], start), _find_visible(alone, words[0], start)
    if here < 0 or there < 0:
        raise SampleError(Status.TEMPLATE_FAILED, _lost(at))
    shared = shared_length(text[here:], alone[there:])
    end = here + len(text[here : here + shared].rstrip())
    if _visible_words(message, text[here:end]) is None:
        raise SampleError(Status.TEMPLATE_FAILED, _lost(at))
    return end


def _find_visible(text: str, words: str, start: int) -> int:
    thinking = _THINKING.match(text, start)
    return text.find(words, thinking.end() if thinking else start)


def _after_header(renderer: Renderer, rendering: Rendering, at: int, start: int, end: int) -> int:
    """Skip the header of the turn if the template has no generation prompt that contains it."""
    message, turn = rendering.conversation.messages[at], rendering.text[start:end]
    words = _visible_words(message, turn)
    if not words or not words[0] or not message.content.strip():
        return start
    header = turn[: turn.find(words[0])]
    if not header.strip() or _THINKING.match(header):
        return start
    without = renderer.render(rendering.conversation, at).text
    return start + len(header) if len(without) == start else start


def _visible_words(message: Message, written: str) -> list[str] | None:
    """The part of a turn that ``written`` contains: its content, the content after the thinking, or the
    names of the tools that it calls (first to last); None if none of these appears.
    """
    names = [str(call.get("function", call).get("name")) for call in message.tool_calls]
    if any(name not in written for name in names):
        return None
    content = message.content.strip()
    if content not in written:
        # Templates drop the thinking of earlier turns, or change its white space.
        content = content.rpartition(_THINKING_END)[2].strip()
        if content not in written:
            return None
    return [content, *names] if content or not names else names


def _parting(prompt: str, text: str, at: int) -> str:
    place = shared_length(prompt, text)
    return (
        f"the template renders the prompt of turn {at + 1} differently from the same messages in the "
        f"full conversation: at character {place} it has {prompt[place : place + _SHOWN]!r} where the "
        f"full text has {text[place : place + _SHOWN]!r}; train on the last turn only, or choose a template "
        "with generation marks"
    )


def _lost(at: int) -> str:
    return f"the template leaves out or changes the words of the assistant's turn {at + 1}; choose another template"
