"""Find the assistant's text in a rendered conversation, as character bounds.

A template's own ``{% generation %}`` marks are used turn by turn, where a probe of the conversation shows that they
hold the turn and nothing else: stock templates have none, and some put them around the wrong text. Otherwise a turn
begins where the prompt before it ends, rendered separately, and ends with its closing
(:mod:`donod_fast.data.turn_ends`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from donod_fast.data.bounded import shared_length, stripped_length
from donod_fast.data.inserted_words import with_word
from donod_fast.data.probes import (
    OPENED_THINKING,
    THINKING,
    Kinds,
    Probe,
    probe_of,
    reasoning_of,
    split_thinking,
    thinking_in,
)
from donod_fast.data.rendering import Renderer, Rendering, dropped_reasoning
from donod_fast.data.turn_ends import Frame, TurnFrames, window
from donod_fast.data.types import Conversation, Message, SampleError, Status

_WORDS = re.compile(r"zq(?:begin|end)\d+qz")
_MANY = 24
"""From so many messages on, marks are checked in the messages around each turn only."""
_SHOWN = 40
_TAG_SPACE = 200
"""Characters at the end of a prompt that tags of thinking and white space may take."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``end`` (exclusive) of a text; the text before ``start`` is the prompt.

    Attributes:
        start: first character.
        end: one past the last character.
        marked: whether the template's generation marks give it.
        other_starts: where it may begin instead, if a token covers ``start``.
    """

    start: int
    end: int
    marked: bool = False
    other_starts: tuple[int, ...] = ()


def assistant_turns(messages: Iterable[Message]) -> list[int]:
    """Positions of the assistant messages."""
    return [at for at, message in enumerate(messages) if message.role == "assistant"]


class TurnFinder:
    """Finds assistant turns in the renderings of one template."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._frames = TurnFrames(renderer)
        self._marks: Kinds[str, tuple[int, dict[int, tuple[int, ...]]]] = Kinds()

    @property
    def header(self) -> str:
        """What the template writes to ask for a reply to a question; ``""`` if it writes nothing."""
        return self._frames.header

    def spans(self, rendering: Rendering, wanted: Sequence[int]) -> list[Span]:
        """Bounds of the assistant turns at the positions ``wanted``; a turn may have several.

        Raises:
            SampleError: PROMPT_NOT_PREFIX if the beginning of a turn cannot be found; TEMPLATE_FAILED if the template
                leaves out a turn's words; REASONING_DROPPED if it leaves out the reasoning of the last reply.
        """
        turns = assistant_turns(rendering.conversation.messages)
        if rendering.drops_reasoning and turns[-1] in wanted:
            raise SampleError(Status.REASONING_DROPPED, dropped_reasoning())
        marked = self._marked(rendering) if rendering.marked else {}
        left = [at for at in wanted if at not in marked]
        found = self._together(rendering, left) if len(left) > 1 else {}
        return [span for at in wanted for span in marked.get(at) or [found.get(at) or self.by_prompt(rendering, at)]]

    def _together(self, rendering: Rendering, wanted: Sequence[int]) -> dict[int, Span]:
        """Spans of turns that are plain text between the usual header and closing, found in one rendering.

        Words are put at the beginning and at the end of every turn's text. A turn is left out if that is impossible,
        or if anything else stands around its text.
        """
        messages, found = rendering.conversation.messages, {}
        plain = [at for at in wanted if _is_plain(messages[at])]
        for stripped in (False, True):  # templates may strip the text
            changed = list(messages)
            for at in plain:
                content = messages[at].content.strip() if stripped else messages[at].content
                changed[at] = messages[at].changed(content=f"zqbegin{at}qz{content}zqend{at}qz")
            other = self._renderer.text(replace(rendering.conversation, messages=tuple(changed)))
            if other is not None and _WORDS.sub("", other) == rendering.text:
                places, removed = {}, 0
                for word in _WORDS.finditer(other):
                    places[word[0]] = word.start() - removed
                    removed += len(word[0])
                for at in plain if removed == sum(map(len, places)) else ():
                    begin, end = places.get(f"zqbegin{at}qz"), places.get(f"zqend{at}qz")
                    span = None if begin is None or end is None else self._usual(rendering, at, begin, end)
                    found.update({} if span is None else {at: span})
                break
        return found

    def _usual(self, rendering: Rendering, at: int, begin: int, end: int) -> Span | None:
        """The span of a turn whose text is known; None if another header or closing than usual stands around it."""
        conversation, text = rendering.conversation, rendering.text
        frame = self._frames.of(conversation, at)
        if frame is None:
            return None
        header = frame.added if frame.added.strip() else frame.header or self._frames.constant_prompt
        if not header or not text.endswith(header, 0, begin) or OPENED_THINKING.search(header):
            return None
        start = begin if header.strip() else begin - len(header)
        is_last = at + 1 == len(conversation.messages)
        closing = frame.last_closing if is_last else frame.closing
        if text[end:] != frame.tail if is_last else not text.startswith(closing.rstrip(), end):
            return None
        stop = _visible_end(text, start, end + len(closing.rstrip()))
        return Span(start, stop, other_starts=tuple(range(start - 1, len(text[:start].rstrip()) - 1, -1)))

    def by_prompt(self, rendering: Rendering, at: int) -> Span:
        """Bounds of an assistant turn from the prompt before it and its closing; errors as in :meth:`spans`."""
        conversation, text = rendering.conversation, rendering.text
        message = conversation.messages[at]
        frame = self._frames.of(conversation, at)
        if frame is None:
            raise SampleError(Status.TEMPLATE_FAILED, _lost(at))
        starts = self._starts(rendering, at, frame)
        if not starts:
            prompt = self._renderer.text(conversation, at, add_generation_prompt=True) or ""
            raise SampleError(Status.PROMPT_NOT_PREFIX, _parting(prompt, text, at))
        end = self._end(rendering, at, frame, starts[0])
        if end is None or not _has_words(message, text[starts[0] : end]):
            raise SampleError(Status.TEMPLATE_FAILED, _lost(at))
        is_last = not any(m.role in ("assistant", "user") for m in conversation.messages[at + 1 :])
        reasoning = reasoning_of(message)
        if is_last and reasoning and reasoning not in text[starts[0] : end]:
            raise SampleError(Status.REASONING_DROPPED, dropped_reasoning())
        return Span(starts[0], max(end, starts[0]), other_starts=tuple(starts[1:]))

    def _starts(self, rendering: Rendering, at: int, frame: Frame) -> list[int]:
        """Where the turn may begin, the best place first; empty if none can be proved."""
        conversation, text = rendering.conversation, rendering.text
        prompt = self._renderer.text(conversation, at, add_generation_prompt=True)
        starts: list[int] = []
        # The prompt of an empty conversation may lack what the template adds after a question.
        if prompt is not None and text.startswith(prompt) and (at or prompt.endswith(frame.added)):
            start = len(prompt)
            if frame.header.strip() and text.startswith(frame.header, start):
                start += len(frame.header)  # without a generation prompt the header comes with the message
            starts.append(start)
        opened = OPENED_THINKING.search(prompt, max(0, len(prompt) - _TAG_SPACE)) if prompt is not None else None
        if opened and prompt is not None and text.startswith(prompt[: opened.start()]):
            # The generation prompt opens the thinking; a whole conversation is written without, or in another way.
            begin = len(self._renderer.text(conversation, at) or "") - len(self._frames.constant_prompt)
            starts += [opened.start()] if opened.start() >= begin else []
        if not starts:
            place = next(self._insertions(rendering, at, at_end=False), None)
            if place is not None:
                leads = [lead for lead in frame.leads if text.endswith(lead, 0, place)]
                answer = split_thinking(conversation.messages[at].content)[1].strip()
                if not leads and answer and text[place : place + _SHOWN].lstrip()[:1] == answer[0]:
                    leads = [""]
                starts += [place - len(lead) for lead in leads[:1]]
        # White space that is one token with the first word belongs to the reply.
        earlier = [at for start in starts for at in range(start - 1, stripped_length(text, start) - 1, -1)]
        return list(dict.fromkeys([*starts, *earlier]))

    def _end(self, rendering: Rendering, at: int, frame: Frame, start: int) -> int | None:
        """One past the last visible character of the turn's closing; None if it cannot be found."""
        conversation, text = rendering.conversation, rendering.text
        trailer, closing = frame.tail[len(frame.last_closing) :], frame.closing.rstrip()
        if at + 1 == len(conversation.messages):
            return _visible_end(text, start, len(text) - len(trailer)) if text.endswith(trailer) else None
        alone = self._renderer.text(conversation, at + 1)
        if alone is not None:
            if closing == frame.last_closing.rstrip() and alone.endswith(trailer):
                end = _visible_end(alone, start, len(alone) - len(trailer))
                if text.startswith(alone[:end]):
                    return end
            elif alone.endswith(frame.tail):
                end = len(alone) - len(frame.tail)
                if text.startswith(alone[:end]) and text.startswith(closing, end):
                    return _visible_end(text, start, end + len(closing))
        # The template writes the turn differently where another message follows.
        places = [*self._insertions(rendering, at, at_end=True), *_end_of_words(conversation.messages[at], text, start)]
        for place in places:
            if text.startswith(closing, place):
                return _visible_end(text, start, place + len(closing))
        next_words = next(self._insertions(rendering, at + 1, at_end=False), None)
        if next_words is not None and frame.next_header and text.endswith(frame.next_header, start, next_words):
            return _visible_end(text, start, next_words - len(frame.next_header))
        return None

    def _insertions(self, rendering: Rendering, at: int, *, at_end: bool) -> Iterator[int]:
        """Where words appear that are put at the beginning or the end of the turn's text, if nothing else changes."""
        messages = rendering.conversation.messages
        for changed, word, replaced in with_word(messages[at], at_end=at_end):
            other = replace(rendering.conversation, messages=(*messages[:at], changed, *messages[at + 1 :]))
            text = self._renderer.text(other)
            place = -1 if text is None else text.find(word)
            if text is not None and place >= 0 and text.replace(word, replaced) == rendering.text:
                yield place + len(replaced)

    def _marked(self, rendering: Rendering) -> dict[int, list[Span]]:
        """Spans of the turns whose generation marks are right, by position."""
        conversation, text = rendering.conversation, rendering.text
        turns = assistant_turns(conversation.messages)
        if len(conversation.messages) > _MANY:
            # One mark for each turn, as in the messages around every one of them.
            windows = (window(conversation, at)[0] for at in turns)
            is_regular = len(turns) == len(rendering.marked) and all(map(self._has_regular_marks, windows))
            right: dict[int, tuple[int, ...]] = {at: (n,) for n, at in enumerate(turns)} if is_regular else {}
        else:
            count, right = self._marks_of(conversation)
            right = right if count == len(rendering.marked) else {}
        found = {}
        for at, numbers in right.items():
            bounds = [rendering.marked[number] for number in numbers]
            content = conversation.messages[at].content
            # The model is not asked to write the white space after the end-of-turn marker.
            ends = [*(end for _, end in bounds[:-1]), _marked_end(text, *bounds[-1], content)]
            spans = [Span(start, end, marked=True) for (start, _), end in zip(bounds, ends, strict=True)]
            spans = [span for span in spans if span.end > span.start]
            if spans and _has_words(conversation.messages[at], text[spans[0].start : spans[-1].end]):
                found[at] = spans
        return found

    def _marks_of(self, conversation: Conversation) -> tuple[int, dict[int, tuple[int, ...]]]:
        """:meth:`_right_marks` of conversations of this kind, found once for each kind."""
        probe = probe_of(conversation)
        return self._marks.find(probe.key, lambda: self._right_marks(probe))

    def _has_regular_marks(self, conversation: Conversation) -> bool:
        """Whether every assistant turn has one right mark, and nothing else has one."""
        count, right = self._marks_of(conversation)
        return (count, right) == (len(right), {at: (n,) for n, at in enumerate(assistant_turns(conversation.messages))})

    def _right_marks(self, probe: Probe) -> tuple[int, dict[int, tuple[int, ...]]]:
        """The number of marks in conversations of this kind, and which of them belong to each assistant turn."""
        try:
            rendering = self._renderer.render(probe.conversation)
        except SampleError:
            return -1, {}
        right = {}
        for at in assistant_turns(probe.conversation.messages):
            numbers = self._marks_of_turn(rendering, probe, at)
            if numbers:
                right[at] = numbers
        return len(rendering.marked), right

    def _marks_of_turn(self, rendering: Rendering, probe: Probe, at: int) -> tuple[int, ...]:
        text, pieces = rendering.text, probe.pieces[at]
        frame = self._frames.of(probe.conversation, at)
        try:
            expected = self.by_prompt(rendering, at)
        except SampleError:
            return ()
        words_end = max(text.rfind(word) + len(word) for word in pieces.words) if pieces.words else expected.end
        last = frame.tail if frame is not None and at + 1 == len(probe.pieces) else ""
        shared = frame.shared if frame is not None else ""
        allowed = max(expected.end, words_end + max(len(last), len(shared)))
        if frame is not None and frame.closing.strip() and not last:
            allowed = expected.end
        begin = expected.start
        numbers = [n for n, (start, end) in enumerate(rendering.marked)
                   if end > start and start < expected.end and end > begin]  # fmt: skip
        if not numbers:
            return ()
        starts, ends = zip(*(rendering.marked[n] for n in numbers), strict=True)
        if min(starts) < begin:
            return ()
        if stripped_length(text, max(ends)) > allowed:
            return ()
        marked = "\n".join(text[start:end] for start, end in zip(starts, ends, strict=True))
        words = [pieces.content, *(word for call in pieces.calls for word in call[1:])]
        return tuple(numbers) if all(word in marked for word in words) else ()


def _is_plain(message: Message) -> bool:
    """Whether a turn is text alone, without thinking or calls."""
    return bool(message.content.strip()) and not message.tool_calls and not reasoning_of(message) \
        and thinking_in(message.content) is None  # fmt: skip


def _has_words(message: Message, written: str) -> bool:
    """Whether a text holds a turn: its content, or the content after the thinking, and the names of its calls."""
    for call in message.tool_calls:
        if not any(str(one) in written for one in (call.get("function", call).get("name"), call.get("id")) if one):
            return False
    return message.content.strip() in written or split_thinking(message.content)[1].strip() in written


def _end_of_words(message: Message, text: str, start: int) -> Iterator[int]:
    """Where the content ends in a text, found by its words; nothing for a turn that calls tools."""
    if message.tool_calls:
        return
    found = THINKING.match(text, start)
    begin = found.end() if found and found["open"] else start
    for words in (message.content.strip(), split_thinking(message.content)[1].strip()):
        place = text.find(words, begin) if words else -1
        if place >= 0:
            yield place + len(words)


def _visible_end(text: str, start: int, end: int) -> int:
    """``end`` without the white space before it, but not before ``start``."""
    return max(start, stripped_length(text, end))


def _marked_end(text: str, start: int, end: int, content: str) -> int:
    """The end of a marked text without white space, except for that at the end of the reply's own content."""
    own = content[len(content.rstrip()) :]
    visible = _visible_end(text, start, end)
    return min(end, visible + len(own)) if text.endswith(content.rstrip(), start, visible) else visible


def _parting(prompt: str, text: str, at: int) -> str:
    place = shared_length(prompt, text)
    return (
        f"the template renders the prompt of turn {at + 1} differently from the same messages in the "
        f"full conversation: at character {place} it has {prompt[place : place + _SHOWN]!r} where the "
        f"full text has {text[place : place + _SHOWN]!r}, and the beginning of the turn cannot be proved; choose a "
        "template with generation marks"
    )


def _lost(at: int) -> str:
    return f"the template leaves out or changes the words of the assistant's turn {at + 1}; choose another template"


__all__ = ["Span", "TurnFinder", "assistant_turns"]
