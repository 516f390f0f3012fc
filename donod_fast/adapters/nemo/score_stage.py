"""The stage that scores the rows of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from donod_fast.adapters.columns import STATUS
from donod_fast.adapters.frames import column_names, column_values, rows_of, score_types, with_columns
from donod_fast.adapters.lazy_scorer import LazyScorer
from donod_fast.adapters.nemo.stage import ROW, SOURCE, DonodStage, source_of
from donod_fast.adapters.options import scorer_spec
from donod_fast.errors import InputError, ModelError


class DonodScoreStage(DonodStage):
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
        self.lazy = LazyScorer(scorer_spec(model, options))

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

        source = source_of(task)
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


def _filled(values: list[Any]) -> Any:
    """A value of this column that says what it is for: its first list or mapping, else an empty text."""
    return next((value for value in values if isinstance(value, list | dict)), "")


__all__ = ["DonodScoreStage"]
