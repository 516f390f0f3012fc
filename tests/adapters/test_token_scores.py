"""A trainer's own rows are scored in their order, once, and the rows to keep are row numbers of its dataset."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest
from host_cases import MODEL, TOLERANCE, rows

from donod_fast.adapters.lazy_scorer import LazyScorer
from donod_fast.adapters.options import scorer_spec
from donod_fast.adapters.token_scores import TOKENS, choose_rows, parsed_keep, rank_options, score_request
from donod_fast.errors import InputError, ModelError, StoreError
from donod_fast.scores.folder import ScoresFolder


@pytest.fixture(scope="module")
def dataset() -> datasets.Dataset:
    """Tokens as a trainer holds them: shuffled, with an index over the table, and columns that it needs itself."""
    masker = LazyScorer(scorer_spec(str(MODEL))).scorer().masker
    from donod_fast.data.types import Record

    samples = masker.tokenize_many([Record(at, "x", "y", row) for at, row in enumerate(rows(30))])
    found = [
        {
            "input_ids": list(one.input_ids),
            "attention_mask": [1] * len(one.input_ids),
            "labels": [token if flag else -100 for token, flag in zip(one.input_ids, one.scored, strict=True)],
            "length": len(one.input_ids),
        }
        for one in samples
    ]
    for row in found[4:6]:
        row["labels"] = [-100] * len(row["labels"])
    return datasets.Dataset.from_list(found).shuffle(seed=7).select(range(3, 27))


def choose(dataset: Any, out: Path, keep: float | int | None = 0.5, model: str = str(MODEL), **options: Any) -> Any:
    request = score_request(model, out / TOKENS, {"device": "cpu", **options})
    return choose_rows(dataset, out, request, keep, rank_options("nod", {}))


def table(choice: Any) -> list[dict[str, Any]]:
    folder = ScoresFolder.open(choice.scores)
    return [row for part in range(folder.parts) for row in folder.read_part(part).to_pylist()]  # type: ignore[union-attr]


def test_the_best_rows_of_the_dataset_are_kept(dataset: Any, tmp_path: Path) -> None:
    choice = choose(dataset, tmp_path / "out")
    plain = [{name: row[name] for name in ("input_ids", "labels")} for row in dataset]
    wanted = LazyScorer(scorer_spec(str(MODEL))).score(plain)
    found = table(choice)
    assert [row["status"] for row in found] == [row.status for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        if other.status == "scored":
            assert one["nod"] == pytest.approx(other.nod, rel=TOLERANCE)
    ranked = sorted((row["nod"], row["row"]) for row in found if row["status"] == "scored")
    assert choice.kept == sorted(row for _, row in ranked[: round(len(ranked) / 2)])
    assert choice.rows == 24 and sum(choice.counts.values()) == 24 and choice.counts["all_masked"] >= 1
    assert choose(dataset, tmp_path / "out", None).kept is None


def test_a_second_run_reads_the_scores_and_other_rows_are_refused(dataset: Any, tmp_path: Path) -> None:
    first = choose(dataset, tmp_path / "out")
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert choose(dataset, tmp_path / "out").kept == first.kept
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")} == parts
    with pytest.raises(StoreError, match="scores of other rows"):
        choose(dataset.select(range(23)), tmp_path / "out")
    with pytest.raises(StoreError, match="lr: 2e-05 in the folder"):
        choose(dataset, tmp_path / "out", lr=1e-3)


def test_runs_that_start_together_take_turns(dataset: Any, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:  # the lock is one of open files: threads wait for it as processes do
        one, other = [pool.submit(choose, dataset, tmp_path / "out") for _ in range(2)]
        assert one.result(timeout=400).kept == other.result(timeout=400).kept
    assert len(list((tmp_path / "out" / "scores").glob("part-*"))) == 1


def test_what_cannot_be_scored_raises(dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        choose(dataset, tmp_path / "a", model=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no column labels, but input_ids"):
        choose(dataset.select_columns(["input_ids"]), tmp_path / "b")
    masked = dataset.map(lambda row: {"labels": [-100] * len(row["labels"])})
    with pytest.raises(InputError, match="none of 24 rows could be scored: 24 all_masked"):
        choose(masked, tmp_path / "c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lrr": 1.0}, r"donod_options: unknown option 'lrr'; did you mean 'lr'"),
        ({"template": "chatml"}, "template does not apply to rows that are tokens"),
        ({"lr": -1.0}, "donod_options: .*lr"),
        ({"lr": "fast"}, "donod_options"),
    ],
)
def test_a_wrong_option_is_refused_by_its_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        score_request(str(MODEL), Path("t.parquet"), options)


def test_keep_and_ranking_are_read_as_the_command_reads_them() -> None:
    assert (parsed_keep(0.3), parsed_keep("30%"), parsed_keep(200), parsed_keep(None)) == (0.3, 0.3, 200, None)
    for wrong in (1.5, 0, -1, "many", True):
        with pytest.raises(InputError, match="donod_keep"):
            parsed_keep(wrong)
    assert rank_options("nod", {"normalise": "range"}).normalise == "range"
    with pytest.raises(InputError, match="donod_select: unknown option 'keep'"):
        rank_options("nod", {"keep": 0.3})
