"""Problems, samples and a fake judge for the tests of evaluation."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from score_runs import ENVIRONMENT, Finished, invoke
from tiny_models import VOCAB, tiny_tokenizer
from tokenizers import AddedToken

from donod_fast.cli import app, evaluate
from donod_fast.evaluation.judging import Check, Verdict
from donod_fast.evaluation.sandbox import Sandbox

SHARED = Path(__file__).parents[2].parent / "shared"
DATA, MODEL = SHARED / "data", SHARED / "models" / "tiny-instruct"
DEMO_MODEL = Path(__file__).parents[2] / "donod_fast" / "demo" / "data" / "model"


def human_eval_record(number: int, prefix: str = "Fam") -> dict[str, Any]:
    """A task in HumanEval's format: add ``number`` to an argument."""
    return {
        "task_id": f"{prefix}/{number}",
        "prompt": f'def add_{number}(x):\n    """Add {number} to x."""\n',
        "canonical_solution": f"    return x + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {number + 1}\n"
        f"    assert candidate(5) == {number + 5}\n",
        "entry_point": f"add_{number}",
    }


def mbpp_record(number: int) -> dict[str, Any]:
    """A task in MBPP's format, with the line ends of its file."""
    return {
        "task_id": number,
        "text": f"Write a function to add {number}.",
        "code": f"def add_{number}(x):\r\n  return x + {number}",
        "test_setup_code": "",
        "test_list": [f"assert add_{number}(1) == {number + 1}", f"assert add_{number}(2) == {number + 2}"],
        "challenge_test_list": [],
    }


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """JSON Lines, or a list for ``.json``; gzipped for ``.gz``."""
    name = path.name.removesuffix(".gz")
    text = json.dumps(records) if name.endswith(".json") else "".join(json.dumps(one) + "\n" for one in records)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


def code_tokenizer() -> Any:
    """The tiny tokenizer with a line end, which code needs."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    assert len(tokenizer) <= VOCAB
    return tokenizer


class FakeJudge:
    """A fake judge for tests of its callers: runs nothing, and counts the requests.

    A program passes if it holds ``return x +`` and the number of its task, times out if it holds ``while True``.
    """

    def __init__(self) -> None:
        self.programs: list[str] = []

    def __call__(self, check: Check, program: str, sandbox: Sandbox, *, seconds: float) -> Verdict:
        self.programs.append(program)
        if "while True" in program:
            return Verdict("timeout", "no answer", False, None, 1.0)
        if f"return x + {check.task_id.rpartition('/')[2]}" in program:
            return Verdict("passed", "", True, None, 0.1)
        return Verdict("failed", f"assert {check.entry_point}(1) == …", False, None, 0.1)


@contextmanager
def fake_judge() -> Iterator[FakeJudge]:
    """The stand-in in the judge's place."""
    fake = FakeJudge()
    with mock.patch("donod_fast.evaluation.judging.judge", fake):
        yield fake


COMMAND = [sys.executable, "-P", "-c", "from donod_fast.cli import main; main()"]


def run_eval(*arguments: object) -> Finished:
    """``donod-fast eval …`` in this process."""
    if not any(one.name == "eval" for one in app.app.registered_commands):
        app.app.command("eval")(evaluate.evaluate)
    return invoke("eval", *arguments)


__all__ = [
    "COMMAND",
    "DATA",
    "DEMO_MODEL",
    "ENVIRONMENT",
    "MODEL",
    "FakeJudge",
    "code_tokenizer",
    "fake_judge",
    "human_eval_record",
    "mbpp_record",
    "run_eval",
    "write_records",
]
