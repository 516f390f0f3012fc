"""Sealed Parquet files: every bit is covered, other readers see the table, columns are verified alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from donod_fast.system.checked_json import DamagedError
from donod_fast.system.sealed_parquet import MARK, open_sealed, sealed_bytes

UNREADABLE = (DamagedError, OSError, ValueError, pa.ArrowException)


def table() -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(10.0)), 2)
    return pa.table({"row": range(5), "name": ["a", None, "c", "ä", ""], "vector": vectors})


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"row_group_size": 2}, {"use_dictionary": False}])
def test_it_is_a_parquet_file_like_any_other(options: dict[str, Any]) -> None:
    content = sealed_bytes(table(), **options)
    assert content == sealed_bytes(table(), **options)
    assert pq.read_table(io.BytesIO(content)).equals(table())
    sealed = open_sealed(io.BytesIO(content), needs_seal=True)
    assert sealed.sealed and sealed.table().equals(table())
    assert sealed.table(["vector", "row"]).to_pydict() == table().select(["vector", "row"]).to_pydict()


@pytest.mark.parametrize("needs_seal", [True, False])
def test_every_flipped_bit_is_noticed(needs_seal: bool) -> None:
    content = sealed_bytes(table(), compression="zstd", row_group_size=3)
    for at in range(len(content)):
        for bit in range(8):
            wrong = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            with pytest.raises(UNREADABLE):
                open_sealed(io.BytesIO(wrong), needs_seal=needs_seal).table()


def test_a_cut_or_longer_file_is_noticed() -> None:
    content = sealed_bytes(table())
    for wrong in [content[:size] for size in range(0, len(content), 7)] + [content + b"\0", b"", content[4:]]:
        with pytest.raises(UNREADABLE):
            open_sealed(io.BytesIO(wrong)).table()


def test_a_damaged_column_does_not_concern_the_others() -> None:
    content = sealed_bytes(table(), compression="none", use_dictionary=False)
    at = content.index("ä".encode())
    wrong = content[:at] + b"ee" + content[at + 2 :]
    assert open_sealed(io.BytesIO(wrong)).table(["row"]).column("row").to_pylist() == [0, 1, 2, 3, 4]
    with pytest.raises(DamagedError, match="'name' does not match its checksum"):
        open_sealed(io.BytesIO(wrong)).table(["row", "name"])


def test_a_file_without_a_seal_is_read_only_where_it_may_have_none() -> None:
    buffer = io.BytesIO()
    pq.write_table(table(), buffer)
    assert not open_sealed(buffer).sealed and open_sealed(buffer).table().equals(table())
    with pytest.raises(DamagedError, match="checksums are missing"):
        open_sealed(buffer, needs_seal=True)
    marked = io.BytesIO()
    pq.write_table(table().replace_schema_metadata({MARK: b"1"}), marked)
    with pytest.raises(DamagedError, match="checksums are missing"):
        open_sealed(marked)
