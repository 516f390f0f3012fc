"""Corpora, tables and runs for the tests of scoring."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import torch
from torch import Tensor

from donod_fast.cli import main
from donod_fast.data.types import TokenizedSample
from donod_fast.engines.request import RunOptions
from donod_fast.scoring.scorer import Scorer

WORDS = [
    "red",
    "green",
    "blue",
    "seven",
    "twelve",
    "house",
    "river",
    "count",
    "the",
    "of",
    "and",
    "is",
    "number",
    "which",
    "answer",
]
COMMAND = [sys.executable, "-P", "-c", "from donod_fast.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def short_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Short question–answer rows, of which about one in ten cannot be scored, for several reasons."""
    draw = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))

    rows: list[dict[str, Any]] = []
    for row in range(count):
        question, answer = text(8), text(6)
        kind = draw.randrange(30)
        if kind == 0:
            answer = "  "
        elif kind == 1:
            question = text(9) * 4  # no token of the answer is within the limit
        rows.append({"other": answer} if kind == 2 else {"id": f"r{row}", "question": question, "answer": answer})
    return rows


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def assert_same_bits(found: pa.Table, wanted: pa.Table) -> None:
    """Two tables of scores are equal, NaNs and signs of zeros included."""
    assert found.schema.equals(wanted.schema)
    assert found.num_rows == wanted.num_rows
    for name in found.column_names:
        a, b = found.column(name).combine_chunks(), wanted.column(name).combine_chunks()
        if pa.types.is_floating(a.type):
            assert a.null_count == b.null_count == 0
            assert a.to_numpy().tobytes() == b.to_numpy().tobytes(), name
        else:
            assert a.to_pylist() == b.to_pylist(), name


def leftovers(folder: Path) -> list[str]:
    """Files of a scores folder that have no business in it."""
    manifest = folder / "manifest.json"
    has_losses = manifest.exists() and json.loads(manifest.read_text(encoding="utf-8")).get("token_losses")
    return sorted(
        file.name
        for file in folder.iterdir()
        if file.name not in ("manifest.json", "plan.parquet", "problems.json", "summaries.parquet", ".lock")
        and not file.match("part-*.parquet")
        and not (has_losses and file.match("losses-*.parquet"))
    )


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*arguments: object, stdin: bytes | None = None, **environment: str) -> Finished:
    """``donod-fast …`` in a process of its own, away from the repository's folder."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env={**ENVIRONMENT, **environment},
        cwd=os.sep,
        timeout=300,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def invoke(*arguments: object, stdin: bytes = b"") -> Finished:
    """``donod-fast …`` in this process, by the same entry and with the same edge for errors."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["donod-fast", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return Finished(code, out.getvalue(), err.getvalue())


def own_states(scorer: Scorer, sample: TokenizedSample) -> tuple[Tensor, Tensor, Tensor]:
    """(hidden, labels, cu_seqlens) of one sample by the model's own forward, with none of our batching."""
    ids = torch.tensor([sample.input_ids])
    with torch.no_grad():
        hidden = scorer.loaded.model(ids, output_hidden_states=True, use_cache=False).hidden_states[-1][0]
    targets = [place for place, scored in enumerate(sample.scored) if scored]
    before = torch.tensor(targets) - 1
    return hidden[before].double(), ids[0, targets], torch.tensor([0, len(targets)])


def assert_one_line_error(done: Finished, code: int, *parts: str) -> None:
    """The command failed with this code, in plain words that hold ``parts``, and without a traceback."""
    assert done.code == code, done
    assert "Traceback" not in done.err and "internal error" not in done.err, done.err
    assert sum(line.startswith("donod-fast: error: ") for line in done.err.splitlines()) == 1, done.err
    for part in parts:
        assert part in done.err, (part, done.err)


def run_options(part_rows: int, given: dict[str, Any]) -> RunOptions:
    """Options of a run out of the keyword arguments of a test's helper, from which they are removed."""
    names = [field.name for field in fields(RunOptions) if field.name in given]
    return RunOptions(**{"part_rows": part_rows, **{name: given.pop(name) for name in names}})


def tiny_scorer(model: Path, **options: Any) -> Scorer:
    """A scorer of a saved tiny model."""
    return Scorer.from_pretrained(model, device="cpu", **options)
