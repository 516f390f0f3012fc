"""How far criteria agree, as an object that shows the tables of ``donod-fast compare``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from donod_fast.api.optional import needed
from donod_fast.api.shown import as_pre
from donod_fast.errors import StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.comparison import Comparison
from donod_fast.selection.settings import CompareOptions
from donod_fast.system.wording import plural


class Compared:
    """What ``Scores.compare`` returns; its ``repr`` is the tables.

    Attributes:
        comparison: names, (k, k) rank correlations and overlaps, and random draws; see ``Comparison``.
    """

    def __init__(self, comparison: Comparison, title: str) -> None:
        self.comparison = comparison
        self._title = title

    @property
    def names(self) -> tuple[str, ...]:
        """The k criteria."""
        return self.comparison.names

    def as_dict(self) -> dict[str, Any]:
        """As JSON values: what ``donod-fast compare --json`` prints."""
        return self.comparison.as_dict()

    def correlation(self) -> Any:
        """The rank correlations as a frame of pandas, (k, k)."""
        return self._frame(self.comparison.correlation)

    def overlap(self) -> Any:
        """The overlaps of the selections as a frame of pandas, (k, k)."""
        return self._frame(self.comparison.overlap)

    def draw(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Draw heat maps to a file that ends in ``.png`` or ``.svg``.

        Raises:
            InputError: matplotlib is not installed, or another suffix.
            StoreError: the file exists, or cannot be written.
        """
        from donod_fast.selection.comparison.picture import check_picture, draw_comparison

        path = Path(path)
        check_picture(path)
        if path.exists() and not overwrite:
            raise StoreError(f"{path} exists already; give another name, or overwrite=True")
        draw_comparison(self.comparison, path, title=f"{self._title}: {plural(self.comparison.rows, 'row')}")
        return path

    def __repr__(self) -> str:
        return self._text(shutil.get_terminal_size((100, 24)).columns)

    def _repr_html_(self) -> str:
        return as_pre(self._text(160))

    def _text(self, width: int) -> str:
        from donod_fast.selection.comparison.tables import render

        return render(self.comparison, width)

    def _frame(self, matrix: Any) -> Any:
        return needed("pandas").DataFrame(matrix, index=list(self.names), columns=list(self.names))


def compared(folder: ScoresFolder, how: CompareOptions) -> Compared:
    """Compare the criteria of a folder.

    Raises:
        InputError: an unknown name or a wrong option, or too many rows for the memory.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.selection.comparison import compare_by

    return Compared(compare_by(folder, how), Path(folder.name).name)


__all__ = ["Compared", "compared"]
