"""A hash of each record as it is stored, so that a record is known to be the one that was scored.

The hash covers what a subset or an export writes: the record's own text, or the values of a table's row with the names
of their columns. It is not the record's id, which a user may give and which equal contents share.
"""

from __future__ import annotations

import hashlib
import marshal
from itertools import pairwise
from typing import Any

import pyarrow as pa

from donod_fast.data.reading.arrow_values import list_bounds, with_nulls
from donod_fast.data.reading.canonical import canonical_json
from donod_fast.data.types import HASH_BYTES, Record


def record_hash(record: Record) -> bytes:
    """``HASH_BYTES`` bytes of SHA-256 over a record as it is stored. Raises nothing.

    Rows of tables have theirs already (see :func:`row_hashes`). Records from Python are hashed by their values.
    """
    if record.hash:
        return record.hash
    if record.raw is not None:
        # The names of a sheet's columns are in its header, which is not part of the row.
        names = "\0".join(map(str, record.data or ())) if record.form != "json" else ""
        head = f"{record.form}\0{names}\0".encode("utf-8", "surrogatepass")
        return hashlib.sha256(head + record.raw).digest()[:HASH_BYTES]
    content = None if record.data is None else canonical_json(record.data)
    if content is None:
        content = repr(record.problem or record.data).encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"values\0" + content).digest()[:HASH_BYTES]


def row_hashes(batch: pa.RecordBatch) -> list[bytes]:
    """The hash of each row of a table; it does not depend on how the rows are cut into batches.

    Text is hashed by its bytes, which need not be UTF-8, times by their integers, and null is not absent: every bit of
    a value counts, which is not so for the Python values of a record.
    """
    names = hashlib.sha256(marshal.dumps([name.encode("utf-8", "surrogatepass") for name in batch.schema.names], 2))
    columns = [_values(batch.column(at)) for at in range(batch.num_columns)]
    hashes = []
    for row in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
        own = names.copy()
        own.update(_bytes(row))
        hashes.append(own.digest()[:HASH_BYTES])
    return hashes


def _bytes(row: tuple[Any, ...]) -> bytes:
    try:
        return marshal.dumps(row, 2)  # version 2: equal values give equal bytes, in every release of Python
    except ValueError:
        return repr(row).encode("utf-8", "surrogatepass")


def _values(array: Any) -> Any:
    """Plain values that decide the array: numbers, bytes, lists and tuples."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _values(array.storage)
    if pa.types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array.cast(pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()).to_pylist()
    if pa.types.is_string_view(kind):
        return array.cast(pa.binary_view()).to_pylist()
    if pa.types.is_struct(kind):
        children = [_values(child) for child in array.flatten()]
        rows: list[Any] = list(zip(*children, strict=True)) if children else [()] * len(array)
        return with_nulls(array, rows)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(array)
    if pa.types.is_map(kind):
        offsets = array.offsets.to_pylist()
        pairs = list(zip(_values(array.keys), _values(array.items), strict=True))
        return with_nulls(array, [pairs[begin:end] for begin, end in pairwise(offsets)])
    if pa.types.is_temporal(kind) and kind.bit_width in (32, 64) and not pa.types.is_interval(kind):
        return array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    if pa.types.is_float16(kind):  # NumPy's scalars in older versions of pyarrow
        return [None if value is None else float(value) for value in array.to_pylist()]
    return array.to_pylist()


def _lists(array: Any) -> list[Any]:
    bounds = list_bounds(array)
    first = bounds[0]
    items = list(_values(array.values.slice(first, bounds[-1] - first)))
    return with_nulls(array, [items[begin - first : end - first] for begin, end in pairwise(bounds)])


__all__ = ["record_hash", "row_hashes"]
