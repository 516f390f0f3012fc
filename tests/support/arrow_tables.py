"""Arrow tables with columns of every type that Parquet can hold, drawn at random."""

from __future__ import annotations

import datetime
import decimal
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa

NS = 1_700_000_000_123_456_789
Draw = Callable[[random.Random], Any]
LEAVES: list[tuple[pa.DataType, Draw]] = [
    *((kind, lambda draw: draw.randint(0, 100)) for kind in (pa.int8(), pa.uint8(), pa.int16(), pa.uint16())),
    *((kind, lambda draw: draw.randint(0, 2**31 - 1)) for kind in (pa.int32(), pa.uint32())),
    (pa.int64(), lambda draw: draw.randint(-(2**63), 2**63 - 1)),
    (pa.uint64(), lambda draw: draw.randint(2**63, 2**64 - 1)),
    *((kind, lambda draw: draw.choice([0.5, -0.0, 3.0])) for kind in (pa.float16(), pa.float32(), pa.float64())),
    (pa.bool_(), lambda draw: draw.random() < 0.5),
    *((kind, lambda draw: draw.choice(["", "é", "x" * 9])) for kind in (pa.string(), pa.large_string())),
    *((kind, lambda draw: draw.randbytes(3)) for kind in (pa.binary(), pa.large_binary(), pa.binary(3))),
    (pa.date32(), lambda draw: datetime.date(2024, 1, draw.randint(1, 28))),
    (pa.time32("ms"), lambda draw: draw.randint(0, 86_399_999)),
    *((pa.time64(unit), lambda draw: draw.randint(0, 86_399_999_999)) for unit in ("us", "ns")),
    *((pa.timestamp(unit), lambda draw: NS // 10**6 + draw.randint(0, 9)) for unit in ("ms", "us")),
    (pa.timestamp("us", "Europe/Berlin"), lambda draw: NS // 1000 + draw.randint(0, 9)),
    *((pa.timestamp("ns", zone), lambda draw: NS + draw.randint(0, 9)) for zone in (None, "+05:30")),
    *((pa.duration(unit), lambda draw: draw.randint(0, 10**12)) for unit in ("s", "ms", "us", "ns")),
    *(
        (kind, lambda draw: decimal.Decimal(draw.randint(-9, 9)) / 8)
        for kind in (pa.decimal128(9, 3), pa.decimal256(60, 3))
    ),
    (pa.dictionary(pa.int32(), pa.string()), lambda draw: draw.choice("abc")),
    (pa.json_(), lambda draw: draw.choice(['{"b":1,"a":null}', "[1]", "null", '"x"'])),
    (pa.null(), lambda draw: None),
]


def drawn_type(draw: random.Random, depth: int = 0) -> tuple[pa.DataType, Draw]:
    """An Arrow type that Parquet can hold, and a draw of its values."""
    shape = draw.choice(["leaf", "leaf", "list", "large", "fixed", "struct", "map"]) if depth < 3 else "leaf"
    if shape == "leaf":
        return draw.choice(LEAVES)
    inner, values = drawn_type(draw, depth + 1)
    if shape in ("list", "large"):
        return (pa.list_ if shape == "list" else pa.large_list)(inner), lambda d: _items(d, values)
    if shape == "fixed":
        return pa.list_(inner, 2), lambda d: [values(d), values(d)]
    if shape == "map":
        return pa.map_(pa.string(), inner), lambda d: [(str(key), or_null(d, values)) for key in range(d.randint(0, 2))]
    other, others = drawn_type(draw, depth + 1)
    kind = pa.struct([pa.field("z", inner, metadata={"why": "z"}), pa.field("a.b", other)])
    return kind, lambda d: {"z": or_null(d, values), "a.b": or_null(d, others)}


def _items(draw: random.Random, values: Draw) -> list[Any]:
    return [or_null(draw, values) for _ in range(draw.randint(0, 3))]


def or_null(draw: random.Random, values: Draw) -> Any:
    return None if draw.random() < 0.3 else values(draw)


def drawn_table(draw: random.Random, rows: int) -> pa.Table:
    """A table with columns of any kind, metadata, and columns that may not be null."""
    fields, columns = [pa.field("question", pa.string(), nullable=False)], [pa.array([f"q{at}" for at in range(rows)])]
    for at in range(4):
        kind, values = drawn_type(draw)
        column = [or_null(draw, values) for _ in range(rows)]
        if isinstance(kind, pa.BaseExtensionType):
            columns.append(pa.ExtensionArray.from_storage(kind, pa.array(column, kind.storage_type)))
        else:
            columns.append(array_of(column, kind))
        fields.append(pa.field(f"c{at}", kind, metadata={"note": f"{at}"} if draw.random() < 0.5 else None))
    return pa.table(columns, schema=pa.schema(fields, metadata={"huggingface": "{}", "mine": "é"}))


def array_of(values: list[Any], kind: pa.DataType) -> pa.Array:
    plain = _without_json(kind)  # pyarrow makes no nested extension arrays from values
    return pa.array(values, plain) if plain == kind else pa.array(values, plain).cast(kind)


def _without_json(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_json(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _without_json(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_without_json(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_without_json(kind.value_type))
    return pa.large_list(_without_json(kind.value_type)) if pa.types.is_large_list(kind) else kind
