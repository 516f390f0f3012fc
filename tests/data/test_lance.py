"""Lance datasets: versions, deletions, resuming and subsets, with datasets that ``lance`` writes."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stored_records import SCHEMA, drawn_record
from table_files import lance_dataset

from donod_fast.data.reading import KnownFile, open_corpus, reopen_corpus
from donod_fast.data.shards import plan_shards
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.selection.subset import subset_file

lance = pytest.importorskip("lance")


def known(corpus: Any) -> dict[str, KnownFile]:
    """The entries of a corpus as an earlier run has recorded them."""
    entries = json.loads(json.dumps(corpus.describe()))["inputs"]
    return {entry["path"]: KnownFile(entry) for entry in entries}


def texts(path: str, **options: Any) -> list[str]:
    return [(record.data or {})["text"] for record in open_corpus([path], **options).records()]


@pytest.mark.parametrize("seed", range(2))
def test_a_dataset_gives_the_records_of_json_lines(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    records = [drawn_record(draw) for _ in range(40)]
    path = lance_dataset(tmp_path / "a.lance", records, SCHEMA, rows_per_file=7)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    wanted = [record.data for record in open_corpus([str(tmp_path / "a.jsonl")]).records()]
    corpus = open_corpus([path])
    assert [record.data for record in corpus.records()] == wanted
    again = reopen_corpus(json.loads(json.dumps(corpus.describe())))
    for start in (0, 6, 7, 20, 39):
        assert [record.data for record in again.records(start, start + 9)] == wanted[start : start + 9]
    assert len(plan_shards(corpus, 10).tasks(range(4), 1)) == 4


def test_planning_reads_no_data(tmp_path: Path) -> None:
    path = lance_dataset(tmp_path / "a.lance", [{"source": str(at)} for at in range(20)])
    for file in (tmp_path / "a.lance" / "data").iterdir():
        file.rename(file.with_suffix(".away"))
    corpus = open_corpus([path])
    assert corpus.rows == 20 and len(plan_shards(corpus, 4)) == 5
    with pytest.raises(CorpusError, match=r"a.lance, record 0 and after: .* cannot be read at version 1"):
        next(corpus.records())


def test_deleted_rows_are_no_rows_and_hashes_do_not_depend_on_them(tmp_path: Path) -> None:
    table = pa.table({"text": [f"Text {at}" for at in range(50)], "at": range(50)})
    path = str(tmp_path / "a.lance")
    lance.write_dataset(table, path, max_rows_per_file=9)
    before = {(record.data or {})["at"]: record.hash for record in open_corpus([path]).records()}
    lance.dataset(path).delete("at % 3 = 0 or (at > 9 and at < 18)")
    left = [at for at in range(50) if at % 3 and not 9 < at < 18]
    corpus = open_corpus([path])
    assert corpus.rows == len(left)
    for start in range(0, corpus.rows, 11):
        found = list(corpus.records(start, start + 11))
        assert [(record.data or {})["at"] for record in found] == left[start : start + 11]
        assert [record.hash for record in found] == [before[at] for at in left[start : start + 11]]


def test_a_later_run_reads_the_version_that_was_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "a.lance")
    lance.write_dataset(pa.table({"text": ["one"]}), path)
    first = open_corpus([path])
    lance.write_dataset(pa.table({"text": ["two"]}), path, mode="append")
    assert texts(path) == ["one", "two"]
    assert texts(path, known=known(first)) == ["one"]
    assert "reads version 1, which was scored before; the newest is 2 (--data-revision latest" in caplog.text
    assert texts(path, known=known(first), revision="latest") == ["one", "two"]
    lance.dataset(path).tags.create("mine", 1)
    assert texts(path, revision="mine") == texts(path, revision="1") == ["one"]
    for absent in ("9", "other"):
        with pytest.raises(CorpusError, match=f"cannot be read at version {absent}.*--data-revision"):
            open_corpus([path], revision=absent)
    assert open_corpus([path], revision="1").fingerprint == first.fingerprint
    assert open_corpus([path]).fingerprint != first.fingerprint


def test_a_version_that_was_cleaned_up_is_told_with_the_remedy(tmp_path: Path) -> None:
    path = str(tmp_path / "a.lance")
    lance.write_dataset(pa.table({"text": ["one"]}), path)
    first = open_corpus([path])
    lance.write_dataset(pa.table({"text": ["two"]}), path, mode="overwrite")
    lance.dataset(path).cleanup_old_versions(older_than=datetime.timedelta(0))
    from donod_fast.data.reading import lance_datasets

    lance_datasets._cached.cache_clear()  # as in another process
    told = r"version 1, which was scored, is gone \(cleaned up\); there are 2\. .*--data-revision latest .*tag keeps"
    for again in (lambda: open_corpus([path], known=known(first)), lambda: reopen_corpus(first.describe())):
        with pytest.raises(CorpusError, match=told):
            again()
    with pytest.raises(CorpusError, match="cannot be read at version 1"):
        list(first.records())


def test_a_subset_has_the_schema_and_values_of_its_source(tmp_path: Path) -> None:
    draw = random.Random(2)
    count = 60
    blob = pa.field("blob", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(4 * count, dtype=np.float32)), 4)
    columns = {
        "messages": pa.array([drawn_record(draw)["messages"] for _ in range(count)], SCHEMA.field("messages").type),
        "vector": vectors,
        "blob": pa.array([draw.randbytes(draw.randrange(99)) for _ in range(count)], pa.large_binary()),
        "kind": pa.array([draw.choice(["x", "y"]) for _ in range(count)]).dictionary_encode(),
        "at": pa.array([None, *range(count - 1)], pa.int32()),
    }
    schema = pa.schema([blob if name == "blob" else (name, column.type) for name, column in columns.items()])
    table = pa.table(list(columns.values()), schema=schema)
    path = str(tmp_path / "a.lance")
    lance.write_dataset(table, path, max_rows_per_file=11)
    corpus = open_corpus([path])
    rows = draw.sample(range(count), 13)
    for order in ("input", "best"):
        out = tmp_path / f"{order}.lance"
        subset_file(corpus, rows, out, order=order)  # type: ignore[arg-type]
        written, source = lance.dataset(str(out)), lance.dataset(path)
        assert written.schema.equals(source.schema, check_metadata=True)
        chosen = sorted(rows) if order == "input" else rows
        whole = source.scanner(blob_handling="all_binary").to_table()
        found = written.scanner(blob_handling="all_binary").to_table()
        assert found.to_pylist() == [whole.slice(row, 1).to_pylist()[0] for row in chosen]
    with pytest.raises(StoreError, match="exists already"):
        subset_file(corpus, [0], out)
    subset_file(corpus, [0], out, overwrite=True)
    assert lance.dataset(str(out)).count_rows() == 1
    (tmp_path / "folder.lance").mkdir()
    with pytest.raises(StoreError, match="not a Lance dataset"):
        subset_file(corpus, [0], tmp_path / "folder.lance", overwrite=True)
    with pytest.raises(StoreError, match="one of the inputs"):
        subset_file(corpus, [0], Path(path), overwrite=True)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="only rows of Lance datasets"):
        subset_file(open_corpus([str(tmp_path / "a.jsonl")]), [0], tmp_path / "b.lance")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("which", ["data", "_versions", "_deletions"])
def test_damaged_files_give_a_clear_error_or_the_same_rows(tmp_path: Path, which: str) -> None:
    draw = random.Random(which)
    path = str(tmp_path / "a.lance")
    lance.write_dataset(pa.table({"text": [f"Text {at} " * 9 for at in range(40)]}), path, max_rows_per_file=20)
    lance.dataset(path).delete("text = 'x' or text like 'Text 3 %'")
    wanted = texts(path)
    from donod_fast.data.reading import lance_datasets

    file = max((tmp_path / "a.lance" / which).iterdir())
    whole = file.read_bytes()
    for _ in range(12):
        cut = draw.randrange(len(whole))
        file.write_bytes(whole[:cut])
        lance_datasets._cached.cache_clear()
        try:
            found = texts(path)
        except CorpusError as error:
            assert "a.lance" in str(error)
        else:
            assert len(found) in (len(wanted), 40), "an older version, or the same"


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = lance_dataset(tmp_path / "a.lance", [{"source": "a"}])
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(CorpusError, match=r"pip install 'donod-fast\[lance\]'"):
        open_corpus([path])
