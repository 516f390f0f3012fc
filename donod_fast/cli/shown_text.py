"""Rows as the model sees them, as text for a terminal or a file.

The text of a record is data: control characters, escape sequences and invisible characters are shown by name and never
sent to the terminal, and every line of it stands behind a bar.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.templates import BUILTIN_TEMPLATES
from donod_fast.data.viewing import Piece, RowView
from donod_fast.system.visible_text import CLOSE, OPEN, one_line, visible
from donod_fast.system.wording import plural

_LONGEST_TEXT = 20_000
_HIGHEST = 5

_RESET, _SCORED, _SPECIAL, _QUIET = "\x1b[0m", "\x1b[30;48;5;114m", "\x1b[2m", "\x1b[2m"
# From green to red: the background of a token by its loss.
_SHADES = tuple(f"\x1b[30;48;5;{colour}m" for colour in (114, 150, 186, 222, 216, 210, 203))
SHADE_NATS = 1.0
"""Width of a shade of loss, in nats."""

STEPS = len(_SHADES)
"""Number of shades."""


def shade_of(losses: Iterable[float]) -> int:
    """Number of the shade of a piece: the mean of its losses; the last one if it is not a number."""
    values = list(losses)
    mean = math.fsum(values) / len(values) if values else 0.0
    return min(STEPS - 1, int(mean / SHADE_NATS)) if math.isfinite(mean) else STEPS - 1


def text_of_piece(piece: Piece) -> str:
    """The visible text of a piece; the token's own spelling if it writes nothing."""
    return visible(piece.text) if piece.text else "".join(f"⟨{visible(name)}⟩" for name in piece.names)


def row_text(view: RowView, *, colour: bool, tokens: bool = False) -> str:
    """A row: facts first, then its text behind a bar, or one line per token."""
    lines = facts(view)
    if not view.pieces:
        lines += _unmasked(view)
    elif tokens:
        lines += _token_lines(view, colour=colour)
    else:
        lines += _behind_bar(_marked_text(view.pieces, colour=colour), colour=colour)
    return "\n".join(lines)


def facts(view: RowView) -> list[str]:
    """Lines about a row: where it is, what became of it, how it was masked, and what was left out."""
    lines = [f"row {view.row}: {one_line(view.file)}, {view.place}, id {one_line(view.id)}"]
    if view.pieces:
        cut = ", cut to the length limit" if view.truncated else ""
        how = f"format {view.format}, mask from {MASKS.get(view.mask, view.mask)}"
        if view.mask in ("generation", "prefix", *PROFILES) and view.format not in ("text", "tokenized"):
            how += f", chat template {template_name(view.template)}"
        lines.append(f"  {view.status}: {view.scored_tokens:,} of {plural(view.tokens, 'token')}{cut}; {how}")
    else:
        lines.append(f"  {view.status}" + (f"; format {view.format}" if view.format else ""))
    detail = (
        view.detail.removeprefix(f"{view.file}, {view.place}: ")
        .removeprefix(f"recast: {'; '.join(view.recasts)}")
        .removeprefix("; ")
    )
    if detail:
        lines.append(f"  detail: {one_line(detail)}")
    if view.recasts:
        lines.append(f"  rewritten for the template: {one_line('; '.join(view.recasts))}")
    if view.unused:
        lines.append(f"  columns no score depends on: {one_line(', '.join(view.unused))}")
    if view.excluded:
        lines.append(f"  left out by flags of the record: {plural(view.excluded, 'assistant turn')}")
    if view.scores:
        lines.append(
            "  in the scores folder: " + ", ".join(f"{name} {value}" for name, value in score_texts(view.scores))
        )
    lines += _loss_lines(view.pieces)
    return lines


def _loss_lines(pieces: Iterable[Piece]) -> list[str]:
    """The mean loss and the highest ones; nothing if losses are not known."""
    known = [piece for piece in pieces if piece.losses]
    if not known:
        return []
    losses = [loss for piece in known for loss in piece.losses]
    highest = sorted(known, key=lambda piece: -math.fsum(piece.losses))[:_HIGHEST]
    shown = ", ".join(f"{OPEN}{_one_line(piece)}{CLOSE} {math.fsum(piece.losses):.3f}" for piece in highest)
    return [f"  loss: mean {math.fsum(losses) / len(losses):.4f} nats per token; highest {shown}"]


MASKS: Mapping[str, str] = {
    "generation": "the template's generation marks",
    "prefix": "the tokens of the prompt",
    "text": "the whole text",
    "labels": "the record's labels",
    **{name: f"{facts.trainer}'s rule (--like {name})" for name, facts in PROFILES.items()},
}
"""How a mask was made, in words."""


def template_name(name: str) -> str:
    """A chat template in words."""
    if name == "tokenizer":
        return "of the tokenizer"
    return f"{one_line(name)} (built in)" if name in BUILTIN_TEMPLATES else one_line(name)


def score_texts(scores: Mapping[str, float | str]) -> list[tuple[str, str]]:
    """Names and values of a row's scores, in six digits."""
    return [(one_line(name), f"{value:.6g}" if isinstance(value, float) else one_line(str(value)))
            for name, value in scores.items()]  # fmt: skip


def unmasked_text(view: RowView) -> tuple[str, str]:
    """What to show of a row without a mask, cut where it is long: a heading, and its text, its record or its line."""
    if view.text is not None:
        return "its text, of which nothing is scored", _cut(view.text)
    if view.record is not None:
        return "the record", _cut(_as_json(view.record))
    return ("the line", _cut(view.raw)) if view.raw is not None else ("", "")


def _unmasked(view: RowView) -> list[str]:
    heading, text = unmasked_text(view)
    return [f"  {heading}:", *_behind_bar(visible(text))] if heading else []


def _cut(text: str) -> str:
    hidden = len(text) - _LONGEST_TEXT
    return text if hidden <= 0 else f"{text[:_LONGEST_TEXT]}… and {plural(hidden, 'character')} more"


def _as_json(record: Mapping[str, object]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(dict(record))


def _behind_bar(text: str, *, colour: bool = False) -> list[str]:
    bar = f"  {_QUIET}│{_RESET} " if colour else "  │ "
    lines = text.split("\n")
    return [bar + line for line in (lines[:-1] if lines[-1] == "" else lines)]


def _marked_text(pieces: Iterable[Piece], *, colour: bool) -> str:
    written, inside = [], False
    for piece in pieces:
        text = text_of_piece(piece)
        if colour:
            style = _SHADES[shade_of(piece.losses)] if piece.losses else _SCORED if piece.scored else ""
            style = style or (_SPECIAL if piece.special else "")
            # A style ends before a line end, so that bars and margins keep theirs.
            written.append("\n".join(f"{style}{part}{_RESET}" if style and part else part for part in text.split("\n")))
            continue
        if piece.scored != inside:
            written.append(OPEN if piece.scored else CLOSE)
            inside = piece.scored
        written.append(text)
    marked = "".join(written)
    if not inside:
        return marked
    return f"{marked[:-1]}{CLOSE}\n" if marked.endswith("\n") else marked + CLOSE


def _token_lines(view: RowView, *, colour: bool) -> list[str]:
    """A line per piece: position, ids, mark, loss if it is known, text in quotes."""
    lines, position = [], 0
    has_losses = any(piece.losses for piece in view.pieces)
    for piece in view.pieces:
        ids = "+".join(map(str, piece.ids))
        loss = f"{math.fsum(piece.losses):9.4f} " if piece.losses else " " * 10 * has_losses
        text = f"{OPEN}{_one_line(piece)}{CLOSE}" if piece.scored else f" {_one_line(piece)}"
        if colour and piece.scored:
            text = f"{_SHADES[shade_of(piece.losses)]}{text}{_RESET}"
        lines.append(f"  {position:>6}  {ids:>8}  {loss}{text}")
        position += len(piece.ids)
    return lines


def _one_line(piece: Piece) -> str:
    return text_of_piece(piece).replace("\n", "")


__all__ = [
    "MASKS",
    "SHADE_NATS",
    "STEPS",
    "facts",
    "one_line",
    "row_text",
    "score_texts",
    "shade_of",
    "template_name",
    "text_of_piece",
    "unmasked_text",
    "visible",
]
