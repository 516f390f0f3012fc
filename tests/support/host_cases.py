"""The embedded corpus and model for the tests of hosts, and the scores that ``donod-fast score`` gives its rows.

Tests under ``tests/hosts/NAME`` run the host's own program and compare every value with these. They run in the host's
environment (``make test-hosts``), and in the ordinary suite where the host is installed beside this package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER

ROOT_OF_EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "hosts"
"""The configuration files of the guides."""

MODEL = MODEL_FOLDER
"""The embedded model: a small Llama with a chat template."""

TOLERANCE = 1e-5
"""Largest relative difference of a value: batches of other rows round differently in float32, and
AdamW amplifies it."""

DECIMALS = 0.5e-10
"""Half a unit in the tenth decimal, to which some hosts round."""


def rows(count: int, *, unscorable: Sequence[int] = ()) -> list[dict[str, Any]]:
    """The first rows of the embedded corpus; those named have an empty answer."""
    found = [json.loads(line) for line in CORPUS_FILE.read_text(encoding="utf-8").splitlines()[:count]]
    assert len(found) == count
    return [{**row, "output": ""} if at in unscorable else row for at, row in enumerate(found)]


def write_rows(path: Path, content: Iterable[Mapping[str, Any]]) -> Path:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def run(*command: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program of this environment, with one thread and without a network."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


def reference(data: Path, out: Path, *options: object) -> list[dict[str, Any]]:
    """The rows of ``donod-fast score DATA --model MODEL``, in input order, as the scores folder holds them."""
    import pyarrow.parquet as pq

    code = "from donod_fast.cli import main; main()"
    done = run(sys.executable, "-P", "-c", code, "score", data, "--model", MODEL, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    found = [row for part in sorted(out.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    return sorted(found, key=lambda row: row["row"])


def assert_same_scores(
    found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]], *, lr: float = 2e-5
) -> None:
    """Every row of a host has the values of the reference, in order: status, DON and NOD by lr, loss, tokens."""
    from donod_fast.adapters.columns import DON, LOSS, NOD, SCORED_TOKENS, STATUS

    assert len(found) == len(wanted)
    for at, (row, right) in enumerate(zip(found, wanted, strict=True)):
        assert row[STATUS] == right["status"], (at, row)
        if right["status"] != "scored":
            assert row[DON] is None or row[DON] != row[DON], (at, row)
            continue
        assert row[SCORED_TOKENS] == right["scored_tokens"], (at, row)
        for name, value in ((DON, right["don"] / lr), (NOD, right["nod"] / lr), (LOSS, right["loss"])):
            assert abs(row[name] - value) <= TOLERANCE * abs(value) + DECIMALS, (at, name, row[name], value)


__all__ = [
    "DECIMALS",
    "MODEL",
    "ROOT_OF_EXAMPLES",
    "TOLERANCE",
    "assert_same_scores",
    "reference",
    "rows",
    "run",
    "write_rows",
]
