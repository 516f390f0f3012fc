"""Hold the masker to the oracle: one template with one conversation is one trial.

Run by hand for many trials: ``python tests/support/mask_trials.py --pairs 50000 --seed 1``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.path.append(str(Path(__file__).parents[2]))
    sys.modules["mask_trials"] = sys.modules["__main__"]

from conversation_generator import Drawn, draw_conversation
from marker_tokenizers import given_tokenizer, marker_tokenizer
from template_oracle import SCORED, Written, character_flags, write
from template_specs import TemplateSpec, draw_spec
from template_writer import jinja
from tiny_chat import scored_runs

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record, Status, TokenizedSample

PAIRS_PER_TEMPLATE = 5


@dataclass(frozen=True, slots=True)
class Setup:
    """A template with a tokenizer and a masker.

    Attributes:
        spec: the template as data.
        source: the template as Jinja.
        tokenizer_kind: see :func:`marker_tokenizers.marker_tokenizer`.
        train_on: "all" or "last".
        masker: what is tried.
    """

    spec: TemplateSpec
    source: str
    tokenizer_kind: str
    train_on: str
    masker: Masker

    @property
    def merges(self) -> bool:
        """Whether tokens may cross the border between a generation prompt and the reply."""
        return self.tokenizer_kind in ("lines", "merging")

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, with the position of each token."""
        return marker_tokenizer(self.tokenizer_kind)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one trial.

    Attributes:
        kind: "exact", "recast" (scored, though the template cannot say it all), a refusal that is right
            ("refused: …"), or "wrong".
        problem: what is wrong, with the template and the rendering.
    """

    kind: str
    problem: str = ""


def draw_setup(rng: random.Random) -> Setup:
    """Draw a template, a tokenizer and the turns to train on."""
    spec = draw_spec(rng)
    kind = rng.choices(("special", "lines", "plain", "merging", "slow"), (36, 25, 25, 8, 6))[0]
    return setup_of(spec, kind, "last" if rng.random() < 0.2 else "all")


def setup_of(spec: TemplateSpec, tokenizer_kind: str = "special", train_on: str = "all") -> Setup:
    """A masker for the template."""
    tokenizer, source = marker_tokenizer(tokenizer_kind), jinja(spec)
    tokenizer.chat_template = source  # the masker reads it once
    settings = MaskSettings(template="tokenizer", train_on=train_on)
    masker = Masker(given_tokenizer(tokenizer_kind), settings, vocab_size=len(tokenizer))
    return Setup(spec, source, tokenizer_kind, train_on, masker)


def trials(seed: int, pairs: int) -> Iterator[tuple[Setup, Drawn, Outcome]]:
    """Draw and judge ``pairs`` pairs of a template and a conversation."""
    rng = random.Random(seed)
    for number in range(pairs):
        if number % PAIRS_PER_TEMPLATE == 0:
            setup = draw_setup(rng)
        drawn = draw_conversation(rng)
        yield setup, drawn, judge(setup, drawn)


def judge(setup: Setup, drawn: Drawn) -> Outcome:
    """Compare the masker's row with what the oracle knows."""
    written = write(setup.spec, drawn.messages, drawn.tools)
    rendered = _rendered(setup, drawn)
    if rendered != (None if written.raises else written.text):
        return Outcome("wrong", f"THE ORACLE AND JINJA DISAGREE\n{written.text!r}\n{rendered!r}\n{written.raises}")
    row = setup.masker.tokenize(Record(row=0, file="-", place="trial", data=drawn.data))
    outcome = (
        _loose(setup, drawn, written, row) if written.raises or written.lost else _exact(setup, drawn, written, row)
    )
    if outcome.kind != "wrong":
        return outcome
    return Outcome("wrong", _report(setup, drawn, written, row, outcome.problem))


def _rendered(setup: Setup, drawn: Drawn) -> str | None:
    try:
        text = setup.tokenizer.apply_chat_template(
            drawn.messages, tools=drawn.tools or None, chat_template=setup.source, tokenize=False
        )
    except Exception:  # a template can raise any exception
        return None
    return str(text)


def _exact(setup: Setup, drawn: Drawn, written: Written, row: TokenizedSample) -> Outcome:
    """The template can say it all: the tokens are those of the template, the flags those of the oracle."""
    wanted = drawn.wanted(setup.train_on)
    replies = [at for at, m in enumerate(drawn.messages) if m["role"] == "assistant"]
    is_cut = bool(replies) and replies[-1] in written.cut
    if row.status is Status.ALL_MASKED and not wanted:
        return Outcome("refused: no turn is asked for")
    if row.status is Status.REASONING_DROPPED and is_cut:
        return Outcome("refused: the last reasoning is cut")
    ids, offsets = encoded(setup, written.text)
    flags = character_flags(setup.spec, written, wanted, merges=setup.merges)
    if row.status is Status.PROMPT_NOT_PREFIX and crosses(setup, written, wanted, ids):
        return Outcome("refused: a token crosses the border")
    if row.status is not Status.SCORED:
        return Outcome("wrong", f"refused as {row.status}: {row.detail}")
    if is_cut and replies[-1] in wanted and drawn.messages[-1]["role"] == "assistant":
        return Outcome("wrong", "scored, although the last reply's reasoning is cut")
    if list(row.input_ids) != ids:
        return Outcome("wrong", f"other tokens than the template's: {setup.tokenizer.decode(row.input_ids)!r}")
    expected = token_flags(written.text, flags, offsets)
    bad = [n for n, (want, got) in enumerate(zip(expected, row.scored, strict=True)) if want not in (None, got)]
    if not bad:
        return Outcome("exact")
    shown = [(setup.tokenizer.decode([ids[n]]), "scored" if row.scored[n] else "left out") for n in bad[:8]]
    return Outcome("wrong", f"wrong flags: {shown}")


def encoded(setup: Setup, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text, and the characters of each."""
    found = setup.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(found["input_ids"]), [(a, b) for a, b in found["offset_mapping"]]


def token_flags(text: str, flags: list[bool | None], offsets: list[tuple[int, int]]) -> list[bool | None]:
    """For each token whether it is scored; None where both are right: a token across a border."""
    found: list[bool | None] = []
    for a, b in offsets:
        inner = flags[a:b]
        over_start = flags[a] is False and any(flag is not False for flag in inner)
        over_end = flags[a] and any(flag is False and not text[a + n].isspace() for n, flag in enumerate(inner))
        found.append(None if over_start or over_end else flags[a])
    return [False, *found[1:]] if found else []


def crosses(setup: Setup, written: Written, wanted: frozenset[int], ids: list[int]) -> bool:
    """Whether the tokens before some wanted turn are not the beginning of all tokens."""
    at, starts, previous = 0, [], -1
    for piece in written.pieces:
        if piece.turn in wanted and piece.kind in SCORED and previous != piece.turn:
            starts.append(at)
            previous = piece.turn
        at += len(piece.text)
    # The generation prompt may end before or after the header's last white space, or write more than the header.
    header, prompt = setup.spec.frames["assistant"].before, setup.spec.prompt or ""
    shifts = {0, len(header.rstrip()) - len(header), max(0, len(prompt) - len(header))}
    for start in starts:
        for shift in shifts:
            alone, _ = encoded(setup, written.text[: start + shift])
            if ids[: len(alone)] != alone:
                return True
    return False


def _loose(setup: Setup, drawn: Drawn, written: Written, row: TokenizedSample) -> Outcome:
    """The template cannot say it all: nothing else than the replies and their closings may be scored."""
    wanted = drawn.wanted(setup.train_on)
    if row.status is Status.ALL_MASKED and not wanted:
        return Outcome("refused: no turn is asked for")
    if row.status is Status.TEMPLATE_FAILED and written.raises:
        return Outcome("refused: the template raises")
    header = setup.spec.frames["assistant"].before
    joins = header.endswith(" ") or not header + setup.spec.frames["user"].closing
    if row.status is Status.PROMPT_NOT_PREFIX and (setup.merges or joins):
        return Outcome("refused: a token crosses the border")
    if row.status is Status.REASONING_DROPPED and any(_thinks(m) for m in drawn.messages):
        return Outcome("refused: the last reasoning is cut")
    if row.status is not Status.SCORED:
        return Outcome("wrong", f"refused as {row.status}: {row.detail}")
    if setup.tokenizer_kind == "merging":
        return Outcome("recast")  # tokens cross the borders, so that the runs' texts say nothing
    runs = scored_runs(row, setup.tokenizer)
    if (
        row.scored[1] and 0 in wanted and not setup.spec.bos + header
    ):  # no position predicts the first token of the text
        runs = scored_runs(replace(row, scored=(True, *row.scored[1:])), setup.tokenizer)
    if len(runs) != len(wanted):
        return Outcome("wrong", f"{len(runs)} scored texts for {len(wanted)} turns: {runs}")
    for run, at in zip(runs, sorted(wanted), strict=True):
        if problem := _unlike(setup.spec, drawn, at, run):
            return Outcome("wrong", problem)
        calls = "".join(piece.text for piece in written.pieces if piece.turn == at and piece.kind == "calls")
        if calls not in run and not {"calls", "content beside a call"} & set(written.lost):
            return Outcome("wrong", f"turn {at} is recast, though the template can write its calls: {run!r}")
    return Outcome("recast")


def _thinks(message: dict[str, Any]) -> bool:
    return any(key in message for key in ("reasoning_content", "thinking")) or "</think>" in str(message["content"])


def _unlike(spec: TemplateSpec, drawn: Drawn, at: int, run: str) -> str:
    """What is wrong with the scored text of a turn whose rendering is not known; empty if nothing is."""
    message, last = drawn.messages[at], at + 1 == len(drawn.messages)
    content = message["content"] or ""
    content = content if isinstance(content, str) else content[0]["text"]
    bare = content.split("</think>")[-1].strip()
    frame = spec.frames["assistant"]
    closing = spec.closing(is_last=last, calls=bool(message.get("tool_calls")))
    closings = {closing} | ({spec.closing(is_last=last, calls=False)} if message.get("tool_calls") else set())
    if spec.marks == "content" or (last and not frame.closing):
        closings.add("")
    if last and spec.trailer and (spec.marks == "trailer" or not closing):
        closings |= {closing + spec.trailer, closing + frame.gap + spec.trailer}
    ends = [run.strip().removesuffix(end.strip()).strip() for end in closings if run.strip().endswith(end.strip())]
    if not ends:
        return f"turn {at} does not end in {closings}: {run!r}"
    if calls := message.get("tool_calls"):
        named = run.count(json.dumps(calls[0]["function"]["name"])) == len(calls)
        begins = run.split("</think>")[-1].strip().startswith(bare)
        return "" if named and begins else f"turn {at} is not its content and its calls: {run!r}"
    if not any(end.split("</think>")[-1].strip() == bare for end in ends):
        return f"turn {at} is not {bare!r}: {run!r}"
    return ""


def _report(setup: Setup, drawn: Drawn, written: Written, row: TokenizedSample, problem: str) -> str:
    """A failure to read: the template, the conversation, the rendering with both masks."""
    spec = setup.spec
    plain = TemplateSpec(spec.frames)
    habits = [
        f"{name}={getattr(spec, name)!r}"
        for name in TemplateSpec.__slots__  # type: ignore[attr-defined]
        if name != "frames" and getattr(spec, name) != getattr(plain, name)
    ]
    lines = [problem, f"tokenizer: {setup.tokenizer_kind}, train_on: {setup.train_on}", f"habits: {', '.join(habits)}"]
    lines += [
        f"frames: {role}: {frame.before!r} … {frame.closing!r} {frame.gap!r}" for role, frame in spec.frames.items()
    ]
    lines += [f"template: {setup.source!r}", *(f"message: {message}" for message in drawn.messages)]
    if drawn.tools:
        lines.append("tools: one")
    lines.append(f"raises: {written.raises!r}, lost: {written.lost}, cut: {sorted(written.cut)}")
    if not written.raises:
        ids, offsets = encoded(setup, written.text)
        flags = character_flags(spec, written, drawn.wanted(setup.train_on))
        lines.append("expected: " + _drawn(setup.tokenizer, ids, token_flags(written.text, flags, offsets)))
    lines.append(f"got:      {row.status} ({row.mask}) " + _drawn(setup.tokenizer, row.input_ids, row.scored))
    return "\n  ".join(lines)


def _drawn(tokenizer: Any, ids: Any, flags: Any) -> str:
    """A text with its scored tokens in ⟦ ⟧, and those where both are right in ⟨ ⟩."""
    marks = {True: "⟦⟧", None: "⟨⟩", False: ""}
    parts: list[tuple[bool | None, list[int]]] = []
    for token, flag in zip(ids, flags, strict=True):
        if not parts or parts[-1][0] is not flag:
            parts.append((flag, []))
        parts[-1][1].append(token)
    shown = (repr(tokenizer.decode(run))[1:-1].join(marks[flag] or ("", "")) for flag, run in parts)
    return "".join(shown)


def main() -> int:
    """Run many trials and print each kind of failure once, shrunk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shown", type=int, default=20, help="kinds of failures to print, each in its smallest form")
    given = parser.parse_args()
    from trial_shrinking import kind_of, shrink

    began, counts, kinds = time.monotonic(), Counter[str](), dict[tuple[str, str], str]()
    shrunk = 0
    for setup, drawn, outcome in trials(given.seed, given.pairs):
        counts[outcome.kind] += 1
        if outcome.kind == "wrong" and len(kinds) < given.shown and shrunk < 20 * given.shown:
            shrunk += 1
            small = shrink(setup, drawn, outcome)[2]
            habits = next(line for line in small.problem.split("\n") if "habits:" in line or "DISAGREE" in line)
            kinds.setdefault((kind_of(small), habits), small.problem)
    for number, problem in enumerate(kinds.values(), 1):
        print(f"--- {number}\n  {problem}")
    for kind, number in counts.most_common():
        print(f"{number:7} {kind}")
    print(f"{given.pairs} pairs in {time.monotonic() - began:.0f} s")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
