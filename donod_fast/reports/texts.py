"""The rows of a report as the model sees them: their texts with the scored mask, as far as the file has room."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from donod_fast.data.formats import record_id
from donod_fast.data.grouping import grouped
from donod_fast.data.row_words import text_of_piece
from donod_fast.data.types import Status
from donod_fast.data.viewing import runs_of
from donod_fast.reports.scored_table import ScoredTable
from donod_fast.system.escaping import one_line, visible
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.masking import Masker
    from donod_fast.data.reading import Corpus
    from donod_fast.data.types import Record, TokenizedSample
    from donod_fast.scores.folder import ScoresFolder

SCORED, SPECIAL = 1, 2
"""Flags of a piece of text; both may be set."""

_BATCH = 64
_LONGEST = 50_000
"""Characters of a row at most."""

_MOST_STARTS = 20
_GAP = 256
"""Records are read over where so few are between two that are wanted."""

_INTERNAL = ("tokens", "scored_tokens")
Entry = dict[str, Any]
Losses = Callable[[Collection[int]], Mapping[int, Sequence[float]]]


class RowTexts:
    """Makes the entries of rows.

    Args:
        folder: the scores.
        corpus: its records.
        table: its scored rows.
        masker: gives the tokens that were scored; None shows the records as they are.
        losses: gives the losses of the scored tokens of some rows, by row; None if there are none.
    """

    def __init__(
        self,
        folder: ScoresFolder,
        corpus: Corpus,
        table: ScoredTable,
        masker: Masker | None,
        losses: Losses | None = None,
    ) -> None:
        self._folder, self._corpus, self._table = folder, corpus, table
        self._masker, self._losses = masker, losses

    def entries(self, rows: Iterable[int]) -> Iterator[Entry]:
        """The entries of some rows, by rising number.

        Raises:
            CorpusError: an input cannot be read, or a record has changed since it was scored.
            StoreError: a part is damaged.
        """
        wanted = sorted(set(rows))
        outcomes = self._outcomes(wanted)
        known: dict[int, Mapping[int, Sequence[float]]] = {}  # losses of one part: its file is read once
        for records in grouped(records_of(self._corpus, wanted), _BATCH):
            samples: Sequence[TokenizedSample | None] = [None] * len(records)
            if self._masker is not None:
                samples = self._masker.tokenize_many(records)
            for record, sample in zip(records, samples, strict=True):
                losses = None
                if self._losses is not None:
                    part = self._folder.plan.part_of(record.row)
                    if part not in known:
                        start, stop = self._folder.part_range(part)
                        here = wanted[bisect_left(wanted, start) : bisect_left(wanted, stop)]
                        known = {part: self._losses(here)}
                    losses = known[part].get(record.row)
                yield self._entry(record, sample, outcomes.get(record.row), losses)

    def _outcomes(self, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Status and detail of the rows that are not among the scored ones."""
        numbers = np.asarray(rows, np.int64)
        others = numbers[~np.isin(numbers, self._table.row, assume_unique=True)]
        found: dict[int, tuple[str, str]] = {}
        for part in sorted({self._folder.plan.part_of(int(row)) for row in others}):
            start, stop = self._folder.part_range(part)
            here = others[(others >= start) & (others < stop)] - start
            table = self._folder.read_columns(part, ["row", "status", "detail"])
            if table is not None:
                for one in table.take(here).to_pylist():
                    found[one["row"]] = one["status"], one["detail"]
        return found

    def _entry(
        self,
        record: Record,
        sample: TokenizedSample | None,
        outcome: tuple[str, str] | None,
        losses: Sequence[float] | None,
    ) -> Entry:
        status, detail = outcome or (str(Status.SCORED), "" if sample is None else sample.detail)
        place = f"{record.file}, {record.place}"
        found: Entry = {
            "row": record.row,
            "id": one_line(record_id(record) if sample is None else sample.id),
            "status": status,
            "detail": one_line(detail.removeprefix(f"{place}: ")),
            "place": one_line(place),
            "pieces": [],
            "losses": None,
            "scores": self._scores(record.row),
        }
        if sample is None or self._masker is None or not sample.input_ids:
            found["pieces"] = [[0, _cut(visible(self._plain(record)))]]
            return found
        if outcome is None and (other := self._other_mask(sample)):
            found["detail"] = f"{other}; {found['detail']}".removesuffix("; ")
        known = losses if losses is not None and len(losses) == sample.scored_tokens else None
        found["pieces"], values = _pieces(self._masker.tokenizer, sample, known)
        return found if known is None else {**found, "losses": values}

    def _plain(self, record: Record) -> str:
        text = None if self._masker is None else self._masker.text_of(record)
        return record_text(record) if text is None else text

    def _place(self, row: int) -> int | None:
        at = int(np.searchsorted(self._table.row, row))
        return at if at < len(self._table) and self._table.row[at] == row else None

    def _scores(self, row: int) -> dict[str, float]:
        at = self._place(row)
        if at is None:
            return {}
        values = {name: float(column[at]) for name, column in self._table.numbers.items()}
        return {name: float(f"{value:.6g}") for name, value in values.items() if math.isfinite(value)}

    def _other_mask(self, sample: TokenizedSample) -> str:
        """A remark where the tokens are not those that were scored."""
        at = self._place(sample.row)
        if at is None:
            return ""
        tokens, scored = (int(self._table.numbers[name][at]) for name in _INTERNAL)
        if (tokens, scored) == (sample.tokens, sample.scored_tokens):
            return ""
        return f"scored with another mask: {scored:,} of {plural(tokens, 'token')}"


def records_of(corpus: Corpus, rows: Sequence[int]) -> Iterator[Record]:
    """The records of rising rows: each stretch from its beginning, or one pass over the corpus if there are many."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row - runs[-1][-1] <= _GAP:
            runs[-1].append(row)
        else:
            runs.append([row])
    if len(runs) > _MOST_STARTS:
        runs = [list(rows)]
    for run in runs:
        wanted = set(run)
        for record in corpus.records(run[0], run[-1] + 1):
            if record.row in wanted:
                yield record


def record_text(record: Record) -> str:
    """A record as text, column by column; its line if it cannot be parsed."""
    if record.data is None:
        return (record.raw or b"").decode("utf-8", "backslashreplace")
    return "\n".join(f"{name}: {_value_text(value)}" for name, value in record.data.items())


def _value_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    import json

    try:
        return json.dumps(value, ensure_ascii=False, indent=1, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _pieces(
    tokenizer: Any, sample: TokenizedSample, losses: Sequence[float] | None
) -> tuple[list[list[Any]], list[float | None]]:
    """Flags and text of each piece of a row, and its loss where it has one."""
    pieces: list[list[Any]] = []
    values: list[float | None] = []
    left = _LONGEST
    for piece in runs_of(tokenizer, sample.input_ids, sample.scored, losses):
        text = text_of_piece(piece)
        pieces.append([SCORED * piece.scored + SPECIAL * piece.special, _cut(text, left)])
        values.append(round(math.fsum(piece.losses), 4) if piece.losses else None)
        left -= len(text)
        if left <= 0:
            break
    return pieces, values


def _cut(text: str, longest: int = _LONGEST) -> str:
    hidden = len(text) - max(longest, 0)
    return text if hidden <= 0 else f"{text[: max(longest, 0)]}… and {plural(hidden, 'character')} more"


__all__ = ["SCORED", "SPECIAL", "Losses", "RowTexts", "record_text", "records_of"]
