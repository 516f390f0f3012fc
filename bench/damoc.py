"""DaMoC compared with full fine-tuning: agreement of the two rankings of four candidates, and the time of both.

    python bench/damoc.py --model ../shared/models/tiny-instruct --data ../shared/data/gsm8k

The candidates' true order is known by construction: the same model with the same noise on its matrices, at four
levels. The rows are from GSM8K and unseen by the model (from row 6,000 of train.jsonl); the held-out rows are from
test.jsonl. Pruned layers are not merged, since noise is not a task vector. Each setting of DaMoC is a separate run in
the same folder, so that full fine-tuning is done once. Appends to results/damoc.csv.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import print_rows, write_rows
from scipy.stats import kendalltau

from donod_fast.models.loading import load_model, quiet
from donod_fast.studies.damoc.recipe import damoc_recipe_from
from donod_fast.studies.damoc.report import DamocOutcome
from donod_fast.studies.damoc.run import run_damoc

NOISE = (0.4, 0.0, 0.2, 0.1)
"""Noise in standard deviations of each matrix; not in the expected order."""

UNSEEN = 6000


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to damage")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and test.jsonl of GSM8K")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--heldout", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--embeddings", help="a sentence-transformers model: adds graph_cut")
    parser.add_argument("--guard", help="a model for BERTScore: guards compression")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(options, Path(folder))
    print_rows(rows)
    if not options.no_record:
        write_rows("damoc", rows)


def measured(options: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """A row for each setting."""
    train = taken(options.data / "train.jsonl", root / "train.jsonl", UNSEEN, options.rows)
    heldout = taken(options.data / "test.jsonl", root / "heldout.jsonl", 0, options.heldout)
    common = {
        "name": "bench",
        "candidates": [{"name": f"noise {x:g}", "model": damaged(options.model, x, root)} for x in NOISE],
        "data": [str(train)],
        "heldout": [str(heldout)],
        "train": {"learning_rate": options.learning_rate, "global_batch": 8, "micro_batch": 8, "dtype": "float32"},
        "compare": True,
    }
    rows = []
    for name, setting in settings(options).items():
        outcome = run_damoc(damoc_recipe_from({**common, **setting}), root / "run")
        rows.append({"setting": name, "rows": options.rows, "heldout": options.heldout, **found(outcome)})
        print(outcome.markdown.read_text(encoding="utf-8"), flush=True)
    return rows


def settings(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """DaMoC's steps, separately and combined."""
    twenty = {"filter": {"method": "random", "share": 0.2}}
    compress = {"compress": {"method": "perplexity", "model": str(options.model), "guard": options.guard}}
    prune = {"prune": {"method": "similarity", "threshold": 0.85, "max_share": 0.25, "rows": 32}}
    every = {
        "random 5 %": {"filter": {"method": "random", "share": 0.05}},
        "random 20 %": twenty,
        "random 20 %, compressed": twenty | compress,
        "random 20 %, pruned": twenty | prune,
        "random 20 %, compressed, pruned": twenty | compress | prune,
    }
    if options.embeddings:
        cut = {"filter": {"method": "graph_cut", "share": 0.2, "embeddings": options.embeddings}}
        every["graph_cut 20 %, compressed, pruned"] = cut | compress | prune
    return every


def damaged(model: Path, level: float, root: Path) -> str:
    """The same noise for every level, so that a higher level is further away in the same direction."""
    loaded = load_model(model, dtype="float32")
    generator = torch.Generator().manual_seed(0)
    for parameter in loaded.model.parameters():
        if parameter.dim() == 2:
            parameter.data += level * parameter.data.std() * torch.randn(parameter.shape, generator=generator)
    folder = root / f"noise-{level:g}"
    with quiet():
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    return str(folder)


def taken(source: Path, target: Path, skip: int, count: int) -> Path:
    """Write some rows of a file to a new file."""
    lines = source.read_text(encoding="utf-8").splitlines()[skip : skip + count]
    target.write_text("".join(json.dumps(json.loads(line)) + "\n" for line in lines), encoding="utf-8")
    return target


def found(outcome: DamocOutcome) -> dict[str, Any]:
    """The columns of a run's row."""
    agreed = outcome.agreement
    assert agreed is not None
    known = {f"noise {x:g}": rank for rank, x in enumerate(sorted(NOISE), start=1)}
    both = [one for one in outcome.ranking if one.rank is not None and one.full_rank is not None]
    truth = [known[one.name] for one in both]
    return {
        "candidates": len(both),
        "kendall_damoc_full": round(agreed.kendall, 4),
        "spearman_damoc_full": round(agreed.spearman, 4),
        "kendall_damoc_known": round(float(kendalltau([one.rank for one in both], truth).statistic), 4),
        "kendall_full_known": round(float(kendalltau([one.full_rank for one in both], truth).statistic), 4),
        "top_1": agreed.top_1,
        "dropped_layers": max((len(one.way.pruning["dropped"]) for one in both if one.way.pruning), default=0),
        "token_share": round(outcome.shared.get("compress", {}).get("ratio", 1.0), 4),
        "damoc_seconds": round(agreed.damoc_seconds, 2),
        "full_seconds": round(agreed.full_seconds, 2),
        "speed_up": round(agreed.speed_up, 3),
        "speed_up_without_evaluation": round(agreed.speed_up_without_evaluation, 3),
    }


if __name__ == "__main__":
    main()
