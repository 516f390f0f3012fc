"""(h) One end-to-end row: from a file to a scores folder, beside the bare trunk and the paper's loop.

The model and the data of ``../shared`` if they are there, else the embedded ones. What lies beside a checkout does not
travel, so ``first_lease.py --prepare`` copies them into ``build/carry``.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from unittest import mock

import record

from lease.rows import Setting

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ROOT / "build" / "carry"
MODEL, DATA = Path("models/tiny-instruct"), Path("data/gsm8k/test.jsonl")


def run(setting: Setting) -> None:
    """Run bench/end_to_end.py and add its rows."""
    model, data, source = inputs()
    rows = "8" if setting.dry else "300"
    arguments = ["--model", str(model), "--data", str(data), "--rows", rows, "--rounds", "1" if setting.dry else "2"]
    program = str(ROOT / "bench" / "end_to_end.py")
    kept: list[dict[str, object]] = []

    def keep(_: str, found: list[dict[str, object]]) -> Path:
        kept.extend(found)
        if not setting.dry:
            return written("end_to_end", found)
        return setting.file

    written = record.write_rows
    with mock.patch.object(sys, "argv", [program, *arguments]), mock.patch.object(record, "write_rows", keep):
        runpy.run_path(program, run_name="__main__")
    for row in kept:
        setting.add(f"{row['vocab']} x {row['dim']}, {row['samples']} samples", str(row["row"]), calls=1,
                    median_ms=row["median_ms"], value=row["times_floor"], unit="bare trunks", note=source)  # fmt: skip


def inputs() -> tuple[Path, Path, str]:
    """Model folder, data file, and where they come from."""
    for shared in (ROOT.parent / "shared", ROOT / "shared", CARRIED / "shared"):
        if (shared / MODEL).is_dir() and (shared / DATA).is_file():
            return shared / MODEL, shared / DATA, f"{MODEL.name}, {DATA}"
    demo = ROOT / "donod_fast" / "demo" / "data"
    return demo / "model", demo / "corpus.jsonl", "the embedded model and corpus"
