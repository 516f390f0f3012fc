"""Warn of mapped columns that a corpus does not seem to have."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

from donod_fast.data.column_map import ColumnMap

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus

_log = logging.getLogger(__name__)
_ROWS = 1000


def warn_of_missing_columns(corpus: Corpus, mapping: ColumnMap | None) -> None:
    """Warn of a mapped column that a record need not have and that none of the first has: it may be misspelt.

    Raises:
        CorpusError: the rows cannot be read.
    """
    missing = {} if mapping is None else mapping.optional
    for record in islice(corpus.records(), _ROWS if missing else 0):
        missing = {column: role for column, role in missing.items() if column not in (record.data or {})}
        if not missing:
            return
    for column, role in missing.items():
        _log.warning("none of the first rows has the column %r, which is mapped to %s", column, role)


__all__ = ["warn_of_missing_columns"]
