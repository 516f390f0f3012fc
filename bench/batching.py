"""Batching without variable-length attention: the trunk's time for the same rows, batched in four ways.

    python bench/batching.py --model ../shared/models/tiny-instruct --data ../shared/data/gsm8k/test.jsonl

Padded batches in input order, padded batches of like lengths under a token budget (what the scorer does),
packed rows kept apart by a block-diagonal mask, and one row at a time. Appends to results/batching.csv.
"""

from __future__ import annotations

import argparse
from itertools import islice

import torch
from record import interleaved, print_rows, summary, write_rows

from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Status
from donod_fast.models.batching import collate, group_by_length
from donod_fast.scoring.scorer import Scorer


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--token-budgets", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    scorer = Scorer.from_pretrained(options.model)
    records = islice(open_corpus([options.data]).records(), options.rows)
    samples = [s for s in scorer.masker.tokenize_many(list(records)) if s.status is Status.SCORED]
    real = sum(len(sample.input_ids) for sample in samples)

    def padded(groups: list[tuple[int, ...]]) -> tuple[list[torch.Tensor], int]:
        batches = [collate(samples, group).input_ids for group in groups]
        return batches, sum(batch.numel() for batch in batches)

    ways: dict[str, tuple[list[torch.Tensor], int]] = {}
    in_order = [tuple(range(i, min(i + 16, len(samples)))) for i in range(0, len(samples), 16)]
    ways["padded, input order, 16 rows"] = padded(in_order)
    ways["one row at a time"] = padded([(i,) for i in range(len(samples))])
    for budget in options.token_budgets:
        ways[f"padded, like lengths, {budget} tokens"] = padded(group_by_length(samples, budget))
    programs = {name: lambda batches=batches: [scorer.trunk(b) for b in batches] for name, (batches, _) in ways.items()}

    packed = []
    for group in _in_order_groups([len(s.input_ids) for s in samples], 2048):
        ids = torch.cat([torch.tensor(samples[i].input_ids) for i in group])
        positions = torch.cat([torch.arange(len(samples[i].input_ids)) for i in group])
        packed.append((ids[None], positions[None]))
    ways["packed, block-diagonal mask, 2048 tokens"] = ([], real)

    @torch.inference_mode()
    def run_packed() -> None:
        for ids, positions in packed:
            scorer.trunk.decoder(input_ids=ids, position_ids=positions, use_cache=False)

    programs["packed, block-diagonal mask, 2048 tokens"] = run_packed
    results = {name: summary(seconds) for name, seconds in interleaved(programs, rounds=options.rounds).items()}
    rows = [
        {
            "row": name,
            "samples": len(samples),
            "tokens": real,
            "slots_used": round(real / ways[name][1], 4),
            **{key: round(value, 1) for key, value in result.items()},
            "tokens_per_s": round(1e3 * real / result["median_ms"]),
        }
        for name, result in results.items()
    ]
    print_rows(rows)
    if not options.no_record:
        print("recorded in", write_rows("batching", rows))


def _in_order_groups(lengths: list[int], budget: int) -> list[list[int]]:
    groups: list[list[int]] = [[]]
    total = 0
    for i, length in enumerate(lengths):
        if groups[-1] and total + length > budget:
            groups.append([])
            total = 0
        groups[-1].append(i)
        total += length
    return groups


if __name__ == "__main__":
    main()
