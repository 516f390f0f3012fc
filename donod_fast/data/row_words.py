"""What is said of a row as the model sees it: facts, masks in words, pieces as visible text, shades of losses.

The terminal (``cli/shown_text.py``) and the pages (``reports/row_page.py``) say the same. All text that comes from data
is visible text (see :func:`donod_fast.system.escaping.visible`), but is not escaped for HTML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.templates import BUILTIN_TEMPLATES
from donod_fast.data.viewing import RECORDED, Piece, RowView
from donod_fast.system.escaping import CLOSE, OPEN, one_line, visible
from donod_fast.system.wording import plural

STEPS = 7
"""Number of shades of loss."""

SHADE_NATS = 1.0
"""Width of a shade, in nats."""

_LONGEST_TEXT = 20_000
_HIGHEST = 5


def shade_of(losses: Iterable[float]) -> int:
    """Number of the shade of a piece: the mean of its losses; the last one if it is not a number."""
    values = list(losses)
    mean = math.fsum(values) / len(values) if values else 0.0
    return min(STEPS - 1, int(mean / SHADE_NATS)) if math.isfinite(mean) else STEPS - 1


def text_of_piece(piece: Piece) -> str:
    """The visible text of a piece; the token's own spelling if it writes nothing."""
    return visible(piece.text) if piece.text else "".join(f"⟨{visible(name)}⟩" for name in piece.names)


def line_of_piece(piece: Piece) -> str:
    """The visible text of a piece without real line ends."""
    return text_of_piece(piece).replace("\n", "")


def facts(view: RowView) -> list[str]:
    """Lines about a row: where it is, what became of it, how it was masked, and what was left out."""
    lines = [f"row {view.row}: {one_line(view.file)}, {one_line(view.place)}, id {one_line(view.id)}"]
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
    lines += _loss_lines(view.pieces, view.losses_from)
    return lines


def _loss_lines(pieces: Iterable[Piece], source: str) -> list[str]:
    """The mean loss and the highest ones, and whether they are recorded; nothing if losses are not known."""
    known = [piece for piece in pieces if piece.losses]
    if not known:
        return []
    losses = [loss for piece in known for loss in piece.losses]
    highest = sorted(known, key=lambda piece: -math.fsum(piece.losses))[:_HIGHEST]
    shown = ", ".join(f"{OPEN}{line_of_piece(piece)}{CLOSE} {math.fsum(piece.losses):.3f}" for piece in highest)
    recorded = " (recorded by score)" if source == RECORDED else ""
    return [f"  loss: mean {math.fsum(losses) / len(losses):.4f} nats per token{recorded}; highest {shown}"]


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


def _cut(text: str) -> str:
    hidden = len(text) - _LONGEST_TEXT
    return text if hidden <= 0 else f"{text[:_LONGEST_TEXT]}… and {plural(hidden, 'character')} more"


def _as_json(record: Mapping[str, object]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(dict(record))


__all__ = [
    "MASKS",
    "SHADE_NATS",
    "STEPS",
    "facts",
    "line_of_piece",
    "score_texts",
    "shade_of",
    "template_name",
    "text_of_piece",
    "unmasked_text",
]
