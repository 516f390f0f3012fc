"""The frame that all pages share: template, style, and a policy under which a page can ask nothing of a network.

A page is one file. Text of records is data: templates escape it (``autoescape``), every hidden character in it gets a
name (``finalize``), and the content security policy lets no script run but those that are named by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.record_files import new_file
from donod_fast.system.escaping import readable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

NOTHING = "'none'"
SORT = "sort.js"
"""The script that sorts tables; see :func:`script`."""

_FOLDER = files(__package__) / "templates"
_BUFFER = 1 << 16  # characters


@cache
def environment() -> Environment:
    """The templates of this room, which escape what they are given and refuse names that are missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"inline": inline, "kind": lambda value: type(value).__name__}
    return found


def inline(text: str) -> Markup:
    """The markup of our own sentences, ``**bold**`` and `` `code` ``, as HTML; everything else is escaped."""
    from markupsafe import Markup, escape

    escaped = str(escape(readable(text)))
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))


def _finalized(value: Any) -> Any:
    """What an expression in a template writes: markup as it is, text without hidden characters."""
    return readable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def script(name: str) -> str:
    """The text of a script of this room."""
    return (_FOLDER / name).read_text("utf-8")


def render_page(template: str, **given: Any) -> str:
    """A whole page. The arguments are those of :func:`page_pieces`."""
    return "".join(page_pieces(template, **given))


def page_pieces(
    template: str,
    *,
    title: str,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    evaluates: bool = False,
    **context: Any,
) -> Iterator[str]:
    """A page in pieces. What the template reads of an iterator is read while the pieces are: it is never held whole.

    Args:
        template: name of a file in ``templates``, which extends ``page.html.j2``.
        title: of the page and its heading.
        scripts: texts of scripts, in order; no other script can run.
        styles: texts of style sheets after the common one.
        evaluates: whether the scripts compile functions from text, as WebGL libraries do.
        context: what the template uses.
    """
    for one in scripts:
        if "</script" in one.lower() or "<!--" in one:
            raise ValueError("a script may not hold </script or <!--, which would end it early")
    allowed = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts]
    if evaluates:
        allowed.append("'unsafe-eval'")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; "
        f"script-src {' '.join(allowed or [NOTHING])}; base-uri 'none'; form-action 'none'"
    )
    style = "\n".join([(_FOLDER / "style.css").read_text("utf-8"), *styles])
    found = environment().get_template(template)
    return found.generate(title=title, scripts=scripts, style=style, policy=policy, **context)


def write_page(text: str | Iterable[str], out: Path, *, overwrite: bool = False) -> int:
    """Write a page, complete or absent, and return its size in bytes.

    Args:
        text: the page, or its pieces.
        out: the file.
        overwrite: replace the file if it exists.

    Raises:
        StoreError: the file exists, or cannot be written.
    """
    size = 0
    with new_file(out, overwrite) as file:
        for part in _buffered([text] if isinstance(text, str) else text):
            size += file.write(part.encode("utf-8", "replace"))
    return size


def _buffered(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, joined to longer ones."""
    held: list[str] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= _BUFFER:
            yield "".join(held)
            held, length = [], 0
    yield "".join(held)


__all__ = ["SORT", "environment", "inline", "page_pieces", "render_page", "script", "write_page"]
