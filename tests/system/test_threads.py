"""Concurrent batches and batches launched ahead: order, errors and settings as in sequence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_models import save_tiny

from donod_fast.data.types import Status
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.forward import Forward
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.threads import in_order, launched_ahead, worker_count

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


def test_torch_threads_are_divided_and_restored_even_after_an_error(two_threads: None) -> None:
    seen = [count for _, count in in_order(lambda _: torch.get_num_threads(), range(4), 2)]
    assert seen == [1] * 4
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // i, [1, 0, 1], 2))
    assert torch.get_num_threads() == 2


def test_there_is_one_worker_on_an_accelerator_and_few_on_a_cpu(two_threads: None) -> None:
    assert worker_count(torch.device("cuda")) == 1
    assert worker_count(torch.device("cpu")) == 2


def test_a_result_is_read_when_two_more_are_queued() -> None:
    log: list[str] = []

    def launch(item: int, made: str) -> Callable[[], int]:
        assert made == f"made {item}"
        log.append(f"launch {item}")

        def wait() -> int:
            log.append(f"wait {item}")
            return 10 * item

        return wait

    found = list(launched_ahead(lambda item: f"made {item}", launch, range(5)))
    assert found == [(item, 10 * item) for item in range(5)]
    assert log == [
        *("launch 0", "launch 1", "launch 2", "wait 0", "launch 3", "wait 1", "launch 4", "wait 2"),
        *("wait 3", "wait 4"),
    ]


def test_results_in_flight_are_drained_before_an_item_that_did_not_launch() -> None:
    launched: list[int] = []

    def launch(item: int, made: int) -> Callable[[], int] | None:
        launched.append(item)
        return None if item == 3 else lambda: made

    assert list(launched_ahead(lambda item: item * item, launch, range(9))) == [(0, 0), (1, 1), (2, 4), (3, None)]
    assert launched == [0, 1, 2, 3]


def test_items_are_made_in_one_other_thread_that_is_set_up_first() -> None:
    log: list[tuple[str, str]] = []

    def note(what: str) -> None:
        log.append((what, threading.current_thread().name))

    def launch(item: int, made: None) -> Callable[[], None]:
        note("launch")
        return lambda: None

    list(launched_ahead(lambda _: note("make"), launch, range(4), start=lambda: note("start")))
    others = {name for what, name in log if what != "launch"}
    assert log[0][0] == "start" and [what for what, _ in log].count("start") == 1
    assert len(others) == 1 and others != {threading.current_thread().name}
    assert {name for what, name in log if what == "launch"} == {threading.current_thread().name}


@pytest.mark.parametrize("where", ["make", "launch", "wait"])
def test_an_error_of_a_launched_item_comes_out(where: str) -> None:
    def broken(here: str, item: int) -> int:
        if here == where and item == 2:
            raise ZeroDivisionError(here)
        return item

    def launch(item: int, made: int) -> Callable[[], int]:
        broken("launch", item)
        return lambda: broken("wait", item)

    with pytest.raises(ZeroDivisionError, match=where):
        list(launched_ahead(lambda item: broken("make", item), launch, range(6)))


def test_launching_stops_when_nobody_asks_any_more() -> None:
    made: list[int] = []
    results = launched_ahead(lambda item: made.append(item), lambda item, _: lambda: item, range(100))
    next(results)
    results.close()
    assert len(made) <= 6


def test_rows_scored_concurrently_equal_those_scored_in_sequence(scorer: Scorer) -> None:
    alone = scorer.score_table(ROWS)
    torch.set_num_threads(2)
    try:
        tables = [scorer.score_table(ROWS) for _ in range(3)]
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
    expected = scorer.score_table(ROWS)
    launch = Forward.launch

    def short_of_memory(forward, batch, *arguments):  # type: ignore[no-untyped-def]
        if len(batch.members) > 1 and batch.tokens > 50:
            raise torch.OutOfMemoryError("out of memory")
        return launch(forward, batch, *arguments)

    monkeypatch.setattr(Forward, "launch", short_of_memory)
    found = scorer.score_table(ROWS)
    assert found["row"].to_pylist() == expected["row"].to_pylist()
    assert found["status"].to_pylist() == [Status.SCORED] * len(ROWS)
    assert found["nod"].to_pylist() == pytest.approx(expected["nod"].to_pylist(), rel=1e-5)
