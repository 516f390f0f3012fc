"""Refuse reference sets whose rows are in the data that is scored: such rows are nearest to themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from donod_fast.criteria.base import Criterion
from donod_fast.criteria.of_references import OfReferences
from donod_fast.criteria.reference import ReferenceSet
from donod_fast.data.overlap import Lookout, Match
from donod_fast.errors import InputError
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.read_rules import ReadRules
    from donod_fast.data.reading import Corpus
    from donod_fast.data.types import Record

_SHOWN = 5


def refuse_overlap(corpus: Corpus, criteria: Sequence[Criterion], rules: ReadRules) -> None:
    """Look for the rows of the criteria's reference sets in a corpus, which is read once.

    See ``data/overlap.py`` for what counts as the same row. Without a reference set nothing is read.

    Args:
        corpus: the data that is scored.
        criteria: those of the run.
        rules: how records are read, of the data and of the references.

    Raises:
        InputError: rows of a set are in the data; names them and the remedies.
        CorpusError: the corpus or a set cannot be read.
    """
    sets = {one.source: one for criterion in criteria if isinstance(criterion, OfReferences) for one in criterion.sets}
    if not sets:
        return
    count = sum(int(one.description["rows"]) for one in sets.values())
    lookout = Lookout(_records(list(sets.values())), count, rules)
    found = list(lookout.matches(corpus.records()))
    if not found:
        return
    lines = [_line(match) for match in sorted(found, key=lambda match: (match.known.source, match.known.row))]
    more = f"\n  … and {len(lines) - _SHOWN:,} more" if len(lines) > _SHOWN else ""
    raise InputError(
        f"{plural(len(found), 'row')} of {plural(count, 'reference row')} {'is' if len(found) == 1 else 'are'} in the "
        "data, and would be nearest to themselves:\n  "
        + "\n  ".join(lines[:_SHOWN])
        + more
        + "\nTake them out of the data or of the reference set, or add --allow-overlap."
    )


def _records(sets: Sequence[ReferenceSet]) -> Iterator[tuple[str, Record]]:
    from donod_fast.data.reading import reopen_corpus

    for one in sets:
        for record in reopen_corpus(one.description).records():
            yield one.source, record


def _line(match: Match) -> str:
    known, record = match.known, match.record
    return (
        f"{known.source}, {known.place} (row {known.row}): {match.why} as {record.file}, {record.place} "
        f"(row {record.row})"
    )


__all__ = ["refuse_overlap"]
