"""A stage for commands, a runner that forks them into odd surroundings, and what counts as a fault of one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from eval_cases import fake_judge, human_eval_record, write_records
from score_runs import ENVIRONMENT, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.evaluation import Sample, evaluate_samples, load_problems

SCORE = ("score", "rows.jsonl", "--model", "model", "--out", "out", "--part-rows", "8", "--device", "cpu")
INTERNAL_ERROR, LOST_AT_EXIT = 70, 120
KNOWN_CODES = frozenset((0, 1, 2, 3, 4, 5, 6, 7, 129, 130, 141, 143))


def make_stage(place: Path) -> Path:
    """A model, rows, two scores folders of them, problems, and an evaluation whose programs partly failed."""
    place.mkdir(parents=True, exist_ok=True)
    save_tiny("llama", place / "model")
    write_lines(place / "rows.jsonl", short_rows(24))
    for name in ("scores", "scores2"):
        done = invoke("score", place / "rows.jsonl", "--model", place / "model", "--out", place / name,
                      "--part-rows", 8, "--device", "cpu", "--quiet")  # fmt: skip
        assert done.code == 0, done.err
    records = write_records(place / "problems.jsonl", [human_eval_record(at) for at in range(3)])
    problems = load_problems("humaneval", records)
    samples = [Sample(one.task_id, 0, one.canonical if at else "while True: pass") for at, one in enumerate(problems)]
    with fake_judge():
        evaluate_samples(problems, samples, place / "evaluated")
    return place


@dataclass(frozen=True)
class Ended:
    """How a forked command ended.

    Attributes:
        code: exit code, negative for a signal.
        hung: whether it had to be killed.
        out: standard output, or all that a terminal got.
        err: standard error.
        left: temporary files that it left behind.
        alive: number of processes that it left behind.
        place: its copy of the stage.
    """

    code: int
    hung: bool
    out: bytes
    err: bytes
    left: tuple[str, ...]
    alive: int
    place: Path

    def faults(self) -> list[str]:
        """What must not happen, whatever surrounds a command."""
        text = (self.out + self.err).decode("utf-8", "replace")
        found = []
        if self.hung:
            found.append("hangs")
        if self.code not in KNOWN_CODES:
            found.append(f"code {self.code}")
        found += [sign for sign in ("Traceback", "internal error", "Exception ignored") if sign in text]
        if self.left:
            found.append(f"left {', '.join(self.left)}")
        if self.alive:
            found.append(f"{self.alive} processes left")
        return found


class EdgeRunner:
    """Forks commands on copies of a stage.

    Args:
        stage: see :func:`make_stage`.
        scratch: folder for the copies.
    """

    def __init__(self, stage: Path, scratch: Path) -> None:
        program = Path(__file__).with_name("edge_runs.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program), str(stage), str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def __enter__(self) -> EdgeRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def run(self, *arguments: object, root: str = "case", **case: Any) -> Ended:
        """Run ``donod-fast …`` in a copy of the stage.

        Args:
            arguments: the command; bytes are names that are not UTF-8.
            root: name of the copy.
            case: ``surrounding`` (a name in ``edge_runs.py``), ``encoding``, ``terminal``, ``environment``, ``files``
                (content by path), ``specials`` (kind by path), ``input``, ``delay`` of signals in seconds, ``kill``
                after so many seconds, ``kept`` to work in the copy that an earlier case left.
        """
        words = [f"hex:{word.hex()}" if isinstance(word, bytes) else str(word) for word in arguments]
        files: Mapping[str | bytes, bytes] = case.pop("files", {})
        given = {_bytes(name).hex(): content.hex() for name, content in files.items()}
        line = {"arguments": words, "root": root, "files": given, "input": case.pop("input", b"").hex(), **case}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        out, err = (bytes.fromhex(found.pop(name)) for name in ("out", "err"))
        return Ended(out=out, err=err, left=tuple(found.pop("left")), place=Path(found.pop("place")), **found)


def evaluation_of(task: str, program: str) -> dict[str | bytes, bytes]:
    """The files of an evaluation of one program, by their paths on the stage."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        record = {**human_eval_record(0), "task_id": task}
        problems = load_problems("humaneval", write_records(place / "p.jsonl", [record]))
        with fake_judge():
            evaluate_samples(problems, [Sample(task, 0, program)], place / "evaluated")
        files = (place / "evaluated").iterdir()
        return {f"evaluated/{file.name}": file.read_bytes() for file in files if file.is_file()}


def _bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
