"""A device's process as its parent sees it: started, talked to, given up, ended."""

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
"""How processes are started: CUDA does not survive a fork."""

_PATIENCE_SECONDS = 5.0  # for a process that has been asked to end

_AT_WORK = (Step.SCORING, Step.PREPARING, Step.SCORED)  # SCORED: being written


@dataclass(eq=False)
class Slot:
    """A device, whatever process it has at the moment.

    Attributes:
        child: what each of its processes is told.
        strikes: processes lost in a row, without a part or a row done in between.
    """

    child: Child
    strikes: int = 0


class DeviceProcess:
    """The parent's side of a child.

    Attributes:
        device: its device.
        slot: what all processes of the device have in common.
        pipe: this end of its pipe.
        is_first: whether it is the first process of its device, and replaces none.
        ready: whether it has loaded the model.
        idle: whether it has finished all that it was given.
        parts: part numbers that it was given, as far as they are not known to be committed.
        rows: progress reported beyond the parts that are known to be committed.
        suspect: the part that it has alone; else None.
        probing: whether it probes the suspect's rows, rather than to score it.
        trying: while it probes, the row that it announced last.
        closed: whether it gets no more parts in this round.
        heard: when it last gave a sign of life, by ``time.monotonic``.
        report: where its time went.
        fitting_budget: where it ran out of memory, the token budget that it came down to.

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
        # An interrupt of the terminal goes to every process of the group; the parent alone answers it.
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
        """Whether it has ended, and there is no last word of it to be read."""
        return self._process.exitcode is not None and not self.pipe.poll()

    def silent_for(self) -> float:
        """For how many seconds it has owed a sign of life."""
        return 0.0 if (self.ready and self.idle) or self.pipe.poll() else time.monotonic() - self.heard

    def set_to(self, job: Go | Probe, suspect: Suspect | None) -> None:
        """Have an idle child do something, for a suspect or for any part."""
        self.idle = self.closed = False
        self.suspect, self.probing, self.trying = suspect, isinstance(job, Probe), None
        self._steps.clear()
        self.heard = time.monotonic()
        self.send(job)

    def hand(self, task: Task) -> None:
        """Give it a part that it wants."""
        self.parts.append(task.part)
        self.send(task)

    def send(self, message: Go | Probe | Task | None) -> None:
        """Tell it something; one that is gone does not hear it, which its pipe will show."""
        with suppress(OSError):
            self.pipe.send(message)

    def steps_to(self, message: At) -> None:
        """Note what it is doing with a part."""
        self._steps[message.part] = message.step

    def blamed(self, failure: Failed | None) -> list[int]:
        """Of its parts those that may have been its end, likeliest first: what it was at, or all where it was at none.

        An error that was raised comes from the part that was scored, or from one that could not be prepared.
        """
        guilty = _AT_WORK if failure is None else (Step.SCORING, Step.UNPREPARED)
        return [part for step in guilty for part in self.parts if self._steps.get(part) is step] or list(self.parts)

    def terminate(self) -> None:
        """Ask it to end."""
        self.pipe.close()
        if self._process.exitcode is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, with the preparation processes that it has (they go with it)."""
        self._process.kill()

    def ended(self) -> str:
        """Wait for it to end, make it where it does not, and say how it ended."""
        self.pipe.close()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(_PATIENCE_SECONDS)  # one that hangs in a driver may not even end by that
        return _death(self._process.exitcode)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Interrupts wait until afterwards, and never come to the processes that are started within."""
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
