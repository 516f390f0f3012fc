"""The head phase: floor, the paper's loop and ours at one output layer, in one process.

    python bench/head.py --vocab 32000 --dim 1024

The floor is the bare logits product of the same tokens, 2 · tokens · V · d operations. SGD should cost
that and a few per cent; AdamW needs the gradient's products too, so its floor is twice that.
Sample lengths are log-normal like those of GSM8K answers. Appends to results/head.csv.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
import torch
from paper_loop import score_head
from record import interleaved, is_recorded, print_rows, summary, write_rows

from donod_fast.kernels import don_nod, frobenius_norm


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--if-missing", action="store_true", help="only where no such row is recorded")
    options = parser.parse_args()
    shape = {"vocab": options.vocab, "dim": options.dim, "samples": options.samples, "dtype": options.dtype}
    if options.if_missing and is_recorded("head", **shape):
        print("already recorded for this device:", shape)
        return

    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(4.6, 0.5, options.samples), 8, 1000).astype(int)
    tokens = int(lengths.sum())
    torch.manual_seed(0)
    place = {"device": options.device, "dtype": getattr(torch, options.dtype)}
    hidden = torch.randn(tokens, options.dim, **place)
    weight = torch.randn(options.vocab, options.dim, **place) / options.dim**0.5
    labels = torch.randint(options.vocab, (tokens,), device=options.device)
    bounds = np.concatenate([[0], lengths.cumsum()]).tolist()
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    norm = frobenius_norm(weight)
    logits = torch.empty(tokens, options.vocab, **place)

    def naive(update: str) -> None:
        for start, stop in pairwise(bounds):
            score_head(hidden[start:stop], weight, labels[start:stop], update)

    def ours(update: str) -> None:
        don_nod(hidden, weight, labels, cu_seqlens, update=update, weight_norm=norm)

    programs = {
        "logits product (floor)": lambda: torch.mm(hidden, weight.t(), out=logits),
        "ours sgd": lambda: ours("sgd"),
        "ours adamw": lambda: ours("adamw"),
        "paper loop sgd": lambda: naive("sgd"),
        "paper loop adamw": lambda: naive("adamw"),
    }
    times = {name: summary(seconds) for name, seconds in interleaved(programs, rounds=options.rounds).items()}
    floor = times["logits product (floor)"]["median_ms"]
    rows = [
        {
            "row": name,
            "vocab": options.vocab,
            "dim": options.dim,
            "samples": options.samples,
            "tokens": tokens,
            "dtype": options.dtype,
            **{key: round(value, 3) for key, value in result.items()},
            "times_floor": round(result["median_ms"] / floor, 3),
            "gflops_floor": round(2e-6 * tokens * options.vocab * options.dim / result["median_ms"], 1),
        }
        for name, result in times.items()
    ]
    print_rows(rows)
    for update in ("sgd", "adamw"):
        ratio = times[f"paper loop {update}"]["median_ms"] / times[f"ours {update}"]["median_ms"]
        print(f"{update}: ours is {ratio:.2f} x as fast as the paper's loop")
    if not options.no_record:
        print("recorded in", write_rows("head", rows))


if __name__ == "__main__":
    main()
