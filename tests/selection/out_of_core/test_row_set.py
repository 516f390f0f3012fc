"""A set of rows as bits, and the subset that is written from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from donod_fast.data.reading import open_corpus
from donod_fast.errors import CorpusError, InputError
from donod_fast.selection.out_of_core import RowSet, row_set
from donod_fast.selection.subset import write_subset


def set_of(rows: list[int], total: int) -> RowSet:
    found = RowSet(total)
    found.add(np.array(rows, np.int64))
    return found


@pytest.mark.parametrize("window", [1, 3, 1 << 20])
def test_it_holds_what_was_added_and_nothing_else(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_set, "_WINDOW", window)
    draw = np.random.default_rng(0)
    for total in (1, 7, 8, 9, 1000):
        wanted: set[int] = set()
        rows = RowSet(total)
        assert (len(rows), list(rows), rows.last) == (0, [], -1)
        for _ in range(4):
            more = draw.integers(0, total, draw.integers(0, 1 + total // 3))
            rows.add(more)
            wanted |= set(more.tolist())
            assert list(rows) == sorted(wanted) and len(rows) == len(wanted)
            assert rows.last == max(wanted, default=-1)
        assert [row for row in range(-1, total + 9) if row in rows] == sorted(wanted)


@pytest.mark.parametrize("row", [-1, 10])
def test_a_row_outside_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} "):
        set_of([3, row], 10)


def test_a_subset_is_written_from_a_set_of_rows(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"n":  {number}}}\n' for number in range(20)))
    corpus = open_corpus([str(source)])
    chosen = set_of([17, 3, 4], 20)
    assert write_subset(corpus, chosen, tmp_path / "out.jsonl") == 3
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"n":  3}\n{"n":  4}\n{"n":  17}\n'
    write_subset(corpus, chosen, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == {"n": [3, 4, 17]}
    write_subset(corpus, set_of(list(range(20)), 20), tmp_path / "all.jsonl")
    assert [json.loads(line)["n"] for line in (tmp_path / "all.jsonl").read_text().splitlines()] == list(range(20))


def test_a_set_that_does_not_fit_the_corpus_or_the_order_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"n": 1}\n{"n": 2}\n')
    corpus, out = open_corpus([str(source)]), tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="no rows"):
        write_subset(corpus, RowSet(2), out)
    with pytest.raises(CorpusError, match="row 2 is not in the corpus, which has 2 rows"):
        write_subset(corpus, set_of([0, 2], 3), out)
    with pytest.raises(InputError, match="no order"):
        write_subset(corpus, set_of([0], 2), out, order="best")
    assert not out.exists()
