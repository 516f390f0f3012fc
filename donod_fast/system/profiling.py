"""Profile of a run: wall time by stage and thread, device utilisation, and a Chrome trace on request.

A stage is a named piece of work. Its seconds exclude those of stages within it. Work on the device is timed there: on
CUDA between two events without waiting for them, elsewhere by the clock of the thread.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.system.files import atomic_writer
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import torch

MAIN, THREADS, PROCESSES, DEVICE = "main", "threads", "processes", "device"
"""Where a stage ran: in the scoring thread, in other threads, in other processes, or on the device."""

# A trace keeps only the first spans (tens of MB), so memory stays constant.
_MOST_SPANS = 200_000


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time of one stage.

    Attributes:
        where: ``main``, ``threads``, ``processes`` or ``device``.
        name: the stage; ``other`` is time of the main thread outside all stages.
        calls: number of calls.
        seconds: its own time, summed over its threads.
        share: share of the run's wall time; more than 1 if several threads ran it in parallel. On the device: share of
            the time of all batches that may run in parallel.
    """

    where: str
    name: str
    calls: int
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Report:
    """Profile of a run.

    Attributes:
        device: the scoring device.
        wall_seconds: time from the request for the first part to the end of writing the last part.
        stages: times by place, in the order of first use.
        busy: share of the wall time in which the device was in trunk or head; where batches run side by side, the
            mean over them. A gap within a stage, where the host gives kernels too slowly, counts as busy.
        head_share: the head's share of the device's time.
        batches: number of scored batches.
        samples: number of samples in them.
        tokens: number of tokens of these samples.
        run_tokens: tokens that the model had to process (tokens after a sample's last target are not needed).
        slots: token slots that the model processed, including padding.
        peak_bytes: most memory held: by PyTorch on a CUDA device during the run, else by this process since it began;
            0 where unknown.
    """

    device: str
    wall_seconds: float
    stages: tuple[StageTime, ...]
    busy: float
    head_share: float
    batches: int
    samples: int
    tokens: int
    run_tokens: int
    slots: int
    peak_bytes: int

    @property
    def idle(self) -> float:
        """Share of the wall time in which the device was idle."""
        return 1.0 - self.busy

    @property
    def packing(self) -> float:
        """Share of the slots that held needed tokens; 1 if there were no slots."""
        return self.run_tokens / self.slots if self.slots else 1.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the scored samples per second of wall time."""
        return self.tokens / self.wall_seconds if self.wall_seconds else 0.0

    def text(self) -> str:
        """Format as an aligned table and three lines."""
        rows = [("where", "stage", "seconds", "share", "calls")]
        rows += [(s.where, s.name, f"{s.seconds:.2f}", f"{s.share:.1%}", f"{s.calls:,}") for s in self.stages]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join(
            [
                *lines,
                f"{self.device}: busy {self.busy:.1%}, idle {self.idle:.1%} of {self.wall_seconds:.1f} s; "
                f"head {self.head_share:.1%} of its time",
                f"{plural(self.samples, 'sample')}, {plural(self.tokens, 'token')} ({self.tokens_per_second:,.0f}/s); "
                f"{self.packing:.1%} of {self.slots:,} slots filled in {self.batches:,} batches",
                f"peak memory {self.peak_bytes / 2**20:,.0f} MiB",
            ]
        )


class Stages:
    """Collects the times of one run; any thread may record.

    Args:
        trace: keep every span for :meth:`chrome_trace`; otherwise keep sums only.
    """

    def __init__(self, *, trace: bool = False) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._calls: Counter[tuple[str, str]] = Counter()
        self._spans: list[_Span] | None = [] if trace else None
        self._flying: deque[tuple[str, Any, Any]] = deque()
        self._zero: tuple[Any, float] | None = None  # an event, and the host time when it was recorded
        self._main: threading.Thread | None = None
        self._device: torch.device | None = None
        self._lanes = 1
        self._wall = 0.0
        self._running = False
        self._batches = 0
        self._sizes = [0, 0, 0, 0]  # samples, tokens, run_tokens, slots

    @contextmanager
    def run(self, device: torch.device, lanes: int = 1) -> Iterator[None]:
        """Measure the wall time of a block in the thread that scores on ``device``, ``lanes`` batches in parallel.

        A run within another run of the same thread adds nothing.
        """
        if self._running:
            yield
            return
        self._running = True
        self._device, self._lanes, self._main = device, lanes, threading.current_thread()
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self._zero = _event(device), time.perf_counter()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._resolve(wait=True)
            self._wall += time.perf_counter() - start
            self._running = False

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Time a piece of work of the current thread."""
        return _Timer(self, name, on_device=False)

    def on_device(self, name: str) -> AbstractContextManager[object]:
        """Time the device work that is launched within the block, without waiting for it."""
        if self._device is not None and self._device.type == "cuda":
            return self._between_events(name)
        return _Timer(self, name, on_device=True)

    def elsewhere(self, name: str, begin: float, seconds: float, process: int) -> None:
        """Add a time that another process measured with the same clock (``time.perf_counter``)."""
        self._add(PROCESSES, name, seconds, _Span(name, process, "prepare", begin, seconds))

    def batch(self, samples: int, tokens: int, run_tokens: int, slots: int) -> None:
        """Count a batch that was launched (see :class:`Report`)."""
        with self._lock:
            self._batches += 1
            for i, number in enumerate((samples, tokens, run_tokens, slots)):
                self._sizes[i] += number

    def report(self) -> Report:
        """Return the profile so far; call it after :meth:`run`."""
        self._resolve(wait=True)
        lanes = self._wall * self._lanes
        samples, tokens, run_tokens, slots = self._sizes
        main_thread = sum(self._seconds[key] for key in self._seconds if key[0] in (MAIN, _MAIN_DEVICE))
        seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        calls: Counter[tuple[str, str]] = Counter()
        for (where, name), value in self._seconds.items():
            seconds[_shown(where), name] += value
            calls[_shown(where), name] += self._calls[where, name]
        stages = [
            StageTime(where, name, calls[where, name], value, _ratio(value, lanes if where == DEVICE else self._wall))
            for (where, name), value in seconds.items()
        ]
        left = max(0.0, self._wall - main_thread)
        stages.append(StageTime(MAIN, "other", 1, left, _ratio(left, self._wall)))
        order = (MAIN, THREADS, PROCESSES, DEVICE)
        busy = sum(stage.seconds for stage in stages if stage.where == DEVICE)
        return Report(
            device=str(self._device),
            wall_seconds=self._wall,
            stages=tuple(sorted(stages, key=lambda stage: order.index(stage.where))),
            busy=min(1.0, _ratio(busy, lanes)),
            head_share=_ratio(seconds[DEVICE, "head"], busy),
            batches=self._batches,
            samples=samples,
            tokens=tokens,
            run_tokens=run_tokens,
            slots=slots,
            peak_bytes=_peak_bytes(self._device),
        )

    def chrome_trace(self, path: Path) -> None:
        """Write all spans as a Chrome trace (for chrome://tracing or ui.perfetto.dev), with times in microseconds.

        Raises:
            StoreError: the file cannot be written.
        """
        self._resolve(wait=True)
        spans = sorted(self._spans or (), key=lambda span: span.begin)
        zero = spans[0].begin if spans else 0.0
        tracks: dict[tuple[int, str], int] = {}
        events: list[dict[str, Any]] = []
        for span in spans:
            track = tracks.setdefault((span.process, span.thread), len(tracks) + 1)
            at = {"pid": span.process, "tid": track}
            events.append(
                {"name": span.name, "ph": "X", "ts": 1e6 * (span.begin - zero), "dur": 1e6 * span.seconds, **at}
            )
        for (process, thread), track in tracks.items():
            at = {"pid": process, "tid": track}
            events.append({"name": "thread_name", "ph": "M", "args": {"name": thread}, **at})
        with atomic_writer(path) as file:
            file.write(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode())

    @contextmanager
    def _between_events(self, name: str) -> Iterator[None]:
        begin = _event(self._device)
        yield
        with self._lock:
            self._flying.append((name, begin, _event(self._device)))
        self._resolve()

    def _resolve(self, *, wait: bool = False) -> None:
        """Read the times of events that are complete; with ``wait``, of all events."""
        while True:
            with self._lock:
                if not self._flying or not (wait or self._flying[0][2].query()):
                    return
                name, begin, end = self._flying.popleft()
            if wait:
                end.synchronize()
            assert self._zero is not None
            event, zero = self._zero
            seconds, start = begin.elapsed_time(end) / 1e3, zero + event.elapsed_time(begin) / 1e3
            self._add(DEVICE, name, seconds, _Span(name, os.getpid(), str(self._device), start, seconds))

    def _add(self, where: str, name: str, own: float, span: _Span) -> None:
        with self._lock:
            self._seconds[where, name] += own
            self._calls[where, name] += 1
            if self._spans is not None and len(self._spans) < _MOST_SPANS:
                self._spans.append(span)


class _NoStages(Stages):
    """Records nothing."""

    def run(self, device: torch.device, lanes: int = 1) -> Any:
        return _NOTHING

    def stage(self, name: str) -> AbstractContextManager[object]:
        return _NOTHING

    def on_device(self, name: str) -> AbstractContextManager[object]:
        return _NOTHING

    def elsewhere(self, name: str, begin: float, seconds: float, process: int) -> None:
        pass

    def batch(self, samples: int, tokens: int, run_tokens: int, slots: int) -> None:
        pass


_NOTHING: AbstractContextManager[object] = nullcontext()
NO_STAGES: Stages = _NoStages()
"""Used when no profile is requested."""

# Device work that the main thread ran itself, on a CPU: counted for the device and not in ``other``.
_MAIN_DEVICE = "main device"


@dataclass(frozen=True, slots=True)
class _Span:
    name: str
    process: int
    thread: str
    begin: float
    seconds: float


class _Timer:
    """Times a ``with`` block of one thread, without the blocks within it."""

    __slots__ = ("_begin", "_name", "_on_device", "_stages")

    def __init__(self, stages: Stages, name: str, *, on_device: bool) -> None:
        self._stages, self._name, self._on_device, self._begin = stages, name, on_device, 0.0

    def __enter__(self) -> None:
        local = self._stages._local
        if not hasattr(local, "inner"):
            local.inner = []
        local.inner.append(0.0)
        self._begin = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        seconds = time.perf_counter() - self._begin
        inner: list[float] = self._stages._local.inner
        own = seconds - inner.pop()
        if inner:
            inner[-1] += seconds
        thread = threading.current_thread()
        is_main = thread is self._stages._main
        where = (_MAIN_DEVICE if is_main else DEVICE) if self._on_device else (MAIN if is_main else THREADS)
        self._stages._add(where, self._name, own, _Span(self._name, os.getpid(), thread.name, self._begin, seconds))


def _shown(where: str) -> str:
    return DEVICE if where == _MAIN_DEVICE else where


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _event(device: torch.device | None) -> Any:
    """Record an event in the device's queue."""
    import torch

    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _peak_bytes(device: torch.device | None) -> int:
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


__all__ = ["NO_STAGES", "Report", "StageTime", "Stages"]
