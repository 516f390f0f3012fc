"""``Scores``: the scores of a corpus as an object that ranks, selects, compares, draws and reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from donod_fast.api.comparison import Compared, compared
from donod_fast.api.describing import described, described_as_html
from donod_fast.api.optional import needed
from donod_fast.api.options import settings_of, takes
from donod_fast.api.picture import Picture
from donod_fast.api.ranked_rows import RankedRows
from donod_fast.api.selection import Selection
from donod_fast.api.source import Source
from donod_fast.api.status import ScoresStatus
from donod_fast.errors import InputError, suggest
from donod_fast.reports.settings import ReportOptions
from donod_fast.selection.filter_options import FilterOptions, parse_condition
from donod_fast.selection.settings import CompareOptions, KeepOptions, OrderOptions, PreferOptions, RankOptions
from donod_fast.selection.settings.variety import EMBEDDING, NONE
from donod_fast.system.options import options_of

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from donod_fast.scores.folder import ScoresFolder


class Scores:
    """Scores of the rows of a corpus, in input order; what ``Scorer.score`` returns and ``load_scores`` opens.

    Rows are read when they are needed, a part at a time; ``scores["don"]`` reads one column. Corpora that do not fit in
    memory are ranked by DuckDB, by the rule of ``donod-fast select`` and with the same result.

    Args:
        source: the folder and the records; use ``load_scores``.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def folder(self) -> ScoresFolder:
        """The scores folder, on a disk, in an object store or in memory."""
        return self._source.folder

    def __len__(self) -> int:
        """Number of rows of the corpus, with or without a score."""
        return self.folder.rows

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of :attr:`table`. Raises StoreError: a part is damaged."""
        from donod_fast.scores.rows import schema

        return schema(self.folder.carry, self.folder.signal_columns())

    @property
    def column_names(self) -> list[str]:
        """Names of the columns that every row has: those of ``ScoreRow``, carried ones (``record.NAME``), criteria."""
        return list(self.schema.names)

    @property
    def table(self) -> pa.Table:
        """All rows as an Arrow table, in input order. Numbers of rows without a score are NaN.

        Raises:
            StoreError: the folder is unfinished or damaged.
        """
        import pyarrow as pa

        return pa.Table.from_batches(self._batches(), self.schema)

    @overload
    def __getitem__(self, columns: str) -> pa.ChunkedArray: ...

    @overload
    def __getitem__(self, columns: Sequence[str]) -> pa.Table: ...

    def __getitem__(self, columns: str | Sequence[str]) -> Any:
        """One column as an Arrow array, or several as a table; no other column is read.

        Raises:
            InputError: an unknown column.
            StoreError: the folder is unfinished or damaged.
        """
        from donod_fast.selection.out_of_core.loading import read_narrow

        if isinstance(columns, int | slice):
            raise InputError('scores are indexed by columns, such as scores["don"]; scores.table.slice(5, 1) has row 5')
        if not isinstance(columns, str):
            names = [self._known(one) for one in columns]
            return read_narrow(self.folder, list(dict.fromkeys(["row", *names]))).select(names)
        name = self._known(columns)
        return read_narrow(self.folder, list(dict.fromkeys(["row", name]))).column(name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows as dicts, in input order, a part at a time. Raises StoreError."""
        for batch in self._batches():
            yield from batch.to_pylist()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Arrow's stream of record batches, a part at a time: polars, DuckDB, pyarrow and others read it.

        Raises:
            StoreError: the folder is unfinished.
        """
        import pyarrow as pa

        self.folder.part_files()  # here, because the reader would wrap the refusal in an error of its own
        reader = pa.RecordBatchReader.from_batches(self.schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def to_pandas(self) -> Any:
        """All rows as a frame of pandas. Raises InputError: pandas is not installed."""
        needed("pandas")
        return self.table.to_pandas()

    def to_polars(self) -> Any:
        """All rows as a frame of polars. Raises InputError: polars is not installed."""
        return needed("polars").from_arrow(self.table)

    def to_datasets(self) -> datasets.Dataset:
        """All rows of scores as a ``datasets.Dataset``."""
        import datasets

        return datasets.Dataset(datasets.table.InMemoryTable(self.table))

    @takes(OrderOptions, PreferOptions)
    def rank(self, method: str = "topsis", **options: Any) -> RankedRows:
        """Rank all rows, best first, without a model.

        Args:
            method: a method of ``donod-fast rank``, or a number column of the scores.
            options: the options of ``donod-fast rank``, by name.

        Raises:
            InputError: an unknown method, or a wrong option.
            StoreError: the folder is unfinished or damaged.
        """
        from donod_fast.selection.rankers import ranked

        how, end = settings_of({"method": method, **options}, OrderOptions, PreferOptions)
        self._refuse_lr(how.lr)
        fields = {field.name: getattr(how, field.name) for field in options_of(OrderOptions)}
        name = end.method(how.method)
        with ranked(self.folder, RankOptions(**{**fields, "method": name})) as ranking:
            rows, values = ranking.order()
            followed = None if ranking.following is None else ranking.following.text()
            return RankedRows(name, rows, values, len(self), dict(ranking.left_out), followed or "")

    @takes(RankOptions, KeepOptions, FilterOptions)
    def select(
        self, keep: float | int | str | None = None, method: str = "topsis", by: str | None = None, **options: Any
    ) -> Selection:
        """Choose rows: the same as ``donod-fast select`` with the same options.

        Args:
            keep: a fraction of the ranked rows (``0.3``, ``"30%"``) or a count (``2000``).
            method: how rows are ranked.
            by: keep a share of each group: a carried column, or ``"file"``.
            options: the other options of ``donod-fast select``, by name.

        Raises:
            InputError: a wrong option, or no row is chosen.
            StoreError: the folder is unfinished or damaged.
        """
        given = {"keep": keep, "method": method, "by": by, **options}
        how, choice, filters = settings_of(given, RankOptions, KeepOptions, FilterOptions)
        self._refuse_lr(how.lr)
        if how.dedupe not in (NONE, EMBEDDING) or how.embedding_model is not None:
            self._refuse_export("a look into the texts needs")
        wanted = [parse_condition(text)[0] for text in filters.where]
        folder = self._source.carrying([*([] if how.by is None else [how.by]), *wanted])
        return Selection(self._source, folder, how, choice, filters)

    @property
    def status(self) -> ScoresStatus:
        """Rows by status with their causes, and what an unfinished folder lacks. Raises StoreError."""
        return ScoresStatus.of(self.folder, self._source.place)

    @takes(CompareOptions)
    def compare(self, columns: Sequence[str] | str = (), **options: Any) -> Compared:
        """How far criteria agree: rank correlations, overlaps of their selections, and random draws beside them.

        Args:
            columns: methods and columns; empty for all number columns.
            options: the options of ``donod-fast compare``, by name.

        Raises:
            InputError: an unknown name or a wrong option, or too many rows for the memory.
            StoreError: the folder is unfinished or damaged.
        """
        (how,) = settings_of({"columns": columns, **options}, CompareOptions)
        return compared(self.folder, how)

    def plot(
        self, path: str | Path | None = None, *, keep: float | int | str = 0.3, method: str = "topsis", **options: Any
    ) -> Picture:
        """The plane of NOD and DON, with the rows that :meth:`select` would keep; see ``Selection.plot``."""
        return self.select(keep, method, **options).plot(path)

    @takes(ReportOptions)
    def report(self, path: str | Path = "report.html", **options: Any) -> Path:
        """Write the report of ``donod-fast report``: one file that any browser opens, without a network.

        Args:
            path: the file.
            options: the options of ``donod-fast report``, by name.

        Raises:
            InputError: a wrong option, or scores of an exported file, which does not say how rows were scored.
            StoreError: the file exists or cannot be written.
        """
        self._refuse_export("a report needs")
        from donod_fast.api.reporting import write_report_of

        write_report_of(self._source, Path(path), options)
        return Path(path)

    def save(self, place: str | Path, *, overwrite: bool = False) -> Scores:
        """Write the scores, exactly, to a folder that ``load_scores`` and every command read; and return it opened.

        Records that were given from Python are not in the folder: ``load_scores(place, data=rows)`` joins them again.

        Args:
            place: path or URL of the folder.
            overwrite: drop scores that are there.

        Raises:
            InputError: scores of an exported file, which does not say how rows were scored.
            StoreError: scores are there, or the folder cannot be written or is in use.
        """
        from donod_fast.scores.copying import copy_folder

        self._refuse_export("a scores folder needs")
        return Scores(Source(copy_folder(self.folder, place, overwrite=overwrite), self._source.given))

    def export(self, path: str | Path, *, records: str = "columns", overwrite: bool = False) -> Path:
        """Write every record with its scores (``donod.don`` and so on): see ``donod-fast export``.

        Args:
            path: ends in ``.parquet``, ``.csv``, ``.jsonl`` (``.gz``, ``.zst``) or ``.json``; without a suffix, the
                folder of a dataset.
            records: ``"columns"``, or ``"json"`` for one column of JSON text.
            overwrite: replace what is there.

        Raises:
            InputError: the kind of file cannot hold the records, or these scores come from an exported file.
            CorpusError: an input is gone or has changed, or the rows were given from Python and are not here.
            StoreError: the folder is unfinished, or the target exists or cannot be written.
        """
        from donod_fast.scores.exporting import export_file

        self._refuse_export("an export needs")
        export_file(self.folder, self.folder.reopened(), Path(path), records=records, overwrite=overwrite)
        return Path(path)

    def __repr__(self) -> str:
        return described(self._source)

    def _repr_html_(self) -> str:
        return described_as_html(self._source)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        self.folder.part_files()  # refuses an unfinished folder
        schema = self.schema
        for part in range(self.folder.parts):
            table = self.folder.read_part(part)
            if table is not None:
                yield from table.select(schema.names).cast(schema).to_batches()

    def _known(self, name: str) -> str:
        names = self.column_names
        for found in (name, f"record.{name}"):
            if found in names:
                return found
        raise InputError(f"there is no column {name!r}{suggest(name, names)}; there are {', '.join(names)}")

    def _refuse_lr(self, lr: float | None) -> None:
        if lr is not None:
            self._refuse_export("another learning rate needs")

    def _refuse_export(self, what: str) -> None:
        if not self._source.has_settings:
            raise InputError(
                f"{what} the scores folder: {self._source.place} is an exported file, which does not say how the rows "
                "were scored; open the folder with load_scores"
            )


__all__ = ["Scores"]
