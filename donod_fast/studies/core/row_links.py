"""From a method in a study's report to its rows: the report of the scores, ``rows.html``, beside that of the study.

The page of the rows is a cell: it is made once for a set of scores and methods, and copied beside the study's report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from donod_fast._version import __version__
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.selection.column_methods import BY_TOPSIS
from donod_fast.selection.settings import BY_EMBEDDINGS
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.core.selecting import ALL, BY_THRESHOLD, NORMALISED, Selection
from donod_fast.studies.core.tables import write_bytes
from donod_fast.system.files import read_regular

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.scores.folder import ScoresFolder

ROWS = "rows.html"
_BESIDE = ("topsis", "don", "nod", "loss")
"""Methods that the page has in any case."""


@dataclass(frozen=True, slots=True)
class RowLinks:
    """Where a study's selections lead.

    Attributes:
        shown: what the page ranks by, for each method of the study that it can show.
        problem: why there is no page; "" if there is one.
    """

    shown: Mapping[str, str]
    problem: str = ""

    def address(self, selection: Selection | None) -> str | None:
        """The address of a selection's rows, from the study's report; None if the page cannot show them."""
        if selection is None or selection.keep is None or self.problem or selection.method not in self.shown:
            return None
        keep = repr(float(selection.keep))  # "1" would be one row, and "1.0" is all of them
        return f"{ROWS}#{urlencode({'method': self.shown[selection.method], 'keep': keep})}"


def report_methods(methods: Iterable[str], normalise: str = DEFAULT_NORMALISE) -> dict[str, str]:
    """What a report ranks by, for each method of a study whose rows it can show.

    It cannot show random draws of the study's seeds, thresholds of DON, choices by embeddings, and TOPSIS with another
    normalisation than the default.

    Args:
        methods: methods that ``selecting.check_method`` accepts.
        normalise: what the study's TOPSIS divides columns by.
    """
    found = {}
    for method in methods:
        if NORMALISED.get(method) == DEFAULT_NORMALISE:
            found[method] = "topsis"
        elif method not in (ALL, BY_THRESHOLD, "random", *BY_EMBEDDINGS, *NORMALISED) and (
            method not in BY_TOPSIS or normalise == DEFAULT_NORMALISE
        ):
            found[method] = method
    return found


def write_rows(
    store: CellStore,
    scores: ScoresFolder,
    corpus: Corpus,
    shown: Mapping[str, str],
    out: Path,
    *,
    settings: Mapping[str, Any],
) -> RowLinks:
    """Write the report of a study's scores beside the study's own; a problem with it stops no study.

    Args:
        store: the study's cells.
        scores: the scores.
        corpus: their records.
        shown: see :func:`report_methods`.
        out: the study's folder.
        settings: everything that determines the scores.

    Raises:
        StoreError: the study's folder cannot be written, or a cell in it is damaged.
    """
    from donod_fast.reports.report import write_report
    from donod_fast.reports.settings import ReportOptions

    methods = tuple(dict.fromkeys([*shown.values(), *_BESIDE]))
    options = ReportOptions(methods=methods, title="Rows of this study", overwrite=True)
    work = _guarded(lambda folder: write_report(scores, folder / ROWS, options, corpus).bytes)
    try:
        cell = store.result("rows", {"scores": dict(settings), "methods": methods, "version": __version__}, work)
    except _NoPageError as error:
        return RowLinks(shown, str(error))
    cell.check_files(ROWS)
    write_bytes(out / ROWS, read_regular(cell.folder / ROWS))
    return RowLinks(shown)


class _NoPageError(Exception):
    """The page of the rows cannot be written, for a reason that lies in the rows."""


def _guarded(work: Callable[[Path], int]) -> Callable[[Path], Mapping[str, Any]]:
    def run(folder: Path) -> Mapping[str, Any]:
        try:
            return {"bytes": work(folder)}
        except (CorpusError, InputError, StoreError) as error:
            raise _NoPageError(str(error)) from error

    return run


__all__ = ["ROWS", "RowLinks", "report_methods", "write_rows"]
