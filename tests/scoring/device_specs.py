"""Scorers with a fault, for processes that a test starts; and a program that scores with several of them.

A fault happens where the trunk meets a row that holds a backslash, or while the model is loaded.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from score_runs import tiny_scorer

from donod_fast.devices import score_on_devices
from donod_fast.errors import ModelError
from donod_fast.reading import open_corpus
from donod_fast.scorer import Scorer
from donod_fast.settings import UpdateSettings
from donod_fast.store import locked

POISON = "\\"


@dataclass(frozen=True)
class FaultySpec:
    """A spec (as far as ``score_on_devices`` uses one) whose scorer goes wrong.

    Attributes:
        model: folder of a tiny model.
        fault: what goes wrong, ``""`` for nothing. At a poisoned row ``"raise"``, or ``"kill once"``: the first process
            that meets one. ``"kill writing"``: the first process that has written a part and not yet named it. At the
            load ``"refuse"``, ``"kill loading"``, or ``"unlike"``: all but the first have other settings. ``"stuck"``:
            from its sixth batch on a process makes a file ``stuck-*`` and does nothing. ``"short of memory"``: for more
            than 200 slots there is none.
        place: a folder that the processes share.
        meet: before its first batch each process waits until so many have come there.
        device: which device.
    """

    model: Path
    fault: str
    place: Path
    meet: int = 1
    device: str = "cpu"
    token_budget: int | None = None

    def on(self, device: str) -> FaultySpec:
        return replace(self, device=device)

    def load(self) -> Scorer:
        if self.fault == "refuse":
            raise ModelError("the tiny model: refused")
        if self.fault == "kill loading":
            os.kill(os.getpid(), signal.SIGKILL)
        lr = 1e-3 if self.fault == "unlike" and not self._first("loaded") else 2e-5
        scorer = tiny_scorer(self.model, update=UpdateSettings(lr=lr))
        if self.fault == "kill writing":
            replace_file = Path.replace

            def killed(path: Path, target: Any) -> Path:
                if path.name.startswith(".part") and self._first("killed"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return replace_file(path, target)

            Path.replace = killed  # type: ignore[method-assign,assignment]
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
                time.sleep(120)
            if input_ids.numel() > 200 and self.fault == "short of memory":
                raise MemoryError
            if bool((input_ids == poison).any()):
                if self.fault == "raise":
                    raise RuntimeError("out of luck")
                if self.fault == "kill once" and self._first("killed"):
                    os.kill(os.getpid(), signal.SIGKILL)
            return run(input_ids=input_ids, **arguments)

        scorer.trunk.run = faulty
        return scorer

    def _first(self, name: str) -> bool:
        try:
            (self.place / name).open("x").close()
        except FileExistsError:
            return False
        return True


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


if __name__ == "__main__":
    model, data, out, place = map(Path, sys.argv[1:])
    spec: Any = FaultySpec(model, "stuck", place, meet=2)
    with locked(out):
        score_on_devices(open_corpus([str(data)]), spec, out, ["cpu", "cpu"], part_rows=1)
