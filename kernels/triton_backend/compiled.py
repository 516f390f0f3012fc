"""Compile every shipped kernel config ahead of time for every architecture; no device is needed.

    python -m donod_fast.kernels.triton_backend.compiled [--architecture sm_90] [--csv FILE]

prints shared memory, registers, stack and spilled bytes of each config. It exits with 1 if a config does not compile,
needs more shared memory than its architecture has, or spills. It does not work under ``TRITON_INTERPRET=1``, which
compiles nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from donod_fast.kernels.triton_backend import direct, gram, logits, normalise, pack, products, reduce, rows, topsis
from donod_fast.kernels.triton_backend.configs import (
    ARCHITECTURES,
    NORMALISE,
    PACK,
    REDUCE,
    ROWS,
    fixed_configs,
)
from donod_fast.kernels.triton_backend.language import LAUNCH_OPTIONS

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Limits of one block (CUDA programming guide, technical specifications; CDNA 3: 64 KiB of LDS).
SHARED_LIMIT = {
    "sm_80": 163 * 1024,
    "sm_89": 99 * 1024,
    "sm_90": 227 * 1024,
    "sm_100": 227 * 1024,
    "gfx942": 64 * 1024,
}
_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
# Pointers with a fixed element type; all others have the type of the case.
_FIXED = {
    "labels": "i64",
    "token_row": "i32",
    "token_slot": "i32",
    "scored_start": "i32",
    "slot_start": "i32",
    "slot_row": "i32",
    "step_sample": "i32",
    "counts": "i32",
    "pair_start": "i32",
    "bounds": "i32",
    "row_start": "i32",
    "column_start": "i32",
    "statistics": "fp64",
    "sums": "fp64",
    "scale": "fp64",
    "token_weight": "fp64",
    "out": "fp64",
}
_FLOAT32 = ("log_rest", "tile_", "relative", "label_slope", "factors", "partials", "numbers", "coefficient")
_FLOATS = ("logit_scale", "softcap", "lr", "inverse_lr", "weight_decay", "beta1", "beta2", "step_size", "root_scale",
           "eps", "magnitude", "sign", "don_weight", "nod_weight")  # fmt: skip
_INTEGERS = ("first", "samples", "base_sample", "token_offset", "tokens_bound", "columns", "columns_stored", "stored",
             "vocab", "dim", "parts", "items", "rows", "slots", "n", "vocab_tiles", "align")  # fmt: skip


_OF_ROWS = ("dim", "hidden_stride", "weight_stride", "state_stride")


@dataclass(frozen=True, slots=True)
class Variant:
    """One compilation: a kernel with its constants and the types of its pointers."""

    kernel: str
    name: str
    architecture: str
    dtype: str
    warps: int
    stages: int
    constants: tuple[tuple[str, Any], ...]
    types: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """Report of the compiler on a variant. Spills are counted in registers on gfx942, else in bytes."""

    architecture: str
    kernel: str
    variant: str
    dtype: str
    tile: str
    warps: int
    stages: int
    shared_bytes: int
    shared_limit: int
    registers: int
    stack_bytes: int
    spilled: int

    @property
    def problem(self) -> str | None:
        """Reason why the config cannot be shipped, or None."""
        if self.shared_bytes > self.shared_limit:
            return f"needs {self.shared_bytes} bytes of shared memory, {self.architecture} has {self.shared_limit}"
        if self.spilled:
            return f"spills {self.spilled}"
        return None


_KERNELS = {
    "logits": logits.logits_kernel,
    "token_statistics": rows.token_statistics_kernel,
    "sample_sums": rows.sample_sums_kernel,
    "normalise": normalise.normalise_kernel,
    "pack": pack.pack_kernel,
    "direct": direct.direct_kernel,
    "gram": gram.gram_kernel,
    "cross": gram.cross_kernel,
    "segment_sums": reduce.segment_sums_kernel,
    "squares": reduce.squares_kernel,
    "rectangle_sums": products.rectangle_sums_kernel,
    "topsis_constants": topsis.constants_kernel,
    "topsis_closeness": topsis.closeness_kernel,
}


@dataclass(frozen=True, slots=True)
class _LogitsCase:
    name: str
    mapped: bool = False
    scale: bool = False
    bias: bool = False
    normalised: bool = False
    only_statistics: bool = False
    width: str = "even"

    @property
    def flags(self) -> dict[str, bool]:
        return {
            "HAS_BIAS": self.bias,
            "HAS_SCALE": self.scale,
            "HAS_CAP": self.mapped,
            "NORMALISED": self.normalised,
            "STORE": not self.only_statistics,
            "EVEN_DIM": self.width == "even",
        }


_BASE: dict[str, Any] = {"PRECISION": "ieee", "INTERPRETED": False}
# Hidden dimensions: "even" is a multiple of the block, "ragged" a multiple of 16, "odd" neither.
_ALL = {"mapped": True, "scale": True, "bias": True}
_LOGITS_CASES = (
    _LogitsCase("plain"),
    _LogitsCase("plain, ragged dim", scale=True, width="ragged"),
    _LogitsCase("soft-cap", mapped=True),
    _LogitsCase("all, ragged dim", **_ALL, width="ragged"),
    _LogitsCase("all, odd dim", **_ALL, width="odd"),
    _LogitsCase("statistics only", only_statistics=True),
    _LogitsCase("statistics only, all", **_ALL, only_statistics=True, width="ragged"),
    _LogitsCase("again", normalised=True),
    _LogitsCase("again, all, ragged dim", **_ALL, normalised=True, width="ragged"),
)
# Label, rule, storage, packed, width. "No TMA": W or its rows are unaligned, or Triton is older than 3.4.
_DIRECT_CASES = (
    ("adamw", "adamw", None, True, "even"),
    ("adamw, no TMA", "adamw", None, True, "even"),
    ("adamw, ragged dim", "adamw", None, True, "ragged"),
    ("adamw, odd dim", "adamw", None, True, "odd"),
    ("adamw, rows", "adamw", None, False, "even"),
    ("sign", "sign", None, True, "even"),
    ("sgd", "sgd", None, True, "even"),
)
_HEAVY_CASES = (
    ("state", "state", None, True, "even"),
    ("state, rows, ragged dim", "state", None, False, "ragged"),
    ("state, rows, odd dim", "state", None, False, "odd"),
    ("adamw, bf16 storage", "adamw", tl.bfloat16, True, "even"),
    ("state, bf16 storage, ragged dim", "state", tl.bfloat16, True, "ragged"),
)


def variants(architecture: str) -> Iterator[Variant]:
    """Every config that is shipped for an architecture, with the flags that change its registers or memory."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        yield from _matrix_kernels(architecture, dtype)
    for name in ("bf16", "fp32"):
        yield from _row_kernels(architecture, name)
    yield Variant("rectangle_sums", "", architecture, "fp32", 2, 3, (("BLOCK", 64),))
    for kernel, constants in (
        ("topsis_constants", {"BLOCK": topsis.BLOCK}),
        ("topsis_closeness", {"BLOCK": topsis.BLOCK}),
    ):
        yield Variant(kernel, "", architecture, "fp64", 4, 3, tuple(constants.items()))


def _matrix_kernels(architecture: str, dtype: torch.dtype) -> Iterator[Variant]:
    # Small heads multiply 16-bit inputs with float32 signals; they use the direct and Gram kernels of float32.
    name = _NAMES[dtype]
    signals = logits.signals_dtype(dtype)
    chosen = {
        (mapped, shape, odd): fixed_configs(architecture, dtype, signals, mapped=mapped, direct=shape, odd=odd)
        for mapped in (False, True)
        for shape in ("short", "long", "heavy")
        for odd in (False, True)
    }
    # float16 has the tiles of bfloat16 and the epilogue of float32. Its operands differ in the logits kernel, and when
    # hidden states are looked up and cast.
    half = dtype == torch.float16
    for case in _LOGITS_CASES[:5] if half else _LOGITS_CASES:
        configs = chosen[case.mapped, "short", case.width == "odd"]
        config = configs.statistics if case.only_statistics else configs.logits
        constants = {**_BASE, **case.flags, "ODD": case.width == "odd", "BLOCK_TOKENS": config.tokens,
                     "BLOCK_VOCAB": config.vocab, "BLOCK_DIM": config.dim, "SPLIT": config.split,
                     "GROUP": config.group}  # fmt: skip
        yield Variant("logits", case.name, architecture, name, config.warps, config.stages,
                      tuple(constants.items()), (("exps", _NAMES[signals]),))  # fmt: skip
    for shape in ("short", "long", "heavy"):
        if shape == "long" and chosen[False, "long", False] == chosen[False, "short", False]:
            continue
        for label, rule, storage, packed, width in _HEAVY_CASES if shape == "heavy" else _DIRECT_CASES:
            if half and packed:
                continue
            d = chosen[False, shape, width == "odd"].direct
            if "no TMA" in label and not d.tma:
                continue
            tma = d.tma and packed and "no TMA" not in label
            constants = {**_BASE, "ODD": width == "odd", "RULE": rule, "NEEDS_WEIGHT": rule != "sgd",
                         "STORAGE": storage, "PACKED": packed, "TMA": tma, "EVEN_DIM": width == "even" or tma,
                         "RECIPROCAL": "gcn" if architecture.startswith("gfx") else "ptx", "BLOCK_VOCAB": d.vocab,
                         "BLOCK_DIM": d.dim, "STEP": d.step, "SPLIT": d.parts(packed), "KEEP": d.keep and not tma,
                         "LOADED_ZERO": d.loaded_zero}  # fmt: skip
            types = {"signals": _NAMES[signals], "hidden": _NAMES[signals] if packed else name,
                     "exp_avg": "fp32", "exp_avg_sq": "fp32"}  # fmt: skip
            if tma:
                types["signals"] = _descriptor(signals, d.step, d.vocab)
                types["hidden"] = _descriptor(signals, d.step, d.dim)
                types["weight"] = _descriptor(dtype, d.vocab, d.dim)
            yield Variant("direct", f"{shape}: {label}", architecture, name, d.warps, d.stages,
                          tuple(constants.items()), tuple(types.items()))  # fmt: skip
    for mapped in () if half else (False, True):
        configs = chosen[mapped, "short", False]
        g, tile_width = configs.gram, configs.logits.tile
        tile = {"BLOCK_TOKENS": g.tokens, "BLOCK_COLUMNS": min(g.columns, tile_width), "BLOCK_DIM": g.dim}
        for factors in (True, False):
            constants = {**_BASE, **tile, "HAS_FACTORS": factors, "HAS_CAP": mapped, "TILE": tile_width}
            label = ("stored" if factors else "again") + (", soft-cap" if mapped else "")
            yield Variant("gram", label, architecture, name, g.warps, g.stages, tuple(constants.items()),
                          (("exps", _NAMES[signals]),))  # fmt: skip
        types = {f"{side}_exps": _NAMES[signals] for side in ("left", "right")}
        yield Variant("cross", "soft-cap" if mapped else "", architecture, name, g.warps, g.stages,
                      tuple({**_BASE, **tile, "HAS_CAP": mapped}.items()), tuple(types.items()))  # fmt: skip


def _row_kernels(architecture: str, dtype: str) -> Iterator[Variant]:
    rows_tile = {"BLOCK_TOKENS": ROWS.tokens, "BLOCK_TILES": ROWS.tiles, "BLOCK_DIM": ROWS.dim}
    for cap in (False, True):
        constants = {"HAS_BIAS": cap, "HAS_SCALE": cap, "HAS_CAP": cap, "BY_SLOT": True, **rows_tile}
        label = "soft-cap" if cap else "plain"
        yield Variant("token_statistics", label, architecture, dtype, ROWS.warps, 3, tuple(constants.items()))
        element = torch.float32 if dtype == "fp32" else torch.bfloat16
        tile = fixed_configs(architecture, element, element, mapped=cap, direct="short").logits.tile
        constants = {"HAS_FACTORS": True, "HAS_CAP": cap, "INTERPRETED": False, "TILE": tile,
                     "BLOCK_SLOTS": NORMALISE.slots, "BLOCK_VOCAB": min(NORMALISE.vocab, tile)}  # fmt: skip
        yield Variant("normalise", label, architecture, dtype, NORMALISE.warps, 3, tuple(constants.items()))
    yield Variant("sample_sums", "", architecture, dtype, ROWS.warps, 3,
                  (("BLOCK", ROWS.sample_block),))  # fmt: skip
    yield Variant("pack", "", architecture, dtype, PACK.warps, 3,
                  (("INTERPRETED", False), ("BLOCK_SLOTS", PACK.slots), ("BLOCK_DIM", PACK.vocab)))  # fmt: skip
    for by_bounds in (False, True):
        yield Variant("segment_sums", "bounds" if by_bounds else "rows", architecture, dtype, REDUCE.warps, 3,
                      (("BY_BOUNDS", by_bounds), ("BLOCK", REDUCE.block)))  # fmt: skip
    yield Variant("squares", "", architecture, dtype, REDUCE.warps, 3,
                  (("BLOCK_ROWS", REDUCE.rows), ("BLOCK", REDUCE.width)), (("partials", "fp64"),))  # fmt: skip


def compile_variant(variant: Variant) -> Compiled:
    """Compile one variant and read the compiler's report."""
    kernel = _KERNELS[variant.kernel]
    constants, types = dict(variant.constants), dict(variant.types)
    signature, aligned = {}, {}
    odd = constants.pop("ODD", False)
    for index, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
            continue
        signature[argument] = _type_of(argument, variant, types)
        # As at run time: pointers and fixed sizes are multiples of 16, but sizes that change from batch to batch need
        # not be. An odd dim also leaves rows unaligned.
        varies = kernel.params[index].do_not_specialize or (odd and argument in _OF_ROWS)
        if signature[argument].startswith("*") or (signature[argument] == "i32" and not varies):
            aligned[(index,)] = [["tt.divisibility", 16]]
    target = TARGETS[variant.architecture]
    options = {"num_warps": variant.warps, "num_stages": variant.stages, **LAUNCH_OPTIONS}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    built = triton.compile(source, target=target, options=options)
    registers, stack, spilled = _resources(built, target)
    return Compiled(
        architecture=variant.architecture,
        kernel=variant.kernel,
        variant=variant.name,
        dtype=variant.dtype,
        tile=" x ".join(str(value) for name, value in constants.items() if name.startswith("BLOCK") or name == "STEP"),
        warps=variant.warps,
        stages=variant.stages,
        shared_bytes=int(built.metadata.shared),
        shared_limit=SHARED_LIMIT[variant.architecture],
        registers=registers,
        stack_bytes=stack,
        spilled=spilled,
    )


def _type_of(argument: str, variant: Variant, types: dict[str, str]) -> str:
    bare = argument.removeprefix("left_").removeprefix("right_")
    if argument in types:
        return types[argument] if types[argument].startswith("tensordesc") else "*" + types[argument]
    if argument in _FLOATS:
        return "fp32"
    if bare.endswith("_stride") or argument == "stride" or bare.startswith("first") or bare in _INTEGERS:
        return "i32"
    if bare in _FIXED:
        return "*" + _FIXED[bare]
    if bare == "slope" or bare.startswith(_FLOAT32):
        return "*fp32"
    return "*" + variant.dtype


def _descriptor(dtype: torch.dtype, *block: int) -> str:
    """Type of a descriptor argument for tiles of ``block``."""
    return f"tensordesc<{_NAMES[dtype]}{list(block)}>"


def _resources(built: Any, target: GPUTarget) -> tuple[int, int, int]:
    """Registers, stack bytes and spills."""
    if target.backend == "hip":
        text = built.asm["amdgcn"]
        found = {
            name: int(value)
            for name, value in re.findall(
                r"\.(vgpr_count|private_segment_fixed_size|vgpr_spill_count|sgpr_spill_count):\s+(\d+)", text
            )
        }
        return found["vgpr_count"], found["private_segment_fixed_size"], found["vgpr_spill_count"]
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as scratch:
        cubin = Path(scratch) / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        text = subprocess.run(
            [folder / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True
        ).stdout
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    # The source has no local arrays, so the stack contains spilled registers.
    return int(usage["REG"]), int(usage["STACK"]), int(usage["STACK"]) + int(usage["LOCAL"])


def compile_all(architectures: tuple[str, ...] = ARCHITECTURES, workers: int | None = None) -> list[Compiled]:
    """Compile every shipped config for the architectures, in several processes."""
    todo = [variant for architecture in architectures for variant in variants(architecture)]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(compile_variant, todo))


def main() -> int:
    """Compile, print the table, and report configs that cannot be shipped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    found = compile_all(tuple(options.architecture or ARCHITECTURES))
    names = [field.name for field in fields(Compiled)]
    lines = [names, *([str(value) for value in asdict(row).values()] for row in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([[*lines[0], "triton"], *([*line, triton.__version__] for line in lines[1:])])
    wrong = [row for row in found if row.problem]
    for row in wrong:
        print(f"{row.architecture} {row.kernel} ({row.variant}, {row.dtype}): {row.problem}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
