"""Arrow files and streams give the records of the same rows in Parquet, from any row, and are cut between batches."""

from __future__ import annotations

import gzip
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from arrow_tables import drawn_table
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_records import old

from donod_fast.data.reading import open_corpus, reopen_corpus, restored_corpus
from donod_fast.data.reading.arrow_files import ArrowFile
from donod_fast.data.shards import plan_shards
from donod_fast.errors import CorpusError
from donod_fast.selection.subset import write_subset


def as_file(table: pa.Table, path: Path, rows: int, compression: str | None = None) -> Path:
    return _written(pa.ipc.new_file, table, path.with_suffix(".arrow"), rows, compression)


def as_stream(table: pa.Table, path: Path, rows: int, compression: str | None = None) -> Path:
    return _written(pa.ipc.new_stream, table, path.with_suffix(".arrows"), rows, compression)


def as_file_of_lz4(table: pa.Table, path: Path, rows: int) -> Path:
    return as_file(table, path, rows, "lz4")


def as_stream_of_zstd(table: pa.Table, path: Path, rows: int) -> Path:
    return as_stream(table, path, rows, "zstd")


def as_feather(table: pa.Table, path: Path, rows: int) -> Path:
    out = path.with_suffix(".feather")
    feather.write_feather(table, str(out), compression="zstd", chunksize=rows)
    return out


def as_compressed_whole(table: pa.Table, path: Path, rows: int) -> Path:
    plain = as_file(table, path, rows)
    out = plain.with_name(plain.name + ".gz")
    out.write_bytes(gzip.compress(plain.read_bytes()))
    return out


def _written(new: Callable[..., Any], table: pa.Table, path: Path, rows: int, compression: str | None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=compression, unify_dictionaries=True)
    with new(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


KINDS = [as_file, as_stream, as_file_of_lz4, as_stream_of_zstd, as_feather, as_compressed_whole]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 15))
def test_records_are_those_of_the_same_rows_in_parquet(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: Any, rows: int, batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("arrow")
    draw = random.Random(seed)
    table = _valid_table(draw, rows)
    pq.write_table(table, folder / "a.parquet")
    path = old(kind(table, folder / "a", batch_rows))
    corpus, other = open_corpus([str(path)]), open_corpus([str(old(folder / "a.parquet"))])
    groups = corpus.sources[0].row_groups()
    if path.suffix in (".arrow", ".feather"):
        assert sum(groups or ()) == pads.dataset(str(path), format="ipc").count_rows() == rows
    assert list(groups or ()) == [min(batch_rows, rows - at) for at in range(0, rows, batch_rows)]
    assert corpus.sources[0].arrow_schema().equals(table.schema, check_metadata=True)
    assert list(map(_values, corpus.records())) == list(map(_values, other.records()))
    # Any part, in any order, of the corpus as another process gets it
    again = restored_corpus(corpus.describe())
    assert again.fingerprint == corpus.fingerprint
    whole = [str(record) for record in corpus.records()]
    for _ in range(3):
        start = draw.randrange(rows)
        stop = draw.randint(start, rows)
        assert [str(record) for record in again.records(start, stop)] == whole[start:stop]


def _valid_table(draw: random.Random, rows: int) -> pa.Table:
    """A table that pyarrow takes for valid: below a null it leaves numbers of dictionaries that have no values."""
    while True:
        table = drawn_table(draw, rows)
        try:
            table.validate(full=True)
        except pa.ArrowInvalid:
            continue
        return table


def _values(record: Any) -> str:
    return str((record.row, record.data, record.problem, record.hash))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.sampled_from([".arrow", ".arrows", ".feather"]), st.booleans())
def test_a_subset_equals_what_arrow_takes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: Any, suffix: str, best: bool
) -> None:
    folder = tmp_path_factory.mktemp("arrow")
    draw = random.Random(seed)
    table = _valid_table(draw, 30)
    corpus = open_corpus([str(old(kind(table, folder / "a", 7)))])
    chosen = draw.sample(range(30), draw.randint(1, 30))
    out = folder / f"subset{suffix}"
    assert write_subset(corpus, chosen, out, order="best" if best else "input") == len(chosen)
    found = (pa.ipc.open_stream if suffix == ".arrows" else pa.ipc.open_file)(out.read_bytes()).read_all()
    assert found.schema.equals(table.schema, check_metadata=True)
    wanted = pa.concat_tables([table.slice(row, 1) for row in (chosen if best else sorted(chosen))])
    assert str(found.to_pylist()) == str(wanted.to_pylist())
    found.validate(full=True)
    assert open_corpus([str(old(out))]).rows == len(chosen)


def test_dictionaries_of_several_files_become_one(tmp_path: Path) -> None:
    kind = pa.struct([("tag", pa.dictionary(pa.int8(), pa.string())), ("n", pa.int64())])
    names = []
    for at, tags in enumerate((["a", "b", "a"], ["c", "b", None], ["d", "a", "c"])):
        column = pa.StructArray.from_arrays(
            [pa.array(tags).dictionary_encode().cast(kind[0].type), pa.array([at] * 3)], fields=list(kind)
        )
        names.append(str(old(as_stream(pa.table({"x": column, "tag": column.field(0)}), tmp_path / f"{at}", 2))))
    corpus = open_corpus(names)
    write_subset(corpus, [0, 3, 4, 5, 6, 8], tmp_path / "o.arrow")
    found = pa.ipc.open_file(str(tmp_path / "o.arrow")).read_all()
    assert found["tag"].to_pylist() == ["a", "c", "b", None, "d", "c"]
    assert [one["tag"] for one in found["x"].to_pylist()] == found["tag"].to_pylist()
    assert found.schema.field("tag").type == kind[0].type


@pytest.mark.parametrize("deltas", [False, True])
def test_dictionaries_that_change_within_a_stream_are_followed(tmp_path: Path, deltas: bool) -> None:
    kind = pa.dictionary(pa.int8(), pa.string())
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    texts = [["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "c", "d"]]
    path = tmp_path / "a.arrows"
    with pa.ipc.new_stream(str(path), pa.schema([("text", kind)]), options=options) as writer:
        for values in texts if deltas else [*texts, ["z", "y"]]:
            indices = pa.array(range(len(values)), pa.int8())
            writer.write_batch(pa.record_batch({"text": pa.DictionaryArray.from_arrays(indices, values)}))
    corpus = open_corpus([str(old(path))])
    wanted = [value for values in (texts if deltas else [*texts, ["z", "y"]]) for value in values]
    for start in range(len(wanted)):
        assert [(record.data or {})["text"] for record in corpus.records(start)] == wanted[start:]


def test_the_cache_files_of_datasets_are_read(tmp_path: Path) -> None:
    import datasets

    rows = [{"text": f"row {at}", "tags": ["a", None], "n": at} for at in range(2500)]
    dataset = datasets.Dataset.from_list(rows)
    mapped = dataset.map(lambda row: {"n": row["n"] + 1}, cache_file_name=str(tmp_path / "cache.arrow"))
    corpus = open_corpus([str(old(tmp_path / "cache.arrow"))])
    assert list(corpus.sources[0].row_groups() or ()) == [1000, 1000, 500]
    assert [record.data for record in corpus.records()] == mapped.to_list()
    plan = plan_shards(corpus, 1000)
    assert [shard.rows for shard in plan] == [1000, 1000, 500]
    assert plan.tasks(range(3), most=1) == [(0,), (1,), (2,)]


def test_opening_reads_headers_and_no_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["x" * 100_000] * 64})
    for kind in (as_file, as_stream):
        path = old(kind(table, tmp_path / "a", 8))
        read = _Counted(path)
        monkeypatch.setattr("donod_fast.system.places.LocalPlace.open_table", lambda *_, read=read: read)
        assert open_corpus([str(path)]).rows == 64
        assert read.count < path.stat().st_size / 20
        monkeypatch.undo()


class _Counted:
    """A file that counts the bytes that are read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.count = 0
        self.seek = self._file.seek

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.count += len(content)
        return content

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.mark.parametrize("kind", [as_file, as_stream, as_file_of_lz4])
def test_a_cut_file_is_refused_and_the_batch_is_named(
    tmp_path: Path, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    table = pa.table({"text": [f"row {at} " * 9 for at in range(60)]})
    path = kind(table, tmp_path / "a", 10)
    content = path.read_bytes()
    whole = list(open_corpus([str(old(path))]).records())
    for cut in sorted({*range(1, 40), *range(40, len(content), 97), *range(len(content) - 20, len(content))}):
        path.write_bytes(content[:cut])
        caplog.clear()
        try:
            with caplog.at_level(logging.WARNING):
                corpus = open_corpus([str(old(path))])
        except CorpusError as error:
            assert "a.arrow" in str(error), error
            if cut > 1000:
                assert "record batch" in str(error) or "end of the stream" in str(error), error
            continue
        # A stream need not have an end mark, so one that is cut between two messages is whole
        assert kind is as_stream and "no end mark" in caplog.text
        assert list(corpus.records()) == whole[: corpus.rows] and corpus.rows % 10 == 0


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([as_file, as_stream, as_file_of_lz4]), st.integers(0, 10**9), st.integers(0, 255))
def test_a_damaged_byte_loses_no_row_and_is_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, kind: Any, place: int, byte: int
) -> None:
    folder = tmp_path_factory.mktemp("arrow")
    table = pa.table({"text": [f"row {at} " for at in range(40)], "n": [[at] for at in range(40)]})
    path = kind(table, folder / "a", 10)
    before = open_corpus([str(old(path))])
    hashes = [record.hash for record in before.records()]
    assert len(hashes) == 40
    content = bytearray(path.read_bytes())
    at = place % len(content)
    if content[at] == byte:
        return
    content[at] = byte
    path.write_bytes(content)
    try:
        corpus = open_corpus([str(old(path))])
        found = [record.hash for record in corpus.records()]
    except CorpusError as error:
        assert "a.arrow" in str(error)
        return
    assert len(found) == 40
    assert found == hashes or len(set(found) - set(hashes)) <= 10  # those of one batch


def test_a_footer_that_lists_too_few_batches_is_refused(tmp_path: Path) -> None:
    table = pa.table({"text": [f"row {at} " for at in range(40)]})
    path = as_file(table, tmp_path / "a", 10)
    content = path.read_bytes()
    footer = len(content) - 10 - int.from_bytes(content[-10:-6], "little")
    counts = [at for at in range(footer, len(content) - 10, 4) if content[at : at + 4] == bytes([4, 0, 0, 0])]
    lost = 0
    for at in counts:  # one of them is the number of batches
        path.write_bytes(content[:at] + bytes([3]) + content[at + 1 :])
        try:
            assert open_corpus([str(old(path))]).rows == 40
        except CorpusError as error:
            lost += "the footer does not list what is at byte" in str(error)
    assert lost == 1


def test_a_file_with_other_rows_of_the_same_lengths_has_another_digest(tmp_path: Path) -> None:
    digests = set()
    for seed in range(4):
        draw = random.Random(seed)
        table = pa.table({"input_ids": [[draw.randrange(1000) for _ in range(50)] for _ in range(100)]})
        digests.add(open_corpus([str(old(as_file(table, tmp_path / f"{seed}", 10)))]).fingerprint)
    assert len(digests) == 4


def test_a_changed_file_is_refused_when_it_is_opened_again(tmp_path: Path) -> None:
    path = as_stream(pa.table({"text": ["a", "b", "c"]}), tmp_path / "a", 2)
    description = open_corpus([str(old(path))]).describe()
    as_stream(pa.table({"text": ["a", "b", "d"]}), tmp_path / "a", 2)
    with pytest.raises(CorpusError, match="has changed"):
        reopen_corpus(description)
    with pytest.raises(CorpusError, match="has changed"):
        list(restored_corpus(description).records())


REFUSED: dict[str, tuple[str, bytes | Callable[[Path], None]]] = {
    "Feather of version 1": ("a.feather", b"FEA1" + b"\0" * 90),
    "two columns have the same name": (
        "a.arrow",
        lambda path: as_file(pa.table([["a"], ["b"]], names=["x", "x"]), path, 1) and None,
    ),
    "has no schema": ("a.arrow", b""),
    "the header at byte 0 would have": ("a.arrow", b'{"text": "a"}\n'),
    "bytes follow the end of the stream": (
        "a.arrows",
        lambda path: path.write_bytes(2 * as_stream(pa.table({"x": [1]}), path, 1).read_bytes()) and None,
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_arrow_file_is_refused_with_the_reason(tmp_path: Path, reason: str) -> None:
    name, content = REFUSED[reason]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(CorpusError, match=rf"{name}.*{reason}"):
        open_corpus([str(old(path))])


def test_a_batch_that_expands_too_much_is_refused(tmp_path: Path) -> None:
    path = old(as_file(pa.table({"text": ["a" * 80_000_000]}), tmp_path / "a", 1, "zstd"))
    assert path.stat().st_size < 100_000
    corpus = open_corpus([str(path)])
    assert isinstance(corpus.sources[0], ArrowFile)
    with pytest.raises(CorpusError, match=r"a\.arrow: the message .* expands too much"):
        list(corpus.records())
