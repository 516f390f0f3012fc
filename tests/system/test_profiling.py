"""Profiles: sums that add up, a known idle share, and a trace that viewers can read."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import short_rows
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows
from donod_fast.engines.local import score_corpus
from donod_fast.scores.folder import locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.system import profiling
from donod_fast.system.profiling import DEVICE, MAIN, NO_STAGES, PROCESSES, THREADS, Report, Stages

CPU = torch.device("cpu")


class Clock:
    """Time that passes only when it is told to; each thread has its own hands."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self) -> float:
        return getattr(self._local, "now", 100.0)

    def passes(self, seconds: float) -> None:
        self._local.now = self() + seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(profiling.time, "perf_counter", clock)
    return clock


def seconds(report: Report) -> dict[tuple[str, str], float]:
    return {(stage.where, stage.name): stage.seconds for stage in report.stages}


def in_thread(job: Callable[[], None], name: str = "other") -> None:
    thread = threading.Thread(target=job, name=name)
    thread.start()
    thread.join()


def test_stage_times_exclude_inner_stages_and_sum_to_the_wall_time(clock: Clock) -> None:
    stages = Stages()
    with stages.run(CPU):
        clock.passes(1)
        with stages.stage("outer"):
            clock.passes(2)
            for _ in range(3):
                with stages.stage("inner"):
                    clock.passes(4)
                    with stages.on_device("trunk"):
                        clock.passes(8)
            clock.passes(16)
    report = stages.report()
    assert report.wall_seconds == 1 + 2 + 3 * 12 + 16
    assert seconds(report) == {
        (MAIN, "outer"): 18,
        (MAIN, "inner"): 12,
        (MAIN, "other"): 1,
        (DEVICE, "trunk"): 24,
    }
    assert sum(stage.seconds for stage in report.stages) == report.wall_seconds
    assert sum(stage.share for stage in report.stages) == pytest.approx(1.0)
    assert [stage.calls for stage in report.stages if stage.name == "inner"] == [3]


def test_an_error_within_a_stage_ends_it_and_those_around_it(clock: Clock) -> None:
    stages = Stages()
    with stages.run(CPU):
        with pytest.raises(KeyError), stages.stage("outer"), stages.stage("inner"):
            clock.passes(1)
            raise KeyError
        with stages.stage("outer"):
            clock.passes(2)
    assert seconds(stages.report()) == {(MAIN, "outer"): 2, (MAIN, "inner"): 1, (MAIN, "other"): 0}


def test_threads_and_processes_are_counted_apart_from_the_main_thread(clock: Clock) -> None:
    stages = Stages()

    def work() -> None:
        with stages.stage("write"):
            clock.passes(30)

    with stages.run(CPU):
        clock.passes(10)
        for _ in range(2):
            in_thread(work)
        stages.elsewhere("tokenize", 100.0, 5.0, process=4711)
    report = stages.report()
    assert seconds(report) == {(MAIN, "other"): 10, (THREADS, "write"): 60, (PROCESSES, "tokenize"): 5}
    assert [stage.share for stage in report.stages if stage.name == "write"] == [6.0]


def test_the_idle_share_is_what_was_arranged(clock: Clock) -> None:
    """Two lanes over 10 s: one works 6 + 2 s, the other 4 s."""
    stages = Stages()

    def lane(trunk: float, head: float) -> None:
        with stages.on_device("trunk"):
            clock.passes(trunk)
        with stages.on_device("head"):
            clock.passes(head)

    with stages.run(CPU, lanes=2):
        in_thread(lambda: lane(6, 2))
        in_thread(lambda: lane(3, 1))
        clock.passes(10)
    report = stages.report()
    assert report.busy == pytest.approx(12 / 20) and report.idle == pytest.approx(8 / 20)
    assert report.head_share == pytest.approx(3 / 12)
    assert [stage.share for stage in report.stages if stage.where == DEVICE] == [9 / 20, 3 / 20]


def test_runs_add_up_and_a_run_within_a_run_counts_once(clock: Clock) -> None:
    stages = Stages()
    for _ in range(2):
        with stages.run(CPU):
            clock.passes(1)
            with stages.run(CPU):
                clock.passes(2)
        clock.passes(100)
    assert stages.report().wall_seconds == 6


def test_batches_are_counted(clock: Clock) -> None:
    stages = Stages()
    with stages.run(CPU):
        clock.passes(2)
        stages.batch(samples=3, tokens=90, run_tokens=80, slots=100)
        stages.batch(samples=1, tokens=30, run_tokens=20, slots=25)
    report = stages.report()
    assert (report.batches, report.samples, report.tokens, report.run_tokens, report.slots) == (2, 4, 120, 100, 125)
    assert report.packing == pytest.approx(0.8) and report.tokens_per_second == 60
    assert report.peak_bytes > 50 << 20  # this process has imported torch


def test_the_text_is_a_table_with_every_stage(clock: Clock) -> None:
    stages = Stages()
    with stages.run(CPU):
        with stages.stage("wait"):
            clock.passes(1)
        with stages.on_device("head"):
            clock.passes(3)
        stages.batch(2, 40, 30, 60)
    lines = stages.report().text().splitlines()
    assert lines[0].split() == ["where", "stage", "seconds", "share", "calls"]
    assert [line.split() for line in lines[1:4]] == [
        ["main", "wait", "1.00", "25.0%", "1"],
        ["main", "other", "0.00", "0.0%", "1"],
        ["device", "head", "3.00", "75.0%", "1"],
    ]
    assert (
        len({line.index(end) + len(end) for line, end in zip(lines[1:4], ("1.00", "0.00", "3.00"), strict=True)}) == 1
    )
    assert "busy 75.0%, idle 25.0% of 4.0 s" in lines[4] and "head 100.0%" in lines[4]
    assert "2 samples, 40 tokens (10/s); 50.0% of 60 slots filled in 1 batches" in lines[5]


def test_a_trace_holds_every_span_on_the_track_of_its_thread(clock: Clock, tmp_path: Path) -> None:
    stages = Stages(trace=True)

    def work() -> None:
        clock.passes(2)
        with stages.stage("write"):
            clock.passes(3)

    with stages.run(CPU):
        with stages.stage("outer"):
            clock.passes(0.5)
            with stages.stage("inner"):
                clock.passes(1)
        in_thread(work, "writer")
        stages.elsewhere("tokenize", 101.0, 0.25, process=4711)
    stages.chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["ph"] for event in trace["traceEvents"]} == {"M", "X"}
    here, main = os.getpid(), threading.current_thread().name
    assert sorted((e["pid"], names[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"]) for e in spans) == sorted(
        [
            (here, main, "outer", 0.0, 1.5e6),
            (here, main, "inner", 0.5e6, 1e6),
            (here, "writer", "write", 2e6, 3e6),
            (4711, "prepare", "tokenize", 1e6, 0.25e6),
        ]
    )


def test_a_trace_stops_growing(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_MOST_SPANS", 10)
    stages = Stages(trace=True)
    for _ in range(100):
        with stages.stage("s"):
            clock.passes(1)
    stages.chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == 10
    assert seconds(stages.report())[THREADS, "s"] == 100


class Event:
    """In place of an event of CUDA: passes in the device's time, which is ``at`` seconds past the host's."""

    def __init__(self, at: float) -> None:
        self.at, self.passed, self.waited = at, False, False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.passed = self.waited = True

    def elapsed_time(self, later: Event) -> float:
        return 1e3 * (later.at - self.at)


def test_device_time_is_measured_between_events_without_waiting(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    times = [0.0, 5.0, 7.0, 7.0, 8.0, 8.0, 12.0]
    events: list[Event] = []

    def recorded(device: Any) -> Event:
        events.append(Event(times[len(events)]))
        return events[-1]

    monkeypatch.setattr(profiling, "_event", recorded)
    monkeypatch.setattr(profiling, "_peak_bytes", lambda device: 123)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    stages = Stages(trace=True)
    with stages.run(torch.device("cuda")):
        with stages.on_device("trunk"):
            pass
        assert not any(event.waited for event in events) and (DEVICE, "trunk") not in stages._seconds
        events[2].passed = True
        with stages.on_device("head"):
            pass
        with stages.on_device("trunk"):
            pass
        assert not any(event.waited for event in events) and stages._seconds[DEVICE, "trunk"] == 2
        clock.passes(14)
    report = stages.report()
    assert seconds(report) == {(DEVICE, "trunk"): 6, (DEVICE, "head"): 1, (MAIN, "other"): 14}
    assert report.busy == pytest.approx(7 / 14) and report.head_share == pytest.approx(1 / 7)
    stages.chrome_trace(tmp_path / "trace.json")
    spans = [e for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in spans] == [
        ("trunk", 0.0, 2e6),
        ("head", 2e6, 1e6),
        ("trunk", 3e6, 4e6),
    ]


def test_nobody_s_stages_record_nothing() -> None:
    with NO_STAGES.run(CPU), NO_STAGES.stage("wait"), NO_STAGES.on_device("trunk"):
        NO_STAGES.batch(1, 2, 3, 4)
        NO_STAGES.elsewhere("read", 0.0, 1.0, 2)
    assert NO_STAGES.stage("a") is NO_STAGES.on_device("b")
    assert not NO_STAGES._seconds and NO_STAGES._wall == 0.0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_profile_accounts_for_the_wall_time_and_tokens_of_a_run(threads: int, tmp_path: Path) -> None:
    torch.set_num_threads(threads)
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=256)
    stages = Stages(trace=True)
    with locked(tmp_path):
        folder = score_corpus(corpus_from_rows(short_rows(60)), scorer, tmp_path, part_rows=20, stages=stages).folder
    report = stages.report()
    found = seconds(report)
    assert {(MAIN, "wait"), (MAIN, "results"), (THREADS, "read"), (THREADS, "tokenize"), (THREADS, "write")} <= set(
        found
    )
    assert {(DEVICE, "trunk"), (DEVICE, "head")} <= set(found)
    if threads == 1:  # all of the device's work is done by the main thread
        assert sum(s for (where, _), s in found.items() if where in (MAIN, DEVICE)) == pytest.approx(
            report.wall_seconds
        )
    else:
        assert sum(s for (where, _), s in found.items() if where == MAIN) == pytest.approx(report.wall_seconds)
    assert 0.0 < report.busy <= 1.0 and report.busy + report.idle == 1.0
    rows = [row for row in folder.table().to_pylist() if row["status"] == "scored"]
    assert report.samples == len(rows)
    assert report.tokens == sum(min(row["tokens"], 128) for row in rows)
    assert report.run_tokens <= report.slots and 0.5 < report.packing <= 1.0
    assert report.device == "cpu"
