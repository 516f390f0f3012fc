"""The plan of a corpus: every row is in exactly one shard, and shards start where reading can start."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.data.reading import Corpus, open_corpus, restored_corpus
from donod_fast.data.shards import ShardPlan, default_part_rows, plan_shards
from donod_fast.errors import StoreError


def lines(path: Path, rows: int, first: int = 0) -> Path:
    path.write_text("".join(json.dumps({"text": f"row {first + row}"}) + "\n" for row in range(rows)))
    return path


def bounds(plan: ShardPlan) -> list[tuple[int, int]]:
    return [plan.part_range(shard.number) for shard in plan]


def segments(plan: ShardPlan) -> list[list[tuple[int, int, int]]]:
    """(input, first row in it, rows) of each shard's segments."""
    return [[(each.input, each.start, each.rows) for each in shard.segments] for shard in plan]


def test_small_files_share_a_shard_and_a_large_one_begins_its_own(tmp_path: Path) -> None:
    sizes = [2, 3, 9, 1, 2, 4]
    corpus = open_corpus([str(lines(tmp_path / f"{at}.jsonl", rows)) for at, rows in enumerate(sizes)])
    plan = plan_shards(corpus, 4)
    assert segments(plan) == [
        [(0, 0, 2)],
        [(1, 0, 3)],
        [(2, 0, 4)],
        [(2, 4, 4)],
        [(2, 8, 1), (3, 0, 1), (4, 0, 2)],
        [(5, 0, 4)],
    ]
    assert bounds(plan) == [(0, 2), (2, 5), (5, 9), (9, 13), (13, 17), (17, 21)]


def test_the_shards_of_a_file_do_not_depend_on_large_files_before_it(tmp_path: Path) -> None:
    last = lines(tmp_path / "last.jsonl", 50)
    cuts = []
    for rows in (40, 41):
        corpus = open_corpus([str(lines(tmp_path / f"{rows}.jsonl", rows)), str(last)])
        cuts.append([each for shard in segments(plan_shards(corpus, 8)) for each in shard if each[0] == 1])
    assert cuts[0] == cuts[1]


def test_parquet_is_cut_between_row_groups_and_within_large_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for rows in (3, 3, 20, 2):
            writer.write_table(pa.table({"text": [f"a {row}" for row in range(rows)]}), row_group_size=rows)
    plan = plan_shards(open_corpus([str(path)]), 8)
    assert bounds(plan) == [(0, 6), (6, 14), (14, 22), (22, 26), (26, 28)]
    # the three slices of the large group had better go to one worker, who reads it once
    assert plan.tasks(range(5), most=1) == [(0,), (1, 2, 3), (4,)]


def test_a_compressed_file_is_one_task_and_other_files_are_divided(tmp_path: Path) -> None:
    zipped = tmp_path / "a.jsonl.gz"
    zipped.write_bytes(gzip.compress(lines(tmp_path / "a.jsonl", 20).read_bytes()))
    corpus = open_corpus([str(zipped), str(lines(tmp_path / "b.jsonl", 20))])
    plan = plan_shards(corpus, 5)
    assert plan.tasks(range(8), most=3) == [(0, 1, 2, 3), (4, 5, 6), (7,)]
    assert plan.tasks([1, 3, 5], most=3) == [(1, 3), (5,)]


def test_a_shard_s_bytes_hold_its_rows(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", 5000)
    plan = plan_shards(open_corpus([str(path)]), 700)
    content = path.read_bytes()
    for shard in plan:
        (segment,) = shard.segments
        found = content[segment.offset : segment.end].splitlines()[segment.skip : segment.skip + segment.rows]
        assert [json.loads(line)["text"] for line in found] == [
            f"row {row}" for row in range(*plan.part_range(shard.number))
        ]
        assert content[: segment.offset].count(b"\n") + 1 == segment.line


def test_a_saved_plan_restores_the_corpus_without_reading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = open_corpus([str(lines(tmp_path / "a.jsonl", 3000)), str(lines(tmp_path / "b.jsonl", 10, 3000))])
    plan = plan_shards(corpus, 1000)
    read = ShardPlan.from_bytes(plan.to_bytes(), "plan")
    assert list(read) == list(plan) and read.rows == 3010
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", _never)
        restored = restored_corpus(corpus.describe(), read.checkpoints(2))
    assert restored.fingerprint == corpus.fingerprint
    assert [record.data for record in restored.records(2990, 3005)] == [
        {"text": f"row {row}"} for row in range(2990, 3005)
    ]
    assert [record.place for record in restored.records(2999, 3001)] == ["line 3000", "line 1"]


def test_a_damaged_plan_is_refused_by_name(tmp_path: Path) -> None:
    content = bytearray(ShardPlan.uniform(100, 10).to_bytes())
    content[len(content) // 3] ^= 1
    for damaged in (bytes(content), bytes(content[:50]), b""):
        with pytest.raises(StoreError, match=r"plan\.parquet is damaged"):
            ShardPlan.from_bytes(damaged, "plan.parquet")


class _Source:
    """An input as the planner sees it."""

    def __init__(self, rows: int, kind: str, groups: list[int] | None) -> None:
        self.rows, self._kind, self._groups = rows, kind, groups
        self.digest, self.reads_anywhere = f"{kind} {rows}", False

    def describe(self) -> dict[str, Any]:
        return {"kind": self._kind, "name": "x", "rows": self.rows}

    def checkpoint(self, row: int) -> tuple[int, int, int] | None:
        return (row - row % 3, 10 * (row - row % 3), 1 + row - row % 3) if self._kind == "jsonl" else None

    def checkpoint_after(self, row: int) -> int:
        return 10 * row

    def row_groups(self) -> list[int] | None:
        return self._groups


inputs = st.lists(
    st.one_of(
        st.integers(0, 40).map(lambda rows: _Source(rows, "jsonl", None)),
        st.integers(0, 40).map(lambda rows: _Source(rows, "csv", None)),
        st.lists(st.integers(0, 30), max_size=5).map(lambda groups: _Source(sum(groups), "parquet", groups)),
    ),
    min_size=1,
    max_size=6,
).filter(lambda sources: any(source.rows for source in sources))


@settings(max_examples=200, deadline=None)
@given(inputs, st.integers(1, 12))
def test_every_row_is_in_one_shard_in_order_and_no_shard_is_too_large(sources: list[Any], part_rows: int) -> None:
    plan = plan_shards(Corpus(sources), part_rows)
    rows = [(each.input, each.start + at) for shard in plan for each in shard.segments for at in range(each.rows)]
    assert rows == [(number, row) for number, source in enumerate(sources) for row in range(source.rows)]
    assert all(0 < shard.rows <= part_rows for shard in plan)
    assert [shard.number for shard in plan] == list(range(len(plan)))
    assert [part for task in plan.tasks(range(len(plan)), 2) for part in task] == list(range(len(plan)))


def test_parts_grow_with_the_corpus_within_bounds() -> None:
    assert [default_part_rows(rows) for rows in (1, 10**6, 5 * 10**6, 10**7, 10**9)] == [1024, 1024, 2048, 4096, 16384]


def _never(*arguments: object, **options: object) -> None:
    raise AssertionError("a file was opened")
