"""A picture that a notebook shows and that can be saved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from donod_fast.selection.plane import check_picture_name, save_figure


class Picture:
    """A figure of matplotlib.

    Attributes:
        figure: the ``matplotlib.figure.Figure``.
    """

    def __init__(self, figure: Any, title: str) -> None:
        self.figure = figure
        self._title = title

    def save(self, path: str | Path) -> Path:
        """Write it to a file that ends in ``.png`` or ``.svg``; an existing one is replaced.

        Raises:
            InputError: another suffix.
            StoreError: the file cannot be written.
        """
        path = Path(path)
        check_picture_name(path)
        save_figure(self.figure, path)
        return path

    def __repr__(self) -> str:
        return f"Picture: {self._title}; .save('plane.png') writes it"

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=80)
        return file.getvalue()


__all__ = ["Picture"]
