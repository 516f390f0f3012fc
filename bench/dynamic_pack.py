"""Dynamic pack against padding: share of padding, time of an optimizer step and peak memory, on real rows.

    python bench/dynamic_pack.py                       # tiny-instruct on GSM8K and codealpaca, some minutes on a CPU
    python bench/dynamic_pack.py --global-batch 64 --max-length 1024

The same rows, in micro-batches in data order (any trainer) and by length within a step (``donod-fast train``); each
padded to its longest row, packed as in the paper, and packed in isolation. A step is forward, backward and AdamW over
a global batch, collation included. Programs run in turns in one process; times are medians over rounds, and
``times_padded`` is a step's time over that of the same order padded. Peak memory is measured in a separate round: the
memory of tensors on CUDA, else the resident set of this process. Appends to results/dynamic_pack.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import interleaved, print_rows, summary, write_rows

from donod_fast.benchmark.timing import forget_peak, peak_bytes
from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.models.loading import load_model
from donod_fast.training.dynamic_pack import DynamicPackCollator
from donod_fast.training.samples import Collator, StepOrder, TrainingRows, prepare_rows

DATA = {"gsm8k": "gsm8k/train.jsonl", "codealpaca": "codealpaca/new_codealpaca.json"}
Collate = Callable[[Sequence[dict[str, int]]], dict[str, Any]]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of data/ and models/")
    parser.add_argument("--model", help="folder or hub id (default: tiny-instruct)")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--attention", help="attn_implementation of transformers (default: its choice)")
    parser.add_argument("--global-batch", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1, help="optimizer steps per turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    rows = [row for data in options.data for row in measured(data, options)]
    print_rows(rows)
    if not options.no_record:
        print("recorded in", write_rows("dynamic_pack", rows))


def measured(data: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every order and packing."""
    name = options.model or str(options.shared / "models" / "tiny-instruct")
    loaded = load_model(name, dtype=options.dtype)
    if options.attention:
        loaded.model.set_attn_implementation(options.attention)
    model, device = loaded.model.train().requires_grad_(True), loaded.device
    # A learning rate of 0: every turn trains the same weights, at the cost of a real step.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    masker = Masker(loaded.tokenizer, MaskSettings(max_length=options.max_length), vocab_size=model.config.vocab_size)
    wanted = options.steps * options.global_batch
    corpus = open_corpus([str(options.shared / "data" / DATA[data])])
    rows = prepare_rows(corpus, masker, np.random.default_rng(0).permutation(corpus.rows)[:wanted].tolist())
    collators = packings(model, rows, loaded.tokenizer.pad_token_id or 0, options.max_length)
    cases = {
        (order, packing): Steps(model, optimizer, rows, parts, collate)
        for order, parts in micro_batches(rows, options).items()
        for packing, collate in collators.items()
    }
    times = interleaved({" | ".join(case): steps for case, steps in cases.items()}, rounds=options.rounds)
    found = []
    for (order, packing), steps in cases.items():
        held = forget_peak(device)
        steps()
        peak = peak_bytes(device)
        medians = {of: summary(times[f"{order} | {of}"]) for of in ("padded", packing)}
        found.append(
            {
                "data": data,
                "model": Path(name).name,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "attention": model.config._attn_implementation,
                "order": order,
                "packing": packing,
                "global_batch": options.global_batch,
                "micro_batch": options.micro_batch,
                "max_length": options.max_length,
                "tokens": steps.tokens // options.steps,
                "slots": steps.slots // options.steps,
                "padding": round(1 - steps.tokens / steps.slots, 4),
                "rows_of_a_batch": round(steps.packed / len(steps.parts), 2),
                "step_ms": round(medians[packing]["median_ms"] / options.steps, 1),
                "p20_ms": round(medians[packing]["p20_ms"] / options.steps, 1),
                "p80_ms": round(medians[packing]["p80_ms"] / options.steps, 1),
                "times_padded": round(medians[packing]["median_ms"] / medians["padded"]["median_ms"], 3),
                "peak_mib": "" if peak is None else round(peak / 2**20, 1),
                "added_mib": "" if peak is None else round((peak - held) / 2**20, 1),
            }
        )
    return found


def packings(model: Any, rows: TrainingRows, pad_id: int, max_length: int) -> dict[str, Collate]:
    """The collators, by name."""
    found: dict[str, Collate] = {"padded": Collator(rows, pad_id)}
    for variant in ("paper", "isolated"):
        pack = DynamicPackCollator.for_model(model, max_length, pad_id, variant)  # type: ignore[arg-type]
        found[variant] = Collator(rows, pad_id, pack)
    return found


def micro_batches(rows: TrainingRows, options: argparse.Namespace) -> dict[str, list[list[list[int]]]]:
    """For each order the steps' micro-batches of row numbers; a step has the same rows in both."""
    steps = StepOrder(rows, 0, options.global_batch, 1).steps(0)
    draw, size = np.random.default_rng(1), options.micro_batch
    shuffled = [draw.permutation(step).tolist() for step in steps]
    return {
        order: [[step[at : at + size] for at in range(0, len(step), size)] for step in given]
        for order, given in (("as they come", shuffled), ("by length", steps))
    }


class Steps:
    """Some optimizer steps over given micro-batches, which can be repeated.

    Attributes:
        parts: the micro-batches of all steps.
        tokens: tokens of the rows, over all steps.
        slots: positions that the model computes, including padding.
        packed: number of rows in all batches.
    """

    def __init__(
        self, model: Any, optimizer: Any, rows: TrainingRows, steps: list[list[list[int]]], collate: Collate
    ) -> None:
        self._model, self._optimizer, self._steps, self._collate = model, optimizer, steps, collate
        self.parts = [part for step in steps for part in step]
        shapes = [tuple(self._batch(part)["input_ids"].shape) for part in self.parts]
        self.tokens = int(rows.lengths[[at for part in self.parts for at in part]].sum())
        self.slots = sum(count * longest for count, longest in shapes)
        self.packed = sum(count for count, _ in shapes)

    def _batch(self, part: list[int]) -> dict[str, Any]:
        return self._collate([{"row": at} for at in part])

    def __call__(self) -> None:
        """Run them."""
        for step in self._steps:
            batches = [self._batch(part) for part in step]
            targets = sum(int((batch["labels"] != -100).sum()) for batch in batches)
            for batch in batches:
                given = {k: v.to(self._model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
                labels = given.pop("labels")[:, 1:].flatten()
                logits = self._model(**{"use_cache": False, **given}).logits[:, :-1].flatten(0, 1)
                loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum") / targets
                loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()


if __name__ == "__main__":
    main()
