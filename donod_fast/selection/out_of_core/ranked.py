"""``ranking.rank`` and ``keeping.keep`` for scores that are larger than memory, over part files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from donod_fast.errors import InputError
from donod_fast.kernels.topsis import DEFAULT_NORMALISE, check_normalise, normalised_weights
from donod_fast.selection.following import METHODS, Following, Sampled
from donod_fast.selection.keeping import check_wanted, quantile_count
from donod_fast.selection.out_of_core.cutting import Cut, find_cuts
from donod_fast.selection.out_of_core.database import Database
from donod_fast.selection.out_of_core.groups import Groups, groups_by
from donod_fast.selection.out_of_core.loading import read_columns, scored_rows, weight_norm
from donod_fast.selection.out_of_core.merit import check_method, constants_of
from donod_fast.selection.out_of_core.row_set import RowSet
from donod_fast.selection.out_of_core.shares import shares
from donod_fast.selection.ranking import Ranking, ScoreColumns, merit, rescale_to_lr, uniform_draws
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

DEFAULT_MEMORY = 2 << 30

_MARKED = 1 << 22  # rows whose bits are set in one step
_LEAST = 64 << 20


@dataclass(frozen=True, slots=True)
class GroupCount:
    """Row counts of a group.

    Attributes:
        name: the value of the column, or the name of the input; None for rows without a value.
        rows: number of rows.
        scored: number of scored rows.
        kept: number of kept rows.
    """

    name: str | None
    rows: int
    scored: int
    kept: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The result of :meth:`BigRanking.keep`.

    Attributes:
        rows: the rows to keep.
        groups: counts of each group in order of appearance; one group if no groups were requested.
        best_first: the rows in order of rank, if requested.
    """

    rows: RowSet
    groups: tuple[GroupCount, ...]
    best_first: list[int] | None


class BigRanking:
    """Ranked rows of a folder in a database on disk; a context manager that deletes it. See :func:`rank_parts`.

    Attributes:
        method: a method of :func:`rank_parts`.
        total: number of rows, scored or not.
        left_out: number of rows that have scores but are not ranked by the method (IFD ≥ 1).
        following: how far TOPSIS follows one column; None for other methods, and for fewer than three rows.
    """

    def __init__(self, folder: ScoresFolder, database: Database, method: str, groups: Groups, lr: float | None) -> None:
        self.method, self.total = method, folder.rows
        self._folder, self._database, self._groups, self._lr = folder, database, groups, lr
        self._rows = np.zeros(len(groups.names), np.int64)
        self.left_out = 0
        self.following: Following | None = None

    def __enter__(self) -> BigRanking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    @cached_property
    def scored(self) -> int:
        """Number of ranked rows."""
        return sum(self._scored)

    @cached_property
    def highest(self) -> float:
        """The largest figure of merit; NaN without a scored row."""
        (found,) = self._database.one("SELECT max(value) FROM merit")
        return float("nan") if found is None else float(found)

    def keep(
        self,
        *,
        keep: float | int | None = None,
        don_threshold: float | None = None,
        don_quantile: float | None = None,
        best_first: bool = False,
        most: int = 10**6,
    ) -> Chosen:
        """Choose the rows to keep of each group; with one group these are the rows of ``keeping.keep``.

        Args:
            keep: a fraction of the scored rows of each group, or a count, divided among the groups (``shares.py``).
            don_threshold: for ``don-threshold``, the same for every group.
            don_quantile: for ``don-threshold``, the quantile within each group.
            best_first: also list the rows in order of rank.
            most: the largest number of rows that may be listed.

        Raises:
            InputError: see ``keeping.keep``; or more rows than may be listed.
            StoreError: there is not enough disk space or memory.
        """
        check_wanted(self.method, self.scored, self.total, keep, don_threshold, don_quantile)
        scored = dict(enumerate(self._scored))
        if keep is not None:
            wanted = {group: count for group, count in enumerate(shares(keep, self._scored)) if count}
            if self.method == "nodon":  # what topsis leaves out
                self._cut({group: scored[group] - count for group, count in wanted.items()})
            else:
                self._cut(wanted)
        elif don_threshold is not None:
            self._write_cuts(dict.fromkeys(scored, (don_threshold, self.total)))
        else:
            counts = {group: quantile_count(cast(float, don_quantile), rows) for group, rows in scored.items() if rows}
            cuts = find_cuts(self._database, _BY_VALUE, counts)
            self._write_cuts({group: (cut.key, self.total) for group, cut in cuts.items()})
        return self._chosen(most if best_first else None)

    @property
    def _by_rank(self) -> str:
        """What the rows are sorted by, best first."""
        return "value, row DESC" if self.method == "nodon" else "value DESC, row"

    def order(self) -> tuple[Any, Any]:
        """All ranked rows, best first, and their figures of merit: (n,) int64 and (n,) float64 of NumPy.

        They need 16 bytes a row. Raises StoreError: there is not enough disk space or memory.
        """
        found = self._database.columns(f"SELECT row, value FROM merit ORDER BY {self._by_rank}")
        value = np.ascontiguousarray(found["value"], np.float64)
        return np.ascontiguousarray(found["row"], np.int64), 1 - value if self.method == "nodon" else value

    def ends(self, count: int) -> tuple[Ranking, ScoreColumns, list[int]]:
        """A ranking of only the ``count`` best and the ``count`` worst rows, or of all rows if there are fewer.

        Returns:
            The ranking of these rows, their scores, and their ranks among all rows, counted from 1.

        Raises:
            StoreError: a part is missing or damaged.
        """
        ends = []
        for order in ("value DESC, row", "value, row DESC"):
            query = f"SELECT row, value FROM merit ORDER BY {order} LIMIT {count}"
            ends.append(self._database.columns(query))
        best, worst = reversed(ends) if self.method == "nodon" else ends
        wanted = min(count, self.scored)
        rest = min(count, self.scored - wanted)  # of the worst rows, those that are not among the best
        row = np.concatenate([best["row"], worst["row"][:rest][::-1]])
        value = np.concatenate([best["value"], worst["value"][:rest][::-1]])
        if self.method == "nodon":
            value = 1 - value
        ranks = [*range(1, wanted + 1), *range(self.scored - rest + 1, self.scored + 1)]
        rows = torch.from_numpy(np.ascontiguousarray(row))
        ranking = Ranking(self.method, rows, torch.from_numpy(np.ascontiguousarray(value)), len(row))
        return ranking, self._columns_of(rows.tolist()), ranks

    def ordered(self) -> tuple[Any, Any, tuple[str | None, ...], tuple[int, ...], tuple[int, ...]]:
        """All ranked rows, best first, in memory: 12 bytes a row.

        Returns:
            (n,) int64 row numbers; (n,) int32 groups of these, None if there is one; by group: name, rows, ranked rows.

        Raises:
            StoreError: there is not enough disk space or memory.
        """
        found = self._database.columns(f"SELECT row, grp FROM merit ORDER BY {self._by_rank}")
        names = tuple(self._groups.names)
        groups = None if names == (None,) else found["grp"].astype("int32")
        return found["row"], groups, names, tuple(self._rows.tolist()), tuple(self._scored)

    @cached_property
    def _scored(self) -> list[int]:
        found = self._database.columns("SELECT grp, count(*) AS counted FROM merit GROUP BY grp")
        scored = np.zeros(len(self._groups.names), np.int64)
        scored[found["grp"]] = found["counted"]
        return [int(rows) for rows in scored]

    def _saw(self, numbers: Any) -> None:
        counted = np.bincount(numbers, minlength=len(self._groups.names))
        self._rows = counted + np.pad(self._rows, (0, len(counted) - len(self._rows)))

    def _cut(self, wanted: Mapping[int, int]) -> None:
        """Cut each group so that the wanted number of rows is above the cut; ties are broken by row number."""
        cuts = find_cuts(self._database, _BY_VALUE, {group: count for group, count in wanted.items() if count})
        ends = {group: (float("inf"), -1) for group, count in wanted.items() if not count}
        ends |= {group: (cut.key, self.total) for group, cut in cuts.items()}
        partly = {group: cut for group, cut in cuts.items() if cut.wanted < cut.tied}
        if partly:
            self._write_cuts({group: (cut.key, -1) for group, cut in partly.items()})
            tied = (
                "SELECT m.grp, -CAST(m.row AS DOUBLE) AS key FROM merit m "
                "JOIN cuts c ON m.grp = c.grp AND m.value = c.value"
            )
            rows: dict[int, Cut] = find_cuts(self._database, tied, {group: cut.wanted for group, cut in partly.items()})
            ends |= {group: (cuts[group].key, int(-cut.key)) for group, cut in rows.items()}
        self._write_cuts(ends)

    def _write_cuts(self, ends: Mapping[int, tuple[float, int]]) -> None:
        import pyarrow as pa

        types = pa.schema([("grp", pa.int32()), ("value", pa.float64()), ("row", pa.int64())])
        content = {
            "grp": list(ends),
            "value": [end[0] for end in ends.values()],
            "row": [end[1] for end in ends.values()],
        }
        self._database.replace("cuts", pa.table(content, schema=types))

    def _chosen(self, most: int | None) -> Chosen:
        above = "(m.value > c.value OR (m.value = c.value AND m.row <= c.row))"
        chosen = f"merit m JOIN cuts c ON m.grp = c.grp WHERE {'NOT ' if self.method == 'nodon' else ''}{above}"
        rows = RowSet(self.total)
        kept = np.zeros(len(self._groups.names), np.int64)
        for start in range(0, self.total, _MARKED):
            window = f"m.row >= {start} AND m.row < {start + _MARKED}"
            found = self._database.columns(f"SELECT m.row, m.grp FROM {chosen} AND {window}")
            rows.add(found["row"])
            kept += np.bincount(found["grp"], minlength=len(kept))
        order = None
        if most is not None:
            check_best_first(int(kept.sum()), most)
            by_rank = "m.value, m.row DESC" if self.method == "nodon" else "m.value DESC, m.row"
            order = self._database.columns(f"SELECT m.row FROM {chosen} ORDER BY {by_rank}")["row"].tolist()
        counts = zip(self._groups.names, self._rows.tolist(), self._scored, kept.tolist(), strict=True)
        return Chosen(rows, tuple(GroupCount(*one) for one in counts), order)

    def _columns_of(self, rows: Sequence[int]) -> ScoreColumns:
        """Read the scores of a few rows from their parts."""
        names = ("don", "nod", "loss", "weight_dot_update", "update_norm")
        scores: dict[int, list[float]] = {}
        for part, members in groupby(sorted(rows), key=self._part_of):
            table = read_columns(self._folder, part, ["row", *names])
            first = self._folder.part_range(part)[0]
            scores |= {row: [table.column(name)[row - first].as_py() for name in names] for row in members}
        columns = {
            name: torch.tensor([scores[row][at] for row in rows], dtype=torch.float64) for at, name in enumerate(names)
        }
        if self._lr is not None:
            columns["don"], columns["nod"] = rescale_to_lr(
                columns["weight_dot_update"], columns["update_norm"], weight_norm(self._folder), self._lr
            )
        return ScoreColumns(torch.tensor(rows, dtype=torch.int64), columns["don"], columns["nod"], columns["loss"])

    def _part_of(self, row: int) -> int:
        low, high = 0, self._folder.parts - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if row < self._folder.part_range(middle)[1] else (middle + 1, high)
        return low


def check_best_first(count: int, most: int) -> None:
    """Refuse to list more rows best first than memory has room for. Raises InputError."""
    if count > most:
        raise InputError(
            f"{plural(count, 'row')} in the order best first do not fit in memory, which has room for {most:,}; "
            "use --order input, keep fewer rows, or raise --memory"
        )


_BY_VALUE = "SELECT grp, value AS key FROM merit"


def rank_parts(
    folder: ScoresFolder,
    method: str = "topsis",
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    seed: int = 0,
    lr: float | None = None,
    by: str | None = None,
    memory: int = DEFAULT_MEMORY,
    temp_dir: Path | None = None,
    threads: int | None = None,
) -> BigRanking:
    """Rank the scored rows of a folder without loading all of them into memory.

    The ranks equal those of ``ranking.rank``.

    Args:
        folder: a finished folder.
        method: one of ``column_methods.OWN_METHODS`` except ``pareto``, or a name of ``column_methods.py``.
        weights: weights of DON and NOD, for ``topsis``, ``nodon`` and ``weighted``.
        normalise: as of ``ranking.rank``, for ``topsis`` and ``nodon``.
        seed: seed of ``random``.
        lr: rank as if scored at this learning rate; None for the folder's.
        by: the groups: a carried column, or ``"file"`` for the inputs.
        memory: approximate memory limit of the process in bytes; DuckDB gets half of it.
        temp_dir: folder of the table of values (about ten bytes per row); None for the system's temporary folder.
        threads: number of threads of DuckDB; None for all cores.

    Raises:
        InputError: unknown method, missing column, bad weights, normalisation, seed or group; DuckDB is not installed.
        StoreError: the folder is unfinished or damaged; there is not enough disk space or memory.
    """
    import pyarrow as pa

    by_column = check_method(folder, method)
    normalised_weights(weights)
    check_normalise(normalise)
    draw = uniform_draws(seed) if method == "random" else None
    if lr is not None:
        rescale_to_lr(torch.zeros(0), torch.zeros(0), weight_norm(folder), lr)  # refuses an invalid rate
    groups = groups_by(folder, by)
    constants = constants_of(folder, method, groups_by(folder, None), lr, normalise)
    database = Database(temp_dir, max(memory // 2, _LEAST), threads)
    try:
        ranking = BigRanking(folder, database, method, groups, lr)
        database.run("CREATE TABLE merit (row BIGINT, grp INTEGER, value DOUBLE)")
        sampled = Sampled(folder.rows) if method in METHODS else None
        column = by_column.column if by_column is not None else "loss" if method == "loss" else None
        for rows in scored_rows(folder, groups, lr=lr, column=column, seen=ranking._saw):
            row, group = rows.row, rows.group
            if by_column is None:
                value = merit(
                    method,
                    rows.don,
                    rows.nod,
                    rows.column,
                    weights=weights,
                    normalise=normalise,
                    constants=constants,
                    draw=draw,
                )
            else:
                assert rows.column is not None
                there = ~by_column.left_out(rows.column)
                row, group, value = row[there.numpy()], group[there.numpy()], by_column.value(rows.column[there])
                ranking.left_out += len(there) - len(row)
            if sampled is not None:
                sampled.add(value, rows.don, rows.nod)
            database.insert("merit", pa.table({"row": row, "grp": group, "value": value.numpy()}))
        if sampled is not None:
            ranking.following = sampled.following()
    except BaseException:
        database.close()
        raise
    return ranking


__all__ = ["DEFAULT_MEMORY", "BigRanking", "Chosen", "GroupCount", "check_best_first", "rank_parts"]
