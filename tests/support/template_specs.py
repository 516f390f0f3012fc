"""Specifications of chat templates, drawn at random from what public templates do.

A specification is data. ``template_writer`` writes it as Jinja, ``template_oracle`` renders it in Python; both are
short, and the trials compare their texts before they use them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around one role's content.

    Attributes:
        before: the header.
        closing: the marker after the content; never ends in white space.
        gap: white space after the marker.
    """

    before: str
    closing: str = ""
    gap: str = ""


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """One chat template.

    Attributes:
        frames: the frame of each role.
        bos: text at the very start.
        last_closing: the assistant's closing where its turn is the last message; None: as in other turns.
        call_closing: the assistant's closing where its turn calls a tool; None: as in other turns.
        prompt: the whole generation prompt; None: the template has none.
        header_always: write the generation prompt after every conversation, asked for or not.
        trailer: text after the last turn, written unless a generation prompt is asked for.
        trailer_always: write the trailer in front of the generation prompt, too.
        default_system: system text for conversations without one; empty: none.
        system_mode: "turn", "first_user" (in front of the first user text), "last_user" (in front of the last user
            text), "if_user_last" (only where the last message is a user's), "dropped" or "raises".
        reads_first: look at ``messages[0]`` before the loop, so that an empty list of messages raises.
        strict: raise unless user and assistant alternate, the user first.
        trim: whose content is stripped: "none", "all" or "assistant".
        thinking: "verbatim"; "cut_earlier" (unless the turn is the last message), "cut_always"; or taken apart and
            written again: "split_all", "split_last" (last message), "split_query" (after the last user turn).
        empty_block: write an empty thinking block where a split template keeps thinking, but there is none.
        calls: "none", "tagged" (one block each), "listed" (one list with ids) or "single" (one call, no content).
        results: "role", "user" (as a user turn), "grouped" (neighbours share a user turn), "id", "name" or "dropped".
        tools: where the tools are listed: "none", "system" (own turn at the start) or "last_user" (before it).
        parts: whether a list of content parts is read.
        marks: where generation marks are: "none", "right", "gap" (with the white space after the closing), "two" (one
            for the closing), "content" (without the closing), "trailer" (right, and the trailer marked too), or wrong:
            "header", "early", "next_header", "every", "missing".
        marks_where: which assistant turns have the wrong mark: "all", "first" or "last"; the others have right ones.
    """

    frames: dict[str, Frame]
    bos: str = ""
    last_closing: str | None = None
    call_closing: str | None = None
    prompt: str | None = None
    header_always: bool = False
    trailer: str = ""
    trailer_always: bool = False
    default_system: str = ""
    system_mode: str = "turn"
    reads_first: bool = False
    strict: bool = False
    trim: str = "none"
    thinking: str = "verbatim"
    empty_block: bool = False
    calls: str = "none"
    results: str = "role"
    tools: str = "none"
    parts: bool = False
    marks: str = "none"
    marks_where: str = "all"

    @property
    def includes_prompt(self) -> bool:
        """Whether a right mark begins after the header, though the generation prompt writes more than that."""
        return self.marks in ("right", "gap", "two", "content", "trailer") or self.marks_where != "all"

    def closing(self, *, is_last: bool, calls: bool) -> str:
        """The assistant's closing.

        Args:
            is_last: whether the turn is the last message.
            calls: whether it calls a tool.
        """
        if calls and self.call_closing is not None:
            return self.call_closing
        return self.last_closing if is_last and self.last_closing is not None else self.frames["assistant"].closing

    @property
    def splits(self) -> bool:
        """Whether thinking is taken apart and written again."""
        return self.thinking.startswith("split")


def _style(before: str, closing: str = "", gap: str = "", **given: Frame) -> dict[str, Frame]:
    frames = {role: Frame(before.replace("ROLE", role), closing, gap) for role in ROLES}
    return {**frames, **given}


STYLES: dict[str, dict[str, Frame]] = {
    "pipe": _style("<|ROLE|>", "<|end|>"),
    "pipe line": _style("<|ROLE|>\n", "<|end|>", "\n"),
    "im": _style("<|im_start|>ROLE\n", "<|im_end|>", "\n"),
    "header id": _style("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>"),
    "inst": {
        "system": Frame("<<SYS>>\n", "\n<</SYS>>", "\n\n"),
        "user": Frame("[INST] ", " [/INST]"),
        "assistant": Frame("", "</s>"),
        "tool": Frame("[TOOL_RESULTS] ", "[/TOOL_RESULTS]"),
    },
    "inst space": {
        "system": Frame("[SYS] ", "[/SYS]"),
        "user": Frame("[INST] ", " [/INST]"),
        "assistant": Frame(" ", "</s>"),
        "tool": Frame("[TOOL_RESULTS] ", "[/TOOL_RESULTS]"),
    },
    "instruction": {
        "system": Frame("", "", "\n\n"),
        "user": Frame("### Instruction:\n", "", "\n\n"),
        "assistant": Frame("### Response:\n", "</s>", "\n\n"),
        "tool": Frame("### Result:\n", "", "\n\n"),
    },
    "speakers": {
        "system": Frame("", "", " "),
        "user": Frame("USER: ", "", " "),
        "assistant": Frame("ASSISTANT: ", "</s>"),
        "tool": Frame("TOOL: ", "", " "),
    },
    "human": {
        "system": Frame("System: "),
        "user": Frame("\n\nHuman: "),
        "assistant": Frame("\n\nAssistant: "),
        "tool": Frame("\n\nTool: "),
    },
    "turn": _style(
        "<start_of_turn>ROLE\n", "<end_of_turn>", "\n",
        assistant=Frame("<start_of_turn>model\n", "<end_of_turn>", "\n"),
    ),
    "lines": _style("<|ROLE|>\n", "</s>", "\n"),
    "no closing": _style("<|ROLE|>\n"),
}  # fmt: skip
"""Frames by the style of their headers."""

CLOSINGS = (("", ""), ("</s>", ""), ("<|end|>", ""), ("<|im_end|>", "\n"), ("</s>", "\n\n"), ("<|eot_id|>", ""))
MARKERS = (
    "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<|return|>", "<|call|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "[gMASK]", "<sop>",
    "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "<|pad|>",
)  # fmt: skip
"""Markers of all styles, beyond those that the tiny tokenizer knows."""

BLOCK = "<think>\n\n</think>\n\n"
OPENING = "<think>\n"

# How often a template differs from the plain one in each respect.
_RARELY, _SOMETIMES = 0.12, 0.3


def draw_spec(rng: random.Random) -> TemplateSpec:
    """Draw a template: a style of headers, and a few habits on top of it."""
    frames = dict(STYLES[rng.choice(sorted(STYLES))])
    if rng.random() < _SOMETIMES:
        closing, gap = rng.choice(CLOSINGS)
        frames["assistant"] = replace(frames["assistant"], closing=closing, gap=gap)
    if rng.random() < _RARELY:
        closing, gap = rng.choice(CLOSINGS)
        frames["user"] = replace(frames["user"], closing=closing, gap=gap)
    spec = TemplateSpec(frames, bos=rng.choice(("", "", "", "<s>", "<s>", "[gMASK]<sop>", "<s>\n")))
    spec = _with_ends(spec, rng)
    spec = _with_system(spec, rng)
    spec = _with_content(spec, rng)
    return _with_marks(spec, rng)


def _with_ends(spec: TemplateSpec, rng: random.Random) -> TemplateSpec:
    """Draw the generation prompt, the trailer and the closing of the last turn."""
    header = spec.frames["assistant"].before
    kind = rng.choices(("header", "none", "stripped", "opens", "block"), (60, 15, 5, 12, 8))[0]
    prompts = {"header": header, "none": None, "opens": header + OPENING, "block": header + BLOCK}
    prompt = header.rstrip(" ") if kind == "stripped" else prompts[kind]
    spec = replace(spec, prompt=prompt or None)
    if rng.random() < _SOMETIMES:
        spec = replace(
            spec, trailer=rng.choice(("</s>", "<|pad|>", "<|end|>", "\n")), trailer_always=rng.random() < _RARELY
        )
    elif prompt and rng.random() < _SOMETIMES:
        spec = replace(spec, header_always=True)
    if rng.random() < _RARELY:
        spec = replace(spec, last_closing=rng.choice(("", "<|return|>", "</s>", "<|end|>")))
    return spec


def _with_system(spec: TemplateSpec, rng: random.Random) -> TemplateSpec:
    modes = ("turn", "first_user", "last_user", "if_user_last", "dropped", "raises")
    mode = rng.choices(modes, (60, 15, 10, 5, 5, 5))[0]
    default = "You are a model." if mode == "turn" and rng.random() < _SOMETIMES else ""
    return replace(
        spec,
        system_mode=mode,
        default_system=default,
        reads_first=bool(default) or rng.random() < _SOMETIMES,
        strict=rng.random() < _RARELY,
    )


def _with_content(spec: TemplateSpec, rng: random.Random) -> TemplateSpec:
    thinking = ("verbatim", "cut_earlier", "cut_always", "split_all", "split_last", "split_query")
    kept = rng.choices(thinking, (45, 10, 5, 10, 10, 20))[0]
    splits = kept.startswith("split")
    return replace(
        spec,
        trim=rng.choices(("none", "all", "assistant"), (60, 25, 15))[0],
        thinking=kept,
        empty_block=splits and rng.random() < _SOMETIMES,
        calls=rng.choices(("none", "tagged", "listed", "single"), (25, 40, 20, 15))[0],
        call_closing=rng.choice(("<|call|>", "<|end|>")) if rng.random() < _RARELY else None,
        results=rng.choices(("role", "user", "grouped", "id", "name", "dropped"), (35, 15, 15, 15, 15, 5))[0],
        tools=rng.choices(("none", "system", "last_user"), (40, 40, 20))[0],
        parts=rng.random() < _SOMETIMES,
    )


def _with_marks(spec: TemplateSpec, rng: random.Random) -> TemplateSpec:
    kinds = ("none", "right", "gap", "two", "content", "trailer", "header", "early", "next_header", "every", "missing")
    marks = rng.choices(kinds, (53, 12, 3, 3, 3, 5, 5, 4, 4, 4, 4))[0]
    if marks in ("early", "next_header") and spec.tools == "last_user":
        marks = "header"  # the listing stands between the turns, so a mark cannot reach from one to the next
    where = rng.choice(("all", "first", "last")) if marks in ("header", "early", "next_header", "missing") else "all"
    return replace(spec, marks=marks, marks_where=where)
