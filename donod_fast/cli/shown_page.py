"""Rows as the model sees them, as one HTML page that needs no network and runs no script."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator
from itertools import accumulate

from donod_fast.data.row_words import STEPS, facts, shade_of, text_of_piece, unmasked_text
from donod_fast.data.viewing import Piece, RowView
from donod_fast.system.escaping import one_line, visible

_HUES = tuple(round(130 - 130 * step / (STEPS - 1)) for step in range(STEPS))  # green to red

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --page: #fff; --quiet: #6a6a6a; --line: #ddd; --light: 82%; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #161616; --quiet: #9a9a9a; --line: #3a3a3a; --light: 26%; }
}
body { color: var(--text); background: var(--page); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 2rem 0 .3rem; }
p { margin: .1rem 0; color: var(--quiet); }
pre { font: 14px/1.6 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  border: 1px solid var(--line); border-radius: 6px; padding: .8rem; unicode-bidi: plaintext; }
.s { border-radius: 3px; box-shadow: inset 0 -2px hsl(130 60% 45%); background: hsl(130 60% var(--light)); }
.x { color: var(--quiet); font-style: italic; }
"""


def page(title: str, views: Iterable[RowView]) -> Iterator[str]:
    """The lines of the page. All text of records is escaped; colours follow the reader's light or dark theme."""
    shades = "\n".join(
        f".l{step} {{ background: hsl({hue} 65% var(--light)); box-shadow: inset 0 -2px hsl({hue} 65% 45%); }}"
        for step, hue in enumerate(_HUES)
    )
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_escaped(title)}</title>\n<style>{_STYLE}{shades}\n</style>\n</head>\n<body>"
    yield f"<h1>{_escaped(title)}</h1>"
    yield '<p>Scored tokens are <span class="s">coloured</span>; with losses, from green (low) to red (high).'
    yield "Point at a token to see its position, id and loss.</p>"
    for view in views:
        heading, *lines = facts(view)
        yield f'<section id="row-{view.row}">\n<h2>{_escaped(heading)}</h2>'
        yield from (f"<p>{_escaped(line.strip())}</p>" for line in lines)
        yield f'<pre dir="auto">{"".join(_body(view))}</pre>\n</section>'
    yield "</body>\n</html>"


def _body(view: RowView) -> Iterator[str]:
    if not view.pieces:
        yield html.escape(visible(unmasked_text(view)[1]))
        return
    starts = accumulate((len(piece.ids) for piece in view.pieces), initial=0)
    for piece, start in zip(view.pieces, starts, strict=False):
        yield _span(piece, start)


def _span(piece: Piece, start: int) -> str:
    kind = f"s l{shade_of(piece.losses)}" if piece.losses else "s" if piece.scored else "x" if piece.special else ""
    about = f"token {start}, id {'+'.join(map(str, piece.ids))}, {' '.join(piece.names)}"
    if piece.losses:
        about += f", loss {math.fsum(piece.losses):.4f}"
    chosen = f' class="{kind}"' if kind else ""
    return f'<span{chosen} title="{_escaped(about)}">{html.escape(text_of_piece(piece))}</span>'


def _escaped(text: str) -> str:
    return html.escape(one_line(text))


__all__ = ["page"]
