"""Where in a rendered conversation the assistant's words stand, as character bounds.

Two ways, in order of trust. A template's own ``{% generation %}`` marks are taken only where they can
be shown to be right: stock templates have none, and some put them around the wrong text. Otherwise
each turn is found between the prompt that stands before it, rendered on its own, and the end-of-turn
marker after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


def shared_length(first: Sequence[object], second: Sequence[object]) -> int:
    """How many items two texts or lists of tokens have in common at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def assistant_turns(messages: Iterable[Message]) -> list[int]:
    """Positions of the assistant messages."""
    return [at for at, message in enumerate(messages) if message.role == "assistant"]


def marked_spans(rendering: Rendering) -> list[Span] | None:
    """Bounds of every assistant turn by the template's own marks, or None where they cannot be trusted.

    They are trusted where there are as many marked texts as assistant turns, each holds the content
    of its turn (or the names of the tools it calls), and none holds that of a neighbouring turn.
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
        # Strict on purpose (last place for the head, first for the tail): what is refused here is
        # found again by the prompt method, which proves itself.
        head, tail = marked[: marked.rfind(words[0])], marked[marked.find(words[0]) + len(words[0]) :]
        before = messages[at - 1].content.strip() if at else ""
        after = messages[at + 1].content.strip() if at + 1 < len(messages) else ""
        if (before and before in head) or (after and after in tail):
            return None
        # White space behind the end-of-turn marker is nothing that the model is asked to write.
        spans.append(Span(start, start + len(marked.rstrip())))
    return spans


def prompt_spans(renderer: Renderer, rendering: Rendering, wanted: Iterable[int]) -> list[Span]:
    """Bounds of the assistant turns at the positions ``wanted``, by the prompts in front of them.

    A turn starts where the rendering of all messages before it (with the template's generation prompt)
    ends, which must be the beginning of the whole, and ends after the marker that follows its content.

    Raises:
        SampleError: PROMPT_NOT_PREFIX where the prompt is not the beginning of the whole;
            TEMPLATE_FAILED where the template cannot render the prompt or leaves the turn's words out.
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
    """The turn's end where the template writes it otherwise than in ``alone``, where it is the last.

    From the visible words on, both are written alike up to and with the end-of-turn marker.
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
    """Step over the header of the turn where the template has no generation prompt to hold it."""
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
    """What of a turn stands in ``written``: its content, the part of it after the thinking, or the
    names of the tools that it calls (first to last); None where that is missing.
    """
    names = [str(call.get("function", call).get("name")) for call in message.tool_calls]
    if any(name not in written for name in names):
        return None
    content = message.content.strip()
    if content not in written:
        # Templates drop the thinking of earlier turns, or write it with other white space.
        content = content.rpartition(_THINKING_END)[2].strip()
        if content not in written:
            return None
    return [content, *names] if content or not names else names


def _parting(prompt: str, text: str, at: int) -> str:
    place = shared_length(prompt, text)
    return (
        f"the template writes the prompt of turn {at + 1} in another way than the same messages in the "
        f"whole conversation: at character {place} it has {prompt[place : place + _SHOWN]!r} where the "
        f"whole has {text[place : place + _SHOWN]!r}; train on the last turn only, or choose a template "
        "with generation marks"
    )


def _lost(at: int) -> str:
    return f"the template leaves out or changes the words of the assistant's turn {at + 1}; choose another"
