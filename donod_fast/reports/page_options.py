"""Where a page is written: options that the commands with ``--html`` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from donod_fast.errors import InputError
from donod_fast.system.options import option

PANEL = "Output"


@dataclass(frozen=True, slots=True)
class PageOptions:
    """A page to write.

    Attributes:
        html: file for the page; None for no page.
        overwrite: replace that file.

    Raises:
        InputError: see :func:`check_page`.
    """

    html: Path | None = option(None, help="Write a self-contained HTML page to this file.", panel=PANEL)
    overwrite: bool = option(False, help="Replace files that exist.", panel=PANEL)

    def __post_init__(self) -> None:
        check_page(self.html, self.overwrite)


def check_page(html: Path | None, overwrite: bool) -> None:
    """Refuse a file for a page before any work is done.

    Raises:
        InputError: the file exists and may not be replaced, or its folder does not exist.
    """
    if html is None:
        return
    if html.exists() and not overwrite:
        raise InputError(f"{html} exists; give another name, or --overwrite to replace it")
    if not html.absolute().parent.is_dir():
        raise InputError(f"{html}: there is no folder {html.absolute().parent}")


__all__ = ["PANEL", "PageOptions", "check_page"]
