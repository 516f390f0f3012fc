"""The stage that ranks the rows of all batches together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from donod_fast.adapters.columns import PREFIX, STATUS, TOPSIS
from donod_fast.adapters.frames import column_names, column_values, kept_rows, rows_of, with_columns
from donod_fast.adapters.nemo.stage import ROW, SOURCE, DonodStage, source_of
from donod_fast.errors import InputError
from donod_fast.scoring.settings import DEFAULT_NORMALISE
from donod_fast.selection.keeping import checked_share
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import numpy as np

WHOLE = 2**31 - 1
"""Batches in a call of a stage that needs all of them."""


class DonodTopsisStage(DonodStage):
    """Ranks all rows by TOPSIS: adds ``donod_topsis``, and keeps the best ones if ``keep`` is given.

    It needs all batches in one call, in the memory of one worker, and cannot be resumed. For a corpus that is larger
    than that, or that is spread over the jobs of an array, use :class:`DonodFrozenTopsisStage`.

    Args:
        keep: share of the scored rows to keep, as in ``donod-fast select --keep``: 0.3, "30%" or a count; None to keep
            all rows.
        weights: weights of DON and NOD.
        normalise: what the columns are divided by, as in ``donod-fast select --normalise``.
        id_field: as in :class:`DonodScoreStage`.
        partial: rank although batches are missing that were read, because a stage before this one drops whole batches.
        name: name of the stage.
        resources: what the worker gets.

    Raises:
        InputError: a wrong value.
    """

    batch_size = WHOLE
    is_resumable = False

    def __init__(
        self,
        keep: float | int | str | None = None,
        *,
        weights: Sequence[float] = (0.5, 0.5),
        normalise: str = DEFAULT_NORMALISE,
        id_field: str | None = None,
        partial: bool = False,
        name: str = "donod_topsis",
        resources: Any = None,
    ) -> None:
        from donod_fast.kernels.topsis import check_normalise, normalised_weights

        super().__init__(name, resources)
        self.keep = None if keep is None else checked_share(keep)
        self.weights = normalised_weights((float(weights[0]), float(weights[1])))
        self.normalise = check_normalise(normalise)
        self.id_field = id_field
        self.partial = partial
        self._ranked: frozenset[tuple[Any, ...]] | None = None

    def num_workers(self) -> int:
        """One: the rows are ranked together."""
        return 1

    def setup(self, worker_metadata: Any = None) -> None:
        """Begin a run. A stage with this method is an actor, which sees every call of the run."""
        self._ranked = None

    def outputs(self) -> tuple[list[str], list[str]]:
        """The column that every row gets."""
        return ["data"], [TOPSIS]

    def process(self, task: Any) -> Any:
        """Rank the rows of one batch that is the whole corpus; see :meth:`process_batch`."""
        return self.process_batch([task])[0]

    def process_batch(self, tasks: list[Any]) -> list[Any]:
        """Rank the rows of all batches; None in place of a batch of which no row is kept.

        Raises:
            InputError: rows without scores or without identity, two rows with the same identity, no scored row, or
                batches that are not all batches of the run.
        """
        import pyarrow as pa

        ids = [self._ids(task) for task in tasks]
        first = {tuple(one): at for at, one in reversed(list(enumerate(ids)))}
        own = [at for at, one in enumerate(ids) if first[tuple(one)] == at or not one]  # a batch may be delivered twice
        for at, one in enumerate(ids):
            same = first[tuple(one)]
            if one and same != at and _own_rows(tasks[at]) != _own_rows(tasks[same]):
                raise InputError(
                    f"two batches of different rows have the identities of {one[0]!r} and those after it; "
                    "name a column with ids that are unique in the run as id_field"
                )
        self._refuse_part([tasks[at] for at in own], frozenset(first))
        closeness, chosen = self._closeness([tasks[at] for at in own], [ids[at] for at in own])
        found: list[Any] = [None] * len(tasks)
        start = 0
        for at in own:
            end = start + len(ids[at])
            values = closeness[start:end]
            data = with_columns(
                tasks[at].data,
                {TOPSIS: [None if value != value else float(value) for value in values]},
                {TOPSIS: pa.float64()},
            )
            mask = chosen[start:end].tolist()
            if all(mask):
                found[at] = self._made(tasks[at], data)
            elif any(mask):
                found[at] = self._made(tasks[at], kept_rows(data, mask))
            start = end
        return found

    def _ids(self, task: Any) -> list[Any]:
        if self.id_field is not None:
            return column_values(task.data, self.id_field)
        if missing := [name for name in (SOURCE, ROW) if name not in column_names(task.data)]:
            raise InputError(
                f"{source_of(task)}: the batch has no column {missing[0]!r}: put DonodScoreStage before "
                f"{type(self).__name__}, or name the column with your own ids as id_field"
            )
        return list(zip(column_values(task.data, SOURCE), column_values(task.data, ROW), strict=True))

    def _refuse_part(self, tasks: list[Any], batches: frozenset[tuple[Any, ...]]) -> None:
        remedy = "use DonodFrozenTopsisStage, which ranks batches by the constants of a first pass"
        if self._ranked not in (None, batches):
            raise InputError(f"{self.name} was called for some batches and again for others: no global rank; {remedy}")
        self._ranked = batches
        total = max((int(task._metadata.get("total_partitions", 0)) for task in tasks), default=0)
        seen = {task._metadata.get("partition_index") for task in tasks} - {None}
        if total > len(seen) and not self.partial:
            raise InputError(
                f"{self.name} got {len(seen)} of the {total} batches that were read, so the rank would not be global. "
                "If a stage before it drops whole batches, set partial: true; "
                f"if the run is one of several jobs, {remedy}"
            )

    def _closeness(self, tasks: list[Any], ids: list[list[Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Closeness of the rows of all batches, and whether each is kept; in the order of the batches."""
        import numpy as np
        import torch

        from donod_fast.selection.columns_of import columns_of
        from donod_fast.selection.keeping import keep as best
        from donod_fast.selection.ranking import ScoreColumns, rank

        flat = [one for batch in ids for one in batch]
        columns = [columns_of(task.data) for task in tasks]
        don, nod = (np.concatenate([getattr(one, name) for one in columns] or [np.empty(0)]) for name in ("don", "nod"))
        order = sorted(range(len(flat)), key=lambda at: _sortable(flat[at]))  # not the order in which batches arrive
        for before, after in pairwise(order):
            if flat[before] == flat[after]:
                raise InputError(
                    f"two rows have the identity {flat[after]!r}; "
                    "name a column that is different in all rows as id_field, here and in DonodScoreStage"
                )
        scores = ScoreColumns(
            torch.arange(len(flat)),
            torch.from_numpy(don[order]),
            torch.from_numpy(nod[order]),
            torch.zeros(len(flat), dtype=torch.float64),
        )
        ranking = rank(scores, "topsis", weights=self.weights, normalise=self.normalise)
        if not len(ranking.order):
            raise InputError(f"nothing to rank: none of the {plural(len(flat), 'row')} has scores; see {STATUS}")
        places = np.asarray(order)
        closeness = np.full(len(flat), np.nan)
        closeness[places[ranking.order.numpy()]] = ranking.value.numpy()
        chosen = np.full(len(flat), self.keep is None)
        if self.keep is not None:
            chosen[places[best(ranking, keep=self.keep).numpy()]] = True
        return closeness, chosen


def _own_rows(task: Any) -> str:
    """The rows of a batch without the columns of scores and without missing values, as text."""
    return repr(
        [
            {name: one for name, one in row.items() if not (name.startswith(PREFIX) or one is None or one != one)}
            for row in rows_of(task.data)
        ]
    )


def _sortable(identity: Any) -> tuple[tuple[str, Any], ...]:
    parts = identity if isinstance(identity, tuple) else (identity,)
    return tuple((type(part).__name__, part) for part in parts)


__all__ = ["DonodTopsisStage"]
