"""Compile every shipped kernel config ahead of time for every architecture; no device is needed.

    python -m donod_fast.kernels.triton_backend.compiled [--architecture sm_90] [--kernel direct] [--csv FILE]

prints shared memory, registers, spilled bytes and instructions of each config. It exits with 1 if a config does not
compile, needs more shared memory than its architecture has, or spills. It does not work under ``TRITON_INTERPRET=1``,
which compiles nothing.
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
from donod_fast.kernels.triton_backend.machine_code import Count, count, parse_amdgcn, parse_sass
from donod_fast.kernels.triton_backend.occupancy import MULTIPROCESSORS, programs_per_multiprocessor
from donod_fast.kernels.triton_backend.variants import (
    KERNELS,
    OF_ROWS,
    OUTPUT_TILES,
    Variant,
    is_core,
    share_of,
    type_of,
    variants,
)

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """One row of ``compiled.csv``: the compiler's report on a variant and the counts of ``machine_code.py``.

    Spills are counted in registers on gfx942, else in bytes. Instructions are those of one warp. ``loops`` are
    iterations of the main loops, separated by ``+``. ``..._128`` are per 128 elements of a thread's share of the tile
    (0 where a kernel has no tile of products). ``special`` instructions are exponentials, logarithms, reciprocals and
    roots. ``epilogue_shared`` are bytes a thread loads from and stores to shared memory. Kinds of instructions are
    written as ``LDGSTS.128 16``, widths of loads and stores as bytes and their number: ``16:8 4:7``. ``programs`` run
    on a multiprocessor at once.
    """

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
    programs: int
    instructions: int
    setup: int
    loops: str
    loops_128: str
    epilogue: int
    epilogue_128: float
    loops_special: str
    epilogue_special: int
    loops_float64: str
    epilogue_float64: int
    barriers: int
    epilogue_barriers: int
    epilogue_shared: int
    matrix: str
    asynchronous: str
    loads: str
    stores: str

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
        # As at run time: pointers and fixed sizes are multiples of 16, but those that change from batch to batch need
        # not be. An odd dim also leaves rows unaligned.
        varies = kernel.params[index].do_not_specialize or (odd and argument in OF_ROWS)
        if not varies and (signature[argument].startswith("*") or signature[argument] == "i32"):
            aligned[(index,)] = [["tt.divisibility", 16]]
    target = TARGETS[variant.architecture]
    options = {"num_warps": variant.warps, "num_stages": variant.stages, **LAUNCH_OPTIONS}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    built = triton.compile(source, target=target, options=options)
    registers, stack, spilled = _resources(built, target)
    shared = int(built.metadata.shared)
    counted = count_of(built)
    share = 1
    for name in OUTPUT_TILES.get(variant.kernel, ()):
        share *= constants[name]
    share //= variant.warps * target.warp_size
    return Compiled(
        architecture=variant.architecture,
        kernel=variant.kernel,
        variant=variant.name,
        dtype=variant.dtype,
        tile=" x ".join(str(value) for name, value in constants.items() if name.startswith("BLOCK") or name == "STEP"),
        warps=variant.warps,
        stages=variant.stages,
        shared_bytes=shared,
        shared_limit=MULTIPROCESSORS[variant.architecture].block_bytes,
        registers=registers,
        stack_bytes=stack,
        spilled=spilled,
        programs=programs_per_multiprocessor(
            variant.architecture,
            warps=variant.warps,
            registers=registers,
            shared_bytes=shared,
            tensor_columns=getattr(built.metadata, "tmem_size", None) or 0,
        ),
        instructions=counted.whole.instructions,
        setup=counted.setup.instructions,
        loops="+".join(str(loop.instructions) for loop in counted.loops),
        loops_128="+".join(f"{loop.instructions * 128 / share:.1f}" for loop in counted.loops) if share else "",
        epilogue=counted.epilogue.instructions,
        epilogue_128=round(counted.epilogue.instructions * 128 / share, 1) if share else 0.0,
        loops_special="+".join(str(loop.special) for loop in counted.loops),
        epilogue_special=counted.epilogue.special,
        loops_float64="+".join(str(loop.float64) for loop in counted.loops),
        epilogue_float64=counted.epilogue.float64,
        barriers=counted.whole.barriers,
        epilogue_barriers=counted.epilogue.barriers,
        epilogue_shared=counted.epilogue.shared_bytes,
        matrix=" ".join(f"{kind} {number}" for kind, number in sorted(counted.matrix.items())),
        asynchronous=" ".join(f"{kind} {number}" for kind, number in sorted(counted.asynchronous.items())),
        loads=" ".join(f"{width}:{number}" for width, number in sorted(counted.loads.items(), reverse=True)),
        stores=" ".join(f"{width}:{number}" for width, number in sorted(counted.stores.items(), reverse=True)),
    )


def count_of(built: Any) -> Count:
    """Count the machine code of a kernel that Triton compiled."""
    if "amdgcn" in built.asm:
        return count(parse_amdgcn(built.asm["amdgcn"]))
    return count(parse_sass(_cuobjdump(built.asm["cubin"], "-sass")))


def _resources(built: Any, target: GPUTarget) -> tuple[int, int, int]:
    """Registers, stack bytes and spills."""
    if target.backend == "hip":
        text = built.asm["amdgcn"]
        found = {
            name: int(value)
            for name, value in re.findall(
                r"\.(amdhsa_next_free_vgpr|private_segment_fixed_size|vgpr_spill_count|sgpr_spill_count):?\s+(\d+)",
                text,
            )
        }
        return found["amdhsa_next_free_vgpr"], found["private_segment_fixed_size"], found["vgpr_spill_count"]
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", _cuobjdump(built.asm["cubin"], "-res-usage")))
    # The source has no local arrays, so the stack contains spilled registers.
    return int(usage["REG"]), int(usage["STACK"]), int(usage["STACK"]) + int(usage["LOCAL"])


def _cuobjdump(cubin: bytes, option: str) -> str:
    """Output of the program that Triton brings along."""
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "kernel.cubin"
        file.write_bytes(cubin)
        return subprocess.run([folder / "cuobjdump", option, file], capture_output=True, text=True, check=True).stdout


# Columns that are printed; the file has all of them.
_PRINTED = ("architecture", "kernel", "variant", "dtype", "warps", "shared_bytes", "registers", "spilled", "programs",
            "instructions", "setup", "loops", "epilogue", "epilogue_128", "epilogue_special", "epilogue_barriers",
            "matrix", "asynchronous", "loads")  # fmt: skip


def compile_all(chosen: list[Variant], workers: int | None = None) -> list[Compiled | str]:
    """Compile variants, in as many processes as there are processors; the message of one that does not compile."""
    with ProcessPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(_attempt, chosen))


def _attempt(variant: Variant) -> Compiled | str:
    try:
        return compile_variant(variant)
    except Exception as error:  # whatever the compiler raises
        cause = str(error.__cause__ or error).strip() or type(error).__name__
        name = f"{variant.architecture} {variant.kernel} ({variant.name}, {variant.dtype})"
        return f"{name}: does not compile: {cause}"


def chosen_variants(
    architectures: list[str] | None, kernels: list[str] | None, part: str, dtypes: list[str] | None, *, core: bool
) -> list[Variant]:
    """Variants of architectures, kernels and dtypes (all where None) whose name contains ``part``; maybe core ones."""
    return [
        variant
        for architecture in architectures or ARCHITECTURES
        for variant in variants(architecture)
        if (not kernels or variant.kernel in kernels)
        and part in variant.name
        and (not dtypes or variant.dtype in dtypes)
        and (not core or is_core(variant))
    ]


def main() -> int:
    """Compile, print the table, and report configs that cannot be shipped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES)
    parser.add_argument("--kernel", action="append", choices=tuple(KERNELS))
    parser.add_argument("--variant", default="", help="part of the variant's name")
    parser.add_argument("--dtype", action="append", choices=("bf16", "fp16", "fp32", "fp64"))
    parser.add_argument("--core", action="store_true", help="only what large models use: bfloat16 at even sizes")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--share", action="store_true", help="of those one a kernel, and those with a budget")
    options = parser.parse_args()
    chosen = chosen_variants(options.architecture, options.kernel, options.variant, options.dtype, core=options.core)
    if options.share:
        chosen = share_of(chosen)
    if not chosen:
        parser.error("no variant has this architecture, kernel, name and dtype")
    done = compile_all(chosen)
    found = [row for row in done if isinstance(row, Compiled)]
    names = [field.name for field in fields(Compiled)]
    rows = [[str(value) for value in asdict(row).values()] for row in found]
    shown = [[line[names.index(name)] for name in _PRINTED] for line in [names, *rows]]
    widths = [max(len(line[i]) for line in shown) for i in range(len(_PRINTED))]
    for line in shown:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([[*names, "triton"], *([*line, triton.__version__] for line in rows)])
    wrong = [row for row in done if isinstance(row, str)]
    wrong += [f"{row.architecture} {row.kernel} ({row.variant}, {row.dtype}): {row.problem}" for row in found
              if row.problem]  # fmt: skip
    for reason in wrong:
        print(reason, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
