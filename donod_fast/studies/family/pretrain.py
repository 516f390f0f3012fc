"""Train a base model of the family: ``python -m donod_fast.studies.family.pretrain --size tiny --out DIR``.

It trains a Llama from scratch on :func:`donod_fast.studies.family.corpus.base_texts`. The tiny model is part of the
package; the medium one is for machines with a GPU. Seeds are fixed, but rounding may differ on another machine: the
weights in the package are the reference, and this script documents how they were made.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from donod_fast.data.types import IGNORE_INDEX
from donod_fast.studies.family.corpus import base_texts, training_rows
from donod_fast.studies.family.sizes import SIZES, Size, size_named
from donod_fast.studies.family.tokenizer import MAX_LENGTH, train_tokenizer

SEED = 17
"""Seed of weights, texts and their order."""

WARMUP_STEPS = 100
WEIGHT_DECAY = 0.05
TOKENIZER_TEXTS, TOKENIZER_ROWS, TOKENIZER_ZIPF = 5000, 1500, 0.5
CHUNK_BATCHES = 100
"""Texts are sorted by length within this many batches."""

Report = Callable[[int, int, float], None]
"""Called from time to time with the step, the number of steps, and the mean loss of the last steps."""


def base_tokenizer() -> PreTrainedTokenizerFast:
    """The family's tokenizer, learned from base texts and clean training rows: the same for every size."""
    rows = training_rows(TOKENIZER_ROWS, SEED, {}, zipf=TOKENIZER_ZIPF)
    texts = [text.given + text.learned for text in islice(base_texts(SEED), TOKENIZER_TEXTS)]
    texts += [row["prompt"] + row["completion"] for row in rows]
    return train_tokenizer(texts)


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(
    size: Size,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int | None = None,
    device: str = "cpu",
    report: Report | None = None,
) -> LlamaForCausalLM:
    """A base model trained from scratch.

    Args:
        size: shape and training.
        tokenizer: see :func:`base_tokenizer`.
        steps: stop after this number of steps of the full schedule; None trains to the end.
        device: device of the training; on a GPU matrix products are in bfloat16 and weights in float32.
        report: called with the progress every 100 steps.
    """
    model = build_model(size, tokenizer).to(device)
    total = math.ceil(size.texts / size.batch)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=size.learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
    )
    average = math.nan
    model.train()
    for step, (ids, labels) in enumerate(islice(_batches(size, tokenizer), steps)):
        warm = min(1.0, (step + 1) / WARMUP_STEPS)
        for group in optimizer.param_groups:
            group["lr"] = size.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total)))
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
            hidden = model.model(ids.to(device)).last_hidden_state[:, :-1]
            targets = labels[:, 1:].to(device)
            logits = model.lm_head(hidden[targets != IGNORE_INDEX])
        loss = torch.nn.functional.cross_entropy(logits.float(), targets[targets != IGNORE_INDEX])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = loss.item() if step == 0 else 0.95 * average + 0.05 * loss.item()
        if report and (step % 100 == 99 or step + 1 == total):
            report(step + 1, total, average)
    return model.eval()


def _batches(size: Size, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """All texts once, in batches of similar length, as padded (ids, labels)."""
    texts = islice(base_texts(SEED), size.texts)
    rng = Random(SEED)
    while chunk := list(islice(texts, size.batch * CHUNK_BATCHES)):
        given = tokenizer([text.given for text in chunk])["input_ids"]
        whole = tokenizer([text.given + text.learned for text in chunk])["input_ids"]
        rows = [(len(front), [*ids, tokenizer.eos_token_id]) for front, ids in zip(given, whole, strict=True)]
        rows.sort(key=lambda row: len(row[1]))
        starts = list(range(0, len(rows), size.batch))
        rng.shuffle(starts)
        for start in starts:
            yield _padded(rows[start : start + size.batch])


def _padded(rows: Sequence[tuple[int, Sequence[int]]]) -> tuple[Tensor, Tensor]:
    width = max(len(ids) for _, ids in rows)
    padded = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORE_INDEX)
    for at, (given, ids) in enumerate(rows):
        padded[at, : len(ids)] = torch.tensor(ids)
        labels[at, given : len(ids)] = torch.tensor(ids[given:])
    return padded, labels


def write_base(
    out: Path, size_name: str, *, steps: int | None = None, device: str = "cpu", report: Report | None = None
) -> str:
    """Train a base model, round it to bfloat16, and write it with its tokenizer; returns the folder's README."""
    size = size_named(size_name)
    began = time.perf_counter()
    losses: list[float] = []

    def told(step: int, total: int, loss: float) -> None:
        losses[:] = [loss]
        if report:
            report(step, total, loss)

    tokenizer = base_tokenizer()
    model = pretrain(size, tokenizer, steps=steps, device=device, report=told)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    total = math.ceil(size.texts / size.batch)
    minutes = (time.perf_counter() - began) / 60
    done = total if steps is None else min(steps, total)
    end = f", loss {losses[0]:.4f} nats a learned token at the end" if losses else ""
    note = (
        f"Made by `python -m donod_fast.studies.family.pretrain --size {size_name}` (seed {SEED}, {done} of {total} "
        f"steps of {size.batch} texts{end}, {minutes:.1f} minutes on {device}): a Llama of {model.num_parameters():,} "
        "parameters in bfloat16.\n"
    )
    (out / "README").write_text(note, encoding="utf-8")
    return note


def main() -> None:
    """Train a base model of the family from scratch and write its folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny", help="which base model")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--steps", type=int, help="stop early, as a quick test")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1: reproducible run to run)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()

    def report(step: int, total: int, loss: float) -> None:
        print(f"step {step:5d} of {total}  loss {loss:.4f}  {time.perf_counter() - began:6.1f} s", flush=True)

    print(write_base(options.out, options.size, steps=options.steps, device=options.device, report=report))


if __name__ == "__main__":
    main()
