"""The scores folder: complete or absent parts, a manifest that describes them, one holder at a time."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from score_runs import assert_same_bits, leftovers
from scored_folders import part_path

from donod_fast.errors import StoreError
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.parts import CHECKSUM, METADATA
from donod_fast.scores.rows import ScoreRow, hash_field, schema, to_table
from donod_fast.system.files import atomic_writer
from donod_fast.system.sealed_parquet import sealed_bytes


def manifest(rows: int = 10, part_rows: int = 4, **other: Any) -> dict[str, Any]:
    return {
        "input": {"rows": rows, "fingerprint": "f"},
        "part_rows": part_rows,
        "model": {"fingerprint": "m", "revision": None, "dtype": "float32", "weight_norm": 1.5},
        "head": {"bias": False, "logit_scale": 1.0, "softcap": None},
        "update": {"update": "sgd", "lr": 0.1, "storage_dtype": None},
        "masks": {"format": "auto"},
        **other,
    }


def score_rows(start: int, stop: int) -> list[ScoreRow]:
    """Scores of rows, with every awkward number: NaN, zeros of both signs, the smallest and the largest."""
    numbers = [math.nan, -0.0, 0.0, 5e-324, 1.7976931348623157e308, -1e-300, 1 / 3]
    return [
        ScoreRow(row, f"id-{row} ü 世", "scored", "", 3, 2, row % 2 == 0, *(numbers[(row + k) % 7] for k in range(6)))
        for row in range(start, stop)
    ]


def test_parts_come_back_bit_by_bit_in_input_order(tmp_path: Path) -> None:
    folder = ScoresFolder.open_or_create(tmp_path, manifest())
    assert (folder.parts, folder.part_range(2)) == (3, (8, 10))
    for part in (2, 0, 1):
        folder.write_part(part, score_rows(*folder.part_range(part)))
    assert_same_bits(ScoresFolder.open(tmp_path).table(), to_table(score_rows(0, 10)))
    assert folder.counts() == {"scored": 10}
    assert folder.missing_parts() == []


def test_other_readers_of_parquet_see_the_same_table(tmp_path: Path) -> None:
    folder = ScoresFolder.open_or_create(tmp_path, manifest(rows=4))
    folder.write_part(0, score_rows(0, 4))
    # …with the hashes of the records beside it
    assert pq.read_table(tmp_path / "part-000000.parquet").schema.equals(schema().append(hash_field()))
    assert folder.table().schema.equals(schema())


@pytest.mark.parametrize("rows", [(0, 3), (0, 5), (1, 5), (4, 8)])
def test_a_part_of_other_rows_is_not_written(tmp_path: Path, rows: tuple[int, int]) -> None:
    folder = ScoresFolder.open_or_create(tmp_path, manifest())
    with pytest.raises(StoreError, match="must hold rows 0 to 3"):
        folder.write_part(0, score_rows(*rows))
    assert folder.missing_parts() == [0, 1, 2]


def test_a_row_twice_or_out_of_order_is_not_written(tmp_path: Path) -> None:
    folder = ScoresFolder.open_or_create(tmp_path, manifest())
    rows = score_rows(0, 4)
    for wrong in ([rows[0], rows[0], rows[2], rows[3]], rows[::-1]):
        with pytest.raises(StoreError):
            folder.write_part(0, wrong)


def test_every_decisive_setting_is_named_with_both_values(tmp_path: Path) -> None:
    ScoresFolder.open_or_create(tmp_path, manifest())
    other = manifest(rows=11, part_rows=5)
    other["update"] = {"update": "sgd", "lr": 0.2, "storage_dtype": None}
    other["model"] = {**other["model"], "dtype": "bfloat16"}
    other["head"] = {**other["head"], "softcap": 30.0}
    with pytest.raises(StoreError) as caught:
        ScoresFolder.open_or_create(tmp_path, other)
    told = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert told == [
        "input.rows: 10 in the folder, 11 requested",
        "part_rows: 4 in the folder, 5 requested",
        "model.dtype: 'float32' in the folder, 'bfloat16' requested",
        "update.lr: 0.1 in the folder, 0.2 requested",
        "head.softcap: None in the folder, 30.0 requested",
    ]


def test_one_process_at_a_time_holds_the_lock_until_it_ends(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with locked(out):
        with pytest.raises(StoreError, match="in use"), locked(out):
            pass
        with locked(tmp_path / "other"):
            pass
    with pytest.raises(KeyError), locked(out):
        raise KeyError
    with locked(out):
        pass


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    for name in (".part-000001.parquet.99.tmp", ".manifest.json.7.tmp", "notes.tmp", "part-000000.parquet"):
        (tmp_path / name).write_text("x")
    with locked(tmp_path):
        assert leftovers(tmp_path) == ["notes.tmp"]
        assert (tmp_path / "part-000000.parquet").exists()


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_writer(target) as file:
        file.write(b"half")
        assert target.read_text() == "old"
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with atomic_writer(target) as file:
        file.write(b"new")
    assert target.read_text() == "new"
    with pytest.raises(StoreError, match="its folder does not exist"), atomic_writer(tmp_path / "no" / "f"):
        pass


@pytest.mark.parametrize(
    ("with_checksum", "told"), [(False, "another checksum"), (True, "its summary does not agree with its rows")]
)
def test_a_part_whose_summary_is_not_that_of_its_rows_is_found(tmp_path: Path, with_checksum: bool, told: str) -> None:
    folder = ScoresFolder.open_or_create(tmp_path, manifest(rows=4))
    folder.write_part(0, score_rows(0, 4))
    table = pq.read_table(part_path(folder, 0))
    metadata = dict(table.schema.metadata)
    metadata[METADATA] = metadata[METADATA].replace(b'"tokens": 12', b'"tokens": 13')
    if with_checksum:
        metadata[CHECKSUM] = hashlib.sha256(metadata[METADATA]).hexdigest().encode()
    part_path(folder, 0).write_bytes(sealed_bytes(table.replace_schema_metadata(metadata)))
    with pytest.raises(StoreError, match=f"part-000000.parquet is damaged .*{told}.*again"):
        folder.table()
    if not with_checksum:  # also for what is read without the rows
        with pytest.raises(StoreError, match=told):
            folder.summary(0)
    assert folder.missing_parts() == [0]
