"""Batches side by side: order, errors and settings are those of one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from tiny_models import save_tiny

from donod_fast.rows import SCORE_COLUMNS
from donod_fast.samples import Status
from donod_fast.scorer import Scorer
from donod_fast.workers import in_order, worker_count

ROWS = [{"question": f"what is {i} ?", "answer": " ".join(["the number is"] * (1 + i % 7))} for i in range(60)]


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("model")
    save_tiny("llama", folder)
    return Scorer.from_pretrained(folder, token_budget=128)


def test_results_come_in_the_order_of_the_items_whoever_is_first() -> None:
    found = list(in_order(lambda i: (time.sleep(0.02 * (3 - i % 3)), i * i)[1], range(9), 3))
    assert found == [(i, i * i) for i in range(9)]


def test_one_worker_is_the_callers_own_thread() -> None:
    assert [thread for _, thread in in_order(lambda _: threading.current_thread(), range(2), 1)] == [
        threading.current_thread()
    ] * 2


def test_torchs_threads_are_shared_out_and_come_back_even_after_an_error(two_threads: None) -> None:
    seen = [count for _, count in in_order(lambda _: torch.get_num_threads(), range(4), 2)]
    assert seen == [1] * 4
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // i, [1, 0, 1], 2))
    assert torch.get_num_threads() == 2


def test_there_is_one_worker_on_an_accelerator_and_few_on_a_cpu(two_threads: None) -> None:
    assert worker_count(torch.device("cuda")) == 1
    assert worker_count(torch.device("cpu")) == 2


def test_rows_scored_side_by_side_are_those_scored_one_batch_at_a_time(scorer: Scorer) -> None:
    alone = scorer.score(ROWS)
    torch.set_num_threads(2)
    try:
        tables = [scorer.score(ROWS) for _ in range(3)]
    finally:
        torch.set_num_threads(1)
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0]["status"].to_pylist() == [Status.SCORED] * len(ROWS)
    nod = torch.tensor(alone["nod"].to_pylist())
    for name in SCORE_COLUMNS:
        one, two = (torch.tensor(table[name].to_pylist()) for table in (alone, tables[0]))
        scale = nod if name in ("don", "nod") else one.abs().clamp_min(1.0)
        assert float(((one - two) / scale).abs().max()) <= 1e-5, name


def test_memory_that_runs_out_beside_another_batch_costs_no_row(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    expected = scorer.score(ROWS)
    forward = scorer.samples.forward

    def short_of_memory(batch, workers=1):  # type: ignore[no-untyped-def]
        if len(batch.members) > 1 and batch.tokens > 50:
            raise torch.OutOfMemoryError("out of memory")
        return forward(batch, workers)

    monkeypatch.setattr(scorer.samples, "forward", short_of_memory)
    found = scorer.score(ROWS)
    assert found["row"].to_pylist() == expected["row"].to_pylist()
    assert found["status"].to_pylist() == [Status.SCORED] * len(ROWS)
    assert found["nod"].to_pylist() == pytest.approx(expected["nod"].to_pylist(), rel=1e-5)
