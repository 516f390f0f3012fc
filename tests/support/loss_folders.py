"""Folders with the losses of tokens, for tests: read back, compared with brute force, and their files."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import WORDS, short_rows

from donod_fast.data.types import TokenizedSample
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.token_losses import read_token_losses
from donod_fast.scoring.scorer import Scorer


def mixed_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Short questions, some of which cannot be scored, and conversations of several turns, some of them left out."""
    draw = random.Random(seed)

    def turn(role: str) -> dict[str, Any]:
        text = " ".join(draw.choices(WORDS, k=draw.randint(1, 9)))
        left_out = {"weight": 0} if role == "assistant" and draw.random() < 0.25 else {}
        return {"role": role, "content": text, **left_out}

    rows = short_rows(count, seed)
    for at in draw.sample(range(count), count // 2):
        turns = [turn(role) for _ in range(draw.randint(1, 4)) for role in ("user", "assistant")]
        rows[at] = {"id": f"c{at}", "messages": turns}
    return rows


def assert_losses_fit(folder: ScoresFolder, reduction: str = "mean") -> dict[int, list[float]]:
    """Each scored row, and no other, has a loss for each scored token; together they are its column ``loss``."""
    found = read_token_losses(folder, range(folder.rows))
    table = folder.table()
    for row in table.to_pylist():
        if row["status"] != "scored":
            assert row["row"] not in found
            continue
        losses = found[row["row"]]
        assert len(losses) == row["scored_tokens"]
        total = math.fsum(losses) / (len(losses) if reduction == "mean" else 1)
        assert total == pytest.approx(row["loss"], rel=1e-6)
    assert sorted(found) == [row for row, status in _columns(table, "row", "status") if status == "scored"]
    return found


def _columns(table: Any, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def losses_by_hand(scorer: Scorer, sample: TokenizedSample) -> list[float]:
    """Cross entropy of the scored tokens of a sample, by the model's own forward in one call."""
    ids = torch.tensor([sample.input_ids])
    with torch.no_grad():
        log_p = scorer.loaded.model(ids, use_cache=False).logits[0].double().log_softmax(-1)
    return [-float(log_p[at - 1, sample.input_ids[at]]) for at, scored in enumerate(sample.scored) if scored]


def loss_bytes(folder: Path) -> dict[str, bytes]:
    """Bytes of each file with losses of a folder on a disk."""
    return {path.name: path.read_bytes() for path in folder.glob("losses-*")}


def inodes(folder: Path, pattern: str = "*.parquet") -> dict[str, int]:
    """Identity of the files of a folder: another one if a file is written again."""
    return {path.name: path.stat().st_ino for path in folder.glob(pattern)}
