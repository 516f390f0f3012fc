"""Long records are read, tokenised and written a few at a time, so that memory does not grow with their number."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from score_runs import write_lines
from stored_records import old
from tiny_chat import MARKED, masker, record

from donod_fast.data import grouping
from donod_fast.data.grouping import content_size, grouped
from donod_fast.data.masking import Masker
from donod_fast.data.prefetch import Part, PartReader, prepared
from donod_fast.data.prefetch_worker import Answer, WorkerProcess
from donod_fast.data.reading import Corpus, corpus_from_rows, open_corpus, tables
from donod_fast.data.types import Record, TokenizedSample
from donod_fast.selection.subset import write_subset

ROWS = [{"question": f"{row}?", "answer": "a b c d " * 50} for row in range(40)]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of records that were tokenised at a time, where 2,000 bytes are enough for a group."""
    counts: list[int] = []
    whole = Masker.tokenize_many

    def counting(own: Masker, records: list[Record]) -> list[TokenizedSample]:
        counts.append(len(records))
        return whole(own, records)

    monkeypatch.setattr(Masker, "tokenize_many", counting)
    monkeypatch.setattr(grouping, "GROUP_BYTES", 2000)
    return counts


def stored(folder: Path, name: str) -> Corpus:
    if name == "rows":
        return corpus_from_rows(ROWS)
    if name == "dataset":
        import datasets

        return corpus_from_rows(datasets.Dataset.from_list(ROWS))
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        write_lines(path, ROWS)
    return open_corpus([str(old(path))])


def test_a_group_ends_by_number_or_by_size() -> None:
    records = [record({"text": "x" * length}, row) for row, length in enumerate([1, 1, 1, 90, 1, 500, 1])]
    found = [[one.row for one in group] for group in grouped(iter(records), 3, 60)]
    assert found == [[0, 1, 2], [3], [4, 5], [6]]
    assert list(grouped(iter([]), 3)) == []


def test_the_size_of_a_record_is_that_of_its_text_or_its_values() -> None:
    assert content_size(Record(0, "f", "line 1", {"a": "x"}, b"12345")) == 5
    deep = {"messages": [{"content": "x" * 100}, {"content": ["y" * 50, {"z": b"z" * 25}]}], "input_ids": [1] * 10}
    assert content_size(record(deep)) == 100 + 50 + 25 + 80
    assert content_size(record({"a": None})) < 20


@pytest.mark.parametrize("kind", ["a.jsonl", "a.parquet", "rows", "dataset"])
def test_a_part_of_long_rows_is_tokenised_group_by_group(tmp_path: Path, held: list[int], kind: str) -> None:
    corpus = stored(tmp_path, kind)
    ((_, found),) = prepared(corpus, masker(MARKED), [Part(0, 0, 40)])
    assert max(held) <= 5 and sum(held) == 40
    assert found == masker(MARKED).tokenize_many(list(corpus.records()))


@pytest.mark.parametrize("kind", ["a.parquet", "rows"])
def test_long_rows_are_sent_to_workers_group_by_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: list[int], kind: str
) -> None:
    corpus, one = stored(tmp_path, kind), masker(MARKED)
    right = one.tokenize_many(list(corpus.records()))
    sent: list[int] = []
    ask = WorkerProcess.ask

    def asking(worker: WorkerProcess, job: bytes, part: Part) -> Answer | None:
        sent.append(len(pickle.loads(job).records))
        return ask(worker, job, part)

    def ready(worker: WorkerProcess, is_ready: Callable[[WorkerProcess], bool] = WorkerProcess.is_ready) -> bool:
        while not is_ready(worker):
            time.sleep(0.01)
        return True

    monkeypatch.setattr(WorkerProcess, "ask", asking)
    monkeypatch.setattr(WorkerProcess, "is_ready", ready)
    parts = [Part(0, 0, 15), Part(1, 15, 25), Part(2, 25, 40)]
    found = list(prepared(corpus, one, parts, 2))
    assert [part for part, _ in found] == parts
    assert [sample for _, samples in found for sample in samples] == right
    assert max(sent) <= 5 and sum(sent) == 40


def test_a_run_that_is_given_up_leaves_no_thread_that_reads(tmp_path: Path, held: list[int]) -> None:
    stream = prepared(
        stored(tmp_path, "a.parquet"), masker(MARKED), [Part(at, 10 * at, 10 * at + 10) for at in range(4)], 2
    )
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "prepare"))]


def test_a_part_that_was_given_up_half_way_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\n" + "".join(f"q{row},a\n" for row in range(30)))
    reader = PartReader(open_corpus([str(old(tmp_path / "a.csv"))]))
    stream = reader.stream(Part(0, 0, 10))
    assert next(stream).row == 0
    assert [one.row for one in reader.read(Part(1, 10, 20))] == list(range(10, 20))
    assert [one.row for one in reader.read(Part(0, 0, 10))] == list(range(10))


@pytest.mark.parametrize("kind", ["a.parquet", "dataset"])
def test_long_rows_of_tables_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(tables, "BATCH_BYTES", 2000)
    corpus = stored(tmp_path, kind)
    (source,) = corpus.sources
    assert isinstance(source, tables.ParquetFile | tables.DatasetRows)
    sizes = [batch.num_rows for _, batch in source.arrow_batches(3, 37)]
    assert sum(sizes) == 34 and len(sizes) > (1 if kind == "dataset" else 0)
    assert [one.data for one in corpus.records()] == ROWS


def test_long_rows_are_written_to_parquet_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "GROUP_BYTES", 2000)
    write_subset(stored(tmp_path, "a.jsonl"), range(40), tmp_path / "out.parquet")
    written = pq.ParquetFile(tmp_path / "out.parquet")
    assert written.num_row_groups == 8
    assert written.read().to_pylist() == ROWS
