"""Trains the demonstration's model: ``python -m donod_fast.demo.train_model --out DIR``.

A Llama of about a million parameters learns the families of :mod:`donod_fast.demo.corpus` from
rows whose questions the embedded corpus does not hold, with the loss on the response only, for
some minutes on one CPU core. Seeds are fixed; on another machine rounding may differ, so the
weights in the package are the demonstration's reference and this script says how they came about.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from donod_fast.data.types import IGNORE_INDEX
from donod_fast.demo.corpus import CLEAN, MODEL_FOLDER, demo_corpus, generate, question_of
from donod_fast.demo.tokenizer import MAX_LENGTH, VOCAB_SIZE, train_tokenizer

SEED = 17
"""Of the weights and of the training rows; the embedded corpus has another."""

STEPS = 2700
BATCH_ROWS = 24
PEAK_LR = 3e-3
WARMUP_STEPS = 150
WEIGHT_DECAY = 0.05
TOKENIZER_ROWS = 4000


class Tokens(NamedTuple):
    """A row as token ids with the labels of its response (not shifted)."""

    ids: list[int]
    labels: list[int]


class Quality(NamedTuple):
    """What a model is worth on rows that it has not seen."""

    loss: float  # mean over response tokens, nats
    confident: float  # share of response tokens with p_y > 0.99
    tokens: int


def messages_of(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """The row as a conversation of two turns; a blank line parts the instruction from its input."""
    prompt = row["instruction"] + ("\n\n" + row["input"] if row["input"] else "")
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": row["output"]}]


def tokenize(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Mapping[str, Any]]) -> list[Tokens]:
    """Token ids and labels by the template's own generation mask."""
    encoded = tokenizer.apply_chat_template(
        [messages_of(row) for row in rows],
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenize=True,
    )
    return [
        Tokens(ids, [token if scored else IGNORE_INDEX for token, scored in zip(ids, mask, strict=True)])
        for ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    ]


def batches(rows: Sequence[Tokens], rng: Random) -> Iterator[tuple[Tensor, Tensor]]:
    """All rows once in random order, rows of like length together, as padded (ids, labels)."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), rng.random()))
    starts = list(range(0, len(order), BATCH_ROWS))
    rng.shuffle(starts)
    for start in starts:
        chosen = [rows[i] for i in order[start : start + BATCH_ROWS]]
        width = max(len(row.ids) for row in chosen)
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        labels = torch.full((len(chosen), width), IGNORE_INDEX)
        for i, row in enumerate(chosen):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            labels[i, : len(row.labels)] = torch.tensor(row.labels)
        yield ids, labels


def response_losses(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """The loss of each response token. Padding stands at the right, where causal rows do not see it."""
    hidden = model.model(ids).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    scored = targets != IGNORE_INDEX
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[scored]), targets[scored], reduction="none")


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _learning_rate(step: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_LR * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))


def training_batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of ever new rows, none of them with a question of the embedded corpus."""
    held_out = {question_of(row) for row in demo_corpus()}
    part = 0
    while True:
        part += 1
        rows = generate(6000, SEED * 1000 + part, exclude=held_out)
        yield from batches(tokenize(tokenizer, rows), Random(part))


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """The whole training, in place; prints the loss now and then."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    began = time.perf_counter()
    average = 0.0
    model.train()
    for step, (ids, labels) in zip(range(STEPS), training_batches(tokenizer), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step)
        loss = response_losses(model, ids, labels).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        if step % 100 == 0 or step + 1 == STEPS:
            print(f"step {step:5d}  loss {average:.4f}  {time.perf_counter() - began:6.1f} s", flush=True)


@torch.inference_mode()
def measure(model: LlamaForCausalLM, rows: Sequence[Tokens]) -> Quality:
    """Loss and confidence on the response tokens of ``rows``."""
    model.eval()
    losses = torch.cat([response_losses(model, *batch) for batch in batches(rows, Random(0))])
    return Quality(losses.mean().item(), (losses < -math.log(0.99)).float().mean().item(), losses.numel())


def main() -> None:
    """Trains, rounds to bfloat16, measures on the clean rows of the embedded corpus, saves."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="the model's folder")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1: reproducible run to run)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    began = time.perf_counter()
    texts = [m["content"] for row in generate(TOKENIZER_ROWS, SEED) for m in messages_of(row)]
    tokenizer = train_tokenizer(texts)
    model = build_model(tokenizer)
    train(model, tokenizer)
    seconds = time.perf_counter() - began

    model = model.to(torch.bfloat16).float()  # measure what is saved
    clean = [row for row in demo_corpus() if row["corruption"] == CLEAN]
    quality = measure(model, tokenize(tokenizer, clean))
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    note = (
        f"Made by `python -m donod_fast.demo.train_model` (seed {SEED}, {STEPS} steps of {BATCH_ROWS} rows, "
        f"{seconds / 60:.1f} minutes on {options.threads} CPU thread(s)): a Llama of "
        f"{model.num_parameters():,} parameters in bfloat16. On the {len(clean)} clean rows of the embedded "
        f"corpus, which it has not seen: loss {quality.loss:.4f} nats a response token ({quality.tokens:,} "
        f"tokens), {quality.confident:.1%} of them with p > 0.99.\n"
    )
    (options.out / "README").write_text(note, encoding="utf-8")
    print(note)


if __name__ == "__main__":
    main()
