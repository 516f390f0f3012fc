"""The frame that all pages share: template, style, and a policy under which a page can ask nothing of a network.

A page is one file. Text of records is data: templates escape it (``autoescape``), and the content security policy lets
no script run but those that are named by their hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.record_files import new_file

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING = "'none'"
_FOLDER = files(__package__) / "templates"


@cache
def environment() -> Environment:
    """The templates of this room, which escape what they are given and refuse names that are missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(
    template: str,
    *,
    title: str,
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    evaluates: bool = False,
    **context: Any,
) -> str:
    """A whole page.

    Args:
        template: name of a file in ``templates``, which extends ``page.html.j2``.
        title: of the page and its heading.
        scripts: texts of scripts, in order; no other script can run.
        styles: texts of style sheets after the common one.
        evaluates: whether the scripts compile functions from text, as WebGL libraries do.
        context: what the template uses.
    """
    for script in scripts:
        if "</script" in script.lower() or "<!--" in script:
            raise ValueError("a script may not hold </script or <!--, which would end it early")
    allowed = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    if evaluates:
        allowed.append("'unsafe-eval'")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; "
        f"script-src {' '.join(allowed or [NOTHING])}; base-uri 'none'; form-action 'none'"
    )
    style = "\n".join([(_FOLDER / "style.css").read_text("utf-8"), *styles])
    return (
        environment().get_template(template).render(title=title, scripts=scripts, style=style, policy=policy, **context)
    )


def write_page(text: str, out: Path, *, overwrite: bool = False) -> int:
    """Write a page, complete or absent, and return its size in bytes.

    Raises:
        StoreError: the file exists, or cannot be written.
    """
    content = text.encode("utf-8", "replace")
    with new_file(out, overwrite) as file:
        file.write(content)
    return len(content)


__all__ = ["environment", "render_page", "write_page"]
