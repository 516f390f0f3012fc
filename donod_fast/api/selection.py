"""``Selection``: the rows that a method keeps, with their records."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from donod_fast.api.picture import Picture
from donod_fast.api.shown import Text, as_pre
from donod_fast.api.source import Source
from donod_fast.selection.choosing import Choice, choosing, keeps_one_row
from donod_fast.selection.filter_options import FilterOptions
from donod_fast.selection.likeness import Likeness, likeness
from donod_fast.selection.out_of_core.row_set import RowSet
from donod_fast.selection.settings import KeepOptions, RankOptions
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import datasets

    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.out_of_core import GroupCount
    from donod_fast.selection.similar_sets import SimilarSets

_log = logging.getLogger(__name__)

_SHOWN_GROUPS = 20


class Selection:
    """Chosen rows: what ``Scores.select`` returns.

    Attributes:
        rows: (k,) int64, the chosen rows by number; in input order, or best first with ``order="best"``.
        method: the method, with the preferred end if one was given.
        scored: number of ranked rows.
        total: number of all rows.
        before: number of rows that were kept before conditions left some of them out.
        left_out: number of rows that have scores but were not ranked, by reason.
        groups: counts of each group of ``by``, or of each cluster; empty without.
        engine: which engine ranked, ``memory`` or ``duckdb``; the rows are the same.
        sets: the sets of similar rows that ``dedupe`` and ``diversify`` found, of each of which one row is kept.
        likeness: how like the corpus the selection is, by length and by groups.
        notes: what a user should know about the selection, a sentence each.
    """

    def __init__(
        self, source: Source, folder: ScoresFolder, how: RankOptions, choice: KeepOptions, filters: FilterOptions
    ) -> None:
        """Choose rows; use ``Scores.select``.

        Raises:
            InputError: a bad option, or no row is chosen.
            StoreError: the folder is unfinished or damaged.
        """
        self._source, self._folder = source, folder
        self._settings = (how, choice, filters)
        if keeps_one_row(choice):
            _log.warning("keep=1 keeps ONE row; keep=1.0 or keep='100%' keeps all rows")
        with self._chosen() as found:
            ranking = found.ranking
            kept = found.kept.rows
            self._kept: Any = kept if isinstance(kept, RowSet) else [int(row) for row in kept]
            self.rows: NDArray[np.int64] = np.fromiter(self._kept, np.int64, len(self._kept))
            self.method, self.engine = found.options.method, ranking.name
            self.scored, self.before = ranking.scored, found.before
            self.left_out: Mapping[str, int] = dict(ranking.left_out)
            self.groups: tuple[GroupCount, ...] = found.kept.groups
            self.sets: tuple[SimilarSets, ...] = found.kept.sets
            self._passed_over, self._missing = found.kept.passed_over, found.kept.missing
            followed = None if ranking.following is None else ranking.following.text()
        self.likeness: Likeness = likeness(folder, kept)
        if choice.order == "input":
            self.rows = np.sort(self.rows)
        self.total = folder.rows
        self.notes: tuple[str, ...] = (*(() if followed is None else (followed,)), *self.likeness.warnings)

    def __len__(self) -> int:
        return len(self.rows)

    def records(self) -> Iterator[dict[str, Any]]:
        """The original records, one after the other, in the order of ``rows``.

        Columns of tables that are null are left out; ``dataset()`` keeps them.

        Raises:
            CorpusError: an input is gone or has changed since it was scored, or the rows were given from Python and are
                not here (see ``load_scores``).
        """
        from donod_fast.selection.subset import chosen_records

        for record in chosen_records(self._source.records(), self._kept, order=self._order):
            yield dict(record.data or {})

    def dataset(self) -> datasets.Dataset:
        """The original records as a dataset, in the order of ``rows``, with schema and values of tables.

        Columns of other records whose values no column type holds exactly are JSON text; a warning names them.

        Raises:
            CorpusError: as :meth:`records`.
            InputError: a value from Python that a table cannot hold.
        """
        import datasets

        from donod_fast.selection.subset import subset_table

        table, json_columns = subset_table(self._source.records(), self._kept, order=self._order)
        _warn_of_json(json_columns)
        return datasets.Dataset(datasets.table.InMemoryTable(table))

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the original records, unchanged, to a file: what ``donod-fast select`` writes, byte for byte.

        Args:
            path: ends in ``.jsonl`` (``.gz``, ``.zst``), ``.json`` or ``.parquet``; in ``.csv`` or ``.tsv`` if all
                inputs are such files.
            overwrite: replace a file that exists.

        Raises:
            InputError: the file's kind cannot hold the records.
            CorpusError: as :meth:`records`.
            StoreError: the file exists or cannot be written.
        """
        from donod_fast.selection.subset import subset_file

        path = Path(path)
        written = subset_file(self._source.records(), self._kept, path, order=self._order, overwrite=overwrite)
        _warn_of_json(written.json_columns)
        return path

    def explain(self, count: int = 5, width: int = 80) -> Text:
        """The best and the worst rows with their numbers and the beginning and end of their texts.

        Args:
            count: rows at either end.
            width: columns of text.

        Raises:
            CorpusError: as :meth:`records`.
        """
        from donod_fast.selection.explain import render

        with self._chosen() as found:
            encoding = sys.stdout.encoding or "ascii"
            return Text(render(found.ranking.explain(self._source.records(), count, width, encoding)))

    def plot(self, path: str | Path | None = None) -> Picture:
        """The plane of NOD and DON with the chosen and the other rows; written to ``path`` if one is given.

        Raises:
            InputError: matplotlib is not installed, or the name does not end in ``.png`` or ``.svg``.
            StoreError: the file cannot be written.
        """
        import torch

        from donod_fast.selection.plane import check_picture_name, plane_figure
        from donod_fast.selection.rankers import load_columns

        if path is not None:
            check_picture_name(Path(path))
        columns = load_columns(self._folder, self._settings[0].lr, ())
        mask = torch.zeros(self.total, dtype=torch.bool)
        mask[torch.from_numpy(self.rows)] = True
        title = f"{len(self):,} of {plural(self.scored, 'scored row')} by {self.method}"
        picture = Picture(plane_figure(columns.don, columns.nod, mask[columns.row], title=title), title)
        if path is not None:
            picture.save(path)
        return picture

    def __repr__(self) -> str:
        lines = [f"Selection: {len(self):,} of {plural(self.scored, 'scored row')} by {self.method}"]
        if len(self) < self.before:
            lines.append(f"  {len(self):,} of {self.before:,} kept rows fulfil {self._settings[2].text}")
        without = self.total - self.scored - sum(self.left_out.values())
        reasons = {**self.left_out, **({"no score": without} if without else {})}
        lines += [f"  left out: {plural(rows, 'row')} with {reason}" for reason, rows in reasons.items()]
        for sets in self.sets:
            found = (
                f"{plural(len(sets), 'set')} ({sets.kind}), {len(sets.dropped):,} of {plural(sets.rows, 'row')} dropped"
            )
            lines.append(f"  similar rows: {found}")
        if self._passed_over or self._missing:
            lines.append(f"  {self._passed_over:,} duplicates passed over, {self._missing:,} rows too few are left")
        largest = sorted(self.groups, key=lambda group: -group.scored)[:_SHOWN_GROUPS]
        for group in largest:
            name = "(none)" if group.name is None else group.name
            lines.append(f"  {name}: {group.kept:,} kept of {group.scored:,} scored ({plural(group.rows, 'row')})")
        if len(largest) < len(self.groups):
            lines.append(f"  … and {plural(len(self.groups) - len(largest), 'smaller group')} (see .groups)")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return as_pre(repr(self))

    @property
    def _order(self) -> Literal["input", "best"]:
        return "best" if self._settings[1].order == "best" else "input"

    def _chosen(self) -> AbstractContextManager[Choice]:
        how, choice, filters = self._settings
        return choosing(self._folder, how, choice, filters)


def _warn_of_json(columns: tuple[str, ...]) -> None:
    if columns:
        _log.warning("as JSON text, because no column type holds the values: %s", ", ".join(columns))


__all__ = ["Selection"]
