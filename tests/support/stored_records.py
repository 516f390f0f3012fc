"""Records in files of several kinds, and the draw of records that a table can hold."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_KINDS: dict[str, pa.DataType] = {
    "city": pa.string(),
    "count": pa.int64(),
    "exact": pa.bool_(),
    "share": pa.float64(),
    "where": pa.struct([("street", pa.string()), ("numbers", pa.list_(pa.int64()))]),
    "tags": pa.list_(pa.string()),
}
_SCHEMA_OF_KEY = pa.struct(
    [("type", pa.string()), ("description", pa.string()), ("enum", pa.list_(pa.string())), ("minimum", pa.int64())]
)
_FUNCTION = pa.struct(
    [
        ("name", pa.string()),
        ("description", pa.string()),
        (
            "parameters",
            pa.struct(
                [
                    ("type", pa.string()),
                    ("properties", pa.struct([(key, _SCHEMA_OF_KEY) for key in _KINDS])),
                    ("required", pa.list_(pa.string())),
                ]
            ),
        ),
    ]
)
_CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.struct(list(_KINDS.items())))])),
    ]
)
_MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("name", pa.string()),
        ("tool_call_id", pa.string()),
        ("tool_calls", pa.list_(_CALL)),
    ]
)
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(_MESSAGE)),
        ("tools", pa.list_(pa.struct([("type", pa.string()), ("function", _FUNCTION)]))),
        ("source", pa.string()),
    ]
)
"""The united type of :func:`drawn_record`: the same order of keys in every record."""


def drawn_record(draw: random.Random) -> dict[str, Any]:
    """A conversation with a tool call, whose arguments, schemas and messages have some of many keys."""
    keys = _some(draw, list(_KINDS))
    values = {
        "city": draw.choice(["Oslo", "", "Ærø"]),
        "count": draw.randint(-3, 2**60),
        "exact": draw.random() < 0.5,
        "share": draw.choice([0.5, -2.25, 1e300]),
        "where": _part(draw, {"street": "Main", "numbers": [1, None, 2][: draw.randint(0, 3)]}),
        "tags": [None, "a", "b"][: draw.randint(0, 3)],
    }
    call = {
        **_part(draw, {"id": "call_1"}),
        "type": "function",
        "function": {"name": "f", "arguments": {key: values[key] for key in keys}},
    }
    schemas = {
        key: {"type": "string", **_part(draw, {"description": "A key.", "enum": ["a"], "minimum": 1})} for key in keys
    }
    parameters = {"type": "object", "properties": schemas, **_part(draw, {"required": keys})}
    function = {"name": "f", **_part(draw, {"description": "Does it."}), "parameters": parameters}
    messages = [
        {"role": "user", "content": "What?", **_part(draw, {"name": "Ann"})},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "This.", **_part(draw, {"name": "f", "tool_call_id": "call_1"})},
        {"role": "assistant", "content": "So it is."},
    ]
    record: dict[str, Any] = {"messages": messages[: draw.choice([2, 4])]}
    if draw.random() < 0.8:
        record["tools"] = [{"type": "function", "function": function}]
    return {**record, **_part(draw, {"source": "here"})}


def _some(draw: random.Random, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if draw.random() < 0.5]


def _part(draw: random.Random, value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value[key] for key in _some(draw, list(value))}


def old(path: Path) -> Path:
    """The file, with an old time stamp: opening a new one waits for the clock's next tick."""
    os.utime(path, ns=(0, 0))
    return path


def stored(folder: Path, records: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> dict[str, str]:
    """The records in a file of every kind that holds nested values, and in a saved dataset; the paths by kind."""
    import datasets

    table = pa.Table.from_pylist([dict(record) for record in records], schema)
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "a.json").write_text(json.dumps(records, indent=1))
    pq.write_table(table, folder / "a.parquet", row_group_size=2)
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(str(folder / "saved"))
    datasets.enable_progress_bars()
    return {
        "jsonl": str(old(folder / "a.jsonl")),
        "json": str(old(folder / "a.json")),
        "parquet": str(old(folder / "a.parquet")),
        "saved": str(folder / "saved"),
    }
