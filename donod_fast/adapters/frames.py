"""Rows out of the tables that hosts pass on (Arrow, pandas), and columns of scores back into such a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from donod_fast.adapters.columns import DETAIL, DON, LOSS, NOD, PREFIX, SCORED_TOKENS, STATUS
from donod_fast.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.scores.columns import Column


def rows_of(data: Any) -> list[dict[str, Any]]:
    """The rows of an ``pa.Table`` or a ``pandas.DataFrame`` as plain values; a missing value is None.

    Raises:
        InputError: it is neither, or a column of a frame has values that no table can hold.
    """
    return [dict(row) for row in _arrow(data).to_pylist()]


def column_names(data: Any) -> list[str]:
    """The names of the columns of an ``pa.Table`` or a ``pandas.DataFrame``."""
    return [str(name) for name in (data.column_names if _is_arrow(data) else data.columns)]


def column_values(data: Any, name: str) -> list[Any]:
    """The values of one column as plain values; a missing value is None.

    Raises:
        InputError: there is no such column; names those that are there.
    """
    if name not in column_names(data):
        raise InputError(f"the batch has no column {name!r}; its columns are {', '.join(column_names(data))}")
    return list(_arrow(data if _is_arrow(data) else data[[name]]).column(name).to_pylist())


def score_types(signals: Sequence[Column] = ()) -> dict[str, pa.DataType]:
    """The columns that a scored row gets, with their types, so that every batch has the same ones."""
    import pyarrow as pa

    kinds = {"vector": pa.list_(pa.float64()), "flag": pa.bool_()}
    return {
        STATUS: pa.string(),
        DETAIL: pa.string(),
        DON: pa.float64(),
        NOD: pa.float64(),
        LOSS: pa.float64(),
        SCORED_TOKENS: pa.int64(),
    } | {PREFIX + one.name: kinds.get(one.kind, pa.float64()) for one in signals}


def with_columns(data: Any, columns: Mapping[str, Sequence[Any]], types: Mapping[str, pa.DataType]) -> Any:
    """A new table of the same kind with these columns added, or replaced where they are already there.

    Args:
        data: an ``pa.Table`` or a ``pandas.DataFrame``; it stays as it is.
        columns: the values of each column, one a row.
        types: the type of each column.
    """
    import pyarrow as pa

    arrays = {name: pa.array(values, type=types[name]) for name, values in columns.items()}
    if _is_arrow(data):
        for name, array in arrays.items():
            at = data.schema.get_field_index(name)
            data = data.append_column(name, array) if at < 0 else data.set_column(at, name, array)
        return data
    return data.assign(**{name: array.to_pandas().set_axis(data.index) for name, array in arrays.items()})


def kept_rows(data: Any, mask: Sequence[bool]) -> Any:
    """The rows of a table or frame at which ``mask`` is true, in their order."""
    import pyarrow as pa

    chosen = pa.array(mask, type=pa.bool_())
    return data.filter(chosen) if _is_arrow(data) else data[chosen.to_numpy(zero_copy_only=False)]


def _is_arrow(data: Any) -> bool:
    import pyarrow as pa

    return isinstance(data, pa.Table)


def _arrow(data: Any) -> pa.Table:
    import pyarrow as pa

    if _is_arrow(data):
        return data
    if not hasattr(data, "columns"):
        raise InputError(f"rows come as an Arrow table or a pandas frame, got {type(data).__name__}")
    try:
        return pa.Table.from_pandas(data, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"a column holds values of different types: {error}; read the corpus as Arrow") from error


__all__ = ["column_names", "column_values", "kept_rows", "rows_of", "score_types", "with_columns"]
