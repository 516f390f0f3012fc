"""The ledger counts started attempts and detects silent workers."""

from __future__ import annotations

from donod_fast.engines.isolation import MOST_TRIES
from donod_fast.engines.ray.ledger import Ledger


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_task_may_be_lost_so_many_times_and_no_more() -> None:
    ledger = Ledger()
    for attempt in range(MOST_TRIES):
        assert ledger.begin(7, f"node {attempt}", None) is None
    why_not = ledger.begin(7, "node 9", None)
    assert why_not is not None
    assert f"node {MOST_TRIES - 1}" in why_not  # where it was lost last, not who asks now
    assert ledger.begin(8, "node 9", None) is None


def test_a_task_that_gets_on_may_be_lost_more_often() -> None:
    ledger = Ledger()
    for _ in range(3 * MOST_TRIES):  # a long task, and a cluster whose nodes come and go
        assert ledger.begin(7, "node", None) is None
        ledger.sign(7, 10, 100, has_committed=True)
    assert [held.attempt for held in ledger.news().held] == [3 * MOST_TRIES]


def test_a_task_that_ended_was_not_lost() -> None:
    ledger = Ledger()
    for _ in range(3 * MOST_TRIES):  # Ray may repeat what is done already
        assert ledger.begin(7, "node", None) is None
        ledger.end(7, 10, 100, has_committed=True)
    news = ledger.news()
    assert (news.losses, news.strikes, news.held) == ((), 0, ())


def test_rows_of_a_lost_attempt_are_subtracted_but_tokens_are_not() -> None:
    ledger = Ledger()
    ledger.begin(7, "node a", None)
    ledger.sign(7, 30, 300, has_committed=True)
    assert (ledger.news().rows, ledger.news().tokens) == (30, 300)
    ledger.begin(7, "node b", None)
    news = ledger.news()
    assert (news.rows, news.tokens) == (0, 300)
    assert news.losses == ((7, "node a"),)
    assert ledger.news().losses == ()  # told once
    ledger.sign(7, 20, 0, has_committed=False)  # committed by the first attempt
    ledger.end(7, 40, 200, has_committed=True)
    assert (ledger.news().rows, ledger.news().tokens) == (40, 500)


def test_losses_in_a_row_are_counted_until_a_part_is_done() -> None:
    ledger = Ledger()
    for task in range(4):
        ledger.begin(task, "node", None)
        ledger.begin(task, "node", None)
    assert ledger.news().strikes == 4
    ledger.sign(0, 5, 5, has_committed=False)
    assert ledger.news().strikes == 4
    ledger.sign(0, 10, 10, has_committed=True)
    assert ledger.news().strikes == 0


def test_who_is_silent_shows() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ledger.begin(1, "node a", "first worker")
    clock.now = 5.0
    ledger.begin(2, "node b", "second worker")
    clock.now = 8.0
    news = ledger.news()
    assert [(held.task, held.where, held.silent) for held in news.held] == [(1, "node a", 8.0), (2, "node b", 3.0)]
    assert news.silent == 3.0
    assert ledger.worker(1) == "first worker"
    assert ledger.worker(3) is None


def test_after_the_end_no_worker_starts_and_running_ones_are_told() -> None:
    ledger = Ledger()
    ledger.begin(1, "node", None)
    assert not ledger.sign(1, 1, 1, has_committed=False)
    ledger.stop()
    assert ledger.sign(1, 1, 1, has_committed=False)
    assert ledger.begin(2, "node", None) is not None
