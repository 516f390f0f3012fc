"""Python text in pieces with a kind each, for a page's style; no piece is markup."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

PLAIN = ""
_KINDS = (
    ("Comment", "C"),
    ("Literal.String", "S"),
    ("Literal.Number", "N"),
    ("Keyword", "K"),
    ("Operator.Word", "K"),
    ("Name.Function", "F"),
    ("Name.Class", "F"),
    ("Name.Builtin", "B"),
    ("Name.Decorator", "D"),
)


def highlighted(text: str) -> list[tuple[str, str]]:
    """Pieces of a program, each with a class of the page's style (``""`` for none); joined they are the text.

    Without Pygments the whole text is one piece.
    """
    pieces = groupby(_tokens(text), key=itemgetter(0))
    return [(kind, "".join(part for _, part in parts)) for kind, parts in pieces]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    try:
        from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped]
        from pygments.token import string_to_tokentype  # type: ignore[import-untyped]
    except ImportError:
        yield PLAIN, text
        return
    kinds = [(string_to_tokentype(name), kind) for name, kind in _KINDS]
    # Unlike get_tokens this changes no line end, and removes no empty line.
    for _, token, part in PythonLexer().get_tokens_unprocessed(text):
        yield next((kind for of, kind in kinds if token in of), PLAIN), part


__all__ = ["PLAIN", "highlighted"]
