"""Parts written in the background: in order, with few pending, and none after a failed write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from score_runs import short_rows
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows
from donod_fast.engines.local import score_corpus
from donod_fast.errors import StoreError
from donod_fast.scores.background_writer import background_writer
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.profiling import Stages


class Folder:
    """In place of a scores folder: writes when it is let, and fails where it is told to."""

    def __init__(self, *, broken: int | None = None, let: bool = True) -> None:
        self.broken, self.written, self.gate = broken, [], threading.Semaphore(100 if let else 0)
        self.threads: set[threading.Thread] = set()

    def write_part(self, part: int, rows: Any, *more: Any) -> None:
        self.gate.acquire()
        self.threads.add(threading.current_thread())
        if part == self.broken:
            raise StoreError("cannot write: the disk is full")
        self.written.append(part)


def test_parts_are_committed_in_order_by_one_other_thread() -> None:
    folder = Folder()
    with background_writer(folder) as writer:  # type: ignore[arg-type]
        for part in (3, 1, 4, 5, 9, 2):
            writer.write(part, [])
    assert folder.written == [3, 1, 4, 5, 9, 2]
    assert len(folder.threads) == 1 and threading.current_thread() not in folder.threads


def test_no_more_than_two_parts_wait() -> None:
    folder = Folder(let=False)
    accepted: list[int] = []

    def writing() -> None:
        with background_writer(folder) as writer:  # type: ignore[arg-type]
            for part in range(5):
                writer.write(part, [])
                accepted.append(part)

    thread = threading.Thread(target=writing)
    thread.start()
    for written in range(3):
        wait_until(lambda written=written: len(accepted) == 2 + written)
        thread.join(0.05)
        assert len(accepted) == 2 + written  # the next one waits in `write`
        folder.gate.release()
    folder.gate.release(2)
    thread.join(30)
    assert accepted == folder.written == list(range(5))


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing came of it")


def test_after_a_failed_write_no_part_is_written_and_the_error_comes_soon() -> None:
    folder = Folder(broken=2)
    asked: list[int] = []
    with pytest.raises(StoreError, match="disk is full"), background_writer(folder) as writer:  # type: ignore[arg-type]
        for part in range(10):
            asked.append(part)
            writer.write(part, [])
    assert folder.written == [0, 1]
    assert asked[-1] <= 2 + 2 + 1


def test_an_error_at_the_very_end_comes_too() -> None:
    folder = Folder(broken=1)
    with pytest.raises(StoreError, match="disk is full"), background_writer(folder) as writer:  # type: ignore[arg-type]
        writer.write(0, [])
        writer.write(1, [])
    assert folder.written == [0]


@pytest.mark.parametrize("broken", [None, 1])
def test_a_scoring_error_propagates_and_earlier_parts_are_still_written(broken: int | None) -> None:
    folder = Folder(broken=broken)
    with pytest.raises(KeyboardInterrupt), background_writer(folder) as writer:  # type: ignore[arg-type]
        writer.write(0, [])
        writer.write(1, [])
        raise KeyboardInterrupt
    assert folder.written == ([0, 1] if broken is None else [0])


def test_scoring_continues_during_a_write_and_all_parts_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
    real, second = ScoresFolder.write_part, threading.Event()

    def slow(folder: ScoresFolder, part: int, rows: Any, *more: Any) -> None:
        assert second.wait(60), "part 1 was not scored while part 0 was being written"
        real(folder, part, rows)

    calls = iter(range(100))

    def progress(rows: int, tokens: int) -> None:
        if tokens and next(calls) == 1:
            second.set()

    monkeypatch.setattr(ScoresFolder, "write_part", slow)
    stages = Stages()
    with locked(tmp_path):
        outcome = score_corpus(
            corpus_from_rows(short_rows(24)), scorer, tmp_path, part_rows=8, progress=progress, stages=stages
        )
    assert sum(outcome.counts.values()) == 24
    calls_of = {(stage.where, stage.name): stage.calls for stage in stages.report().stages}
    assert calls_of["threads", "write"] == 3
