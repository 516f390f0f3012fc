"""Training and generation at a model's shape, with random weights: tokens per second, MFU, peak memory.

    python bench/training.py --shape llama-2-7b            # on an accelerator, some minutes
    python bench/training.py --shape tiny --steps 3        # on a CPU, less than a minute

Training uses ``donod_fast.training`` on rows of one length: full training if AdamW's state fits the device's memory by
the plan, and LoRA. MFU counts the operations of the plan, without those that gradient checkpointing repeats, over the
dense bfloat16 peak; it is empty if the peak is not known. Generation is
transformers' ``generate``, greedy, at several batch sizes. Appends to results/training.csv.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from record import is_recorded, print_rows, write_rows

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.models.precision import silence_torchao
from donod_fast.models.shapes import SHAPES
from donod_fast.training.planning import ACCELERATORS, TokenCounts, plan_training
from donod_fast.training.recipe import TrainSettings
from donod_fast.training.trainer import train_model


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="tiny", choices=list(SHAPES))
    parser.add_argument("--tokens", type=int, help="tokens per row (default: 1024, 128 for small shapes)")
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps; the first is not timed")
    parser.add_argument("--micro-batches", default="1,4")
    parser.add_argument("--batches", default=None, help="batch sizes of generation (default: 1,16,64; 1,8 on a CPU)")
    parser.add_argument("--new-tokens", type=int, help="generated tokens per row (default: 256, 32 for small shapes)")
    parser.add_argument("--method", default="full,lora")
    parser.add_argument("--if-missing", action="store_true", help="only cases not recorded for this device")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    cuda = torch.cuda.is_available()
    if options.if_missing and is_recorded("training", shape=shape.name, phase="generate"):
        print("recorded")
        return
    tokens = options.tokens or (128 if shape.small else 1024)
    new_tokens = options.new_tokens or (32 if shape.small else 256)
    model = random_model(shape)
    rows = []
    for batch in map(int, (options.batches or ("1,16,64" if cuda else "1,8")).split(",")):
        rows.append({**about(shape, model), **generation(model, batch, tokens, new_tokens)})
    for method in options.method.split(","):
        for micro_batch in map(int, options.micro_batches.split(",")):
            settings = TrainSettings(
                model=shape.name,
                dtype=str(model.dtype).removeprefix("torch."),
                method=method,
                micro_batch=micro_batch,
                global_batch=options.global_batch,
                max_steps=options.steps,
                gradient_checkpointing=not shape.small,
            )
            rows.append({**about(shape, model), **training(model, settings, tokens)})
    print_rows(rows)
    if not options.no_record:
        write_rows("training", rows)


def random_model(shape: Any) -> Any:
    """The shape with random weights: bfloat16 on an accelerator, float32 on a CPU."""
    silence_torchao()
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    with torch.device("cuda" if cuda else "cpu"):
        return AutoModelForCausalLM.from_config(shape.config(), dtype=torch.bfloat16 if cuda else torch.float32)


def about(shape: Any, model: Any) -> dict[str, Any]:
    """The columns that identify a row."""
    return {
        "shape": shape.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(model.dtype)[6:],
    }


def training(model: Any, settings: TrainSettings, tokens: int) -> dict[str, Any]:
    """Train on equal rows; the rate excludes the first step."""
    counts = TokenCounts.of([tokens] * (settings.global_batch * (settings.max_steps or 1)))
    config = model.config
    plan = plan_training(settings, counts, config=config)
    row = _row(f"train {settings.method}", settings.micro_batch, tokens, settings.global_batch)
    row["planned_bytes"] = plan.total_bytes
    if torch.cuda.is_available():
        room = torch.cuda.get_device_properties(0).total_memory
        if plan.total_bytes > 0.97 * room:
            return {**row, "note": f"left out: planned for {plan.total_bytes / 2**30:.0f} GiB"}
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.vocab_size, (counts.rows, tokens), generator=generator).tolist()
    scored = (False, *([True] * (tokens - 1)))
    samples = [TokenizedSample(at, str(at), Status.SCORED, "", tuple(i), scored, tokens) for at, i in enumerate(ids)]
    stamps: list[float] = []
    try:
        train_model(model, _Tokenizer.of(), samples, settings, progress=lambda *_: stamps.append(time.perf_counter()))
    except torch.OutOfMemoryError:
        return {**row, "note": "out of memory"}
    seconds = stamps[-1] - stamps[0]
    done = settings.global_batch * tokens * (len(stamps) - 1)
    model_flops = (
        plan_training(settings.model_copy(update={"gradient_checkpointing": False}), counts, config=config).flops
        / plan.tokens
    )
    row |= {"seconds": round(seconds, 3), "tokens_per_second": round(done / seconds, 1), **_memory()}
    if (peak := _peak()) is not None:
        row["mfu"] = round(done * model_flops / seconds / peak, 4)
    return row


def generation(model: Any, batch: int, prompt: int, new_tokens: int) -> dict[str, Any]:
    """Greedy generation after prompts of a quarter of a training row, always of the full length."""
    row = _row("generate", batch, prompt // 4, batch)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    ids = torch.randint(3, model.config.vocab_size, (batch, prompt // 4), device=model.device)
    model.eval()

    def run(count: int) -> float:
        begin = time.perf_counter()
        with torch.no_grad():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=count, max_new_tokens=count
            )
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    try:
        run(4)
        seconds = run(new_tokens)
    except torch.OutOfMemoryError:
        return {**row, "note": "out of memory"}
    return {
        **row,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(batch * new_tokens / seconds, 1),
        **_memory(),
    }


class _Tokenizer:
    """The smallest tokenizer that TRL accepts; it is not called."""

    @staticmethod
    def of() -> Any:
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        pieces = {"<pad>": 0, "<s>": 1, "</s>": 2}
        backend = Tokenizer(models.WordLevel(pieces, unk_token="<pad>"))
        return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", bos_token="<s>")


def _row(phase: str, batch: int, tokens: int, rows: int) -> dict[str, Any]:
    return {
        "phase": phase, "batch": batch, "row_tokens": tokens, "global_batch": rows, "seconds": "",
        "tokens_per_second": "", "mfu": "", "peak_bytes": "", "planned_bytes": "", "note": "",
    }  # fmt: skip


def _memory() -> dict[str, Any]:
    return {"peak_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}


def _peak() -> float | None:
    name = torch.cuda.get_device_name().lower() if torch.cuda.is_available() else ""
    return next((gpu.peak for gpu in ACCELERATORS.values() if gpu.name in name), None)


if __name__ == "__main__":
    main()
