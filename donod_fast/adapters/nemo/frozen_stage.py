"""The stage that ranks each batch alone, by the constants of a whole corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from donod_fast.adapters.columns import TOPSIS
from donod_fast.adapters.frames import kept_rows, with_columns
from donod_fast.adapters.nemo.stage import DonodStage
from donod_fast.selection.keeping import checked_share

if TYPE_CHECKING:
    from donod_fast.selection.frozen_constants import TopsisConstants


class DonodFrozenTopsisStage(DonodStage):
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
        self.keep = None if keep is None else checked_share(keep)
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


__all__ = ["DonodFrozenTopsisStage"]
