"""Learn from a chat template what it writes around a reply: its header, its closing, and what follows.

A rendering alone does not tell where a reply ends: the closing tokens are followed by the next message's header, by a
generation prompt or by a trailer after the last message. So the same probe conversation is rendered with different
continuations (nothing, a generation prompt, messages of other roles), and the closing is what they share. Where headers
of all roles begin alike, two differences tell more: what the generation prompt adds, and how the first message begins.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from donod_fast.data.probes import Pieces, Probe, end_of, probe_of
from donod_fast.data.rendering import KINDS, Renderer
from donod_fast.data.types import Conversation, Message

_NEXT = "zqnextqz"
_PLAIN = "zqplainqz"
# Text that templates use as one token: cutting within it would split a header or a closing.
_MARKERS = r"<\|[^|<>\s]*\|>|<｜[^｜<>\s]*｜>|</?[A-Za-z_][^<>\s]*>|\[/?[A-Z_]+\]"


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around a reply of one kind.

    Attributes:
        tail: text after the reply's last word where the conversation ends with the reply.
        last_closing: the part of ``tail`` that closes the reply; the rest is a trailer or a trailing header.
        closing: text that closes the reply where another message follows.
        shared: what all continuations have in common after the reply's last word: the closing, and what the headers of
            all roles begin with.
        next_header: text between the closing and the words of the message that follows; ``""`` if none follows.
        header: text between the messages before and the reply, where a generation prompt does not write it.
        lead: text between the header and the reply's first word, such as an opening tag of reasoning or of a call.
    """

    tail: str
    last_closing: str
    closing: str
    shared: str
    next_header: str
    header: str
    lead: str


def shared_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the common prefix of two texts or token lists."""
    if isinstance(first, str) and isinstance(second, str) and (first.startswith(second) or second.startswith(first)):
        return min(len(first), len(second))
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


class TurnFrames:
    """The frames of a template, each learned once for a kind of conversation."""

    def __init__(self, renderer: Renderer) -> None:
        self._render = renderer
        self._frames: OrderedDict[tuple[str, int], Frame | None] = OrderedDict()
        escaped = sorted(map(re.escape, filter(None, renderer.markers)), key=len, reverse=True)
        self._marker = re.compile("|".join([*escaped, _MARKERS]))

    def of(self, conversation: Conversation, at: int) -> Frame | None:
        """The frame of the reply at a position; None if the template leaves out its words.

        It depends on the messages up to the reply and on the next one.
        """
        until = Conversation(conversation.messages[: at + 2], conversation.tools, conversation.documents)
        probe = probe_of(until)
        key = (probe.key, at)
        if key not in self._frames:
            self._frames[key] = self._learn(probe, at)
            if len(self._frames) > KINDS:
                self._frames.popitem(last=False)
        return self._frames[key]

    def _learn(self, probe: Probe, at: int) -> Frame | None:
        whole = probe.conversation
        conversation = Conversation(whole.messages[: at + 1], whole.tools, whole.documents)
        pieces = probe.pieces[at]
        render = self._render.text
        alone = render(conversation)
        begin = render(conversation, at) if at else ""
        prompt = render(conversation, at, add_generation_prompt=True)
        if alone is None:
            return None
        word, count = pieces.last(alone)
        if not word and (pieces != Pieces() or prompt is None or not alone.startswith(prompt)):
            return None

        def tail_of(text: str | None) -> str | None:
            """What a text has after the reply's last word, or after the prompt of an empty reply."""
            if text is None:
                return None
            if not word:
                return text[len(prompt) :] if prompt is not None and text.startswith(prompt) else None
            # A later message may repeat the word, as the result of a call repeats the call's name.
            end = end_of(word, count, text)
            return None if end < 0 else text[end:]

        tail = tail_of(alone)
        assert tail is not None
        added = prompt[len(begin) :] if prompt is not None and begin is not None and prompt.startswith(begin) else ""
        continued = self._continued(probe, conversation, tail_of)
        prompted = tail_of(render(conversation, add_generation_prompt=True))
        shared, closing = self._closing(tail, continued, prompted, added)
        last = self._last_closing(tail, closing, prompted, added)
        header, lead = self._lead(conversation, pieces, alone, begin, prompt)
        follows = len(probe.pieces) > at + 1 and bool(continued)
        next_header = continued[0][1][len(closing) :] if follows and continued[0][1].startswith(closing) else ""
        return Frame(tail, last, closing, shared, next_header, header, lead)

    def _continued(
        self, probe: Probe, conversation: Conversation, tail_of: Callable[[str | None], str | None]
    ) -> list[tuple[str, str]]:
        """Pairs of a role that follows and the text between the reply and that message's words.

        The message that follows in the conversation comes first, then others.
        """
        at, found = len(conversation.messages) - 1, []
        more: list[tuple[Message, ...]] = [
            (_following("user"),),
            (_following("system"),),
            (_following("tool", conversation.messages[at]),),
            (_following("assistant"),),
            (_following("user"), Message("assistant", _PLAIN)),
        ]
        words = [_NEXT] * len(more)
        if len(probe.pieces) > at + 1:
            own = probe.pieces[at + 1]
            more.insert(0, (probe.conversation.messages[at + 1],))
            words.insert(0, own.content or own.reasoning or next((w for call in own.calls for w in call), _NEXT))
        for messages, word in zip(more, words, strict=True):
            together = Conversation((*conversation.messages, *messages), conversation.tools, conversation.documents)
            tail = tail_of(self._render.text(together))
            if tail is not None and word in tail:
                found.append((messages[0].role, tail[: tail.index(word)]))
        return found

    def _closing(
        self, tail: str, continued: Sequence[tuple[str, str]], prompted: str | None, added: str
    ) -> tuple[str, str]:
        """What all continuations share after the reply, and the part of it that closes the reply."""
        tails = [text for _, text in continued] + ([] if prompted is None or prompted == tail else [prompted])
        if not tails:
            return tail, self._whole(tail, len(tail))
        # A role that the template writes without a header of its own tells nothing: its tail is empty.
        shared = tails[0]
        for other in tails[1:]:
            shared = shared[: shared_length(shared, other)]
        if len(tails) == 1 or (shared_length(shared, tail) and shared[: shared_length(shared, tail)].strip()):
            shared = shared[: shared_length(shared, tail)]
        whole = self._without_header_start(shared)
        by_prompt = None
        if added.strip() and prompted is not None and prompted.endswith(added):
            by_prompt = prompted[: len(prompted) - len(added)]
            if not shared.startswith(by_prompt.rstrip()):
                by_prompt = None
        if by_prompt is not None and by_prompt.strip():
            return shared, min(whole, by_prompt, key=_visible) if whole.strip() else by_prompt
        by_first = self._closing_before_first_header(continued, shared)
        if by_first.strip():
            return shared, min(whole, by_first, key=_visible) if whole.strip() else by_first
        return shared, "" if by_prompt is not None else whole

    def _closing_before_first_header(self, continued: Sequence[tuple[str, str]], shared: str) -> str:
        """The text between reply and user's message without the header, which the first message has too."""
        between = next((text for role, text in continued if role == "user"), None)
        first = self._render.text(Conversation((Message("user", _NEXT),)))
        if between is None or first is None or _NEXT not in first:
            return ""
        header = shared_length(between[::-1], first[: first.index(_NEXT)][::-1])
        closing = self._whole(between, len(between) - header, up=True)
        return closing if shared.startswith(closing.rstrip()) else ""

    def _last_closing(self, tail: str, closing: str, prompted: str | None, added: str) -> str:
        """The part of ``tail`` that closes a reply at the end of the conversation."""
        shared = tail[: shared_length(tail, closing)]
        if shared.strip():
            return shared
        if not tail.strip():
            return ""
        ends_in_prompt = bool(added.strip()) and prompted is not None and prompted.endswith(added)
        before = prompted[: len(prompted) - len(added)] if ends_in_prompt and prompted is not None else ""
        shared = self._whole(tail, shared_length(tail, before))
        if shared.strip():
            return shared
        if closing.strip():  # the template closes the last reply in another way
            return tail[: -len(added)] if added.strip() and tail.endswith(added) else tail
        return ""

    def _lead(
        self, conversation: Conversation, pieces: Pieces, alone: str, begin: str | None, prompt: str | None
    ) -> tuple[str, str]:
        first = pieces.first_start(alone)
        if first < 0:
            return "", ""
        plain = Conversation((*conversation.messages[:-1], Message("assistant", _PLAIN)), conversation.tools)
        text = self._render.text(plain)
        end = first
        if prompt is not None and prompt != begin and alone.startswith(prompt):
            end = len(prompt)
        elif text is not None and _PLAIN in text:
            end = min(first, shared_length(text[: text.index(_PLAIN)], alone))
        starts = begin is not None and alone.startswith(begin) and len(begin) <= end
        return alone[len(begin) : end] if starts and begin is not None else "", alone[end:first]

    def _without_header_start(self, shared: str) -> str:
        """``shared`` without the beginning of a header: of a marker, or of a line that goes on differently."""
        whole = self._whole(shared, len(shared), partial=True)
        line = whole.rfind("\n") + 1
        return whole[:line] if whole[:line].strip() and whole[line:].strip() else whole

    def _whole(self, text: str, end: int, *, up: bool = False, partial: bool = False) -> str:
        """``text[:end]``, cut so that no marker is split; ``up`` keeps the marker that ``end`` splits."""
        for found in self._marker.finditer(text):
            if found.start() < end < found.end():
                return text[: found.end() if up else found.start()]
        if partial:  # the text ends within a marker
            opened = re.search(r"(?:<\|?|<｜|\[)[^<>\[\]\s]*$", text[:end])
            if opened and not self._marker.fullmatch(opened[0]):
                return text[: opened.start()]
        return text[:end]


def _following(role: str, after: Message | None = None) -> Message:
    """A message that may follow; a tool's result names the call that it answers."""
    calls = [] if after is None else after.for_template().get("tool_calls") or []
    if not calls:
        return Message(role, _NEXT)
    own = {"role": role, "content": _NEXT, "name": "zqnamedqz", "tool_call_id": calls[0].get("id", "")}
    return Message(role, _NEXT, own=own)


def _visible(text: str) -> int:
    return len(text.rstrip())


__all__ = ["Frame", "TurnFrames", "shared_length"]
