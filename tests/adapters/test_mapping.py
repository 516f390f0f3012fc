"""``ScoreRows`` gives the scores of the command, by ``datasets.map`` in several processes and on Spark's batches."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from guide_files import guide_file
from host_cases import MODEL, assert_same_scores, reference, rows, run, write_rows

from donod_fast import topsis_constants
from donod_fast.adapters.batch_ranking import batch_scorer
from donod_fast.adapters.columns import COLUMNS, DON, NOD, STATUS, TOPSIS
from donod_fast.adapters.mapping import ScoreRows
from donod_fast.errors import InputError, ModelError, SettingsMismatchError

ROWS = rows(20, unscorable=(0, 1, 13))


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")
    return folder / "scores"


@pytest.fixture(scope="module")
def wanted(scores: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for part in sorted(scores.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def test_map_of_datasets_scores_batches(wanted) -> None:
    data = datasets.Dataset.from_list(ROWS)
    score = ScoreRows(str(MODEL))
    scored = data.map(
        score, batched=True, batch_size=2, with_indices=True, with_rank=True, features=score.features(data.features)
    )
    assert scored.column_names == [*data.column_names, *COLUMNS]
    assert [{name: row[name] for name in data.column_names} for row in scored] == [*data]
    assert_same_scores(list(scored), wanted)


def test_the_guide_maps_in_two_processes_and_selects(tmp_path: Path, wanted) -> None:
    (tmp_path / "demo-data").mkdir()
    (tmp_path / "demo-data" / "model").symlink_to(MODEL)
    write_rows(tmp_path / "demo-data" / "corpus.jsonl", ROWS)
    (tmp_path / "map_rows.py").write_text(guide_file("spark-and-datasets", "map_rows.py"))
    done = run(sys.executable, "map_rows.py", cwd=tmp_path, HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text(encoding="utf-8").splitlines()]
    rightful = {row["id"]: right for row, right in zip(ROWS, wanted, strict=True)}
    assert len(kept) == round(0.3 * 17)
    assert_same_scores(kept, [rightful[row["id"]] for row in kept])


def test_frozen_constants_rank_each_batch_as_the_whole(wanted, scores: Path) -> None:
    constants = topsis_constants(scores)
    score = ScoreRows(str(MODEL), constants=constants)
    pieces = [score(_columns(ROWS[at : at + 6])) for at in range(0, 20, 6)]
    found = [value for piece in pieces for value in piece[TOPSIS]]
    whole = constants.apply([row["don"] for row in wanted], [row["nod"] for row in wanted])
    assert [value is None for value in found] == np.isnan(whole).tolist()
    np.testing.assert_allclose([np.nan if one is None else one for one in found], whole, atol=1e-3)
    with pytest.raises(SettingsMismatchError, match=r"update\.lr: 2e-05 in the constants, 1e-05 of the scorer"):
        ScoreRows(str(MODEL), constants=constants, lr=1e-5)(_columns(ROWS[:3]))


def test_arrow_batches_and_frames_of_spark(wanted) -> None:
    score = pickle.loads(pickle.dumps(ScoreRows(str(MODEL), signals="ifd")))
    table = pa.Table.from_pylist([{**row, "donod_old": 1} for row in ROWS])
    made = pa.Table.from_batches(list(score.arrow(table.to_batches(max_chunksize=6))))
    assert made.column_names == [*(name for name in table.column_names if name != "donod_old"), *score.kinds()]
    assert_same_scores(made.to_pylist(), wanted)
    assert [made.column(name).null_count for name in ("donod_ifd_loss", "donod_ifd_unhelped")] == [3, 3]
    assert made.schema.field("donod_ifd_unhelped").type == pa.bool_()
    frames = list(ScoreRows(str(MODEL)).pandas(pd.DataFrame(ROWS[at : at + 9]) for at in range(0, 20, 9)))
    assert_same_scores([{name: None if value is pd.NA else value for name, value in row.items()}
                        for frame in frames for row in frame.to_dict("records")], wanted)  # fmt: skip


def test_nested_values_of_frames_are_read_as_records() -> None:
    talk = [{"messages": np.array([{"role": "user", "content": row["instruction"]},
                                   {"role": "assistant", "content": row["output"]}]), "weight": np.float64("nan")}
            for row in ROWS[2:6]]  # fmt: skip
    (frame,) = ScoreRows(str(MODEL)).pandas([pd.DataFrame(talk)])
    assert frame[STATUS].tolist() == ["scored"] * 4


def test_a_changed_model_changes_the_hash_that_datasets_caches_by(tmp_path: Path) -> None:
    from datasets.fingerprint import Hasher

    shutil.copytree(MODEL, tmp_path / "model")
    before = Hasher.hash(ScoreRows(str(tmp_path / "model")))
    assert Hasher.hash(ScoreRows(str(tmp_path / "model"))) == before
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert Hasher.hash(ScoreRows(str(tmp_path / "model"))) != before


def test_bad_input_is_named(tmp_path: Path) -> None:
    score = ScoreRows(str(MODEL))
    with pytest.raises(InputError, match="batched=True"):
        score(ROWS[0])
    with pytest.raises(InputError, match="same length"):
        score({"instruction": ["a"], "output": ["b", "c"]})
    absent = ScoreRows(str(MODEL), columns="prompt=question,response=answer")(_columns(ROWS[2:4]))
    assert absent[STATUS] == ["unknown_format"] * 2 and "question" in absent["donod_detail"][0]
    with pytest.raises(ModelError, match="nothing"):
        ScoreRows(str(tmp_path / "nothing"))(_columns(ROWS[:2]))
    with pytest.raises(InputError, match="unknown option 'learning_rate'"):
        ScoreRows(str(MODEL), learning_rate=1.0)
    assert score({"instruction": [], "output": []})[STATUS] == []


def test_constants_of_host_rows_need_no_settings() -> None:
    found = batch_scorer(str(MODEL)).columns(ROWS)
    constants = topsis_constants(found)
    again = batch_scorer(str(MODEL), None, constants).columns(ROWS)
    whole = constants.apply([row[DON] for row in found], [row[NOD] for row in found])
    assert [row[TOPSIS] for row in again] == [None if one != one else one for one in whole.tolist()]


def _columns(some: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in some] for name in some[0]}


def test_scores_of_an_earlier_run_do_not_survive() -> None:
    batch = {name: [row[name] for row in rows(4)] for name in ("instruction", "input", "output")}
    found = ScoreRows(str(MODEL))({**batch, TOPSIS: [0.99] * 4, STATUS: ["old"] * 4})
    assert found[TOPSIS] == [None] * 4 and found[STATUS] == ["scored"] * 4


def _statuses(score: ScoreRows) -> list[str | None]:
    return score({name: [row[name] for row in rows(2)] for name in ("instruction", "input", "output")})[STATUS]


def test_a_fork_of_a_process_that_used_threads_does_not_hang() -> None:
    code = f"""
import multiprocessing, sys, torch
sys.path[:0] = {sys.path!r}
torch.set_num_threads(2)
x = torch.ones(700, 700)
float((x @ x).exp().sum())
from test_mapping import _statuses
from donod_fast.adapters.mapping import ScoreRows
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply(_statuses, (ScoreRows({str(MODEL)!r}),)))
"""
    done = run(sys.executable, "-c", code, OMP_NUM_THREADS="2", PYTHONPATH=str(Path(__file__).parent))
    assert done.stdout.strip() == "['scored', 'scored']", done.stderr
