"""A subset holds the original records, unchanged; on an error no file is written."""

from __future__ import annotations

import datetime
import decimal
import errno
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from donod_fast.data import record_tables
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.selection.subset import Subset, subset_file, write_subset
from donod_fast.system import files


class FakeCorpus:
    """Records from Python; counts how often each is read."""

    def __init__(self, *items: dict[str, Any] | bytes) -> None:
        self.items = items
        self.rows = len(items)
        self.reads = 0

    def describe(self) -> dict[str, Any]:
        return {"inputs": [{"name": "fake"}]}

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        for row in range(start, self.rows if stop is None else stop):
            self.reads += 1
            item = self.items[row]
            if isinstance(item, bytes):
                yield Record(row, "fake.jsonl", f"line {row + 1}", json.loads(item), item)
            else:
                yield Record(row, "fake", f"record {row}", item)


LINES = (b'{"a": 1,   "b":"\\u00e9"}', '{"b": "é",\t"a": 1.0}'.encode(), b'{"a":1e5}', b'{"c":[]} ')


def test_json_lines_come_back_byte_by_byte_in_input_order(tmp_path: Path) -> None:
    out = tmp_path / "subset.jsonl"
    assert write_subset(FakeCorpus(*LINES), [3, 0, 1], out) == 3
    assert out.read_bytes() == LINES[0] + b"\n" + LINES[1] + b"\n" + LINES[3] + b"\n"


def test_best_order_is_the_order_of_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "subset.jsonl"
    write_subset(FakeCorpus(*LINES), torch.tensor([3, 0, 1]), out, order="best")
    assert out.read_bytes().splitlines() == [LINES[3], LINES[0], LINES[1]]
    table = tmp_path / "subset.parquet"
    write_subset(FakeCorpus({"n": 0}, {"n": 1}, {"n": 2}), [2, 0, 1], table, order="best")
    assert pq.read_table(table).to_pydict() == {"n": [2, 0, 1]}


def test_the_corpus_is_read_once_and_not_past_the_last_row(tmp_path: Path) -> None:
    for order in ("input", "best"):
        corpus = FakeCorpus(*LINES)
        write_subset(corpus, [2, 1], tmp_path / f"{order}.jsonl", order=order)
        assert corpus.reads == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_compressed_subsets_hold_the_same_bytes_every_time(tmp_path: Path, suffix: str) -> None:
    first, again = tmp_path / f"first{suffix}", tmp_path / f"again{suffix}"
    for out in (first, again):
        write_subset(FakeCorpus(*LINES), [1, 2], out)
    assert first.read_bytes() == again.read_bytes()
    plain = first.read_bytes()
    if suffix == ".jsonl.gz":
        plain = gzip.decompress(plain)
    elif suffix == ".jsonl.zst":
        plain = pa.input_stream(str(first), compression="zstd").read()
    assert plain == LINES[1] + b"\n" + LINES[2] + b"\n"


def test_a_real_corpus_comes_back_from_a_subset_of_all_its_rows(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join(LINES) + b"\n")
    for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"):
        out = tmp_path / f"out{suffix}"
        write_subset(open_corpus([str(source)]), range(4), out)
        records = open_corpus([str(out)]).records()
        assert [record.data for record in records] == [json.loads(line) for line in LINES]


def test_values_from_tables_become_plain_json(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
    item = {"when": moment, "day": moment.date(), "n": np.int64(3), "v": np.array([1.5, 2.0]), "s": "é☃"}
    out = tmp_path / "subset.jsonl"
    write_subset(FakeCorpus(item), [0], out)
    assert out.read_bytes() == (
        '{"when":"2024-02-29T12:30:00+00:00","day":"2024-02-29","n":3,"v":[1.5,2.0],"s":"é☃"}\n'.encode()
    )


def test_a_lone_surrogate_is_escaped_and_read_back_equal(tmp_path: Path) -> None:
    out = tmp_path / "subset.jsonl"
    write_subset(FakeCorpus({"s": "é \ud800"}), [0], out)
    assert out.read_bytes() == b'{"s":"\\u00e9 \\ud800"}\n'
    assert json.loads(out.read_bytes()) == {"s": "é \ud800"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"\x00\xff", '"AP8="'),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (decimal.Decimal("1.10"), '"1.10"'),
        (datetime.timedelta(seconds=90, microseconds=5), '"PT90.000005S"'),
        ({"x": b""}, '{"x":""}'),
        (2**70, str(2**70)),
    ],
)
def test_what_json_lacks_is_written_without_loss(tmp_path: Path, value: object, text: str) -> None:
    for name, written in (("a.jsonl", f'{{"ok":{text}}}\n'), ("a.json", f'[\n{{"ok":{text}}}\n]\n')):
        write_subset(FakeCorpus({"ok": value}), [0], tmp_path / name)
        assert (tmp_path / name).read_text() == written
        assert [type(record.data) for record in open_corpus([str(tmp_path / name)]).records()] == [dict]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_what_no_file_can_hold_is_refused_by_row_and_column(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match=r"row 1 .*column 'bad'.*give plain values"):
        write_subset(FakeCorpus({"ok": 1}, {"ok": 1, "bad": {1, 2}}), [0, 1], tmp_path / f"subset{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_parquet_holds_the_union_of_the_columns(tmp_path: Path) -> None:
    out = tmp_path / "subset.parquet"
    items = ({"a": 1, "m": {"x": 1}}, {"b": [], "a": 2}, {"m": {"y": "z"}, "b": ["t"], "blob": b"\x00"})
    assert write_subset(FakeCorpus(*items), [0, 1, 2], out) == 3
    assert pq.read_table(out).to_pydict() == {
        "a": [1, 2, None],
        "m": [{"x": 1, "y": None}, None, {"x": None, "y": "z"}],
        "b": [None, [], ["t"]],
        "blob": [None, None, b"\x00"],
    }


def test_parquet_types_do_not_depend_on_where_batches_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = (
        {"a": 1, "l": []},
        {"a": None, "l": [1]},
        {"a": 2.5, "l": [0.5]},
        {"s": {"k": 1}},
        {"s": {"j": [""]}},
    )
    tables = []
    for size in (1, 2, 100):
        monkeypatch.setattr(record_tables, "_BATCH_ROWS", size)
        write_subset(FakeCorpus(*items), range(5), tmp_path / f"{size}.parquet")
        tables.append(pq.read_table(tmp_path / f"{size}.parquet"))
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
    assert tables[0]["a"].to_pylist() == [1.0, None, 2.5, None, None]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((1, "text"), ["1", '"text"']),
        (("text", b"bytes"), ['"text"', '"Ynl0ZXM="']),
        (({"x": 1}, [1]), ['{"x":1}', "[1]"]),
        ((2**70, 1), [str(2**70), "1"]),
        ((2**53 + 1, 0.5), [str(2**53 + 1), "0.5"]),
        ((True, 3), ["true", "3"]),
        (("\ud800", ""), ['"\\ud800"', '""']),
        (({}, {}), ["{}", "{}"]),
        (({"x": None}, {"x": 1}), ['{"x":null}', '{"x":1}']),
        (({"x": 1, "y": 2}, {"y": 1, "x": 2}), ['{"x":1,"y":2}', '{"y":1,"x":2}']),
        (([1, 2.0], [3]), ["[1,2.0]", "[3]"]),
        (({"f": {"a": 1}}, {"f": {"b": 1}}), ['{"f":{"a":1}}', '{"f":{"b":1}}']),
    ],
)
def test_values_that_no_arrow_type_holds_become_json_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: tuple[object, object], texts: list[str]
) -> None:
    for size in (1, 100):
        monkeypatch.setattr(record_tables, "_BATCH_ROWS", size)
        corpus = FakeCorpus({"fine": 1}, *({"fine": 1, "mixed": value} for value in values))
        written = subset_file(corpus, [0, 1, 2], tmp_path / f"{size}.parquet")
        assert written == Subset(3, ("mixed",))
        table = pq.read_table(tmp_path / f"{size}.parquet")
        assert table.schema.types == [pa.int64(), pa.json_()]
        assert table["mixed"].to_pylist() == [None, *texts]


def test_an_existing_file_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "subset.jsonl"
    out.write_text("precious")
    with pytest.raises(StoreError, match="exists already"):
        write_subset(FakeCorpus(*LINES), [0], out)
    assert out.read_text() == "precious"
    write_subset(FakeCorpus(*LINES), [0], out, overwrite=True)
    assert out.read_bytes() == LINES[0] + b"\n"


def test_a_failed_overwrite_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "subset.jsonl"
    out.write_text("precious")
    with pytest.raises(InputError):
        write_subset(FakeCorpus({"bad": {1}}), [0], out, overwrite=True)
    assert out.read_text() == "precious" and list(tmp_path.iterdir()) == [out]


def test_an_input_of_the_corpus_is_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(LINES[0] + b"\n")
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    for out in (source, link):
        with pytest.raises(StoreError, match="one of the inputs"):
            write_subset(open_corpus([str(source)]), [0], out, overwrite=True)


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target.jsonl", tmp_path / "link.jsonl"
    target.write_text("old")
    link.symlink_to(target)
    write_subset(FakeCorpus(*LINES), [0], link, overwrite=True)
    assert link.is_symlink() and target.read_bytes() == LINES[0] + b"\n"


def test_a_missing_folder_and_a_folder_as_target_are_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="its folder does not exist"):
        write_subset(FakeCorpus(*LINES), [0], tmp_path / "absent" / "subset.jsonl")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(StoreError, match="not a regular file"):
        write_subset(FakeCorpus(*LINES), [0], folder, overwrite=True)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "cannot write .*subset"),
    ],
)
def test_a_disk_that_fails_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StoreError, match=said):
        write_subset(FakeCorpus(*LINES), [0], tmp_path / "subset.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_every_format_reports_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(files, "_locked_file", lambda path: Path("/dev/full").open("wb"))  # noqa: SIM115
    items = ({"text": os.urandom(40_000).hex()} for _ in range(10))
    with pytest.raises(StoreError, match="the disk is full"):
        write_subset(FakeCorpus(*items), range(10), tmp_path / f"subset{suffix}")


def test_rows_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "subset.jsonl"
    for row in (4, -1):
        with pytest.raises(CorpusError, match=f"row {row} is not in the corpus, which has 4 rows"):
            write_subset(FakeCorpus(*LINES), [0, row], out)
    shrunk = FakeCorpus(*LINES)
    monkeypatch.setattr(shrunk, "records", lambda start, stop: iter(()))
    with pytest.raises(CorpusError, match="row 2 is missing"):
        write_subset(shrunk, [2], out)
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_cannot_be_parsed_is_refused_by_place(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"a":1}\n{broken\n')
    with pytest.raises(CorpusError, match="line 2: cannot be read"):
        write_subset(open_corpus([str(source)]), [0, 1], tmp_path / "out.jsonl")


def test_no_rows_rows_given_twice_and_other_names_are_refused(tmp_path: Path) -> None:
    corpus = FakeCorpus(*LINES)
    with pytest.raises(InputError, match="no rows"):
        write_subset(corpus, [], tmp_path / "subset.jsonl")
    with pytest.raises(InputError, match="twice"):
        write_subset(corpus, [1, 1], tmp_path / "subset.jsonl")
    with pytest.raises(InputError, match="must end in"):
        write_subset(corpus, [1], tmp_path / "subset.txt")
    with pytest.raises(InputError, match=r"only rows of \.csv files .*end the name in \.jsonl, .* or \.parquet"):
        write_subset(corpus, [1], tmp_path / "subset.csv")
    with pytest.raises(InputError, match="order"):
        write_subset(corpus, [1], tmp_path / "subset.jsonl", order="worst")  # type: ignore[arg-type]


def test_the_file_has_the_rights_that_the_user_set(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_subset(FakeCorpus(*LINES), [0], tmp_path / "subset.jsonl")
    assert (tmp_path / "subset.jsonl").stat().st_mode == (tmp_path / "plain").stat().st_mode
