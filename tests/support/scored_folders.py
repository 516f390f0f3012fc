"""Scores folders for the tests of their readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from donod_fast.data.reading import open_corpus
from donod_fast.engines.local import score_corpus
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer

PART_ROWS = 4


def scored(scorer: Scorer, out: Path | str, files: Sequence[Path | str], **options: Any) -> ScoresFolder:
    """Score files into a folder, or finish what is there."""
    options = {"part_rows": PART_ROWS, **options}
    with locked(out):
        return score_corpus(open_corpus([str(file) for file in files]), scorer, out, **options).folder


def without_checksum(folder: Path, **changes: Any) -> None:
    """Rewrite a manifest as release 0.1.0 wrote it: without options and checksum, and with other entries."""
    file = folder / "manifest.json"
    manifest = {**json.loads(file.read_text(encoding="utf-8")), "version": 2, **changes}
    for name in ("sha256", "options"):
        manifest.pop(name, None)
    if isinstance(manifest.get("plan"), dict):
        manifest["plan"].pop("sha256", None)
    file.write_text(json.dumps(manifest), encoding="utf-8")


def committed(folder: Path) -> dict[str, tuple[int, bytes]]:
    """(inode, bytes) of each part of a folder on a disk."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.glob("part-*.parquet")}


def part_path(folder: ScoresFolder, part: int) -> Path:
    """The file of a part of a folder on a disk."""
    return folder.path / folder.part_name(part)
