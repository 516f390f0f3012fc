"""Many runs of ``donod-fast``, each in a process of its own whose peak memory is measured.

A server process imports what the command line needs once and forks for each run, so that a run costs its own work only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

KILL_AFTER = 300.0
"""Seconds after which a run counts as hung: far more than any run needs beside a full machine."""


@dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        code: its exit code; minus the signal if a signal ended it, -9 if it hung.
        out, err: what it printed.
        peak: most memory that it had at a time beyond that of the server, in bytes.
        seconds: how long it took.
    """

    code: int
    out: str
    err: str
    peak: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether it ended with scores, or with one clear error of the hierarchy."""
        if self.code == 0:
            return "Traceback" not in self.err
        errors = sum(line.startswith("donod-fast: error: ") for line in self.err.splitlines())
        return self.code in range(1, 8) and errors == 1 and "Traceback" not in self.err


class ForkServer:
    """The server; use it in a ``with`` statement."""

    def __init__(self, warm: Sequence[object] = (), **environment: str) -> None:
        """Start it.

        Args:
            warm: arguments of a run that the server does itself, so that it has imported what such runs need.
            environment: variables of its environment.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *map(str, warm)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **environment},
            text=True,
        )
        self._folder = tempfile.TemporaryDirectory()

    def run(self, *arguments: object, kill_after: float = KILL_AFTER) -> Run:
        """Run ``donod-fast …`` to its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        job = {"arguments": list(map(str, arguments)), "folder": self._folder.name, "kill_after": kill_after}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        out, err = (Path(self._folder.name, name).read_bytes().decode("utf-8", "replace") for name in ("out", "err"))
        return Run(answer["code"], out, err, answer["peak"], answer["seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


def _serve() -> None:
    jobs, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    import donod_fast.evaluation.run
    import donod_fast.training.recipe_files  # noqa: F401
    from donod_fast.cli import main

    if sys.argv[1:]:
        with contextlib.suppress(SystemExit):
            main()
    for line in jobs:
        answers.write(json.dumps(_forked(json.loads(line))) + "\n")
        answers.flush()


def _forked(job: dict[str, object]) -> dict[str, object]:
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(str(job["folder"]), job["arguments"])  # type: ignore[arg-type]
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() - begin > float(job["kill_after"]):  # type: ignore[arg-type]
            os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(0.01)
    base = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "code": os.waitstatus_to_exitcode(status),
        "peak": max(0, usage.ru_maxrss * 1024 - base),
        "seconds": time.monotonic() - begin,
    }


def _child(folder: str, arguments: list[str]) -> None:
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv = ["donod-fast", *arguments]
    code = 1
    try:
        from donod_fast.cli import main

        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
