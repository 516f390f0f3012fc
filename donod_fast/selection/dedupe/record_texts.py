"""The texts of a scores folder's records, read once in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from donod_fast.selection.dedupe.words import sample_text

if TYPE_CHECKING:
    from donod_fast.data.types import Record
    from donod_fast.scores.folder import ScoresFolder


def record_texts(
    folder: ScoresFolder, wanted: Callable[[int], bool] | None = None, records: Iterable[Record] | None = None
) -> Iterator[tuple[int, str]]:
    """Yield (row, text) of the records that can be read as samples; see :func:`sample_text`.

    Args:
        folder: the folder, whose manifest says how records are read.
        wanted: which rows; None for all.
        records: its records; None reads them from its inputs.

    Raises:
        CorpusError: the records can no longer be read, or changed since they were scored.
    """
    from donod_fast.data.formats import to_sample
    from donod_fast.data.read_rules import ReadRules
    from donod_fast.data.types import SampleError

    rules = ReadRules.from_json(folder.manifest["masks"])
    for record in folder.reopened().records() if records is None else records:
        if wanted is not None and not wanted(record.row):
            continue
        try:
            sample = to_sample(record, rules=rules)[0]
        except SampleError:
            continue
        yield record.row, sample_text(sample)


__all__ = ["record_texts"]
