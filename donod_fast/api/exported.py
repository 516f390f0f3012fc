"""Scores from a file or a dataset that ``donod-fast export`` wrote: records with columns ``donod.NAME``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from donod_fast.api.source import Source
from donod_fast.data.formats import carried_values
from donod_fast.data.shards import default_part_rows
from donod_fast.data.source_tables import arrow_sources
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.scores.columns import Column, arrow_array, arrow_field
from donod_fast.scores.exporting import RECORD
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.joining import PREFIX
from donod_fast.scores.parts import signals_of
from donod_fast.scores.rows import CARRIED, schema
from donod_fast.scores.signals import SignalEntry
from donod_fast.system.memory_storage import MemoryStorage

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.data.reading import Corpus

_FLAGS = {"true": True, "false": False}


class ExportedSource(Source):
    """The scores of an exported corpus, in memory. The records stay in the file; model and update are not known.

    Args:
        corpus: the exported file or dataset.
        name: what the user called it.

    Raises:
        CorpusError: it holds no scores, or not those of every row in order.
    """

    has_settings = False

    def __init__(self, corpus: Corpus, name: str) -> None:
        columns, own = _scores_and_names(corpus)
        self._corpus, self._name = corpus, name
        self._as_json = own == {RECORD}
        self._table, self._signals = _table(columns, corpus.rows, name)
        super().__init__(self._folder(()))

    @property
    def place(self) -> str:
        """The exported file."""
        return self._name

    def records(self) -> ExportedRecords:
        """The records without their scores."""
        return ExportedRecords(self._corpus, self._as_json)

    def carrying(self, columns: Iterable[str]) -> ScoresFolder:
        """The scores with those of the columns that the records have, as ``score --carry`` keeps them."""
        scores = {*schema().names, *(column.name for entry in self._signals for column in entry.columns), "file"}
        wanted = [name for name in dict.fromkeys(columns) if name not in scores]
        found: dict[str, list[str | None]] = {name: [] for name in wanted}
        if wanted:
            for record in self.records().records():
                for name, value in zip(wanted, carried_values(record, wanted), strict=True):
                    found[name].append(value)
        there = {name: values for name, values in found.items() if any(value is not None for value in values)}
        return self._folder(tuple(there), there) if there else self.folder

    def _folder(self, carry: Sequence[str], values: dict[str, list[str | None]] | None = None) -> ScoresFolder:
        import pyarrow as pa

        rows = self._corpus.rows
        table, at = self._table, len(schema())
        for place, name in enumerate(carry):
            table = table.add_column(at + place, CARRIED + name, pa.array((values or {})[name], pa.string()))
        entry = {"kind": "exported", "name": self._name, "rows": rows, "digest": self._corpus.fingerprint}
        manifest = {
            "version": 3,
            "input": {"rows": rows, "fingerprint": self._corpus.fingerprint, "inputs": [entry]},
            "part_rows": default_part_rows(rows),
            "carry": list(carry),
            "signals": [one.as_dict() for one in self._signals],
            "model": {"name": None, "weight_norm": float("nan")},
            "update": {"storage_dtype": None},
        }
        folder = ScoresFolder(MemoryStorage(self._name), manifest)
        for part in range(folder.parts):
            start, stop = folder.part_range(part)
            folder.write_table(part, table.slice(start, stop - start), signals_of(self._signals))
        return folder


class ExportedRecords:
    """The records of an exported corpus without their scores; it implements ``subset.Records``."""

    def __init__(self, corpus: Corpus, as_json: bool) -> None:
        self._corpus, self._as_json = corpus, as_json

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._corpus.rows

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Stream the records of ``start <= row < stop``; the text of a JSON record is not the one that was scored."""
        for record in self._corpus.records(start, stop):
            if record.data is None:
                yield record
                continue
            own = {name: value for name, value in record.data.items() if not str(name).startswith(PREFIX)}
            text = own.get(RECORD) if self._as_json else None
            if isinstance(text, str) and isinstance(data := _parsed(text), dict):
                yield replace(record, data=data, raw=text.encode("utf-8", "surrogatepass"), form="json", hash=b"")
            else:
                yield replace(record, data=own, raw=None, form="json", hash=b"")

    def describe(self) -> dict[str, Any]:
        """The exported file, which a subset must not replace."""
        return self._corpus.describe()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _scores_and_names(corpus: Corpus) -> tuple[dict[str, list[Any]], set[str]]:
    """The values of the scores by name, and the names of the records' own columns."""
    columns: dict[str, list[Any]] = {}
    own: set[str] = set()
    arrow = arrow_sources(corpus.sources)
    if arrow is not None:
        for source in arrow:
            names = source.arrow_schema().names
            own |= {name for name in names if not name.startswith(PREFIX)}
            wanted = [name for name in names if name.startswith(PREFIX)]
            for _, batch in source.arrow_batches(0, source.rows):
                for name in wanted:
                    columns.setdefault(name.removeprefix(PREFIX), []).extend(batch.column(name).to_pylist())
        return columns, own
    for at, record in enumerate(corpus.records()):
        for name, value in (record.data or {}).items():
            if not str(name).startswith(PREFIX):
                own.add(str(name))
                continue
            found = columns.setdefault(name.removeprefix(PREFIX), [])
            found.extend([None] * (at - len(found)))
            found.append(_typed(value) if record.form != "json" else value)
    for found in columns.values():
        found.extend([None] * (corpus.rows - len(found)))
    return columns, own


def _typed(text: str) -> Any:
    """A value of a CSV file, whose fields are text; what is no number, flag or list stays text."""
    if text == "":
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    try:
        return json.loads(text) if text[0] in "-0123456789[" else text
    except ValueError:
        return text


def _table(columns: dict[str, list[Any]], rows: int, name: str) -> tuple[pa.Table, tuple[SignalEntry, ...]]:
    """The table of scores, and each further column as a criterion."""
    import pyarrow as pa

    base = schema()
    if missing := [field.name for field in base if field.name not in columns]:
        raise CorpusError(
            f"{name} holds no scores: it has no column {PREFIX}{missing[0]}; name a scores folder, or what "
            "`donod-fast export` wrote"
        )
    if columns["row"] != list(range(rows)):
        raise CorpusError(
            f"{name} does not hold the rows 0 to {rows - 1} in order ({PREFIX}row): rows were removed, added or sorted "
            "since it was exported, and ranks and shares would be others; export again, or open the scores folder"
        )
    found = {}
    for field in base:
        values = columns.pop(field.name)
        if pa.types.is_floating(field.type):
            values = [float("nan") if value is None else float(value) for value in values]
        elif pa.types.is_string(field.type):
            values = ["" if value is None else str(value) for value in values]
        try:
            found[field.name] = pa.array(values, field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise CorpusError(
                f"{name}: the column {PREFIX}{field.name} holds other values than scores do: {error}"
            ) from error
    table = pa.table(found, schema=base)
    entries = []
    for title, values in columns.items():
        if (column := _signal(title, values)) is not None:
            entries.append(SignalEntry(title, {}, "exported", (column,)))
            table = table.append_column(arrow_field(column), arrow_array(column, values))
    return table, tuple(entries)


def _signal(title: str, values: Sequence[Any]) -> Column | None:
    """What kind of column these values are; None for text, which no criterion gives."""
    there = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in there):
        return None
    if there and all(isinstance(value, bool) for value in there):
        return Column(title, "", kind="flag")
    if there and all(isinstance(value, list) for value in there):
        return Column(title, "", kind="vector", size=len(there[0]))
    return Column(title, "")


__all__ = ["ExportedRecords", "ExportedSource"]
