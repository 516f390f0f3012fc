"""Stages of NeMo Curator: :class:`DonodScoreStage`, :class:`DonodTopsisStage` and :class:`DonodFrozenTopsisStage`.

A YAML file reaches them by ``_target_``. The executors of Curator give no order and deliver a batch at least once. So a
row carries an identity (where it was read, or the user's own id), a batch that is scored twice gives the same rows, and
the ranking drops a batch that arrives twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from donod_fast.adapters.columns import PREFIX, STATUS, TOPSIS
from donod_fast.adapters.extras import host_module
from donod_fast.adapters.frames import column_names, column_values, kept_rows, rows_of, score_types, with_columns
from donod_fast.adapters.lazy_scorer import LazyScorer
from donod_fast.adapters.options import scorer_spec
from donod_fast.errors import InputError, ModelError
from donod_fast.scoring.settings import DEFAULT_NORMALISE
from donod_fast.system.wording import plural

# Each worker of the host imports this module, those of readers and writers too. PyTorch is imported where it is used.
if TYPE_CHECKING:
    import numpy as np

    from donod_fast.selection.frozen_constants import TopsisConstants

_EXTRA = "nemo-curator"
_Batch: Any = host_module("nemo_curator.tasks", _EXTRA).DocumentBatch
_Stage: Any = host_module("nemo_curator.stages.base", _EXTRA).ProcessingStage[_Batch, _Batch]
_Resources: Any = host_module("nemo_curator.stages.resources", _EXTRA).Resources

SOURCE = "donod_source"
"""The file that a row was read from; the first one if Curator reads several files as one batch."""
ROW = "donod_row"
"""Position of a row in its batch as it reached the score stage, from 0."""

WHOLE = 2**31 - 1
"""Batches in a call of a stage that needs all of them."""


class _DonodStage(_Stage):  # type: ignore[misc]
    """What the stages share: name, resources, and new batches that keep the host's own fields."""

    _is_abstract_root = True

    def __init__(self, name: str, resources: Any) -> None:
        self.name = name
        if resources is not None:
            self.resources = _Resources(**resources) if isinstance(resources, Mapping) else resources

    def inputs(self) -> tuple[list[str], list[str]]:
        """Any batch of documents: which columns a row needs depends on its format."""
        return ["data"], []

    def _made(self, task: Any, data: Any) -> Any:
        return _Batch(dataset_name=task.dataset_name, data=data, _metadata=task._metadata, _stage_perf=task._stage_perf)


class DonodScoreStage(_DonodStage):
    """Adds the scores of each row to a batch. Every row keeps its place; one that cannot be scored has a status.

    The model is loaded once a worker: on the GPU that Curator gives it (``resources``), else on the CPU.

    Args:
        model: folder or hub id of a causal language model.
        id_field: the column with your own ids, which must be different in all rows. Without it each row gets the
            columns ``donod_source`` and ``donod_row``.
        name: name of the stage.
        resources: what a worker gets, for example ``Resources(cpus=1, gpus=1)``.
        batch_size: batches of documents in one call.
        options: options of ``donod-fast score`` by their names, such as ``lr``, ``columns`` or ``signals``.

    Raises:
        InputError: an unknown option, or a wrong value.
    """

    def __init__(
        self,
        model: str,
        *,
        id_field: str | None = None,
        name: str = "donod_score",
        resources: Any = None,
        batch_size: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(name, resources)
        self.batch_size = batch_size
        self.id_field = id_field
        self.lazy = LazyScorer(scorer_spec(model, {key: _plain(value, key) for key, value in options.items()}))

    def outputs(self) -> tuple[list[str], list[str]]:
        """The columns that every row gets; further criteria add theirs."""
        return ["data"], [*([] if self.id_field else [SOURCE, ROW]), *score_types()]

    def setup(self, worker_metadata: Any = None) -> None:
        """Load the model of this worker.

        Raises:
            ModelError: it cannot be loaded or scored with.
        """
        self.lazy.scorer(self._device())

    def process(self, task: Any) -> Any:
        """Score a batch of documents.

        Raises:
            InputError: the batch lacks a column that its rows need, or the column of ``id_field``.
            ModelError: the model cannot be loaded or scored with.
        """
        import pyarrow as pa

        source = _source(task)
        identity = self._identity(task, source)
        device = self._device()
        rows = rows_of(task.data)
        found = self.lazy.columns(rows, device=device)
        self._refuse_other_columns(task.data, rows, found, source, device)
        types = score_types(self.lazy.scorer(device).sample_scorer.signals.columns)
        columns: dict[str, Sequence[Any]] = {name: [row[name] for row in found] for name in types}
        added = {SOURCE: pa.string(), ROW: pa.int64()}
        return self._made(task, with_columns(task.data, identity | columns, added | types))

    def _identity(self, task: Any, source: str) -> dict[str, Sequence[Any]]:
        if self.id_field is None:
            return {SOURCE: [source] * task.num_items, ROW: range(task.num_items)}
        ids = column_values(task.data, self.id_field)
        if None in ids or len(set(ids)) < len(ids):
            raise InputError(
                f"{source}: the column {self.id_field!r} does not identify the rows: it has empty or equal values; "
                "name another column as id_field, or none, to get donod_source and donod_row"
            )
        return {}

    def _device(self) -> str | None:
        """The device of this worker: None lets PyTorch see which GPU Curator made visible."""
        if self.lazy.spec.device is not None or self.lazy.spec.device_map is not None:
            return None
        gpus = self.resources.gpus
        if not gpus:
            return "cpu"
        import torch

        if not torch.cuda.is_available():
            raise ModelError(f"stage {self.name} has resources of {gpus:g} GPUs, but its worker sees none")
        if gpus > 1:
            raise ModelError(
                f"stage {self.name} has resources of {gpus:g} GPUs, but it scores on one: give it gpus: 1 and more "
                "workers, or device_map: auto for a model that needs several"
            )
        return None

    def _refuse_other_columns(
        self, data: Any, rows: list[dict[str, Any]], found: list[dict[str, Any]], source: str, device: str | None
    ) -> None:
        """Refuse a batch of which no row can be read because a column is absent.

        A single row without a value keeps its place with a status; a column that the whole batch lacks is a mistake in
        the configuration.
        """
        if not rows or any(row[STATUS] != "unknown_format" for row in found):
            return
        fullest = {name: _filled([row[name] for row in rows]) for name in column_names(data)}
        [trial] = self.lazy.score([fullest], device=device)
        if trial.status == "unknown_format":
            detail = trial.detail.partition("row 0: ")[2] or trial.detail
            raise InputError(f"{source}: no row of this batch can be read: {detail}")


class DonodTopsisStage(_DonodStage):
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
        self.keep = _share(keep)
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
                f"{_source(task)}: the batch has no column {missing[0]!r}: put DonodScoreStage before "
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


class DonodFrozenTopsisStage(_DonodStage):
    """Ranks each batch by the constants of a whole corpus: adds ``donod_topsis``, and keeps the best rows.

    It works on any number of workers, and can be resumed.

    Args:
        constants: file that ``TopsisConstants.save`` wrote.
        keep: share of the corpus to keep, one of those that the constants were made for; None to keep all rows.
        name: name of the stage.
        resources: what a worker gets.

    Raises:
        InputError: a wrong value, or a share that the constants were not made for.
        StoreError: the file cannot be read.
    """

    def __init__(
        self,
        constants: str,
        keep: float | int | str | None = None,
        *,
        name: str = "donod_frozen_topsis",
        resources: Any = None,
    ) -> None:
        from donod_fast.selection.frozen_constants import load_constants

        super().__init__(name, resources)
        self.constants: TopsisConstants = load_constants(str(constants))
        self.keep = _share(keep)
        self.cut = None if self.keep is None else self.constants.cut(self.keep)

    def outputs(self) -> tuple[list[str], list[str]]:
        """The column that every row gets."""
        return ["data"], [TOPSIS]

    def process(self, task: Any) -> Any:
        """Rank the rows of a batch; None if none is kept. Logs the metric ``donod_outside``, see ``TopsisConstants``.

        Raises:
            InputError: the rows have no scores.
        """
        import pyarrow as pa

        from donod_fast.selection.columns_of import columns_of

        columns = columns_of(task.data)
        closeness = self.constants.apply(columns.don, columns.nod, per_lr=columns.per_lr)
        self._log_metric("donod_outside", self.constants.outside(columns.don, columns.nod, per_lr=columns.per_lr))
        values = [None if value != value else float(value) for value in closeness]
        data = with_columns(task.data, {TOPSIS: values}, {TOPSIS: pa.float64()})
        if self.cut is None:
            return self._made(task, data)
        mask = (closeness >= self.cut).tolist()
        return self._made(task, kept_rows(data, mask)) if any(mask) else None


def _source(task: Any) -> str:
    files = task._metadata.get("source_files") or ()
    return str(files[0] if files else task.task_id or task.dataset_name)


def _plain(value: Any, key: str) -> Any:
    """A value of a YAML file, which Hydra gives as its own lists and mappings."""
    if isinstance(value, Mapping):
        made = {str(name): _plain(one, key) for name, one in value.items()}
        return ",".join(f"{role}={column}" for role, column in made.items()) if key == "columns" else made
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = [_plain(one, key) for one in value]
        return ",".join(map(str, items)) if key in ("columns", "carry", "signals") else items
    return value


def _own_rows(task: Any) -> str:
    """The rows of a batch without the columns of scores and without missing values, as text."""
    return repr(
        [
            {name: one for name, one in row.items() if not (name.startswith(PREFIX) or one is None or one != one)}
            for row in rows_of(task.data)
        ]
    )


def _share(keep: float | int | str | None) -> float | int | None:
    from donod_fast.selection.keeping import kept_count, parse_keep

    if keep is None:
        return None
    share = parse_keep(keep) if isinstance(keep, str) else keep
    kept_count(share, share if isinstance(share, int) else 1)  # refuses a share that is none
    return share


def _filled(values: list[Any]) -> Any:
    """A value of this column that says what it is for: its first list or mapping, else an empty text."""
    return next((value for value in values if isinstance(value, list | dict)), "")


def _sortable(identity: Any) -> tuple[tuple[str, Any], ...]:
    parts = identity if isinstance(identity, tuple) else (identity,)
    return tuple((type(part).__name__, part) for part in parts)


__all__ = ["ROW", "SOURCE", "DonodFrozenTopsisStage", "DonodScoreStage", "DonodTopsisStage"]
