"""Render a template specification in Python, piece by piece, so that it is known what each character is.

The oracle knows where the template put the content of every turn. It never looks for a content in a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from template_specs import BLOCK, Frame, TemplateSpec

Msg = Mapping[str, Any]
SCORED = frozenset({"reasoning", "content", "calls", "closing"})


class UnsayableError(Exception):
    """The template cannot express the conversation: it raises, or leaves out more than reasoning."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a rendering.

    Attributes:
        text: its characters.
        kind: "header", "content", "reasoning", "calls", "closing", "gap", "system", "trailer" or "prompt".
        turn: position of the message that it belongs to; -1 for text of no message.
    """

    text: str
    kind: str
    turn: int = -1


@dataclass(frozen=True, slots=True)
class Written:
    """A whole rendering.

    Attributes:
        pieces: the text, in order.
        cut: positions of the assistant turns whose reasoning the template leaves out.
        raises: the template raises on this conversation, so there is no text.
        lost: contents that the template leaves out, other than reasoning.
    """

    pieces: tuple[Piece, ...]
    cut: frozenset[int] = frozenset()
    raises: str = ""
    lost: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece.text for piece in self.pieces)


def write(spec: TemplateSpec, messages: Sequence[Msg], tools: Sequence[Msg] = ()) -> Written:
    """Render a whole conversation without a generation prompt."""
    try:
        return _Writer(spec, messages, tools).write()
    except UnsayableError as error:
        return Written((), raises=str(error))


class _Writer:
    def __init__(self, spec: TemplateSpec, messages: Sequence[Msg], tools: Sequence[Msg]) -> None:
        self.spec, self.messages, self.tools = spec, messages, tools
        self.pieces: list[Piece] = []
        self.cut: set[int] = set()
        self.lost: list[str] = []
        users = [at for at, m in enumerate(messages) if m["role"] == "user"]
        self.first_user, self.last_user = (users[0], users[-1]) if users else (-1, -1)

    def say(self, text: str, kind: str, turn: int = -1) -> None:
        if text:
            self.pieces.append(Piece(text, kind, turn))

    def framed(self, frame: Frame, at: int, *inner: tuple[str, str]) -> None:
        self.say(frame.before, "header", at)
        for text, kind in inner:
            self.say(text, kind, at)
        self.say(frame.closing, "closing", at)
        self.say(frame.gap, "gap", at)

    def write(self) -> Written:
        spec = self.spec
        self.say(spec.bos, "header")
        if spec.default_system and self.messages[0]["role"] != "system":
            self.framed(spec.frames["system"], -1, (spec.default_system, "system"))
        if self.tools and spec.tools == "system":
            self.framed(spec.frames["system"], -1, ("Tools: " + _json(self.tools), "system"))
        for at, message in enumerate(self.messages):
            self.check_order(at)
            getattr(self, message["role"])(at, message)
        if self.tools and (spec.tools == "none" or (spec.tools == "last_user" and self.last_user < 0)):
            self.lost.append("tools")
        self.say(spec.trailer, "trailer")
        if spec.header_always:
            self.say(spec.prompt or "", "prompt")
        return Written(tuple(self.pieces), frozenset(self.cut), lost=tuple(self.lost))

    def check_order(self, at: int) -> None:
        role = self.messages[at]["role"]
        same = at > 0 and self.messages[at - 1]["role"] == role and role in ("user", "assistant")
        early = role == "assistant" and (self.first_user < 0 or at < self.first_user)
        if self.spec.strict and (same or early):
            raise UnsayableError("roles must alternate")

    def text_of(self, message: Msg) -> str:
        content = message["content"] or ""  # transformers leaves out what is null
        if not isinstance(content, str):
            if not self.spec.parts:
                self.lost.append("content parts")
            content = "".join(part["text"] for part in content) if self.spec.parts else str(content)
        role = message["role"]
        return content.strip() if self.spec.trim in ("all", role) else content

    def system(self, at: int, message: Msg) -> None:
        mode = self.spec.system_mode
        if mode == "raises":
            raise UnsayableError("no system role")
        if mode == "turn":
            self.framed(self.spec.frames["system"], at, (self.text_of(message), "system"))
            return
        user = {"first_user": self.first_user, "last_user": self.last_user}.get(mode, -1)
        if mode == "if_user_last" and self.messages[-1]["role"] == "user":
            user = len(self.messages) - 1
        if at > 0 or user < 0:
            self.lost.append("system")

    def merged_system(self, at: int) -> str:
        if self.messages[0]["role"] != "system":
            return ""
        last = at == len(self.messages) - 1
        here = {"first_user": at == self.first_user, "last_user": at == self.last_user, "if_user_last": last}
        if not here.get(self.spec.system_mode):
            return ""
        text = self.text_of(self.messages[0])
        if not (isinstance(self.messages[0]["content"], str) or self.spec.parts or self.spec.trim == "all"):
            raise UnsayableError("a list and a string cannot be added")
        return text + "\n\n" if text else ""

    def user(self, at: int, message: Msg) -> None:
        if self.spec.tools == "last_user" and self.tools and at == self.last_user:
            self.say("[AVAILABLE_TOOLS]" + _json(self.tools) + "[/AVAILABLE_TOOLS]", "system")
        system = (self.merged_system(at), "system")
        self.framed(self.spec.frames["user"], at, system, (self.text_of(message), "content"))

    def tool(self, at: int, message: Msg) -> None:
        spec, text = self.spec, self.text_of(message)
        if spec.results == "dropped":
            self.lost.append("tool result")
            return
        if spec.results in ("role", "id", "name"):
            key = {"id": ("tool_call_id", " "), "name": ("name", ": ")}.get(spec.results)
            extra = message[key[0]] + key[1] if key else ""
            self.framed(spec.frames["tool"], at, (extra, "header"), (text, "content"))
            return
        frame, grouped = spec.frames["user"], spec.results == "grouped"
        begins = not grouped or at == 0 or self.messages[at - 1]["role"] != "tool"
        ends = not grouped or at + 1 == len(self.messages) or self.messages[at + 1]["role"] != "tool"
        inner = ("<tool_response>\n", "header"), (text, "content"), ("\n</tool_response>", "header")
        shown = Frame(frame.before if begins else "", frame.closing if ends else "", frame.gap if ends else "")
        self.framed(shown, at, *inner)

    def assistant(self, at: int, message: Msg) -> None:
        spec = self.spec
        thought, text = self.thinking(at, message)
        frame = spec.frames["assistant"]
        calls = message.get("tool_calls") or []
        closing = spec.closing(is_last=at + 1 == len(self.messages), calls=bool(calls))
        if calls and spec.calls == "single" and text.strip():
            self.lost.append("content beside a call")
        if calls and spec.calls == "single":
            text = ""
        inner = (thought, "reasoning"), (text, "content"), (self.calls(calls), "calls")
        self.framed(Frame(frame.before, closing, frame.gap), at, *inner)

    def thinking(self, at: int, message: Msg) -> tuple[str, str]:
        """The thinking block and the text as the template writes them."""
        spec, text = self.spec, self.text_of(message)
        reason = next((message[k] for k in ("reasoning_content", "thinking", "reasoning") if message.get(k)), None)
        last = at + 1 == len(self.messages)
        bare = text.split("</think>")[-1].lstrip("\n")
        has_end = "</think>" in text and (isinstance(message["content"], str) or spec.parts or spec.trim != "none")
        if not spec.splits:
            cuts = spec.thinking == "cut_always" or (spec.thinking == "cut_earlier" and not last)
            if reason is not None or (cuts and has_end):
                self.cut.add(at)
            return "", bare if cuts and has_end else text
        kept = {"split_all": True, "split_last": last, "split_query": at > self.last_user}[spec.thinking]
        thought = ""
        if reason is not None:
            thought = reason
        elif has_end:
            thought, text = text.split("</think>")[0].split("<think>")[-1].strip("\n"), bare
        if thought and not kept:
            self.cut.add(at)
        shown = kept and (thought or spec.empty_block)
        return (f"<think>\n{thought}\n</think>\n\n" if shown else ""), text

    def calls(self, calls: Sequence[Msg]) -> str:
        spec = self.spec
        if not calls:
            return ""
        if spec.calls == "none":
            self.lost.append("calls")
            return ""
        if spec.calls == "single":
            if len(calls) != 1:
                raise UnsayableError("one call at a time")
            return _json(calls[0]["function"])
        if spec.calls == "tagged":
            return "".join(f"<tool_call>\n{_json(c['function'])}\n</tool_call>" for c in calls)
        if any(len(c.get("id") or "") != 9 for c in calls):
            raise UnsayableError("ids have 9 characters")
        listed = (
            f'{{"name": {_json(c["function"]["name"])}, "arguments": {_json(c["function"]["arguments"])}, '
            f'"id": {_json(c["id"])}}}'
            for c in calls
        )
        return "[TOOL_CALLS][" + ", ".join(listed) + "]"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def character_flags(
    spec: TemplateSpec, written: Written, wanted: frozenset[int], *, merges: bool = False
) -> list[bool | None]:
    """For each character whether a token that begins there is scored; None where both are right.

    Args:
        spec: the template.
        written: its rendering.
        wanted: positions of the assistant turns to score.
        merges: whether tokens may cross the end of the generation prompt, so that it proves nothing.
    """
    flags: list[bool | None] = []
    pieces = written.pieces
    for number, piece in enumerate(pieces):
        inside = piece.turn in wanted and piece.kind in SCORED
        flags += [inside and piece.kind in SCORED] * len(piece.text)
        if (
            piece.kind == "gap"
            and spec.marks == "gap"
            and piece.turn in wanted
            and pieces[number - 1].kind != "closing"
        ):
            flags[-len(piece.text) :] = [None] * len(piece.text)  # the mark has white space, but no closing before it
        only_last = spec.last_closing and not spec.frames["assistant"].closing and number + 2 >= len(pieces)
        if piece.kind == "closing" and inside and (spec.marks == "content" or only_last):
            # The marks may be taken at their word; a closing that only the last turn has may be a trailer.
            flags[-len(piece.text) :] = [None] * len(piece.text)
        if piece.kind in ("trailer", "gap") and _trails(pieces, number, wanted) and _is_open(spec, pieces, number):
            flags[-len(piece.text) :] = [None] * len(piece.text)
    text, at = written.text, 0
    for number, piece in enumerate(pieces):
        first = piece.turn in wanted and piece.kind in SCORED and _is_first(pieces, number)
        if first:
            _open_start(spec, text, at, flags, merges=merges)
        ends = _is_end(pieces, number) or (spec.marks == "content" and pieces[number + 1].kind == "closing")
        if piece.turn in wanted and piece.kind in SCORED and ends and piece.kind != "closing":
            # Without a closing, white space at the end of the content may count as the gap after it.
            bare = len(piece.text.rstrip())
            flags[at + bare : at + len(piece.text)] = [None] * (len(piece.text) - bare)
        at += len(piece.text)
    return flags


def _is_first(pieces: Sequence[Piece], number: int) -> bool:
    return not (pieces[number - 1].turn == pieces[number].turn and pieces[number - 1].kind in SCORED)


def _is_end(pieces: Sequence[Piece], number: int) -> bool:
    after = pieces[number + 1] if number + 1 < len(pieces) else None
    return after is None or after.turn != pieces[number].turn or after.kind not in SCORED


def _trails(pieces: Sequence[Piece], number: int, wanted: frozenset[int]) -> bool:
    """Whether only the trailer and white space stand between the piece and a wanted turn."""
    before = number - 1
    while before >= 0 and pieces[before].kind in ("trailer", "gap"):
        before -= 1
    return before >= 0 and pieces[before].turn in wanted


def _is_open(spec: TemplateSpec, pieces: Sequence[Piece], number: int) -> bool:
    """Whether a trailer (or the white space before it) may be scored.

    A trailer that the template's own marks include may, and one after a turn without a closing: from outside it
    cannot be told from a closing that only the last turn has.
    """
    trails = any(piece.kind == "trailer" for piece in pieces[number:])
    if not trails:
        return False
    turn = max(piece.turn for piece in pieces)
    closed = any(piece.kind == "closing" and piece.turn == turn for piece in pieces)
    return spec.marks == "trailer" or not closed


def _open_start(spec: TemplateSpec, text: str, start: int, flags: list[bool | None], *, merges: bool) -> None:
    """Mark as open what the generation prompt writes of a turn, and white space that it leaves to the model."""
    header = spec.frames["assistant"].before
    prompt = spec.prompt or ""
    suffix = prompt[len(header) :] if prompt.startswith(header) else ""
    if suffix and text.startswith(suffix, start):
        # The prompt writes it, the model does not. A mark that includes it may be taken at its word.
        by_prompt = None if merges or spec.includes_prompt else False
        flags[start : start + len(suffix)] = [by_prompt] * len(suffix)
    elif not prompt and spec.marks == "none" and text.startswith(BLOCK, start):
        # Without a generation prompt an inserted block may be a part of the header.
        flags[start : start + len(BLOCK)] = [None] * len(BLOCK)
    elif suffix:
        shared = next((n for n, (a, b) in enumerate(zip(suffix, text[start:], strict=False)) if a != b), len(suffix))
        flags[start : start + shared] = [None] * shared
    if merges or (prompt != header and not suffix):  # no prompt, or one without the header's last space
        space = len(text[:start]) - len(text[:start].rstrip())
        flags[start - space : start] = [None] * space
