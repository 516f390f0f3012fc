"""The stages of NeMo Curator as an executor calls them: any batches, in any order, some of them twice."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from host_cases import MODEL, assert_same_scores, reference, rows, write_rows

pytest.importorskip("nemo_curator", reason="NeMo Curator is not installed")

import pandas as pd
import pyarrow as pa
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks import DocumentBatch
from omegaconf import OmegaConf

from donod_fast import topsis_constants
from donod_fast.adapters.columns import DON, NOD, TOPSIS
from donod_fast.adapters.frames import column_names, rows_of
from donod_fast.adapters.nemo import (
    ROW,
    SOURCE,
    DonodFrozenTopsisStage,
    DonodScoreStage,
    DonodTopsisStage,
)
from donod_fast.errors import InputError, ModelError

ROWS = rows(24, unscorable=(3, 17))
KINDS = {"arrow": pa.Table.from_pylist, "pandas": pd.DataFrame}


def _batches(content: list[dict[str, Any]], sizes: list[int], kind: str = "arrow") -> list[DocumentBatch]:
    made, start = [], 0
    for at, size in enumerate(sizes):
        metadata = {"partition_index": at, "total_partitions": len(sizes), "source_files": [f"part{at}.jsonl"]}
        made.append(DocumentBatch("corpus", KINDS[kind](content[start : start + size]), _metadata=metadata))
        start += size
    return made


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference")
    return reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")


@pytest.fixture(scope="module")
def scored() -> list[DocumentBatch]:
    stage = DonodScoreStage(str(MODEL))
    return [stage.process(batch) for batch in _batches(ROWS, [8, 1, 15])]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_either_kind_get_the_scores_in_place(wanted, kind: str) -> None:
    stage = pickle.loads(pickle.dumps(DonodScoreStage(str(MODEL))))
    before = _batches(ROWS, [5, 19], kind)
    found = [stage.process(batch) for batch in before]
    assert [type(batch.data) for batch in found] == [type(batch.data) for batch in before]
    assert all(column_names(batch.data) == list(ROWS[0]) for batch in before)  # the host may deliver them again
    content = [row for batch in found for row in rows_of(batch.data)]
    assert [row["id"] for row in content] == [row["id"] for row in ROWS]
    assert [(row[SOURCE], row[ROW]) for row in content] == [
        (f"part{at >= 5:d}.jsonl", at - 5 * (at >= 5)) for at in range(24)
    ]
    assert_same_scores(content, wanted)
    assert [batch._metadata for batch in found] == [batch._metadata for batch in before]


def test_a_batch_that_is_scored_twice_gives_the_same_rows(scored) -> None:
    again = DonodScoreStage(str(MODEL))
    twice = [again.process(again.process(batch)) for batch in _batches(ROWS, [8, 1, 15])]
    assert [batch.data.to_pylist() for batch in twice] == [batch.data.to_pylist() for batch in scored]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_depend_neither_on_order_nor_on_repeats(scored, wanted, seed: int, kind: str) -> None:
    whole = DonodTopsisStage().process_batch(scored)
    right = {row["id"]: row[TOPSIS] for batch in whole for row in rows_of(batch.data)}
    assert len(right) == 24
    draw = random.Random(seed)
    delivered = draw.sample(scored, 3) + draw.sample(scored, 1)
    delivered = [
        DocumentBatch("corpus", KINDS[kind](batch.data.to_pylist()), _metadata=batch._metadata) for batch in delivered
    ]
    found = DonodTopsisStage(keep=0.3).process_batch(delivered)
    assert len(found) == len(delivered)  # the host maps results to batches by their position
    kept = [row for batch in found if batch is not None for row in rows_of(batch.data)]
    best = sorted((value for value in right.values() if value is not None), reverse=True)[:7]
    assert sorted((row[TOPSIS] for row in kept), reverse=True) == best
    assert all(row[TOPSIS] == right[row["id"]] for row in kept)


def test_the_frozen_stage_agrees_with_the_global_one(scored, tmp_path: Path) -> None:
    table = pa.concat_tables([batch.data for batch in scored])
    topsis_constants(table, keep=(0.3, 5)).save(tmp_path / "constants.json")
    for keep in (0.3, "30%", 5, None):
        frozen = pickle.loads(pickle.dumps(DonodFrozenTopsisStage(str(tmp_path / "constants.json"), keep)))
        one = [row for batch in scored if (found := frozen.process(batch)) for row in rows_of(found.data)]
        whole = DonodTopsisStage(keep).process_batch(scored)
        other = [row for batch in whole if batch is not None for row in rows_of(batch.data)]
        assert [row["id"] for row in one] == [row["id"] for row in other]
        for row, right in zip(one, other, strict=True):
            assert row[TOPSIS] == (right[TOPSIS] and pytest.approx(right[TOPSIS], abs=1e-12))
    with pytest.raises(InputError, match=r"no cut for keep=0\.5"):
        DonodFrozenTopsisStage(str(tmp_path / "constants.json"), 0.5)


def test_a_part_of_the_batches_is_not_ranked_as_the_whole(scored) -> None:
    with pytest.raises(InputError, match="got 2 of the 3 batches"):
        DonodTopsisStage().process_batch(scored[:2])
    assert len(DonodTopsisStage(partial=True).process_batch(scored[:2])) == 2
    stage = DonodTopsisStage(partial=True)
    stage.process_batch(scored[:2])
    stage.process_batch(scored[:2])  # a call that is repeated
    with pytest.raises(InputError, match="called for some batches and again for others"):
        stage.process_batch(scored[2:])
    assert DonodTopsisStage.is_resumable is False
    assert DonodTopsisStage().num_workers() == 1


def test_rows_without_identity_are_refused_by_name(scored) -> None:
    bare = [DocumentBatch("corpus", batch.data.drop([SOURCE])) for batch in scored]
    with pytest.raises(InputError, match="'donod_source'"):
        DonodTopsisStage().process_batch(bare)
    assert len(DonodTopsisStage(id_field="id").process_batch(bare)) == 3
    with pytest.raises(InputError, match="two rows have the identity"):
        DonodTopsisStage(id_field="family").process_batch(bare)
    with pytest.raises(InputError, match="no column 'no'"):
        DonodTopsisStage(id_field="no").process_batch(bare)
    with pytest.raises(InputError, match="'family' does not identify"):
        DonodScoreStage(str(MODEL), id_field="family").process(_batches(ROWS, [24])[0])
    own = DonodScoreStage(str(MODEL), id_field="id").process(_batches(ROWS[:2], [2])[0])
    assert SOURCE not in own.data.column_names


def test_rows_without_scores_are_not_ranked(scored) -> None:
    batches = [
        DocumentBatch("corpus", batch.data.set_column(
            batch.data.column_names.index(DON), DON, pa.nulls(len(batch.data), pa.float64())
        ).set_column(batch.data.column_names.index(NOD), NOD, pa.nulls(len(batch.data), pa.float64())))
        for batch in scored
    ]  # fmt: skip
    with pytest.raises(InputError, match="none of the 24 rows has scores"):
        DonodTopsisStage().process_batch(batches)


@pytest.mark.parametrize("kind", KINDS)
def test_an_absent_column_fails_and_an_absent_value_does_not(kind: str) -> None:
    stage = DonodScoreStage(str(MODEL))
    with pytest.raises(InputError, match=r"part0\.jsonl: no row of this batch can be read"):
        stage.process(_batches([{"instruction": "a"}], [1], kind)[0])
    schema = {"instruction": "a", "input": "", "output": "b"}
    batch = _batches([schema, {**schema, "output": None}], [1, 1], "arrow")
    batch[1].data = batch[1].data.cast(batch[0].data.schema)
    data = batch[1].data if kind == "arrow" else batch[1].data.to_pandas()
    [row] = rows_of(stage.process(DocumentBatch("corpus", data)).data)
    assert row["donod_status"] == "unknown_format"
    mapped = DonodScoreStage(str(MODEL), columns={"prompt": "question", "response": "answer"})
    with pytest.raises(InputError, match="'question' is mapped to prompt"):
        mapped.process(_batches(ROWS, [24], kind)[0])


def test_an_empty_batch_keeps_the_columns_of_the_others(scored) -> None:
    found = DonodScoreStage(str(MODEL)).process(DocumentBatch("corpus", _batches(ROWS, [8])[0].data.slice(0, 0)))
    assert found.data.schema == scored[0].data.schema


def test_options_come_as_hydra_gives_them() -> None:
    given = OmegaConf.create({"columns": ["prompt=instruction", "response=output"], "signals": ["perplexity", "el2n"]})
    stage = DonodScoreStage(str(MODEL), lr=1e-5, **given)
    found = stage.process(_batches(ROWS[:2], [2])[0])
    assert {"donod_perplexity", "donod_el2n"} <= set(found.data.column_names)
    with pytest.raises(InputError, match="unknown option 'learning_rate'"):
        DonodScoreStage(str(MODEL), learning_rate=1e-5)


@pytest.mark.parametrize("keep", [0, 1.5, "nothing", -1, True])
def test_a_share_that_is_none_is_refused(keep: Any) -> None:
    with pytest.raises(InputError, match="keep"):
        DonodTopsisStage(keep)


def test_the_gpu_of_the_host_is_used_or_the_run_fails() -> None:
    import torch

    stage = DonodScoreStage(str(MODEL)).with_(resources=Resources(cpus=1, gpus=1))
    assert isinstance(stage, ProcessingStage)
    if torch.cuda.is_available():
        stage.setup()
        assert stage.lazy.scorer().loaded.device.type == "cuda"
    else:
        with pytest.raises(ModelError, match="its worker sees none"):
            stage.setup()
    with pytest.raises(ModelError):
        DonodScoreStage(str(MODEL), resources={"cpus": 1, "gpus": 2}).setup()
