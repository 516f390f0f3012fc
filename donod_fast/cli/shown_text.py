"""Rows as the model sees them, as text for a terminal or a file.

The text of a record is data: control characters, escape sequences and invisible characters are shown by name and never
sent to the terminal, and every line of it stands behind a bar.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from donod_fast.data.row_words import facts, line_of_piece, shade_of, text_of_piece, unmasked_text
from donod_fast.data.viewing import Piece, RowView
from donod_fast.system.escaping import CLOSE, OPEN, visible

_RESET, _SCORED, _SPECIAL, _QUIET = "\x1b[0m", "\x1b[30;48;5;114m", "\x1b[2m", "\x1b[2m"
# From green to red: the background of a token by its loss.
_SHADES = tuple(f"\x1b[30;48;5;{colour}m" for colour in (114, 150, 186, 222, 216, 210, 203))


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


def _unmasked(view: RowView) -> list[str]:
    heading, text = unmasked_text(view)
    return [f"  {heading}:", *_behind_bar(visible(text))] if heading else []


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
        text = f"{OPEN}{line_of_piece(piece)}{CLOSE}" if piece.scored else f" {line_of_piece(piece)}"
        if colour and piece.scored:
            text = f"{_SHADES[shade_of(piece.losses)]}{text}{_RESET}"
        lines.append(f"  {position:>6}  {ids:>8}  {loss}{text}")
        position += len(piece.ids)
    return lines


__all__ = ["row_text"]
