"""Scoring and selecting in distilabel's pipelines: a ``Step`` that scores batches, and a ``GlobalStep`` that ranks::

    with Pipeline("select") as pipeline:
        load = LoadDataFromFileSystem(data_files="data.jsonl")
        load >> DonodScore(model="M", input_batch_size=256) >> DonodRank(keep=0.3)
    pipeline.run()["default"]["train"].to_json("kept.jsonl")

It continues when a batch fails: it fills its columns with None, and the run ends with 0. So the model is loaded in
``load``, where a failure fails the run, and a batch that fails keeps its rows with the status ``batch_failed``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, PrivateAttr, model_validator

from donod_fast.adapters.batch_ranking import BatchScorer, batch_scorer, rank_rows
from donod_fast.adapters.columns import COLUMNS, DETAIL, DON, NOD, PREFIX, STATUS, TOPSIS
from donod_fast.adapters.extras import host_module
from donod_fast.adapters.model_check import model_mark
from donod_fast.errors import InputError
from donod_fast.selection.frozen_constants import load_constants, topsis_constants
from donod_fast.selection.keeping import checked_share
from donod_fast.system.checked_json import checksum

_EXTRA = "distilabel"
_base = host_module("distilabel.steps.base", _EXTRA)
_Step: Any = _base.Step
_GlobalStep: Any = _base.GlobalStep
_Placement: Any = host_module("distilabel.models.mixins.cuda_device_placement", _EXTRA).CudaDevicePlacementMixin

BATCH_FAILED = "batch_failed"
"""Status of the rows of a batch that could not be scored at all; ``donod_detail`` says why."""

KEPT = PREFIX + "kept"


class DonodScore(_Step, _Placement):  # type: ignore[misc]
    """Gives each row the columns of its scores. Every row stays, in its place.

    Attributes:
        model: folder or hub id of a causal language model.
        options: further options of ``donod-fast score``, by their names.
        constants: file of frozen constants of TOPSIS; with them each row gets ``donod_topsis``, too.
        stamp: stands for the contents of the model and the constants in distilabel's cache; made when the step is.

    Raises:
        InputError: an unknown option, or a wrong value.
        StoreError: the file of the constants cannot be read.
    """

    model: str
    options: dict[str, Any] = Field(default_factory=dict)
    constants: str | None = None
    stamp: str = ""

    _scorer: BatchScorer | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _checked(self) -> DonodScore:
        found = batch_scorer(self.model, self.options, self.constants)
        constants = "" if found.constants is None else checksum(found.constants.as_dict())[:16]
        stamp = f"{model_mark(self.model)} {constants}".strip()
        if stamp != self.stamp:
            self.__dict__["stamp"] = stamp  # not by assignment, which would validate again
        return self

    @property
    def inputs(self) -> list[str]:
        """No column is needed by name: records of any format are scored."""
        return []

    @property
    def outputs(self) -> list[str]:
        """The columns that every row gets."""
        names = [PREFIX + column.name for one in self._made().lazy.spec.signals for column in one.columns]
        return [*COLUMNS, *names, *([] if self.constants is None else [TOPSIS])]

    def load(self) -> None:
        """Load the model, on the device that distilabel assigns if the step's resources have GPUs.

        Raises:
            ModelError: the model cannot be loaded or scored with.
        """
        _Step.load(self)
        if self.resources.gpus:
            _Placement.load(self)
        self._made().check()

    def unload(self) -> None:
        """Give the device back."""
        if self.resources.gpus:
            _Placement.unload(self)

    def process(self, inputs: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Score a batch."""
        rows = [{name: value for name, value in row.items() if not name.startswith(PREFIX)} for row in inputs]
        try:
            found = self._made().columns(rows, first=None)
        except Exception as error:
            self._logger.exception("a batch of %d rows could not be scored", len(rows))
            failed = dict.fromkeys(self.outputs) | {STATUS: BATCH_FAILED, DETAIL: f"{type(error).__name__}: {error}"}
            found = [dict(failed) for _ in rows]
        yield [{**row, **columns} for row, columns in zip(rows, found, strict=True)]

    def _made(self) -> BatchScorer:
        if self._scorer is None:
            self._scorer = batch_scorer(self.model, self.options, self.constants)
        return self._scorer


class DonodRank(_GlobalStep):  # type: ignore[misc]
    """Gives each row its closeness ``donod_topsis`` among all rows, and keeps the best.

    Every row gets ``donod_kept``. Rows that are not kept are dropped, unless ``drop`` is off. If no row could be
    scored, all rows stay, with their status: distilabel would answer a failing global step with an empty result.

    Attributes:
        keep: share of the scored rows: a fraction (0.3) or a count (300); those that are tied with the last one are
            kept, too. None to keep all rows.
        drop: drop the rows that are not kept.
        weights: weights of DON and NOD.
        normalise: what TOPSIS divides the columns by.
        constants: file of frozen constants to rank by; None for those of the rows.
        stamp: marks the constants for distilabel's cache; set by the step itself.

    Raises:
        InputError: ``keep`` or the normalisation has a wrong value.
        StoreError: the file of the constants cannot be read.
    """

    keep: float | int | None = None
    drop: bool = True
    weights: tuple[float, float] = (0.5, 0.5)
    normalise: str = "vector"
    constants: str | None = None
    stamp: str = ""

    @model_validator(mode="after")
    def _checked(self) -> DonodRank:
        if self.constants is not None:
            frozen = load_constants(self.constants)
            self.__dict__["stamp"] = checksum(frozen.as_dict())[:16]  # not by assignment, which would validate again
            if self.keep is not None:
                frozen.cut(self.keep)
        elif self.keep is not None:
            checked_share(self.keep)
        topsis_constants({"don": [1.0], "nod": [1.0]}, weights=self.weights, normalise=self.normalise)
        return self

    @property
    def inputs(self) -> list[str]:
        """The columns of :class:`DonodScore` that it reads; distilabel refuses a pipeline without them."""
        return [STATUS, DON, NOD]

    @property
    def outputs(self) -> list[str]:
        """The columns that every row gets."""
        return [TOPSIS, KEPT]

    def process(self, inputs: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Rank all rows."""
        rows = [dict(row) for row in inputs]
        try:
            constants = (
                topsis_constants(
                    rows,
                    weights=self.weights,
                    normalise=self.normalise,
                    keep=() if self.keep is None else (self.keep,),
                )
                if self.constants is None
                else load_constants(self.constants)
            )
        except InputError as error:
            self._logger.error("no row is dropped: %s", error)
            yield [{**row, TOPSIS: None, KEPT: False} for row in rows]
            return
        rank_rows(rows, constants)
        cut = None if self.keep is None else constants.cut(self.keep)
        for row in rows:
            row[KEPT] = cut is None or (row[TOPSIS] is not None and row[TOPSIS] >= cut)
        yield [row for row in rows if row[KEPT] or not self.drop]


for _step in (DonodScore, DonodRank):  # distilabel looks for this type, and does not read annotations that are texts
    _step.process.__annotations__["inputs"] = _base.StepInput

__all__ = ["BATCH_FAILED", "KEPT", "DonodRank", "DonodScore"]
