"""``load_scores``: folders on disks and in stores, merged and unfinished ones, exported files, and rows from Python."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api_cases import folder_over, written_corpus
from ranked_folders import drawn, folder_of
from score_runs import assert_same_bits, invoke

import donod_fast
from donod_fast.api.scores import Scores
from donod_fast.errors import CorpusError, DonodError, InputError, StoreError

ROWS = 40
EXPORTS = ["a.parquet", "a.csv", "a.jsonl", "a.jsonl.gz", "a.json", "saved"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loading")
    corpus, sources = written_corpus(root / "corpus.jsonl", ROWS)
    folder_over(root / "scores", [corpus], drawn(ROWS, 4), {"source": sources})
    return root / "scores"


def test_a_saved_copy_is_exact_and_no_folder_is_replaced(place: Path, tmp_path: Path) -> None:
    scores = donod_fast.load_scores(place)
    saved = scores.save(tmp_path / "saved")
    for file in place.iterdir():
        assert file.name == ".lock" or (tmp_path / "saved" / file.name).read_bytes() == file.read_bytes()
    assert_same_bits(saved.table, scores.table)
    assert list(saved.select(0.3).records()) == list(scores.select(0.3).records())
    with pytest.raises(StoreError, match="holds scores already"):
        scores.save(tmp_path / "saved")
    with pytest.raises(StoreError, match="name another"):
        scores.save(place, overwrite=True)
    assert len(scores.save(tmp_path / "saved", overwrite=True)) == ROWS
    done = invoke("select", tmp_path / "saved", "--keep", "0.3", "--out", tmp_path / "out.jsonl", "--quiet")
    assert done.code == 0, done


def test_a_url_and_a_merged_folder(place: Path, tmp_path: Path) -> None:
    scores = donod_fast.load_scores(place)
    there = scores.save("memory://api/loading", overwrite=True)
    assert "memory://api/loading" in repr(there)
    again = donod_fast.load_scores("memory://api/loading")
    assert again.select(0.3).rows.tolist() == scores.select(0.3).rows.tolist()
    assert_same_bits(again.table, scores.table)
    other, sources = written_corpus(tmp_path / "other.jsonl", 20, seed=9)
    folder_over(tmp_path / "other", [other], drawn(20, 5), {"source": sources})
    assert invoke("merge", place, tmp_path / "other", "--out", tmp_path / "merged").code == 0
    merged = donod_fast.load_scores(tmp_path / "merged")
    assert len(merged) == ROWS + 20
    assert {row["n"] for row in merged.select(20, by="file").records()} <= set(range(ROWS))


def test_an_unfinished_folder_says_what_is_missing(place: Path, tmp_path: Path) -> None:
    scores = donod_fast.load_scores(place).save(tmp_path / "some")
    (tmp_path / "some" / scores.folder.part_name(1)).unlink()
    (tmp_path / "some" / scores.folder.part_name(2)).write_bytes(b"PAR1")
    status = donod_fast.load_scores(tmp_path / "some").status
    assert status.missing == (scores.folder.part_range(1), scores.folder.part_range(2))
    assert status.missing_rows == sum(stop - start for start, stop in status.missing)
    assert "rows 16–31, 32–39" in repr(status)
    reading = (lambda: scores.table, lambda: pa.table(scores), lambda: scores["don"])
    for use in (*reading, scores.rank, lambda: scores.select(3), scores.compare):
        with pytest.raises(StoreError, match=r"unfinished|damaged"):
            use()
    for shown in (repr(scores), scores._repr_html_(), status._repr_html_()):
        assert "rows" in shown


def _same(found: Scores, wanted: Scores) -> None:
    """The scores are equal to the last bit, and so is what is chosen by them."""
    names = [name for name in wanted.column_names if not name.startswith("record.")]
    assert found.column_names == names
    assert_same_bits(found.table, wanted.table.select(names))
    for given in ({"keep": 0.3}, {"keep": 0.5, "by": "source"}, {"keep": 0.9, "where": "source=b"}):
        mine, theirs = found.select(**given), wanted.select(**given)  # type: ignore[arg-type]
        assert mine.rows.tolist() == theirs.rows.tolist()


@pytest.mark.parametrize("records", ["columns", "json"])
@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_file_has_the_same_scores_and_records(name: str, records: str, place: Path, tmp_path: Path) -> None:
    wanted = donod_fast.load_scores(place)
    found = donod_fast.load_scores(wanted.export(tmp_path / name, records=records))
    _same(found, wanted)
    originals = list(wanted.select(0.3).records())
    if name.endswith("csv") and records == "columns":  # every value of a CSV file is text
        originals = [{key: "" if value is None else str(value) for key, value in row.items()} for row in originals]
    own = [{key: value for key, value in row.items() if value is not None} for row in found.select(0.3).records()]
    assert own == [{key: value for key, value in row.items() if value is not None} for row in originals]
    assert "exported file" in repr(found)
    uses = (lambda: found.save("s"), lambda: found.select(0.3, lr=1e-3), found.report, lambda: found.export("x.csv"))
    for refused in uses:
        with pytest.raises(InputError, match="open the folder with load_scores"):
            refused()


def test_criteria_come_back_from_an_export(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    signals = {"e": {"el2n": draw.random(8)}, "f": {"flag": draw.random(8) < 0.5}, "v": {"vector": draw.random((8, 3))}}
    folder = folder_of(tmp_path / "scores", drawn(8, 1), [4, 4], signals=signals)
    rows = [{"text": f"row {row}"} for row in range(8)]
    scores = Scores(donod_fast.api.source.Source(folder, donod_fast.data.reading.corpus_from_rows(rows)))
    for name in EXPORTS:
        found = donod_fast.load_scores(scores.export(tmp_path / name))
        assert_same_bits(found.table, scores.table)
        assert found.rank("el2n").rows.tolist() == scores.rank("el2n").rows.tolist()
        assert list(found.select(3).records()) == list(scores.select(3).records())


def _spoiled(table: pa.Table, kind: str) -> pa.Table:
    match kind:
        case "no scores":
            return table.select(["n", "source"])
        case "no DON":
            return table.drop_columns(["donod.don"])
        case "a row removed":
            return table.take([0, 1, *range(3, ROWS)])
        case "sorted":
            return table.sort_by("donod.don")
        case "a row twice":
            return table.take([*range(ROWS), 3])
    return table.set_column(table.column_names.index("donod.tokens"), "donod.tokens", pa.array(["many"] * ROWS))


@pytest.mark.parametrize("kind", ["no scores", "no DON", "a row removed", "sorted", "a row twice", "words"])
def test_a_file_without_the_scores_of_all_rows_is_refused(kind: str, place: Path, tmp_path: Path) -> None:
    whole = pq.read_table(donod_fast.load_scores(place).export(tmp_path / "a.parquet"))
    pq.write_table(_spoiled(whole, kind), tmp_path / "b.parquet")
    with pytest.raises(CorpusError, match=r"b\.parquet"):
        donod_fast.load_scores(tmp_path / "b.parquet")


@pytest.mark.parametrize("wrong", ["", None, 3, object(), {"don": [1.0]}])
def test_what_is_no_name_is_refused(wrong: Any) -> None:
    with pytest.raises(DonodError, match=r"folder"):
        donod_fast.load_scores(wrong)


def test_what_holds_no_scores_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"text": "x"}\n')
    for wrong in ("none", "empty", "a.jsonl.gz"):
        with pytest.raises(DonodError, match=r"donod-fast (score|export)"):
            donod_fast.load_scores(tmp_path / wrong)


def test_rows_from_python_are_joined_again_if_they_are_the_same(tmp_path: Path) -> None:
    from tiny_models import tiny_model, tiny_tokenizer

    rows: list[dict[str, Any]] = [{"prompt": f"red house {row}", "completion": "seven"} for row in range(9)]
    scorer = donod_fast.Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=64)
    scores = scorer.score(rows).save(tmp_path / "scores")
    assert len(list(scores.select(0.3).records())) == 3
    alone = donod_fast.load_scores(tmp_path / "scores")
    for use in (lambda: list(alone.select(3).records()), lambda: alone.select(3).write(tmp_path / "x.jsonl")):
        with pytest.raises(CorpusError, match=r"load_scores\(.*data=rows\)"):
            use()
    assert alone.select(3).rows.tolist() == scores.select(3).rows.tolist()
    joined = donod_fast.load_scores(tmp_path / "scores", data=json.loads(json.dumps(rows)))
    assert list(joined.select(3).records()) == [rows[row] for row in scores.select(3).rows]
    others = [rows[::-1], rows[1:], [*rows[:-1], {"prompt": "x"}], random.Random(3).sample(rows, 9)]
    for other in others:
        with pytest.raises(CorpusError, match="give the"):
            donod_fast.load_scores(tmp_path / "scores", data=other)


def test_data_is_only_for_rows_from_python(place: Path, tmp_path: Path) -> None:
    exported = donod_fast.load_scores(place).export(tmp_path / "a.csv")
    for where in (place, exported):
        with pytest.raises(InputError, match="remove data"):
            donod_fast.load_scores(where, data=[{"text": "x"}])
