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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from donod_fast.kernels.triton_backend.configs import ARCHITECTURES
from donod_fast.kernels.triton_backend.language import LAUNCH_OPTIONS
from donod_fast.kernels.triton_backend.variants import KERNELS, OF_ROWS, Variant, type_of, variants

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


def compile_variant(variant: Variant) -> Compiled:
    """Compile one variant and read the compiler's report."""
    kernel = KERNELS[variant.kernel]
    constants, types = dict(variant.constants), dict(variant.types)
    signature, aligned = {}, {}
    odd = constants.pop("ODD", False)
    for index, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
            continue
        signature[argument] = type_of(argument, variant, types)
        # As at run time: pointers and fixed sizes are multiples of 16, but sizes that change from batch to batch need
        # not be. An odd dim also leaves rows unaligned.
        varies = kernel.params[index].do_not_specialize or (odd and argument in OF_ROWS)
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
