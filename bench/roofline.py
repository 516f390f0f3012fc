"""Expected cost of the Triton kernels on an H200-class device: PREDICTED from counts, nothing here is measured.

    python bench/roofline.py --kernels
    python bench/roofline.py --larger-tiles --workspace-mib 768

For every shape, update and length: the plan that ``plan.py`` makes with the shipped sm_90 tiles, its operations,
bytes and special-function operations, and the time of each kernel over the floor (2 · tokens · V · d
operations at the measured rate of the bare product). ``docs/benchmarks/notes.md`` explains the formulas and the table.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from math import ceil, inf

import torch
from shapes import SHAPES, Shape

from donod_fast.kernels.triton_backend.configs import Configs, DirectConfig, fixed_configs, shape_class
from donod_fast.kernels.triton_backend.plan import GroupPlan, Problem, make_plan


@dataclass(frozen=True, slots=True)
class Device:
    """Rates of the device: measured if the comment says so, otherwise nominal."""

    products: float = 790e12  # bf16 operations/s of a dense product, measured
    memory: float = 4.3e12  # bytes/s of a copy, measured
    multiprocessors: int = 132
    clock: float = 1.7e9
    special: int = 16  # MUFU operations per clock and multiprocessor
    lanes: int = 128  # float32 operations per clock and multiprocessor; a MUFU operation takes an issue slot too
    shared: int = 128  # bytes of shared memory per clock and multiprocessor
    cache: float = 5120 * 1.7e9  # bytes/s of the second-level cache: 5,120 per clock as published for the A100, ASSUMED

    def elementwise(self, plain: float, special: float) -> float:
        """Seconds of an epilogue's operations over the whole device."""
        per_second = self.multiprocessors * self.clock
        return max((plain + special) / (self.lanes * per_second), special / (self.special * per_second))


H200 = Device()
# As if the cache and shared memory delivered tiles as fast as the tensor cores consume them.
UNLIMITED = Device(cache=inf, shared=1 << 30)
# Operations per logit, per element of a gradient tile, per cell and column block of the Gram kernel.
LOGIT = (10, 1)
LOGIT_CAPPED = (22, 3)  # tanh and its slope: one more exponential and division
ADAMW = (6, 1)
GRAM_CELL = (2, 0)

Times = dict[str, float]  # seconds by kernel


def tile_time(device: Device, operations: float, rows: int, columns: int) -> float:
    """Seconds of products in tiles of rows × columns: tensor cores, second-level cache or shared memory.

    A step of depth 1 loads (rows + columns) · 2 bytes from the cache for 2 · rows · columns operations. Shared memory
    stores them once and delivers them to the tensor cores: per 64 rows, those rows and every column (wgmma m64nNk16).
    """
    brought = operations / (2 * rows * columns) * (rows + columns) * 2
    read = operations / (2 * 64 * columns) * (64 + columns) * 2
    shared = device.shared * device.multiprocessors * device.clock
    return max(operations / device.products, brought / device.cache, (brought + read) / shared)


def waves(blocks: int, places: int) -> float:
    """Factor by which a launch takes longer because its last wave is not full."""
    return ceil(blocks / places) * places / blocks


def logits_time(device: Device, configs: Configs, shape: Shape, tokens: int, columns: int, *, stored: int) -> float:
    """Logits kernel over ``columns`` vocabulary rows, of which ``stored`` columns of E are written.

    One program per multiprocessor (its four stages fill shared memory), so the epilogue does not overlap with products.
    """
    c = configs.logits
    blocks = ceil(tokens / c.tokens) * ceil(columns / c.vocab)
    cells = blocks * c.tokens * c.vocab
    plain, special = LOGIT_CAPPED if shape.softcap else LOGIT
    work = tile_time(device, 2.0 * cells * shape.dim, c.tokens, c.vocab) + device.elementwise(
        plain * cells, special * cells
    )
    passes = ceil(ceil(tokens / c.tokens) / c.group)
    moved = 2.0 * tokens * stored + 2.0 * passes * columns * shape.dim + 2.0 * tokens * shape.dim
    return max(work * waves(blocks, device.multiprocessors), moved / device.memory)


def direct_time(device: Device, configs: Configs, shape: Shape, lengths: list[int], columns: int) -> float:
    """Direct kernel over ``columns``: products and AdamW's epilogue of two programs per multiprocessor overlap.

    With eight warps only one program fits, whose epilogue does not overlap with its products.
    """
    c = configs.direct
    slots = sum(ceil(length / c.step) * c.step for length in lengths)
    tiles = ceil(columns / c.vocab) * ceil(shape.dim / c.dim)
    elements = tiles * c.vocab * c.dim
    products = tile_time(device, 2.0 * slots * elements, c.vocab, c.dim)
    plain, special = ADAMW
    epilogue = device.elementwise(plain * elements, special * elements) * len(lengths)
    programs = 2 if c.warps <= 4 else 1
    work = max(products, (products + epilogue) / programs) * waves(tiles, programs * device.multiprocessors)
    return max(work, (2.0 * slots * columns + 2.0 * columns * shape.dim) / device.memory)


def gram_time(device: Device, configs: Configs, shape: Shape, lengths: list[int], columns: int) -> float:
    """Gram kernel over ``columns``: pairs i ≥ j of token tiles, N (N + 64) (columns + d) operations per sample."""
    c = configs.gram
    tiles = [ceil(length / c.tokens) for length in lengths]
    cells = sum(n * (n + 1) // 2 for n in tiles) * c.tokens**2
    products = tile_time(device, 2.0 * cells * (columns + shape.dim), c.tokens, c.tokens)
    plain, special = GRAM_CELL
    factors = cells * columns / c.columns
    return products + device.elementwise(plain * factors, special * factors)


def group_times(device: Device, configs: Configs, shape: Shape, plan: GroupPlan, *, linear: bool) -> Times:
    """Seconds of a group by kernel."""
    group = plan.group
    assert group.lengths is not None
    lengths, tokens, vocab = list(group.lengths), group.tokens_bound, shape.vocab
    sums = ceil(vocab / configs.logits.tile) * 4.0 * (4 if shape.softcap else 3)
    again = vocab - plan.columns if plan.keep_first else vocab
    kept = plan.columns if plan.keep_first else 0
    times: Times = {"logits": logits_time(device, configs, shape, tokens, vocab, stored=kept)}
    times["again"] = logits_time(device, configs, shape, tokens, again, stored=again) if again > 0 else 0.0
    times["statistics"] = tokens * (2 * sums + 4.0 * shape.dim) / device.memory  # written, read, label's row of W
    chunks = [min(plan.columns, vocab - first) for first in range(0, vocab, plan.columns)]
    if linear:
        # Products of hidden states are repeated for every chunk.
        times["gram"] = sum(gram_time(device, configs, shape, lengths, chunk) for chunk in chunks)
        return times
    times["normalise"] = 4.0 * group.slots_bound * vocab / device.memory
    times["direct"] = sum(direct_time(device, configs, shape, lengths, chunk) for chunk in chunks)
    return times


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of the table."""

    shape: Shape
    update: str
    length: int
    group_tokens: float  # tokens of a group on average
    stored: float  # share of E's columns held at once
    logits_products: float  # 2 − C/V
    floors: Times  # by kernel, over the floor
    least: float  # operations alone, over the floor

    @property
    def total(self) -> float:
        """Predicted time over the floor."""
        return sum(self.floors.values())

    @property
    def target(self) -> float:
        """The target."""
        return 1.3 if self.update == "sgd" else 2.4 if self.length >= 1000 else 3.0


def larger_tiles(configs: Configs, length: int, *, capped: bool) -> Configs:
    """Tiles that the table would need to reach the targets (neither compiled nor tested)."""
    long = DirectConfig(vocab=128, dim=256, step=64, split=4, warps=8, stages=3)
    wide = replace(configs.logits, vocab=256, split=4) if capped else configs.logits
    return replace(
        configs,
        logits=wide,
        direct=long if length >= 1000 else configs.direct,
        gram=replace(configs.gram, tokens=128) if length >= 1000 else configs.gram,
    )


def predict(
    device: Device, shape: Shape, update: str, length: int, tokens: int, workspace: int, *, larger: bool = False
) -> Prediction:
    """Samples of one length with about ``tokens`` tokens in total."""
    samples = max(1, tokens // length)
    tokens = samples * length
    linear, capped, bf16 = update == "sgd", shape.softcap is not None, torch.bfloat16
    configs = fixed_configs("sm_90", bf16, bf16, mapped=capped, direct=shape_class(tokens, samples))
    if larger:
        configs = larger_tiles(configs, length, capped=capped)
    problem = Problem(shape.vocab, shape.dim, 2, 4 if capped else 3, linear, workspace)
    plan = make_plan(tokens, samples, list(range(0, tokens + 1, length)), problem, configs)
    if isinstance(plan, str):
        raise SystemExit(f"{shape.name}, {length} tokens a sample: {plan}")
    floor = 2.0 * tokens * shape.vocab * shape.dim / device.products
    total: Times = {}
    for group in plan.groups:
        for kernel, seconds in group_times(device, configs, shape, group, linear=linear).items():
            total[kernel] = total.get(kernel, 0.0) + seconds
    share = products = 0.0
    for group in plan.groups:
        columns = min(1.0, group.columns / shape.vocab)
        share += columns * group.group.tokens_bound / tokens
        products += (2.0 - columns if group.keep_first else 2.0) * group.group.tokens_bound / tokens
    pairs = (length + 64) * (shape.vocab + shape.dim) / (2.0 * shape.vocab * shape.dim)
    return Prediction(
        shape=shape,
        update=update,
        length=length,
        group_tokens=tokens / len(plan.groups),
        stored=share,
        logits_products=products,
        floors={kernel: seconds / floor for kernel, seconds in total.items()},
        least=products + (pairs if linear else 1.0),
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--workspace-mib", type=int, default=256)
    parser.add_argument("--lengths", type=int, nargs="+", default=[150, 1000])
    parser.add_argument("--kernels", action="store_true", help="also print the share of each kernel")
    parser.add_argument("--larger-tiles", action="store_true", help="use tiles that are not shipped")
    options = parser.parse_args()
    tiles = "larger tiles than are shipped" if options.larger_tiles else "the shipped tiles"
    print(f"PREDICTED, not measured: {options.workspace_mib} MiB, about {options.tokens} tokens, {tiles}\n")
    kernels = ("logits", "again", "statistics", "normalise", "direct", "gram") if options.kernels else ()
    heads = ("shape", "update", "N", "group", "C/V", "logits products", *kernels, "operations alone", "no cache limit",
             "predicted", "to reach")  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for shape in (shape for shape in SHAPES.values() if not shape.small):
        for update in ("sgd", "adamw"):
            for length in options.lengths:
                case = (shape, update, length, options.tokens, options.workspace_mib << 20)
                p = predict(H200, *case, larger=options.larger_tiles)
                best = predict(UNLIMITED, *case, larger=options.larger_tiles)
                parts = [f"{p.floors[kernel]:.2f}" if p.floors.get(kernel) else "" for kernel in kernels]
                verdict = "" if p.total <= p.target else " (missed)"
                cells = (shape.name, update, str(length), f"{p.group_tokens:.0f}", f"{p.stored:.2f}",
                         f"{p.logits_products:.2f}", *parts, f"{p.least:.2f}", f"{best.total:.2f}", f"{p.total:.2f}",
                         f"{p.target}{verdict}")  # fmt: skip
                print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
