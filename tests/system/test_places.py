"""Files behind URLs give the same records as local ones, read in ranges, despite broken connections."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from reading_files import FILES, ROWS, data_of, json_lines, parquet_bytes, written, zstd
from remote_files import CountedFiles, FlakyFiles, put, s3_server, web_server

from donod_fast.data.reading import Corpus, KnownFile, open_corpus, reopen_corpus
from donod_fast.errors import CorpusError
from donod_fast.system import places, retrying

LONG = [{"text": f"{row} " * 20} for row in range(5000)]


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.0)


def told(corpus: Corpus, start: int = 0, stop: int | None = None) -> list[tuple[Any, ...]]:
    """All that records say, but for the name of the file."""
    return [(r.row, r.place, r.data, r.raw, r.problem) for r in corpus.records(start, stop)]


@pytest.mark.parametrize("packed", [("", bytes), (".gz", gzip.compress), (".zst", zstd)], ids=lambda p: p[0])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_on_s3_reads_like_the_local_file(
    tmp_path: Path, s3: None, name: str, packed: tuple[str, Callable[[bytes], bytes]]
) -> None:
    suffix, compress = packed
    content = compress(FILES[name])
    url = put(f"s3://bucket/{name}{suffix}", content)
    local = open_corpus([written(tmp_path / (name + suffix), content)])

    remote = open_corpus([url])

    assert (remote.rows, remote.fingerprint) == (local.rows, local.fingerprint)
    assert told(remote) == told(local) and told(remote, 1, 4) == told(local, 1, 4)
    assert {record.file for record in remote.records()} == {url}
    description = json.loads(json.dumps(remote.describe()))
    assert description["inputs"][0]["url"] == url and data_of(reopen_corpus(description)) == ROWS


def test_wildcards_match_sorted_on_s3_and_in_memory(s3: None) -> None:
    for base in ("s3://bucket/many", "memory://bucket/many"):
        for name in ("b", "a", "deep/c"):
            put(f"{base}/{name}.jsonl", json_lines([{"text": name}]))
        put(f"{base}/notes.txt", b"no rows")

        corpus = open_corpus([f"{base}/*.jsonl"])

        assert data_of(corpus) == [{"text": "a"}, {"text": "b"}]
        assert [entry["url"] for entry in corpus.describe()["inputs"]] == [f"{base}/a.jsonl", f"{base}/b.jsonl"]
        assert data_of(open_corpus([f"{base}/**/*.jsonl"]))[-1] == {"text": "deep/c"}
        with pytest.raises(CorpusError, match=rf"{base}/\*\.csv: the pattern matches no file"):
            open_corpus([f"{base}/*.csv"])
        with pytest.raises(CorpusError, match=rf"{base}: a folder without Parquet files; give its files"):
            open_corpus([base])
        with pytest.raises(CorpusError, match=rf"{base}/gone\.jsonl: there is no such file; check the URL"):
            open_corpus([f"{base}/gone.jsonl"])
        with pytest.raises(CorpusError, match=rf"{base}/notes\.txt: unknown kind of file"):
            open_corpus([f"{base}/notes.txt"])


def test_a_remote_file_whose_name_looks_like_a_pattern_is_that_file() -> None:
    assert open_corpus([put("memory://bucket/part[1].jsonl", json_lines(ROWS))]).rows == len(ROWS)


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    path = written(tmp_path / "a b.jsonl", json_lines(ROWS))
    corpus = open_corpus([Path(path).as_uri()])
    assert data_of(corpus) == ROWS and corpus.describe()["inputs"][0]["path"] == path


def test_an_object_that_is_written_again_is_refused_by_name(s3: None) -> None:
    url = put("s3://bucket/changing.jsonl", json_lines(ROWS))
    corpus = open_corpus([url])
    fsspec.filesystem("s3").ls("bucket")  # a listing that s3fs keeps must not hide the change
    reading = corpus.records()
    next(reading)

    other = fsspec.filesystem("s3", skip_instance_cache=True)  # another client: ours does not hear of it
    other.pipe(url, json_lines(ROWS).replace(b"What", b"Whet"))  # the same size

    with pytest.raises(CorpusError, match=r"changing\.jsonl has changed since .*same size, but written again"):
        list(reading)
    with pytest.raises(CorpusError, match=r"changing\.jsonl has changed since"):
        next(corpus.records())
    with pytest.raises(CorpusError, match=r"changing\.jsonl: the input has changed .*different content"):
        reopen_corpus(corpus.describe())
    other.rm(url)
    with pytest.raises(CorpusError, match=r"changing\.jsonl: there is no such file"):
        next(corpus.records())
    with pytest.raises(CorpusError, match=r"changing\.jsonl: the input is missing"):
        reopen_corpus(corpus.describe())


def test_an_object_that_becomes_shorter_while_it_is_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "STREAM_BLOCK", 1000)
    records = open_corpus([put("memory://bucket/shorter.jsonl", json_lines(LONG))]).records()
    next(records)
    put("memory://bucket/shorter.jsonl", b"")
    with pytest.raises(CorpusError, match=r"shorter\.jsonl has changed since .*0 bytes"):
        list(records)


def test_a_known_object_is_not_read_again(s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [put(f"s3://bucket/known/{n}.{kind}", FILES[f"rows.{kind}"]) for n, kind in enumerate(("jsonl", "parquet"))]
    first = open_corpus(["s3://bucket/known/*"])
    known = {entry["url"]: KnownFile(entry) for entry in first.describe()["inputs"]}
    fetched: list[str] = []
    as_it_was = places.RemoteFile._fetched

    def counted(file: places.RemoteFile, begin: int, end: int) -> bytes:
        fetched.append(file._url)
        return as_it_was(file, begin, end)

    monkeypatch.setattr(places.RemoteFile, "_fetched", counted)
    again = open_corpus(["s3://bucket/known/*"], known=known)
    assert again.describe() == first.describe() and open_corpus(urls, known=known).fingerprint == first.fingerprint
    assert [source.row_groups() for source in again.sources] == [None, (2, 2, 1)]
    assert fetched == []
    put(urls[0], FILES["rows.jsonl"] + FILES["rows.jsonl"])
    assert open_corpus(["s3://bucket/known/*"], known=known).rows == 3 * len(ROWS)
    assert set(fetched) == {urls[0]}


def test_reading_some_rows_of_a_remote_file_requests_few_extra_bytes() -> None:
    lines = put("counted://bucket/a.jsonl", json_lines(LONG))
    table = put(
        "counted://bucket/a.parquet",
        parquet_bytes(
            [{"text": "".join(chr(33 + (7 * row + i) % 90) for i in range(3000))} for row in range(2000)],
            row_group_size=500,
            use_dictionary=False,
            compression="none",
        ),
    )
    corpus = open_corpus([lines])
    source = corpus.sources[0]
    begin, end = source.checkpoint(2048), source.checkpoint_after(3072)
    assert begin is not None
    CountedFiles.asked.clear()
    assert [record.data for record in corpus.records(2048, 3072)] == LONG[2048:3072]
    assert CountedFiles.asked == [(begin[1], end)]

    CountedFiles.asked.clear()
    corpus = open_corpus([table])
    assert sum(end - begin for begin, end in CountedFiles.asked) < 200_000, "more than the footer was read"
    assert len(list(corpus.records(1000, 1500))) == 500
    assert sum(end - begin for begin, end in CountedFiles.asked) < 0.4 * 2000 * 3000


def test_errors_that_come_and_go_cost_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "STREAM_BLOCK", 1000)
    monkeypatch.setattr(retrying, "ATTEMPTS", 40)
    for name, content in {
        "a.jsonl": json_lines(LONG),
        "a.jsonl.gz": gzip.compress(json_lines(LONG)),
        "a.parquet": parquet_bytes(LONG, row_group_size=700),
    }.items():
        url = put(f"flaky://bucket/{name}", content)
        with monkeypatch.context() as patch:
            patch.setattr(FlakyFiles, "failing", 0.4)
            FlakyFiles.asked.clear()
            corpus = open_corpus([url])
            assert [record.data for record in corpus.records(10, 4000)] == LONG[10:4000]
            assert len(FlakyFiles.asked) > len(set(FlakyFiles.asked)), "nothing failed"


def test_a_store_that_stays_away_is_given_up_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = open_corpus([put("flaky://bucket/b.jsonl", json_lines(ROWS))])
    monkeypatch.setattr(FlakyFiles, "failing", ConnectionResetError("the peer is gone"))
    with pytest.raises(CorpusError, match=r"flaky://bucket/b\.jsonl.*6 attempts failed.*the peer is gone.*run again"):
        next(corpus.records())
    with pytest.raises(CorpusError, match=r"flaky://bucket/b\.jsonl.*6 attempts failed"):
        open_corpus(["flaky://bucket/b.jsonl"])
    FlakyFiles.asked.clear()
    monkeypatch.setattr(FlakyFiles, "failing", PermissionError("denied by policy"))
    with pytest.raises(CorpusError, match=r"b\.jsonl: permission denied; check the credentials \(denied by policy\)"):
        next(corpus.records())
    assert FlakyFiles.asked == []


def test_a_web_server_that_breaks_off_in_mid_body_costs_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "STREAM_BLOCK", 100_000)
    monkeypatch.setattr(places, "TABLE_BLOCK", 10_000)
    files = {"a.jsonl": json_lines(LONG), "a.parquet": parquet_bytes(LONG)}
    with web_server(files, breaking=True) as address:
        corpus = open_corpus([f"{address}/a.jsonl?token=x.csv", f"{address}/a.parquet"])
        assert data_of(corpus) == [*LONG, *LONG]
        with pytest.raises(CorpusError, match=r"gone\.jsonl: there is no such file"):
            open_corpus([f"{address}/gone.jsonl"])
    with pytest.raises(CorpusError, match=r"a\.jsonl.*6 attempts failed"):
        next(corpus.records())


def test_a_web_server_without_ranges_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "STREAM_BLOCK", 100)
    with web_server({"a.jsonl": json_lines(ROWS)}, ranges=False) as address:
        assert data_of(open_corpus([f"{address}/a.jsonl"])) == ROWS


def test_what_must_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(CorpusError, match=r"gs://bucket/a\.jsonl: needs the package gcsfs: pip install gcsfs"):
        open_corpus(["gs://bucket/a.jsonl"])
    with pytest.raises(CorpusError, match=r"nowhere://a\.jsonl: this URL cannot be read"):
        open_corpus(["nowhere://a.jsonl"])
