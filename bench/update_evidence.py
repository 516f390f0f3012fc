"""Which optimizer step behaves as the paper reports? Scores of clean and corrupted rows with each update.

    python bench/update_evidence.py --model ../shared/models/tiny-instruct --data ../shared/data/gsm8k/test.jsonl

In the answers 30 % of the words are masked. Three figures for TOPSIS (arXiv 2504.14810, §4.4 for the last):
AUC that a clean row ranks above a corrupted one (all rows, both versions ranked together); the share of
corrupted rows among the best 30 % when 10 % of the rows are corrupted (chance: 0.30 of them); the overlap of
the best 20 % before and after corrupting exactly those rows. Appends to results/update_evidence.csv.
"""

from __future__ import annotations

import argparse
import json
import random
from itertools import islice
from pathlib import Path

import torch
from record import print_rows, write_rows
from torch import Tensor

from donod_fast.kernels import topsis
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="JSON Lines with question and answer")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--mask", default="[MASK]")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    with Path(options.data).open(encoding="utf-8") as lines:
        clean = [json.loads(line) for line in islice(lines, options.rows)]
    draw = random.Random(0)
    corrupted = [{**row, "answer": masked(row["answer"], options.mask, draw)} for row in clean]
    rows = []
    for name, settings in {
        "sgd": UpdateSettings("sgd"),
        "adamw": UpdateSettings("adamw"),
        "adamw, W' in bfloat16": UpdateSettings("adamw", storage_dtype="bfloat16"),
    }.items():
        scorer = Scorer.from_pretrained(options.model, update=settings)
        good, bad = scores(scorer, clean), scores(scorer, corrupted)
        rows.append({"update": name, "rows": len(clean), **figures(good, bad)})
    print_rows(rows)
    if not options.no_record:
        print("recorded in", write_rows("update_evidence", rows))


def masked(text: str, mask: str, draw: random.Random) -> str:
    """30 % of the words replaced by the mask."""
    words = text.split(" ")
    for i in draw.sample(range(len(words)), round(0.3 * len(words))):
        words[i] = mask
    return " ".join(words)


def scores(scorer: Scorer, rows: list[dict[str, str]]) -> Tensor:
    """DON and NOD of each row, (rows, 2)."""
    table = scorer.score_table(rows)
    return torch.tensor([table["don"].to_pylist(), table["nod"].to_pylist()], dtype=torch.float64).T


def figures(clean: Tensor, corrupted: Tensor) -> dict[str, float]:
    """The three figures from (rows, 2) scores of the clean and of the corrupted versions."""
    count = len(clean)
    both = topsis(*torch.cat([clean, corrupted]).T)
    above = both[:count, None] - both[None, count:]
    auc = ((above > 0).double() + 0.5 * (above == 0)).mean()

    shares = []
    for seed in range(20):
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: count // 10]
        mixed = clean.clone()
        mixed[chosen] = corrupted[chosen]
        best = topsis(*mixed.T).argsort(descending=True)[: round(0.3 * count)]
        shares.append(torch.isin(chosen, best).double().mean())

    top = round(0.2 * count)
    first = topsis(*clean.T).argsort(descending=True)[:top]
    mixed = clean.clone()
    mixed[first] = corrupted[first]
    second = topsis(*mixed.T).argsort(descending=True)[:top]
    return {
        "auc": round(float(auc), 3),
        "kept_of_corrupted_at_30": round(float(torch.stack(shares).mean()), 3),
        "top20_overlap_after_corruption": round(float(torch.isin(first, second).double().mean()), 3),
    }


if __name__ == "__main__":
    main()
