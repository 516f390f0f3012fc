"""An input that cannot be read or has changed is refused with one error that names it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from reading_files import FILES, ROWS, json_lines, parquet_bytes, written, zstd

from donod_fast.data.reading import open_corpus, reopen_corpus
from donod_fast.errors import CorpusError


@pytest.mark.parametrize("header", [b"a,b,a", b"12,3.5", b"a,,b", b"x" * 500 + b",b", b'a,"b'])
def test_a_csv_without_a_proper_header_is_refused(tmp_path: Path, header: bytes) -> None:
    path = written(tmp_path / "a.csv", header + b"\n1,2,3\n")
    with pytest.raises(CorpusError, match=r"a\.csv, line 1: "):
        open_corpus([path])


@pytest.mark.parametrize(
    ("file", "header", "told"),
    [
        ("a.csv", b"question;answer", "separated by semicolons; convert it to commas"),
        ("a.csv", b"question\tanswer", "separated by tabs; convert it to commas"),
        ("a.tsv", b"question,answer", "separated by commas; convert it to tabs"),
    ],
)
def test_a_csv_with_another_separator_is_refused(tmp_path: Path, file: str, header: bytes, told: str) -> None:
    path = written(tmp_path / file, header + b"\nx\n")
    with pytest.raises(CorpusError, match=f"{file}, line 1: .*{told}"):
        open_corpus([path])


UNREADABLE = {
    "array.json": (b'[{"text": "a"},\n {"text": }]', "line 2 column 11"),
    "object.json": (b'{"text": "a"', "column 13"),
    "number.json": (b"3", "a number"),
    "latin.json": (b'[{"text": "\xe9"}]', "not UTF-8"),
    "deep.json": (b"[" * 200_000 + b"]" * 200_000, "too deep"),
    "cut.jsonl.gz": (gzip.compress(json_lines(ROWS))[:-9], "at about byte"),
    "no.jsonl.gz": (b"not compressed at all", "at about byte"),
    "cut.jsonl.zst": (zstd(json_lines(ROWS))[:-3], "at about byte"),
    "cut.parquet": (parquet_bytes(ROWS)[:-10], "parquet"),
    "empty.jsonl": (b"", "contains no rows"),
    "blank.jsonl": (b"\xef\xbb\xbf\n \n", "contains no rows"),
    "empty.json": (b"", "contains no rows"),
    "emptylist.json": (b"[]", "contains no rows"),
    "empty.csv": (b"", "contains no rows"),
    "header.csv": (b"question,answer\n", "contains no rows"),
    "kind.txt": (b"hello", "unknown kind"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = UNREADABLE[name]
    path = written(tmp_path / name, content)
    with pytest.raises(CorpusError) as caught:
        open_corpus([path])
    assert str(caught.value).startswith(path) and reason in str(caught.value)


def test_damage_within_a_parquet_file_is_named_with_the_place(tmp_path: Path) -> None:
    content = bytearray(parquet_bytes([{"text": f"{i}" * 50} for i in range(1000)], row_group_size=500))
    content[100:5000] = b"\0" * 4900
    corpus = open_corpus([written(tmp_path / "a.parquet", bytes(content))])
    with pytest.raises(CorpusError, match=r"a\.parquet, record 0 and after: cannot be read"):
        list(corpus.records())


@pytest.mark.parametrize("name", ["gone.jsonl", "no/such/file", "*.jsonl", "", "a\0b", "x" * 5000, "."])
def test_an_unknown_input_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=r"check|give"):
        open_corpus([name])


def test_permission_denied_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.jsonl", json_lines(ROWS))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(CorpusError, match=r"a\.jsonl: permission denied"):
        open_corpus([path])


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_vanished_or_changed_is_named_when_reopened(tmp_path: Path, name: str) -> None:
    path = Path(written(tmp_path / name, FILES[name]))
    corpus = open_corpus([str(path)])
    description = corpus.describe()

    path.write_bytes(FILES[name].replace(b"What", b"Whet"))  # the same size
    with pytest.raises(CorpusError, match=rf"{name}: the input has changed .*different content"):
        reopen_corpus(description)
    path.write_bytes(FILES[name] + b"\n")
    with pytest.raises(CorpusError, match=rf"{name}: the input has changed .*bytes"):
        reopen_corpus(description)
    with pytest.raises(CorpusError, match="has changed since it was first read"):
        list(corpus.records())
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{name}: the input is missing"):
        reopen_corpus(description)


def test_a_damaged_description_is_refused() -> None:
    with pytest.raises(CorpusError, match="damaged"):
        reopen_corpus({"inputs": [{"kind": "jsonl"}]})
