"""The head phase: floor, ours, the unfused closed form, the paper's loop and loss-only peers, in one process.

    python bench/head.py                                             # every shape that suits the device
    python bench/head.py --shape llama-3.1-8b --tokens 8192 --lengths gsm8k 1000

The floor is the bare logits product of the same tokens, 2 · tokens · V · d operations, into an existing buffer.
SGD should cost a few per cent more; AdamW needs the gradient's products too, so its floor is twice that.

Programs run in turns, with warm inputs. ``times_floor`` is the time per token over the floor's; a row that
processes only some of the samples shows this in ``tokens_timed``: nothing is extrapolated. ``tflops`` counts
``products`` · 2 · tokens · V · d operations, ``tflops_one_product`` one product for every program. ``extra_mib`` is
the peak memory in addition to the inputs (CUDA's allocator; not measured on a CPU). Errors are the largest of
``samples_checked`` samples against float64 autograd, DON's and NOD's over NOD, the loss over itself. A row without
numbers has the reason in its ``note``. Appends to results/head_phase.csv after every case.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from head_case import Case, Program
from head_rows import FLOOR, ROWS, TABLE, case_columns, missing_rows
from record import device_name, interleaved, print_rows, summary, write_rows
from shapes import LENGTHS, SHAPES

from donod_fast.benchmark.record import short_error

_TIMED = ("samples_timed", "tokens_timed", "products", "rounds", "median_ms", "p20_ms", "p80_ms", "times_floor",
          "tflops", "tflops_one_product")  # fmt: skip
_SHOWN = ("row", "tokens_timed", "median_ms", "times_floor", "tflops", "extra_mib", "don_error", "nod_error", "note")


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, help="default: the shapes that suit the device")
    parser.add_argument("--tokens", type=int, nargs="+", help="scored tokens (default: the shape's)")
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, help="default: the shape's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop-samples", type=int, help="samples of the paper's loop (default 8; 2 on a CPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: bfloat16; float32 on CPU")
    parser.add_argument("--seconds", type=float, default=240.0, help="no further round of a case after this long")
    parser.add_argument("--threads", type=int, help="CPU threads; on a busy machine, 1 gives steadier ratios")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--if-missing", action="store_true", help="only cases with missing rows for this device")
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = options.dtype or ("float32" if on_cpu else "bfloat16")
    names = options.shape or [shape.name for shape in SHAPES.values() if shape.small == on_cpu]
    for name in names:
        shape = SHAPES[name]
        for tokens in options.tokens or shape.tokens:
            for profile in options.lengths or shape.profiles:
                about = case_columns(shape, LENGTHS[profile], tokens, dtype)
                print(f"\n{name}: {tokens} tokens, lengths {profile}, {dtype} on {device_name(options.device)}")
                if options.if_missing and not missing_rows(about, device_name(options.device)):
                    print("already recorded for this device")
                    continue
                case = Case(
                    shape,
                    LENGTHS[profile],
                    tokens,
                    device=torch.device(options.device),
                    dtype=getattr(torch, dtype),
                    loop_samples=options.loop_samples or (2 if on_cpu else 8),
                )
                rows = measured(case, about, rounds=options.rounds, seconds=options.seconds)
                print_rows([{key: row[key] for key in _SHOWN} for row in rows])
                if not options.no_record:
                    print("recorded in results/" + write_rows(TABLE, rows, kind=options.device).name)
                del case


def measured(case: Case, about: dict[str, Any], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The rows of a case."""
    started = time.perf_counter()
    programs = list(case.programs())
    assert tuple(program.name for program in programs) == ROWS
    facts: dict[str, dict[str, Any]] = {}
    runnable = {}
    for program in programs:
        facts[program.name] = {"note": program.note}
        if program.run is None:
            continue
        try:
            facts[program.name] |= _first_run(case, program)
            runnable[program.name] = program
        except Exception as error:  # becomes a row with the reason; our programs must run
            if program.name == FLOOR or program.name.startswith("ours"):
                raise
            if case.device.type == "cuda":
                torch.cuda.synchronize()  # raises if the error has destroyed the device's context
            facts[program.name]["note"] = short_error(error)
        if case.device.type == "cuda":
            torch.cuda.empty_cache()
    left = max(0.0, seconds - (time.perf_counter() - started))
    times = interleaved({name: p.run for name, p in runnable.items() if p.run}, rounds=rounds, seconds=left)
    results = {name: {**summary(taken), "rounds": len(taken)} for name, taken in times.items()}
    floor = results[FLOOR]["median_ms"] / case.tokens if FLOOR in results else None
    return [_row(case, about, program, results.get(program.name), floor, facts[program.name]) for program in programs]


def _first_run(case: Case, program: Program) -> dict[str, Any]:
    """Errors, and peak memory of a second run (the first one may compile)."""
    assert program.run is not None
    result = program.run()
    facts: dict[str, Any] = {}
    if program.errors is not None:
        try:
            facts |= program.errors(result)
            facts["samples_checked"] = len(case.checked)
        except torch.OutOfMemoryError:
            facts["note"] = "; ".join(filter(None, [program.note, "no memory for the float64 truth"]))
    if case.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        program.run()
        torch.cuda.synchronize()
        extra = torch.cuda.max_memory_allocated() - before + program.held_bytes
        facts["extra_mib"] = round(extra / 2**20, 1)
    return facts


def _row(
    case: Case,
    about: dict[str, Any],
    program: Program,
    result: dict[str, Any] | None,
    floor: float | None,  # milliseconds per token
    facts: dict[str, Any],
) -> dict[str, Any]:
    one_product = 2e-9 * program.tokens * case.shape.vocab * case.shape.dim  # TFLOP at a time in ms
    row = {"row": program.name, **about, "samples": len(case.lengths)}
    row |= dict.fromkeys(_TIMED, "")
    if result is not None:
        row |= {
            "samples_timed": program.samples,
            "tokens_timed": program.tokens,
            "products": program.products,
            "rounds": result["rounds"],
            **{key: round(result[key], 3) for key in ("median_ms", "p20_ms", "p80_ms")},
            "tflops": round(program.products * one_product / result["median_ms"], 4),
            "tflops_one_product": round(one_product / result["median_ms"], 4),
        }
        if floor is not None:
            row["times_floor"] = round(result["median_ms"] / program.tokens / floor, 3)
    row["extra_mib"] = facts.get("extra_mib", "")
    for error in ("don_error", "nod_error", "loss_error"):
        row[error] = f"{facts[error]:.2e}" if error in facts else ""
    row["samples_checked"] = facts.get("samples_checked", "")
    row["note"] = facts["note"]
    row["triton"] = _triton_version()
    return row


def _triton_version() -> str:
    try:
        import triton
    except ImportError:
        return "none"
    return str(triton.__version__)


if __name__ == "__main__":
    main()
