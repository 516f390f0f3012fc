"""A tree of Parquet files is scored as one corpus, grouped by its paths, and written back as the same tree."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remote_files import CountedFiles
from score_runs import assert_one_line_error, invoke, short_rows
from stored_records import old

from donod_fast.data.reading import Corpus, open_corpus, reopen_corpus
from donod_fast.data.reading.trees import tree_of
from donod_fast.engines.local import score_corpus
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.reports.scored_table import read_scored
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.out_of_core.groups import PathGroups, path_columns
from donod_fast.selection.subset import write_subset

PLACES = {
    "category=math/language=de/a.parquet": 5,
    "category=math/language=de/b.parquet": 4,
    "category=math/language=en%20us/a.parquet": 3,
    "category=code/language=__HIVE_DEFAULT_PARTITION__/a.parquet": 6,
}


def written(root: Path, places: dict[str, int], seed: int = 0) -> Path:
    for at, (place, rows) in enumerate(places.items()):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        values = [{"question": f"{place} {row}", "answer": f"six {seed}"} for row in range(rows)]
        pq.write_table(pa.Table.from_pylist(values), path, row_group_size=2 + at)
        old(path)
    return root


def contents(root: Path) -> dict[str, list[str]]:
    """The questions in each folder, file after file."""
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        found.setdefault(str(path.parent.relative_to(root)), []).extend(table["question"].to_pylist())
    return found


def columns_of(corpus: Corpus) -> list[dict[str, Any]]:
    return [entry["tree"]["columns"] for entry in corpus.describe()["inputs"]]


def test_keys_in_paths_become_columns_and_records_stay(tmp_path: Path) -> None:
    corpus = open_corpus([str(written(tmp_path / "corpus", PLACES))])
    assert columns_of(corpus) == [
        {"category": "code", "language": None},
        {"category": "math", "language": "de"},
        {"category": "math", "language": "de"},
        {"category": "math", "language": "en us"},
    ]
    assert corpus.rows == 18 and set(next(corpus.records()).data or {}) == {"question", "answer"}
    assert reopen_corpus(corpus.describe()).describe() == corpus.describe()


def test_plain_folders_are_named_by_an_option(tmp_path: Path) -> None:
    root = written(tmp_path / "corpus", {"math/en/a.parquet": 1, "code/de/deep/a.parquet": 2})
    corpus = open_corpus([str(root)], path_columns=("category", "language"))
    assert columns_of(corpus) == [{"category": "code", "language": "de"}, {"category": "math", "language": "en"}]
    with pytest.raises(CorpusError, match=r"math/en/a\.parquet lies in 2 folders .*names 3: a, b, c"):
        open_corpus([str(root)], path_columns=("a", "b", "c"))


def test_what_is_no_data_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = written(tmp_path / "corpus", {"a/x.parquet": 2})
    for name in ("_SUCCESS", "_metadata", "a/.x.parquet.crc", "_temporary/0/y.parquet", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no data")
    assert open_corpus([str(root)]).rows == 2
    assert "1 Parquet file; left out: 1 .md, 4 hidden" in caplog.text


@pytest.mark.parametrize("other", ["b.jsonl", "deep/b.csv.gz", "b.arrow"])
def test_a_tree_of_mixed_kinds_is_refused_with_counts(tmp_path: Path, other: str) -> None:
    root = written(tmp_path / "corpus", {"a/x.parquet": 2, "a/y.parquet": 1})
    (root / other).parent.mkdir(exist_ok=True)
    (root / other).write_bytes(b"")
    suffix = "".join(Path(other).suffixes)
    with pytest.raises(CorpusError, match=rf"several kinds: 2 \.parquet, 1 \{suffix}; name those"):
        open_corpus([str(root)])


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_without_parquet_files_is_refused(tmp_path: Path, empty: bool) -> None:
    (tmp_path / "corpus").mkdir()
    if not empty:
        (tmp_path / "corpus" / "a.txt").write_text("text")
    with pytest.raises(CorpusError, match="without Parquet files"):
        open_corpus([str(tmp_path / "corpus")])


@pytest.fixture
def counted() -> Iterator[None]:
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    CountedFiles.store.clear()
    CountedFiles.pseudo_dirs[:] = [""]
    yield
    CountedFiles.store.clear()


def test_a_tree_behind_a_url_is_read_as_on_a_disk(tmp_path: Path, counted: None) -> None:
    root = written(tmp_path / "corpus", PLACES)
    for path in root.rglob("*.parquet"):
        with fsspec.open(f"counted://bucket/corpus/{path.relative_to(root)}", "wb") as file:
            file.write(path.read_bytes())
    here, there = open_corpus([str(root)]), open_corpus(["counted://bucket/corpus"])
    assert columns_of(there) == columns_of(here) and there.fingerprint == here.fingerprint
    assert [record.data for record in there.records()] == [record.data for record in here.records()]
    assert there.describe()["inputs"][0]["url"].startswith("counted://bucket/corpus/category=code/")


names = st.sampled_from(["a", "b", "category=x", "category=y", "n=1"])
trees = st.dictionaries(
    st.builds(lambda folders, name: "/".join([*folders, f"{name}.parquet"]), st.lists(names, max_size=3), names),
    st.integers(1, 6),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(trees, st.integers(0, 10**6), st.booleans())
def test_a_subset_keeps_each_row_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, places: dict[str, int], seed: int, best: bool
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    root = written(folder / "corpus", places)
    corpus = open_corpus([str(root)])
    rows = [(str(Path(record.file).parent.relative_to(root)), record) for record in corpus.records()]
    chosen = random.Random(seed).sample(range(len(rows)), random.Random(seed).randint(1, len(rows)))
    assert write_subset(corpus, chosen, folder / "out", order="best" if best else "input") == len(chosen)
    wanted: dict[str, list[str]] = {}
    for row in chosen if best else sorted(chosen):
        wanted.setdefault(rows[row][0], []).append((rows[row][1].data or {})["question"])
    assert contents(folder / "out") == wanted
    assert [path.name for path in (folder / "out").rglob("*.parquet")] == ["part-00000.parquet"] * len(wanted)


def test_folders_may_have_different_columns_but_not_one_folder(tmp_path: Path) -> None:
    root = written(tmp_path / "corpus", {"a/x.parquet": 2, "b/x.parquet": 2})
    pq.write_table(pa.table({"question": ["q"], "answer": ["a"], "n": [1]}), root / "b" / "x.parquet")
    assert write_subset(open_corpus([str(root)]), [0, 2], tmp_path / "out") == 2
    assert pq.ParquetFile(tmp_path / "out" / "b" / "part-00000.parquet").schema_arrow.names[-1] == "n"
    written(root, {"b/y.parquet": 1})
    with pytest.raises(InputError, match="different schemas"):
        write_subset(open_corpus([str(root)]), [0, 2], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_is_replaced_only_if_it_is_such_a_tree(tmp_path: Path) -> None:
    root = written(tmp_path / "corpus", {"a/x.parquet": 2})
    corpus, out = open_corpus([str(root)]), tmp_path / "out"
    write_subset(corpus, [0], out)
    with pytest.raises(StoreError, match="exists already"):
        write_subset(corpus, [1], out)
    write_subset(corpus, [1], out, overwrite=True)
    assert contents(out) == {"a": ["a/x.parquet 1"]}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds notes\.txt"):
        write_subset(corpus, [0], out, overwrite=True)
    for target in (root, root.parent):
        with pytest.raises(StoreError, match="input of the corpus"):
            write_subset(corpus, [0], target, overwrite=True)
    assert contents(root) == {"a": ["a/x.parquet 0", "a/x.parquet 1"]}


def test_rows_are_grouped_filtered_and_reported_by_paths(scorer: Scorer, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    rows = [row for row in short_rows(60) if "answer" in row and row["answer"].strip()][:40]
    for at, place in enumerate(("category=math/en", "category=math/de", "category=code/en", "category=code/de")):
        (root / place).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows[10 * at : 10 * at + 10]), root / place / "part.parquet")
        old(root / place / "part.parquet")
    corpus = open_corpus([str(root)], path_columns=("language",))
    with locked(tmp_path / "out"):
        folder = score_corpus(corpus, scorer, tmp_path / "out", part_rows=8).folder
    assert path_columns(folder) == ("category", "language", "folder")
    groups = PathGroups(folder, "category")
    assert [groups.names[at] for at in groups.numbers(range(40), None)] == ["code"] * 20 + ["math"] * 20
    for by, count in (("category", 2), ("language", 2), ("folder", 4)):
        done = invoke("select", folder.name, "--keep", "0.5", "--by", by, "--out", tmp_path / by, "--json")
        assert done.code == 0, done
        kept = [group["kept"] for group in json.loads(done.out)["groups"]]
        assert len(kept) == count and max(kept) - min(kept) <= 1
        assert sum(map(len, contents(tmp_path / by).values())) == sum(kept)
    done = invoke(
        "select", folder.name, "--keep", "1.0", "--where", "category=code", "--out", tmp_path / "code", "--overwrite"
    )
    assert done.code == 0 and set(contents(tmp_path / "code")) == {"category=code/de", "category=code/en"}
    done = invoke("select", folder.name, "--keep", "0.5", "--by", "topic", "--out", tmp_path / "topic")
    assert_one_line_error(done, 2, "--by topic", "paths give category, language, folder")
    assert {"category", "language", "folder"} <= set(read_scored(folder).texts)
    assert ScoresFolder.open(tmp_path / "out").reopened().describe() == corpus.describe()


def test_a_tree_of_no_files_is_no_tree() -> None:
    assert tree_of("x", ["a/_x.parquet", "b/.parquet"], (), lambda _: True) is None
