"""The time of a training step with the trainer's callback that watches, beside the same step without it.

    python bench/callback.py --model ../shared/models/tiny-instruct --data ../shared/data/gsm8k/train.jsonl
    python bench/callback.py … --head 32000 --update sgd

TRL's ``SFTTrainer`` trains every batch twice in a row, once watched and once not, in turns which comes first. So both
have the same tokens and the same load of the machine. The ratio is that of the two steps of each pair. CPU seconds of
the process are recorded too, since other programs do not count in them. ``begin_ms`` and ``epoch_ms`` are spent once:
writing the rows and proving the head, and writing the folder of an epoch. ``--head V`` puts a random output layer of V
pieces on the same trunk. Appends to results/callback.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from end_to_end import with_head
from record import print_rows, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from donod_fast.adapters.trainer import DonodCallback
from donod_fast.scoring.settings import UpdateSettings

Clock = tuple[float, float]
"""Wall seconds and CPU seconds of this process."""


class Pairs(TrainerCallback):
    """Watches one step of each pair, and takes the times of both."""

    def __init__(self, callback: DonodCallback) -> None:
        self.callback, self.begun = callback, (0.0, 0.0)
        self.times: list[tuple[bool, float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach or detach the watcher: watched first in even pairs, second in odd ones."""
        pair, second = divmod(state.global_step, 2)
        self.watched = bool(pair % 2) == bool(second)
        assert self.callback._watcher is not None
        if self.watched:
            self.callback._watcher.attach(kwargs["model"])
        else:
            self.callback._watcher.detach()
        self.begun = clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the time; this callback comes after the one that is measured."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, cpu = clock()
        self.times.append((self.watched, wall - self.begun[0], cpu - self.begun[1]))


def clock() -> Clock:
    """Both clocks now."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="JSON Lines with question and answer")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of steps; one more is not counted")
    parser.add_argument("--batch", type=int, default=4, help="rows of a batch")
    parser.add_argument("--head", type=int, help="random output layer of this many pieces")
    parser.add_argument("--update", default="adamw")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="train under autocast to bfloat16")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scratch = Path(tempfile.mkdtemp(prefix="donod-fast-bench-"))
    source = options.model
    if options.head:
        source = with_head(source, options.head, scratch / "model")
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    # The first pair warms up; one more batch would be begun before the last is over.
    rows = repeated(Path(options.data), options.batch, options.pairs + 1)
    callback = DonodCallback(
        scratch / "out", before=False, batches=True, update=UpdateSettings(options.update), token_budget=1024
    )
    pairs = Pairs(callback)
    begin, epoch = timed(callback, "on_train_begin"), timed(callback, "on_epoch_end")
    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            str(scratch / "trainer"),
            num_train_epochs=1,
            per_device_train_batch_size=options.batch,
            train_sampling_strategy="sequential",
            bf16=options.bf16,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[callback, pairs],
    )
    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    scored = sum(label != -100 for labels in trainer.train_dataset["labels"] for label in labels)
    trainer.train()
    wall, cpu = ratios(pairs.times[2:], 1), ratios(pairs.times[2:], 2)
    plain, watched = ([times for times in pairs.times[2:] if times[0] == flag] for flag in (False, True))
    row = {
        "row": "SFTTrainer step, watched",
        "update": options.update,
        "vocab": model.lm_head.weight.shape[0],
        "dim": model.lm_head.weight.shape[1],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "batch": options.batch,
        "tokens_per_step": round(tokens / len(pairs.times)),
        "scored_per_step": round(scored / len(pairs.times)),
        "pairs": options.pairs,
        "plain_ms": round(1e3 * statistics.median(times[1] for times in plain), 1),
        "watched_ms": round(1e3 * statistics.median(times[1] for times in watched), 1),
        "ratio": round(statistics.median(wall), 3),
        "plain_cpu_ms": round(1e3 * statistics.median(times[2] for times in plain), 1),
        "watched_cpu_ms": round(1e3 * statistics.median(times[2] for times in watched), 1),
        "cpu_ratio": round(statistics.median(cpu), 3),
        "cpu_ratio_least": round(min(cpu), 3),
        "cpu_ratio_most": round(max(cpu), 3),
        "rows": len(rows),
        "begin_ms": round(1e3 * begin()),
        "epoch_ms": round(1e3 * epoch()),
        "load": round(os.getloadavg()[0], 1),
    }
    print_rows([row])
    if not options.no_record:
        print("recorded in", write_rows("callback", [row]))
    shutil.rmtree(scratch)


def repeated(path: Path, batch: int, pairs: int) -> list[dict[str, Any]]:
    """Prompts and completions of which each batch comes twice in a row."""
    with path.open() as lines:
        records = [json.loads(line) for line in islice(lines, batch * pairs)]
    rows = [
        {
            "prompt": [{"role": "user", "content": record["question"]}],
            "completion": [{"role": "assistant", "content": record["answer"]}],
        }
        for record in records
    ]
    return [row for at in range(0, len(rows), batch) for row in rows[at : at + batch] * 2]


def ratios(times: list[tuple[bool, float, float]], of: int) -> list[float]:
    """Watched over not watched, of each pair."""
    found = []
    for first, second in zip(times[::2], times[1::2], strict=True):
        watched, plain = (first, second) if first[0] else (second, first)
        found.append(watched[of] / plain[of])
    return found


def timed(callback: DonodCallback, event: str) -> Callable[[], float]:
    """Take the CPU time that a callback spends on an event; the returned function gives it in seconds."""
    own, spent = getattr(callback, event), [0.0]

    def measured(*arguments: Any, **named: Any) -> None:
        start = time.process_time()
        own(*arguments, **named)
        spent[0] += time.process_time() - start

    setattr(callback, event, measured)
    return lambda: spent[0]


if __name__ == "__main__":
    main()
