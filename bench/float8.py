"""Errors of gradient products in float8 on a model's own hidden states, against float64 and a real optimizer step.

    python bench/float8.py --model smollm2 --data ../shared/data/chat/alpaca_en_demo.json

It emulates them on a CPU: the operands are rounded as the kernels do, and multiplied in float32. ``14 bits`` also
truncates the running sum to 13 bits after the point with each 32 tokens, as the tensor cores of Ada and Hopper are
reported to do, over all tokens, or over the 64 tokens of a step of ours. The first rows with enough scored tokens for
float8 are used. Errors are over NOD. Appends to results/float8.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from record import print_rows, write_rows
from torch import Tensor

from donod_fast.data.reading import open_corpus
from donod_fast.kernels import DonNod, don_nod, reference_don_nod, torch_backend
from donod_fast.kernels import float8 as rounding
from donod_fast.models.batching import collate
from donod_fast.scoring.numerics_check import long_records
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.rank_correlation import spearman

_INSTRUCTION = 32  # tokens that a float8 instruction sums
_STEP = 64
_DROPPED = (1 << 10) - 1  # of float32's 23 bits after the point

Product = Callable[[Tensor, Tensor, tuple[Tensor, Tensor], Tensor], None]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()

    scorer = Scorer.from_pretrained(options.model, dtype="bfloat16", device="cpu", token_budget=1024)
    records = long_records(scorer, open_corpus([options.data]).records(), options.rows)
    inputs = [_head_input(scorer, record) for record in records]
    lengths = [len(labels) for _, labels in inputs]
    rows: list[dict[str, Any]] = []
    for update in ("adamw", "sign"):
        truth = [_truth(scorer, update, *one) for one in inputs]
        for name, product in _PRODUCTS.items():
            found = [_scores(scorer, update, product, *one) for one in inputs]
            rows.append(
                {
                    "model": options.model,
                    "data": options.data,
                    "update": update,
                    "product": name,
                    "rows": len(inputs),
                    "least_tokens": min(lengths),
                    "most_tokens": max(lengths),
                    **_errors(found, truth),
                }
            )
            print_rows(rows[-1:])
    if not options.no_record:
        print(write_rows("float8", rows, kind="cpu"))


def _head_input(scorer: Scorer, record: Any) -> tuple[Tensor, Tensor]:
    batch = collate(scorer.masker.tokenize_many([record]), [0])
    with torch.no_grad():
        return scorer.trunk.scored_states(batch).clone(), batch.labels


def _truth(scorer: Scorer, update: str, hidden: Tensor, labels: Tensor) -> DonNod:
    bounds = torch.tensor([0, len(labels)], dtype=torch.int32)
    weight = scorer.head.weight
    return reference_don_nod(
        hidden.double(), weight.double(), labels, bounds, update=update, rows_per_slice=max(1, 2**26 // weight.shape[1])
    )


def _scores(scorer: Scorer, update: str, product: Product | None, hidden: Tensor, labels: Tensor) -> DonNod:
    bounds = torch.tensor([0, len(labels)], dtype=torch.int32)
    how: dict[str, Any] = {"update": update, "weight_norm": scorer.weight_norm, "backend": "torch"}
    if product is None:
        return don_nod(hidden, scorer.head.weight, labels, bounds, **how)
    with patch.object(torch_backend, "add_product", product):
        return don_nod(hidden, scorer.head.weight, labels, bounds, precision="float8", **how)


def _truncated(tokens: int | None) -> Product:
    """``add_product`` with a running sum of 14 bits over ``tokens`` tokens at a time; None for all."""

    def product(total: Tensor, signals: Tensor, states: tuple[Tensor, Tensor], row_scale: Tensor) -> None:
        inverse = torch.where(row_scale > 0.0, 1.0 / row_scale, 0.0)
        rounded = rounding.rounded(signals * states[1].unsqueeze(1) * inverse).t()
        length = len(signals)
        for start in range(0, length, tokens or length):
            running = torch.zeros_like(total)
            stop = min(start + (tokens or length), length)
            for first in range(start, stop, _INSTRUCTION):
                some = slice(first, min(first + _INSTRUCTION, stop))
                running.addmm_(rounded[:, some], states[0][some])
                running = (running.view(torch.int32) & ~_DROPPED).view(torch.float32)
            total.addcmul_(running, row_scale.unsqueeze(1))

    return product


_PRODUCTS: dict[str, Product | None] = {
    "full": None,
    "float8": rounding.add_product,
    "float8, 14 bits": _truncated(None),
    "float8, 14 bits a step": _truncated(_STEP),
}


def _errors(found: list[DonNod], truth: list[DonNod]) -> dict[str, Any]:
    def column(scores: list[DonNod], name: str) -> Tensor:
        return torch.cat([getattr(one, name).double() for one in scores])

    nod = column(truth, "nod")
    don_error = (column(found, "don") - column(truth, "don")).abs() / nod
    nod_error = (column(found, "nod") - nod).abs() / nod
    return {
        "don_error_median": f"{float(don_error.median()):.2e}",
        "don_error_largest": f"{float(don_error.max()):.2e}",
        "nod_error_median": f"{float(nod_error.median()):.2e}",
        "nod_error_largest": f"{float(nod_error.max()):.2e}",
        "spearman_don": f"{spearman(column(found, 'don'), column(truth, 'don')):.5f}",
        "spearman_nod": f"{spearman(column(found, 'nod'), nod):.5f}",
    }


if __name__ == "__main__":
    main()
