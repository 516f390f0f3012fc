"""What a chat template writes whatever the conversation is: trailers, prompts that are always there, first markers.

A marker is text that templates use as one token, such as ``<|im_end|>``. A text is never cut within it, since that
would split a header or a closing.
"""

from __future__ import annotations

import re

from donod_fast.data.bounded import shared_length
from donod_fast.data.rendering import Renderer
from donod_fast.data.types import Conversation, Message

NEXT, PLAIN = "zqnextqz", "zqplainqz"
"""Words that stand for the text of a message that follows, and of a reply in words."""

_MARKERS = r"</?\|?[A-Za-z_][^<>\s]*>|<｜[^｜<>\s]*｜>|\[/?[A-Za-z_]+\]"


class TemplateHabits:
    """The habits of a template, learned from renderings of one question.

    Attributes:
        trailer: what ends every conversation, after the closing of its last message.
        user_closing: what stands between a user's message and the next header; None if that is unclear.
        constant_prompt: the header of a reply, if the template writes it at the end of every conversation.
        prompt: the generation prompt after a question.
        reply_header: what stands between a question and its reply: the question's closing and the reply's header.
    """

    def __init__(self, renderer: Renderer) -> None:
        escaped = sorted(map(re.escape, filter(None, renderer.markers)), key=len, reverse=True)
        self._marker = re.compile("|".join([*escaped, _MARKERS]))
        question = Message("user", NEXT)
        asked = renderer.text(Conversation((question,)))
        answered = renderer.text(Conversation((question, Message("assistant", PLAIN))))
        again = renderer.text(Conversation((question, Message("user", PLAIN))))
        prompted = renderer.text(Conversation((question,)), add_generation_prompt=True)
        front, _, end = (asked or "").partition(NEXT)
        self.reply_header = _between(answered)
        self.trailer = end[len(self.whole(end, shared_length(end, self.reply_header))) :]
        self.user_closing = self._user_closing(front, again)
        self.constant_prompt = self._constant_prompt(end, _between(again))
        self.prompt = "" if asked is None or prompted is None else self.added(asked, prompted)
        # A text begins with the markers of its first message, after a token of its own perhaps.
        begins = re.match(rf"(?:\s*(?:{self._marker.pattern}))*", asked or "")
        self._first_markers = tuple(self._marker.findall(begins[0])) if begins else ()

    def _user_closing(self, front: str, again: str | None) -> str | None:
        if again is None or NEXT not in again or PLAIN not in again:
            return None
        between = _between(again)
        closing = self.whole(between, len(between) - shared_length(between[::-1], front[::-1]), up=True)
        return closing if self.is_bare(front[: len(front) - (len(between) - len(closing))]) else None

    def _constant_prompt(self, end: str, between: str) -> str:
        rest = end[len(self.whole(end, shared_length(end, between), partial=True)) :]
        if not between or not rest.removesuffix(self.trailer).strip():
            return ""
        if self.user_closing is not None and end.startswith(self.user_closing):
            rest = end[len(self.user_closing) :]
        return rest.removesuffix(self.trailer)

    def added(self, begin: str, prompt: str) -> str:
        """What a rendering with a generation prompt has more; without one there may be a trailer instead."""
        return prompt[len(self.whole(prompt, shared_length(prompt, begin))) :]

    def is_bare(self, text: str) -> bool:
        """Whether a text has no words, but markers and white space only."""
        return not self._marker.sub("", text).strip()

    def without_header_start(self, shared: str) -> str:
        """``shared`` without the beginning of a header: of a marker, or of a line that differs further on."""
        whole = self.without_first_markers(self.whole(shared, len(shared), partial=True))
        line = whole.rfind("\n") + 1
        return whole[:line] if whole[:line].strip() and whole[line:].strip() else whole

    def without_first_markers(self, text: str) -> str:
        """A text without a marker at its end that begins messages."""
        for marker in self._first_markers:
            if text.rstrip().endswith(marker):
                text = text.rstrip()[: -len(marker)]
        return text

    def whole(self, text: str, end: int, *, up: bool = False, partial: bool = False) -> str:
        """``text[:end]``, cut so that no marker is split; ``up`` keeps the marker that ``end`` splits.

        ``partial`` also removes the beginning of a marker that the text itself breaks off.
        """
        for found in self._marker.finditer(text):
            if found.start() < end < found.end():
                return text[: found.end() if up else found.start()]
        if partial:
            opened = re.search(r"(?:<\|?|<｜|\[)[^<>\[\]\s]*\Z", text[:end])
            if opened and not self._marker.fullmatch(opened[0]):
                return text[: opened.start()]
        return text[:end]


def _between(text: str | None) -> str:
    """What a text has between the two words."""
    return (text or "").partition(NEXT)[2].partition(PLAIN)[0]


__all__ = ["NEXT", "PLAIN", "TemplateHabits"]
