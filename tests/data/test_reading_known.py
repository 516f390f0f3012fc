"""A known file is not scanned again as long as its size and time stamp are unchanged."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_files import FILES, ROWS, data_of, json_lines, parquet_bytes, written

from donod_fast.data.reading import KnownFile, line_scan, open_corpus, reopen_corpus, restored_corpus
from donod_fast.data.reading.json_files import numbered_rows
from donod_fast.data.reading.streams import scanning
from donod_fast.errors import CorpusError
from donod_fast.system.places import CLOCK_TICK_NS, LocalPlace

LONG = [{"text": f"row {row}"} for row in range(5000)]


def replaced_unseen(path: Path, content: bytes) -> None:
    """Write other content of the same size and give the file its old time: only reading it could tell."""
    stat = path.stat()
    assert len(content) == stat.st_size
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", FILES)
def test_a_known_file_is_not_read_when_it_is_opened(tmp_path: Path, name: str) -> None:
    path = Path(written(tmp_path / name, FILES[name]))
    first = open_corpus([str(path)])
    description = json.loads(json.dumps(first.describe()))
    (entry,) = description["inputs"]
    known = {str(path): KnownFile(entry)}
    replaced_unseen(path, b"?" * path.stat().st_size)

    opened = [
        open_corpus([str(path)], known=known),
        open_corpus([str(tmp_path / "*")], known=known),
        reopen_corpus(description),
        restored_corpus(description),
    ]

    for corpus in opened:
        assert (corpus.rows, corpus.fingerprint, corpus.describe()) == (5, first.fingerprint, first.describe())
    read = None
    with suppress(CorpusError):  # another file is known: this one is read, and is none of its kind any more
        read = open_corpus([str(path)], known={str(tmp_path / "other"): KnownFile(entry)}).fingerprint
    assert read != first.fingerprint


@pytest.mark.parametrize("key", ["size", "stamp", "kind", "compression"])
def test_a_known_file_that_differs_in_anything_is_read(tmp_path: Path, key: str) -> None:
    path = Path(written(tmp_path / "a.jsonl", json_lines(ROWS)))
    (entry,) = open_corpus([str(path)]).describe()["inputs"]
    entry = {**entry, "rows": 7, key: 0}
    assert open_corpus([str(path)], known={str(path): KnownFile(entry)}).rows == len(ROWS)


def test_checkpoints_given_are_where_reading_starts(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "a.jsonl", b"\n".join(json_lines([row]) for row in LONG)))
    corpus = open_corpus([str(path)])
    (source,) = corpus.sources
    assert source.checkpoint(1500) == (1024, path.read_bytes().index(b'{"text": "row 1024"}'), 2049)
    assert source.checkpoint_after(1025) == source.checkpoint_after(2048) == source.checkpoint(2048)[1]  # type: ignore[index]
    assert source.checkpoint_after(4999) == path.stat().st_size
    wanted = [
        (row, row and path.read_bytes().index(b'{"text": "row %d"}' % row), 2 * row + 1) for row in (0, 700, 3001)
    ]

    restored = restored_corpus(corpus.describe(), [wanted])

    assert [restored.sources[0].checkpoint(row) for row in (0, 699, 700, 3000, 4999)] == [
        *(wanted[0], wanted[0], wanted[1], wanted[1], wanted[2])
    ]
    for start, stop in ((0, 5), (699, 702), (2999, 3003), (3001, 3002), (4990, 5000)):
        there = list(restored.records(start, stop))
        assert there == list(corpus.records(start, stop)) and there[0].data == LONG[start]
    # Bytes before the checkpoint are not looked at.
    replaced_unseen(path, b"?" * wanted[2][1] + path.read_bytes()[wanted[2][1] :])
    assert next(restored.records(4000)).data == LONG[4000]
    known = {str(path): KnownFile(corpus.describe()["inputs"][0], wanted)}
    assert next(open_corpus([str(path)], known=known).records(4000)).data == LONG[4000]


def test_only_json_lines_has_checkpoints_and_only_parquet_row_groups(tmp_path: Path) -> None:
    names = sorted(FILES)
    corpus = open_corpus([written(tmp_path / name, FILES[name]) for name in names])
    again = restored_corpus(json.loads(json.dumps(corpus.describe())))
    assert [source.describe()["name"] for source in corpus.sources] == [str(tmp_path / name) for name in names]
    for made in (corpus, again):
        for name, source in zip(names, made.sources, strict=True):
            lines = source.describe()["kind"] == "jsonl"
            assert source.checkpoint(3) == ((0, 0, 1) if lines else None)
            assert source.checkpoint_after(3) == (len(FILES[name]) if lines else -1)
            assert source.row_groups() == ((2, 2, 1) if name == "rows.parquet" else None)


def test_of_a_parquet_file_only_the_footer_is_read(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "a.parquet", parquet_bytes(LONG, row_group_size=2000)))
    corpus = open_corpus([str(path)])
    content = path.read_bytes()
    footer = pq.ParquetFile(io.BytesIO(content)).metadata.serialized_size + 8
    replaced_unseen(path, b"?" * (len(content) - footer) + content[-footer:])
    again = open_corpus([str(path)])
    assert again.fingerprint == corpus.fingerprint and again.sources[0].row_groups() == (2000, 2000, 1000)
    (entry,) = corpus.describe()["inputs"]
    assert "sha256" not in entry and len(entry["footer_sha256"]) == 64
    longer = Path(written(tmp_path / "b.parquet", b"PAR1" + content))  # the same footer behind more bytes
    assert open_corpus([str(longer)]).fingerprint != corpus.fingerprint


@pytest.mark.parametrize("name", FILES)
def test_a_touched_file_is_refused_during_reading_but_can_be_reopened(tmp_path: Path, name: str) -> None:
    path = Path(written(tmp_path / name, FILES[name]))
    corpus = open_corpus([str(path)])
    os.utime(path, ns=(0, 1_000_000_000))
    with pytest.raises(CorpusError, match=rf"{name} has changed since it was first read .*written again"):
        list(corpus.records())
    again = reopen_corpus(corpus.describe())
    assert data_of(again) == ROWS and again.fingerprint == corpus.fingerprint


def appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes())


def rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(0, 1_000_000_000))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize("change", [appended, rewritten, cut, Path.unlink])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path, name: str, change: Any) -> None:
    rows = [{"text": random.Random(row).randbytes(250).hex()} for row in range(5000)]
    kinds = {
        "a.jsonl": json_lines(rows),
        "a.csv": b"text\n" + b"".join(row["text"].encode() + b"\n" for row in rows),
        "a.parquet": parquet_bytes(rows, row_group_size=200),
    }
    content = gzip.compress(json_lines(rows), 1) if name.endswith("gz") else kinds[name]
    path = Path(written(tmp_path / name, content))
    records = open_corpus([str(path)]).records()
    for _ in range(10):
        next(records)
    change(path)
    with pytest.raises(CorpusError, match=rf"{name}.*(has changed since|there is no such file)"):
        list(records)


def test_a_file_that_is_written_to_during_its_first_pass_is_refused(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "a.jsonl", json_lines(ROWS)))
    with (
        pytest.raises(CorpusError, match=r"a\.jsonl.*changed while it was read.*wait until it is complete"),
        scanning("a.jsonl", LocalPlace(path), None) as scan,
    ):
        scan.stream.read(10)
        with path.open("ab") as file:
            file.write(b"{}\n")


def test_a_file_is_scanned_late_enough_to_detect_a_later_change(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text":"a"}\n')
    assert LocalPlace(path).settled_stat() == LocalPlace(path).stat()
    assert time.time_ns() - path.stat().st_mtime_ns >= CLOCK_TICK_NS
    corpus = open_corpus([str(path)])
    path.write_bytes(b'{"text":"b"}\n')
    with pytest.raises(CorpusError, match="has changed"):
        list(corpus.records())


def test_a_corpus_can_be_restored_where_its_files_are_not(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "a.jsonl", json_lines(ROWS)))
    description = open_corpus([str(path)]).describe()
    path.unlink()
    corpus = restored_corpus(description)
    assert corpus.rows == len(ROWS)
    with pytest.raises(CorpusError, match=r"a\.jsonl: there is no such file"):
        list(corpus.records())
    with pytest.raises(CorpusError, match="damaged"):
        restored_corpus({"inputs": [{"kind": "jsonl", "name": "a"}]})
    with pytest.raises(CorpusError, match="given from Python"):
        restored_corpus({"inputs": [{"kind": "rows", "name": "<rows>", "rows": 1}]})


def test_a_corpus_goes_to_another_process_in_few_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text":"a"}\n' * 200_000)
    table = written(tmp_path / "a.parquet", parquet_bytes(LONG))
    corpus = open_corpus([path, table])
    pickled = pickle.dumps(corpus)
    assert len(pickled) < 10_000
    assert list(pickle.loads(pickled).records(199_998, 200_002)) == list(corpus.records(199_998, 200_002))


def test_standard_input_given_again_is_known_by_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json_lines(ROWS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    (entry,) = open_corpus(["-"], spool_dir=tmp_path).describe()["inputs"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    again = open_corpus(["-"], spool_dir=tmp_path, known={entry["path"]: KnownFile({**entry, "rows": 4})})
    assert again.rows == 4, "the copy was read again"


PIECES = (b"\n", b"\n\n", b"\r\n", b" ", b"\t\x0b\x0c", b"x\n", b"x", b"{}\n", b"\xef\xbb\xbf", b"yy" * 9)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join), st.integers(3, 20), st.integers(1, 5))
def test_scanning_in_blocks_counts_the_same_rows_as_reading_by_line(content: bytes, block: int, every: int) -> None:
    expected = [(offset, line) for offset, line, _ in numbered_rows(io.BytesIO(content), 0, 1)]
    with mock.patch.multiple(line_scan, SCAN_BYTES=block, CHECKPOINT_ROWS=every):
        rows, checkpoints, longest = line_scan.scan_lines(io.BytesIO(content))
    lines = [content[offset:].partition(b"\n")[0] for offset, _ in expected]
    assert longest == max(map(len, lines), default=0)
    assert rows == len(expected)
    assert list(checkpoints) == [(row, *expected[row]) for row in range(0, rows, every)]
