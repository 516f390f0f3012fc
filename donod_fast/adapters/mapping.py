"""``ScoreRows``: a function that scores batches, for ``datasets.Dataset.map`` and for Spark.

It can be pickled, and loads the model once in each process that calls it::

    score = ScoreRows("M")
    scored = dataset.map(score, batched=True, with_rank=True, num_proc=2, features=score.features(dataset.features))
    scored = frame.mapInArrow(score.arrow, score.spark_schema(frame.schema))
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.adapters.batch_ranking import batch_scorer
from donod_fast.adapters.columns import COLUMNS, DETAIL, PREFIX, SCORED_TOKENS, STATUS, TOPSIS
from donod_fast.adapters.extras import host_module
from donod_fast.adapters.lazy_scorer import device_of_rank
from donod_fast.adapters.model_check import model_mark
from donod_fast.adapters.table_rows import plain
from donod_fast.errors import InputError
from donod_fast.selection.frozen_constants import TopsisConstants

if TYPE_CHECKING:
    import pyarrow as pa

_OWN = {STATUS: "text", DETAIL: "text", SCORED_TOKENS: "count"}
_FRAME = {"count": "Int64", "number": "Float64", "flag": "boolean"}


class ScoreRows:
    """Gives batches of rows the columns of their scores.

    Args:
        model: folder or hub id of a causal language model.
        constants: constants of TOPSIS or their file; with them every row gets ``donod_topsis``, too.
        device: where to score; None for the devices in turn, by the rank of the process.
        options: further options of ``donod-fast score``, by their names.

    Raises:
        InputError: an unknown option, or a wrong value.
        StoreError: the file of the constants cannot be read.
    """

    def __init__(
        self,
        model: str,
        *,
        constants: TopsisConstants | str | Path | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        self.scorer = batch_scorer(model, {**options, "device": device}, constants)
        self.device = device
        self.stamp = model_mark(model)  # part of the pickle, by which datasets finds the result of an earlier call

    def __call__(self, batch: Mapping[str, list[Any]], *places: Any) -> dict[str, list[Any]]:
        """Score a batch of ``datasets.Dataset.map(batched=True)``.

        Args:
            batch: columns of the batch; rows of earlier scores are not read.
            places: what ``with_indices=True`` (a list) and ``with_rank=True`` (a number or None) give.

        Returns:
            The columns of the scores; ``map`` adds them to those of the batch.

        Raises:
            InputError: the function was called without ``batched=True``.
            ModelError: the model cannot be loaded or scored with.
        """
        if not isinstance(batch, Mapping):
            raise InputError(
                f"ScoreRows takes batches of columns, got a {type(batch).__name__}: call with_format(None)"
            )
        columns = {name: values for name, values in batch.items() if not name.startswith(PREFIX)}
        if any(isinstance(values, str | bytes | int | float | Mapping) for values in columns.values()):
            raise InputError("ScoreRows scores batches: call map with batched=True")
        sizes = {len(values) for values in batch.values()}
        if len(sizes) > 1:
            raise InputError(f"the columns of a batch must have the same length, got {sorted(sizes)}")
        indices = next((one for one in places if isinstance(one, list)), None)
        rank = next((one for one in places if isinstance(one, int)), None)
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        found = self._scored(rows, first=indices[0] if indices else None, rank=rank)
        kinds = self.kinds()
        earlier = {name: [None] * len(rows) for name in batch if name.startswith(PREFIX) and name not in kinds}
        return {**earlier, **{name: [row[name] for row in found] for name in kinds}}

    def pandas(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Score the frames of a partition, for Spark's ``mapInPandas``; see :meth:`spark_schema`."""
        import pandas as pd

        for frame in frames:
            kept = frame[[name for name in frame.columns if not str(name).startswith(PREFIX)]]
            rows = [{name: plain(value) for name, value in row.items()} for row in kept.to_dict("records")]
            found = self._scored(rows, first=None, rank=_partition())
            made = {
                name: pd.Series([row[name] for row in found], kept.index, _FRAME.get(kind, "object"))
                for name, kind in self.kinds().items()
            }
            yield kept.assign(**made)

    def arrow(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Score the batches of a partition, for Spark's ``mapInArrow``; see :meth:`spark_schema`."""
        import pyarrow as pa

        for batch in batches:
            kept = batch.select([name for name in batch.schema.names if not name.startswith(PREFIX)])
            found = self._scored(kept.to_pylist(), first=None, rank=_partition())
            kinds = self.kinds()
            arrays = [pa.array([row[name] for row in found], _arrow_type(kind)) for name, kind in kinds.items()]
            yield pa.RecordBatch.from_arrays([*kept.columns, *arrays], [*kept.schema.names, *kinds])

    def kinds(self) -> dict[str, str]:
        """The columns that every batch gets, and the kind of each: text, count, number, flag or vector."""
        found = {name: _OWN.get(name, "number") for name in COLUMNS}
        for criterion in self.scorer.lazy.spec.signals:
            found |= {PREFIX + column.name: column.kind for column in criterion.columns}
        return found if self.scorer.constants is None else {**found, TOPSIS: "number"}

    def features(self, features: Any) -> Any:
        """The ``features=`` of ``map``, so that no batch has to tell the types by its values.

        Args:
            features: those of the data set.
        """
        import datasets

        kinds = {"text": "string", "count": "int64", "number": "float64", "flag": "bool"}
        made = {
            name: datasets.Sequence(datasets.Value("float64")) if kind == "vector" else datasets.Value(kinds[kind])
            for name, kind in self.kinds().items()
        }
        return datasets.Features({**features, **made})

    def spark_schema(self, schema: Any) -> Any:
        """The schema of a Spark frame with the columns of the scores.

        Args:
            schema: the frame's ``schema``.

        Raises:
            InputError: PySpark is not installed.
        """
        types = host_module("pyspark.sql.types", "spark")
        made = {
            "text": types.StringType(),
            "count": types.LongType(),
            "number": types.DoubleType(),
            "flag": types.BooleanType(),
            "vector": types.ArrayType(types.DoubleType()),
        }
        fields = [field for field in schema.fields if not field.name.startswith(PREFIX)]
        return types.StructType(
            [*fields, *(types.StructField(name, made[kind], True) for name, kind in self.kinds().items())]
        )

    def _scored(self, rows: list[dict[str, Any]], *, first: int | None, rank: int | None) -> list[dict[str, Any]]:
        return self.scorer.columns(rows, first=first, device=self.device or device_of_rank(rank))


def _partition() -> int | None:
    """Number of Spark's partition; None outside of a task."""
    spark = sys.modules.get("pyspark")  # in a task of Spark it is imported
    context = None if spark is None else spark.TaskContext.get()
    return None if context is None else int(context.partitionId())


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    number = pa.float64()
    return {"text": pa.string(), "count": pa.int64(), "flag": pa.bool_(), "vector": pa.list_(number)}.get(kind, number)


__all__ = ["ScoreRows"]
