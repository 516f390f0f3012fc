"""Scorers with a fault for processes that a test starts, and a program that scores with several of them.

A fault happens when the trunk processes a row that contains a backslash, or while the model is loaded.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from score_runs import tiny_scorer

from donod_fast.data import prefetch
from donod_fast.data.masking import Masker
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Record, TokenizedSample
from donod_fast.engines.devices import score_on_devices
from donod_fast.engines.request import RunOptions
from donod_fast.errors import ModelError
from donod_fast.scores.folder import locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

POISON = "\\"


@dataclass(frozen=True)
class FaultySpec:
    """A spec (as far as ``score_on_devices`` uses one) whose scorer goes wrong.

    Attributes:
        model: folder of a tiny model.
        fault: what goes wrong, ``""`` for nothing. Where a poisoned row is scored: ``"raise"``, ``"exit"``, ``"segv"``,
            ``"kill"`` or ``"hang"``; ``"… once"`` and ``"… thrice"``: the first time, or three times, that any process
            meets one; ``"raise together"``: in a batch with others. ``"segv tokenizing"``, ``"hang tokenizing"``: where
            it is tokenised. ``"raise always"``: at every row, from the sixth batch of the run on. ``"exit, refuse"``: a
            poisoned row ends its process, and from then on no model can be loaded. ``"kill writing"``: the first
            process that has written a part and not yet named it; ``"kill writing losses"``: or its losses. At the load
            ``"refuse"``, ``"kill loading"``, ``"hang loading"``, ``"kill second"``: the second process, when the first
            has come to score, or ``"unlike"``: all but the first have other settings. ``"stuck"``: from its sixth batch
            on a process makes a file ``stuck-*`` and does nothing. ``"short of memory"``: for more than 200 slots there
            is none.
        place: a folder that the processes share.
        meet: before its first batch each process waits until so many have come there.
        device: which device.
        signals: none.
    """

    model: Path
    fault: str
    place: Path
    meet: int = 1
    device: str = "cpu"
    token_budget: int | None = None
    signals: tuple[()] = ()

    def on(self, device: str) -> FaultySpec:
        return replace(self, device=device)

    def load(self) -> Scorer:
        (self.place / f"loading-{os.getpid()}").touch()
        if self.fault == "refuse" or (self.fault == "exit, refuse" and (self.place / "gone").exists()):
            raise ModelError("the tiny model: refused")
        if self.fault == "kill second" and not self._first("loaded") and self._first("killed"):
            wait_for(lambda: list(self.place.glob("met-*")))
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang loading":
            time.sleep(3600)
        if self.fault == "kill loading":
            os.kill(os.getpid(), signal.SIGKILL)
        lr = 1e-3 if self.fault == "unlike" and not self._first("loaded") else 2e-5
        scorer = tiny_scorer(self.model, update=UpdateSettings(lr=lr))
        if self.fault.startswith("kill writing"):
            written = ".losses" if self.fault.endswith("losses") else ".part"
            replace_file = Path.replace

            def killed(path: Path, target: Any) -> Path:
                if path.name.startswith(written) and self._first("killed"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return replace_file(path, target)

            Path.replace = killed  # type: ignore[method-assign,assignment]
        if self.fault.endswith("tokenizing"):
            scorer.masker.__class__ = PoisonedMasker
            scorer.masker.fault, scorer.masker.place = self.fault, str(self.place)  # type: ignore[attr-defined]
            is_ready = prefetch.WorkerProcess.is_ready

            def started(process: prefetch.WorkerProcess) -> bool:  # or the device's own process would do it meanwhile
                wait_for(lambda: is_ready(process))
                return True

            prefetch.WorkerProcess.is_ready = started  # type: ignore[method-assign]
        poison = scorer.loaded.tokenizer.convert_tokens_to_ids(POISON)
        run, batches = scorer.trunk.run, 0

        def faulty(*, input_ids: torch.Tensor, **arguments: Any) -> Any:
            nonlocal batches
            batches += 1
            if batches == 1:
                (self.place / f"met-{os.getpid()}").touch()
                wait_for(lambda: len(list(self.place.glob("met-*"))) >= self.meet)
            if batches == 6 and self.fault == "stuck":
                (self.place / f"stuck-{os.getpid()}").touch()
                time.sleep(3600)
            if input_ids.numel() > 200 and self.fault == "short of memory":
                raise MemoryError
            if self.fault == "raise always" and not self._first(*(f"batch-{number}" for number in range(5))):
                raise RuntimeError("out of luck")
            if bool((input_ids == poison).any()):
                self._meet_poison(input_ids.numel())
            return run(input_ids=input_ids, **arguments)

        scorer.trunk.run = faulty
        return scorer

    def _meet_poison(self, slots: int) -> None:
        what, _, when = self.fault.partition(" ")
        if when == "together" and slots < 50:
            return
        if (when == "once" and not self._first("killed")) or (when == "thrice" and not self._first(*"abc")):
            return
        if self.fault == "exit, refuse":
            (self.place / "gone").touch()
        if when in ("", "once", "thrice", "together", "refuse"):
            if what == "hang":
                (self.place / f"hangs-{os.getpid()}").touch()
            harm(what.strip(","))

    def _first(self, *names: str) -> bool:
        """Whether this is among the first calls with these names, in all processes together."""
        for name in names:
            with suppress(FileExistsError):
                (self.place / name).open("x").close()
                return True
        return False


def harm(what: str) -> None:
    """End this process, or keep it from going on."""
    match what:
        case "raise":
            raise RuntimeError("out of luck")
        case "exit":
            os._exit(3)
        case "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)


class PoisonedMasker(Masker):
    """A masker that does not survive a poisoned row; also in the processes that prepare parts."""

    fault, place = "", ""

    def tokenize_many(self, records: Sequence[Record]) -> list[TokenizedSample]:
        if any(POISON in str(record.data) for record in records):
            (Path(self.place) / "hangs").touch()
            harm(self.fault.partition(" ")[0])
        return super().tokenize_many(records)


def wait_for(condition: Any, seconds: float = 900.0) -> None:
    """Wait until a condition holds. The limit is for a test that fails; a busy machine must not reach it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def prepare_hanging(model: Path, data: Path) -> None:
    """Prepare rows until the preparation process hangs. A child process imports this function by its module."""
    scorer = FaultySpec(model, "hang tokenizing", data.parent).load()
    for _ in prefetch.prepared(open_corpus([str(data)]), scorer.masker, [prefetch.Part(3, 30, 40)], 1):
        pass


if __name__ == "__main__":
    model, data, out, place = map(Path, sys.argv[1:])
    spec: Any = FaultySpec(model, "stuck", place, meet=2)
    with locked(out):
        score_on_devices(open_corpus([str(data)]), spec, out, ["cpu", "cpu"], RunOptions(part_rows=1))
