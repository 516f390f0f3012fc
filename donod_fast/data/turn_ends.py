"""Learn from a chat template what it writes around a reply: its header, its closing, and what follows.

A rendering alone does not tell where a reply ends: the closing tokens are followed by the next message's header, by a
generation prompt or by a trailer after the last message. So the same probe conversation is rendered with different
continuations (nothing, a generation prompt, messages of other roles), and the closing is what they share. Where headers
of all roles begin alike, two differences tell more: what the generation prompt adds, and how the first message begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from donod_fast.data.bounded import shared_length
from donod_fast.data.probes import EMPTY_THINKING, OPENED_THINKING, Kinds, Pieces, Probe, end_of, probe_of
from donod_fast.data.rendering import Renderer
from donod_fast.data.template_habits import NEXT, PLAIN, TemplateHabits
from donod_fast.data.types import Conversation, Message

_CONTEXT = 8
"""Messages before a reply that a frame may depend on."""


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
        header: text between the prompt and the reply, where the template has no generation prompt; else ``""``.
        added: the generation prompt.
        leads: text between the header and the reply's first word, such as an opening tag of reasoning or of a call: at
            the end of the conversation, and before another message.
        after: roles of the messages that begin a turn of their own after the reply.
    """

    tail: str
    last_closing: str
    closing: str
    shared: str
    next_header: str
    header: str
    added: str
    leads: tuple[str, ...]
    after: frozenset[str]


class TurnFrames:
    """The frames of a template, each learned once for a kind of conversation.

    Attributes:
        constant_prompt: the header of a reply, if the template writes it at the end of every conversation.
        header: the generation prompt, or the header that is always there.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._render = renderer
        self._frames: Kinds[tuple[str, int], Frame | None] = Kinds()
        self._habits = TemplateHabits(renderer)
        self.constant_prompt = self._habits.constant_prompt
        self.header = self._habits.prompt if self._habits.prompt.strip() else self.constant_prompt

    def of(self, conversation: Conversation, at: int) -> Frame | None:
        """The frame of the reply at a position; None if the template leaves out its words.

        It depends on the messages up to the reply and on the next one; of many messages the last few decide.
        """
        until, at = window(conversation, at)
        probe = probe_of(until)
        return self._frames.find((probe.key, at), lambda: self._learn(probe, at))

    def _learn(self, probe: Probe, at: int) -> Frame | None:
        whole = probe.conversation
        conversation = Conversation(whole.messages[: at + 1], whole.tools, whole.documents)
        pieces = probe.pieces[at]
        render = self._render.text
        alone = render(conversation)
        if alone is None and len(probe.pieces) > at + 1:  # some templates refuse a conversation without a question
            alone = render(Conversation(whole.messages[: at + 2], whole.tools, whole.documents))
        begin = render(conversation, at) or ""
        prompt = render(conversation, at, add_generation_prompt=True)
        if alone is None:
            return None
        word, count = pieces.last(alone)
        if not word and (pieces.content or pieces.calls or prompt is None or not alone.startswith(prompt)):
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
        # Some templates render no empty conversation.
        added = self._habits.prompt if prompt is None or not at else self._habits.added(begin, prompt)
        continued = self._continued(probe, conversation, tail_of)
        prompted = tail_of(render(conversation, add_generation_prompt=True))
        plain = None
        if pieces.calls:
            # A call's own syntax is shared too, and looks like a closing. A reply in words has none.
            said = (*whole.messages[:at], Message("assistant", PLAIN), *whole.messages[at + 1 :])
            plain = self._learn(probe_of(replace(whole, messages=said)), at)
        # Some templates write a second reply, or the result of a call, within the turn that it follows.
        after = frozenset(role for role, text in continued[1:] if text.strip() or role in ("user", "system"))
        after = after if plain is None else plain.after
        continued = [*continued[:1], *(pair for pair in continued[1:] if pair[0] in after)]
        shared, closing = self._closing(conversation, tail, continued, prompted, added)
        last = self._last_closing(tail, closing, prompted, added)
        if plain is not None:
            closing = _without(shared, plain.shared[len(plain.closing.rstrip()) :], plain.closing) or closing
            last = _without(tail, plain.tail[len(plain.last_closing.rstrip()) :], plain.last_closing) or last
        follows = len(probe.pieces) > at + 1 and bool(continued)
        closed = closing.rstrip()
        next_header = continued[0][1][len(closed) :] if follows and continued[0][1].startswith(closed) else ""
        place = self._header_end(conversation, pieces, alone, begin, prompt, added)
        has_header = not added.strip() and not self.constant_prompt and prompt is not None and alone.startswith(prompt)
        header = alone[len(prompt or "") : place] if has_header else ""
        leads = [alone[place : pieces.first_start(alone)]] if place >= 0 else []
        if len(probe.pieces) > at + 1:
            followed = Conversation(whole.messages[: at + 2], whole.tools, whole.documents)
            text = render(followed) or ""
            later = self._header_end(followed, pieces, text, begin, prompt, added, at)
            leads += [text[later : pieces.first_start(text)]] if later >= 0 else []
        # Templates that write an empty block of thinking leave it out before a later question.
        leads += [EMPTY_THINKING.sub("", lead, count=1) for lead in leads if EMPTY_THINKING.match(lead)]
        return Frame(tail, last, closing, shared, next_header, header, added, tuple(dict.fromkeys(leads)), after)

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
            (_following("user"), Message("assistant", PLAIN)),
        ]
        words = [NEXT] * len(more)
        if len(probe.pieces) > at + 1:
            own = probe.pieces[at + 1]
            more.insert(0, (probe.conversation.messages[at + 1],))
            words.insert(0, own.content or own.reasoning or next((w for call in own.calls for w in call), NEXT))
        for messages, word in zip(more, words, strict=True):
            together = Conversation((*conversation.messages, *messages), conversation.tools, conversation.documents)
            tail = tail_of(self._render.text(together))
            if tail is not None and word in tail:
                found.append((messages[0].role, tail[: tail.index(word)]))
        return found

    def _closing(
        self,
        conversation: Conversation,
        tail: str,
        continued: Sequence[tuple[str, str]],
        prompted: str | None,
        added: str,
    ) -> tuple[str, str]:
        """What all continuations share after the reply, and the part of it that closes the reply."""
        by_prompt = _ends(prompted, added)
        tails = [text for _, text in continued] or [prompted or tail]
        shared = tails[0]
        for other in tails[1:]:
            shared = shared[: shared_length(shared, other)]
        if by_prompt is not None and by_prompt.strip() and shared.startswith(by_prompt.rstrip()):
            return shared, by_prompt
        # The end of the conversation and the generation prompt tell more where they close the reply in the same way.
        agreed = shared
        for other in (tail, prompted or ""):
            if self._habits.whole(agreed, shared_length(agreed, other), partial=True).strip() or len(tails) == 1:
                agreed = agreed[: shared_length(agreed, other)]
        whole = self._habits.without_header_start(agreed)
        by_first = self._closing_before_first_header(conversation, continued, agreed)
        if by_first is not None and by_first.strip():
            return shared, min(whole, by_first, key=_visible) if whole.strip() else by_first
        if by_first is None and by_prompt == "" and not tail.strip() and len({role for role, _ in continued}) > 1:
            return shared, whole  # the template leaves out the closing at the end, so the prompt does not show it
        return shared, "" if by_prompt == "" or by_first is not None else whole

    def _closing_before_first_header(
        self, before: Conversation, continued: Sequence[tuple[str, str]], shared: str
    ) -> str | None:
        """The text between reply and user's message without the header, which the first message has too.

        None if the first message does not show where its header begins.
        """
        between = next((text for role, text in continued if role == "user"), None)
        # A system message may be written within the user's message.
        begins = before.messages[:1] if before.messages[:1] and before.messages[0].role == "system" else ()
        within = bool(begins) and between is not None and begins[0].content in between
        for system in (begins,) if within else ((), begins or None):
            first = None if system is None else self._render.text(Conversation((*system, Message("user", NEXT))))
            if between is None or first is None or NEXT not in first:
                continue
            first = first[: first.index(NEXT)]
            header = shared_length(between[::-1], first[::-1])
            closing = self._habits.whole(between, len(between) - header, up=True)
            # Words in front of the first header are a system message, which may end in the same closing.
            header = len(between) - len(closing)
            is_first = self._habits.is_bare(first[: len(first) - header])
            if is_first and not closing.strip():
                return ""
            if is_first and closing.strip() and shared.startswith(closing.rstrip()):
                return closing
        return None

    def _last_closing(self, tail: str, closing: str, prompted: str | None, added: str) -> str:
        """The part of ``tail`` that closes a reply at the end of the conversation."""
        tail = tail.removesuffix(self._habits.trailer)
        shared = self._habits.whole(tail, shared_length(tail, closing), partial=True)
        if shared.strip():
            return shared
        if not tail.strip():
            return ""
        before = _ends(prompted, added)
        if before is None and prompted is not None and len(prompted.rstrip()) < len(tail.rstrip()) \
                and tail.startswith(prompted.rstrip()):  # fmt: skip
            # Nothing but a trailer follows, which a template may leave out where a prompt is asked for.
            return prompted.rstrip()
        before = before or ""
        shared = self._habits.whole(tail, shared_length(tail, before), partial=True)
        if shared.strip():
            return shared
        # The template closes the last reply in a way of its own, and a header may follow.
        if self.constant_prompt and tail.endswith(self.constant_prompt):
            return self._habits.without_first_markers(tail.removesuffix(self.constant_prompt))
        header = OPENED_THINKING.sub("", self._habits.reply_header).rstrip()
        header = header.removeprefix((self._habits.user_closing or "").rstrip())
        rest = OPENED_THINKING.sub("", tail).rstrip()
        return self._habits.whole(rest, len(rest) - shared_length(rest[::-1], header[::-1]), up=True)

    def _header_end(
        self,
        conversation: Conversation,
        pieces: Pieces,
        text: str,
        begin: str,
        prompt: str | None,
        added: str,
        at: int = -1,
    ) -> int:
        """Where the header of the reply at a position ends in a text; -1 if the reply's words are not there."""
        first = pieces.first_start(text)
        if first < 0:
            return -1
        messages = list(conversation.messages)
        messages[at] = Message("assistant", PLAIN)
        plain = self._render.text(replace(conversation, messages=tuple(messages)))
        end = first
        known = added if added.strip() else self.constant_prompt
        header = text.rfind(known.rstrip(), 0, first) if known.strip() else -1
        if added.strip() and prompt and text.startswith(prompt) and prompt.endswith(added):
            end = min(first, len(prompt))
        elif header >= 0:
            end = min(first, header + shared_length(text[header:], known))
        elif plain is not None and PLAIN in plain:
            end = min(first, shared_length(plain[: plain.index(PLAIN)], text))
            end = len(self._habits.whole(text, end)) if end < first else end
        opened = OPENED_THINKING.search(text, 0, end)
        if opened and not text.endswith(added or "\0", 0, end):
            end = opened.start()  # tags that the template writes are a part of the reply
        return end


def window(conversation: Conversation, at: int) -> tuple[Conversation, int]:
    """The messages around a reply, and its position among them: a system message, the last few, and the next one."""
    messages = conversation.messages
    head = 1 if messages[0].role == "system" else 0
    questions = [n for n in range(max(head, at - _CONTEXT), at) if messages[n].role == "user"]
    begin = questions[0] if questions and at - head > _CONTEXT else head
    around = (*messages[:head], *messages[begin : at + 2])
    return Conversation(around, conversation.tools, conversation.documents), head + at - begin


def _following(role: str, after: Message | None = None) -> Message:
    """A message that may follow; a tool's result names the call that it answers."""
    calls = [] if after is None else after.for_template().get("tool_calls") or []
    if not calls:
        return Message(role, NEXT)
    own = {"role": role, "content": NEXT, "name": "zqnamedqz", "tool_call_id": calls[0].get("id", "")}
    return Message(role, NEXT, own=own)


def _without(text: str, rest: str, closing: str) -> str:
    """A text without the rest that follows a closing, or up to that closing; ``""`` if it has neither."""
    if text.endswith(rest):
        return text[: len(text) - len(rest)]
    place = text.find(closing.strip()) if closing.strip() else -1
    return text[: place + len(closing.strip())] if place >= 0 else ""


def _ends(prompted: str | None, added: str) -> str | None:
    """What a text has before the generation prompt that it ends in; None if it does not end in one."""
    return prompted[: -len(added)] if added.strip() and prompted is not None and prompted.endswith(added) else None


def _visible(text: str) -> int:
    return len(text.rstrip())


__all__ = ["Frame", "TurnFrames", "window"]
