"""Parent-side handle of a device process."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from donod_fast.data.prefetch import Step
from donod_fast.engines.device.child import At, Child, Failed, Go, Probe, Task
from donod_fast.engines.isolation import Suspect
from donod_fast.errors import InputError
from donod_fast.system.profiling import Report

CONTEXT = multiprocessing.get_context("spawn")
"""How processes are started. CUDA does not work in a forked process."""

_PATIENCE_SECONDS = 5.0  # for a process that has been asked to end

_AT_WORK = (Step.SCORING, Step.PREPARING, Step.SCORED)  # SCORED: being written


@dataclass(eq=False)
class Slot:
    """A device, independent of the process that serves it now.

    Attributes:
        child: what each of its processes gets.
        strikes: processes lost in a row, without a finished part or row in between.
    """

    child: Child
    strikes: int = 0


class DeviceProcess:
    """The parent's handle of a child.

    Attributes:
        device: the device of the child.
        slot: what all processes of the device share.
        pipe: the parent's end of the pipe.
        is_first: whether it is the first process of its device, not a replacement.
        ready: whether it has loaded the model.
        idle: whether it has finished everything that it was given.
        parts: part numbers that it was given and that are not known to be committed.
        rows: reported progress beyond the parts that are known to be committed.
        suspect: the part that it scores alone; else None.
        probing: whether it probes the rows of the suspect instead of scoring the part.
        trying: the row that it announced last in a probe.
        closed: whether it gets no more parts in this round.
        heard: time of its last message, by ``time.monotonic``.
        report: where its time went.
        fitting_budget: the token budget that batches were cut to if memory ran out; else None.

    Args:
        slot: see above.
        is_first: see above.

    Raises:
        InputError: corpus or settings cannot be sent to another process.
    """

    def __init__(self, slot: Slot, *, is_first: bool) -> None:
        child = slot.child
        self.device, self.slot, self.is_first = child.device, slot, is_first
        self.pipe, there = CONTEXT.Pipe()
        self._process: BaseProcess = CONTEXT.Process(target=child.run, args=(there,), name=f"donod-fast {child.device}")
        # An interrupt of the terminal goes to every process of the group; only the parent reacts to it.
        with _interrupts_held():
            try:
                self._process.start()
            except (TypeError, AttributeError, ValueError) as error:  # what pickle raises
                raise InputError(f"cannot hand corpus and settings to another process: {error}") from error
        there.close()  # so that its end shows here
        self.ready = self.idle = self.closed = self.probing = False
        self.parts: list[int] = []
        self.rows = 0
        self.suspect: Suspect | None = None
        self.trying: int | None = None
        self.report: Report | None = None
        self.fitting_budget: int | None = None
        self.heard = time.monotonic()
        self._steps: dict[int, Step] = {}

    @property
    def id(self) -> int | None:
        """Its process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, and all its messages have been read."""
        return self._process.exitcode is not None and not self.pipe.poll()

    def silent_for(self) -> float:
        """Seconds since its last message; 0 while it has nothing to do."""
        return 0.0 if (self.ready and self.idle) or self.pipe.poll() else time.monotonic() - self.heard

    def set_to(self, job: Go | Probe, suspect: Suspect | None) -> None:
        """Give an idle child something to do, for a suspect or for any part."""
        self.idle = self.closed = False
        self.suspect, self.probing, self.trying = suspect, isinstance(job, Probe), None
        self._steps.clear()
        self.heard = time.monotonic()
        self.send(job)

    def hand(self, task: Task) -> None:
        """Send the process a part that it requested."""
        self.parts.append(task.part)
        self.send(task)

    def send(self, message: Go | Probe | Task | None) -> None:
        """Send it a message. If it has ended, the message is dropped, and the closed pipe will show that."""
        with suppress(OSError):
            self.pipe.send(message)

    def steps_to(self, message: At) -> None:
        """Note the step of a part that it has begun."""
        self._steps[message.part] = message.step

    def blamed(self, failure: Failed | None) -> list[int]:
        """Its parts that may have caused its end, likeliest first: those in work, or all if none was in work.

        A raised error comes from the part that was scored, or from a part that could not be prepared.
        """
        guilty = _AT_WORK if failure is None else (Step.SCORING, Step.UNPREPARED)
        return [part for step in guilty for part in self.parts if self._steps.get(part) is step] or list(self.parts)

    def terminate(self) -> None:
        """Ask it to end."""
        self.pipe.close()
        if self._process.exitcode is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it; its preparation processes end with it."""
        self._process.kill()

    def ended(self) -> str:
        """Wait for its end, kill it if it does not end, and describe how it ended."""
        self.pipe.close()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(_PATIENCE_SECONDS)  # a process that hangs in a driver may survive even that
        return _death(self._process.exitcode)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Delay interrupts until afterwards, and keep them from processes that are started within."""
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # started within, it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"was killed ({name}" + (", as where the host's memory runs out)" if name == "SIGKILL" else ")")
    return f"was killed (signal {-code})"


__all__ = ["CONTEXT", "DeviceProcess", "Slot"]
