"""Arrow arrays → the Python values of records, led by the Arrow type.

A null field of a struct is left out, at every depth: Arrow gives each struct of a column all the fields of the column's
type, so that a null which was written cannot be told from one which was added. Null items of lists and null values of
maps stay. JSON text (the extension type ``arrow.json``, which ``datasets`` names ``Json``) is decoded; its nulls were
written, and stay.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from donod_fast.data.json_values import duration_text

EXTENSION = b"ARROW:extension:name"
"""Key of a field's metadata under which a reader that does not know an extension type finds its name."""

JSON_TYPE = "arrow.json"
"""Name of Arrow's extension type for JSON text; pyarrow has it since version 19."""

_EPOCH = datetime.datetime(1970, 1, 1)
_NANOS = 10**9


def python_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch as records, without null columns and without null fields of structs.

    Numbers, text, bytes, decimals, dates and times become the Python values of the same kind. Times with nanoseconds,
    which Python's types cannot hold, become text in ISO 8601. A map becomes an object if its keys are texts that
    differ, else a list of pairs.

    Raises:
        ValueError: text that is not UTF-8.
        OverflowError: a date outside Python's range.
    """
    return _objects(batch.schema, [batch.column(at) for at in range(batch.num_columns)], batch.num_rows)


def python_values(array: pa.Array, metadata: Mapping[bytes, bytes] | None = None) -> list[Any]:
    """The values of an array, as in :func:`python_rows`.

    Args:
        array: the array, of any type.
        metadata: the metadata of its field, which name an extension type that this pyarrow does not know.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        values = python_values(array.storage)
        return [_decoded(value) for value in values] if kind.extension_name == JSON_TYPE else values
    if (metadata or {}).get(EXTENSION) == JSON_TYPE.encode():
        return [_decoded(value) for value in array.to_pylist()]
    if pa.types.is_dictionary(kind):
        return python_values(array.dictionary_decode())
    if pa.types.is_struct(kind):
        rows = _objects(kind, array.flatten(), len(array))
        return rows if array.null_count == 0 else with_nulls(array, rows)
    if pa.types.is_map(kind):
        keys, items = python_values(array.keys), python_values(array.items)
        offsets = array.offsets.to_pylist()
        pairs = [_mapping(keys[begin:end], items[begin:end]) for begin, end in pairwise(offsets)]
        return with_nulls(array, pairs)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(array)
    convert = _nanoseconds(kind)
    if convert is not None:
        return [None if value is None else convert(value) for value in array.cast(pa.int64()).to_pylist()]
    leaves: list[Any] = array.to_pylist()
    if pa.types.is_float16(kind):  # NumPy's scalars in older versions of pyarrow
        return [None if value is None else float(value) for value in leaves]
    return leaves


def conformed(batch: pa.RecordBatch | pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows as a table with exactly this schema, metadata included; its columns are looked up by name.

    Raises:
        pa.ArrowException: a column cannot be converted to its type in the schema.
        KeyError: a column is missing.
    """
    columns = [batch.column(field.name) for field in schema]
    return pa.table(
        [
            column if column.type == field.type else column.cast(field.type)
            for column, field in zip(columns, schema, strict=True)
        ],
        schema=schema,
    )


def _objects(fields: Any, children: list[Any], rows: int) -> list[dict[str, Any]]:
    """The objects of a struct or a table from its columns; null fields are left out."""
    objects: list[dict[str, Any]] = [{} for _ in range(rows)]
    for field, child in zip(fields, children, strict=True):
        for one, value in zip(objects, python_values(child, field.metadata), strict=True):
            if value is not None:
                one[field.name] = value
    return objects


def list_bounds(array: Any) -> list[int]:
    """Where the items of each list of an array begin in its values, and where those of the last one end."""
    # Not ListArray.flatten, which some items of extension types lack.
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        return [size * (array.offset + at) for at in range(len(array) + 1)]
    bounds: list[int] = array.offsets.to_pylist()
    return bounds


def _lists(array: Any) -> list[Any]:
    bounds = list_bounds(array)
    first = bounds[0]
    items = python_values(array.values.slice(first, bounds[-1] - first), array.type.value_field.metadata)
    return with_nulls(array, [items[begin - first : end - first] for begin, end in pairwise(bounds)])


def with_nulls(array: Any, values: list[Any]) -> list[Any]:
    """The values, with None where the array has a null."""
    if array.null_count == 0:
        return values
    return [value if there else None for value, there in zip(values, array.is_valid().to_pylist(), strict=True)]


def _mapping(keys: list[Any], items: list[Any]) -> Any:
    if all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys):
        return dict(zip(keys, items, strict=True))
    return [[key, item] for key, item in zip(keys, items, strict=True)]


def _decoded(text: Any) -> Any:
    """JSON text as its value; text that is not JSON stays text."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _nanoseconds(kind: pa.DataType) -> Callable[[int], str] | None:
    """How to write a value of a type with nanoseconds as ISO 8601; None for another type."""
    if getattr(kind, "unit", None) != "ns":
        return None
    if pa.types.is_timestamp(kind):
        zone = None if kind.tz is None else _zone(kind.tz)
        return lambda value: _timestamp(value, zone)
    if pa.types.is_time64(kind):
        return lambda value: _timestamp(value, None).partition("T")[2]
    return duration_text


def _timestamp(value: int, zone: datetime.tzinfo | None) -> str:
    seconds, nanos = divmod(value, _NANOS)
    moment = _EPOCH + datetime.timedelta(seconds=seconds)
    offset = ""
    if zone is not None:
        moment = moment.replace(tzinfo=datetime.UTC).astimezone(zone)
        whole = moment.isoformat()
        moment, offset = moment.replace(tzinfo=None), whole[19:]
    return f"{moment.isoformat()}.{nanos:09d}{offset}"


def _zone(name: str) -> datetime.tzinfo:
    if name[:1] in "+-":  # an offset such as +05:30
        return datetime.datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo or datetime.UTC
    return ZoneInfo(name)


__all__ = ["EXTENSION", "JSON_TYPE", "conformed", "list_bounds", "python_rows", "python_values", "with_nulls"]
