"""Seconds of every launch of the Triton kernels, PREDICTED from counts for a device's rates.

Instructions, exponentials and programs a multiprocessor come from the compiled machine code
(``bench/results/compiled.csv``), operations and bytes from the plan. Three rates are ASSUMED: those of the second-level
cache, of the shortest launch and of a load that nothing hides. Barriers and the waits inside an epilogue are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from machine_counts import Counts, MissingCountError, counts
from shapes import Shape

from donod_fast.kernels.triton_backend.configs import ENTRIES, PACK, ROWS, SHORT, Configs
from donod_fast.kernels.triton_backend.gram import LABELS, pairs_at_most, vocabulary_parts
from donod_fast.kernels.triton_backend.plan import GroupPlan

SCHEDULERS = 4
LANES = 32


@dataclass(frozen=True, slots=True)
class Device:
    """Rates of the device: measured if the comment says so, ASSUMED if it says so, otherwise nominal."""

    products: float = 790e12  # bf16 operations/s of a dense product, measured
    memory: float = 4.3e12  # bytes/s of a copy, measured
    multiprocessors: int = 132
    clock: float = 1.7e9
    issued: int = SCHEDULERS  # warp instructions per clock and multiprocessor
    special: int = 16  # MUFU operations per clock and multiprocessor
    float64: int = 64  # float64 operations per clock and multiprocessor
    shared: int = 128  # bytes of shared memory per clock and multiprocessor
    cache: float = 5120 * 1.7e9  # bytes/s of the second-level cache: 5,120 per clock as published for the A100, ASSUMED
    launch: float = 3e-6  # seconds that the shortest launch takes, ASSUMED
    latency: float = 0.5e-6  # seconds from a load to its value where nothing else hides them, ASSUMED


H200 = Device()
# As if the cache and shared memory delivered tiles as fast as the tensor cores consume them.
UNLIMITED = Device(cache=inf, shared=1 << 30)

Times = dict[str, float]  # seconds by kernel
KERNELS = ("label_logits", "logits", "again", "token_statistics", "rescue", "sample_sums", "label_entries", "pack",
           "direct", "row_sums", "gram", "segment_sums")  # fmt: skip


def tile_time(device: Device, operations: float, rows: int, columns: int, more_bytes: float = 0.0) -> float:
    """Seconds of products in tiles of rows × columns: tensor cores, second-level cache or shared memory.

    A step of depth 1 loads (rows + columns) · 2 bytes from the cache for 2 · rows · columns operations. Shared memory
    stores them once and delivers them to the tensor cores: per 64 rows, those rows and every column (wgmma m64nNk16).
    ``more_bytes`` come from the cache in addition.
    """
    brought = operations / (2 * rows * columns) * (rows + columns) * 2
    read = operations / (2 * 64 * columns) * (64 + columns) * 2
    shared = device.shared * device.multiprocessors * device.clock
    return max(operations / device.products, (brought + more_bytes) / device.cache, (brought + read) / shared)


def launch_time(
    device: Device,
    count: Counts,
    programs: int,
    *,
    products: float = 0.0,  # seconds of all programs' products at the device's full rate
    iterations: float = 0.0,  # of a program's main loop
    epilogues: float = 1.0,  # of a program
    moved: float = 0.0,  # bytes of device memory
    waits: float = 0.0,  # times that a program waits for a value from memory
) -> float:
    """Seconds of a launch.

    A program alone on a multiprocessor takes its main loop, then its setup and epilogues. Programs that share a
    multiprocessor also share its tensor cores, schedulers, special functions and shared memory: m of them take m times
    what each needs of a resource, and at least as long as one alone.
    """
    if programs == 0:
        return 0.0
    clock = device.clock
    busy = products * device.multiprocessors / programs
    loop = iterations * count.loop * count.warps / device.issued / clock
    rest = (count.setup + epilogues * count.epilogue) * count.warps / device.issued / clock

    def unit(operations: float, rate: int) -> float:
        return operations * count.warps * LANES / rate / clock

    special = unit(epilogues * count.epilogue_special, device.special)
    loop_special = unit(iterations * count.loop_special, device.special)
    float64 = unit(epilogues * count.epilogue_float64, device.float64)
    loop_float64 = unit(iterations * count.loop_float64, device.float64)
    shared = unit(epilogues * count.epilogue_shared, device.shared)
    alone = max(busy, loop, loop_special, loop_float64) + max(rest, special, float64, shared) + waits * device.latency
    most = max(busy, loop + rest, special + loop_special, float64 + loop_float64, shared)
    together = max(1, count.programs)
    full, left = divmod(programs, together * device.multiprocessors)
    seconds = full * max(together * most, alone)
    if left:
        seconds += max(ceil(left / device.multiprocessors) * most, alone)
    return max(seconds, moved / device.memory, device.launch)


def logits_time(
    device: Device, configs: Configs, shape: Shape, tokens: int, columns: int, *, stored: int, again: bool = False
) -> float:
    """Logits kernel over ``columns`` vocabulary rows, of which ``stored`` columns of E are written."""
    # Without a stored chunk the kernel has the tiles of heads with a soft-cap.
    only_sums = not again and stored == 0
    c = configs.statistics if only_sums else configs.logits
    name = ("statistics only" if only_sums else "again") if only_sums or again else "plain"
    if shape.softcap:
        name = f"{name}, soft-cap" if only_sums or again else "soft-cap"
    count = counts("logits", name, f"{c.tokens} x {c.vocab} x {c.dim}")
    blocks = ceil(tokens / c.tokens) * ceil(columns / c.vocab)
    passes = ceil(ceil(tokens / c.tokens) / c.group)
    return launch_time(
        device,
        count,
        blocks,
        products=tile_time(device, 2.0 * blocks * c.tokens * c.vocab * shape.dim, c.tokens, c.vocab),
        iterations=ceil(shape.dim / c.dim),
        moved=2.0 * tokens * stored + 2.0 * passes * columns * shape.dim + 2.0 * tokens * shape.dim,
    )


def direct_time(device: Device, configs: Configs, shape: Shape, lengths: list[int], columns: int, rule: str) -> float:
    """Direct kernel over ``columns``: every sample ends with an epilogue in each tile."""
    c = configs.direct
    length = "long" if sum(lengths) >= SHORT * len(lengths) else "short"
    count = counts("direct", f"{length}: {rule}", f"{c.vocab} x {c.dim} x {c.step}")
    slots = sum(ceil(length / c.step) * c.step for length in lengths)
    tiles = ceil(columns / c.vocab) * ceil(shape.dim / c.dim)
    # Without a place for the tile of W, each sample reads it from the cache.
    weights = 0.0 if c.keep or c.tma else 2.0 * tiles * c.vocab * c.dim * len(lengths)
    return launch_time(
        device,
        count,
        tiles,
        products=tile_time(device, 2.0 * slots * tiles * c.vocab * c.dim, c.vocab, c.dim, weights),
        iterations=slots / c.step,
        epilogues=len(lengths),
        moved=2.0 * slots * columns + 2.0 * columns * shape.dim,
    )


def pair_counts(kernel: str, of_rows: str, tile: str) -> Counts:
    """Counts of a kernel for pairs of token tiles; tiles for brief samples have a variant of their own."""
    names = [", ".join(word for word in (brief, of_rows) if word) for brief in ("", "brief")]
    try:
        return counts(kernel, names[0], tile)
    except MissingCountError:
        return counts(kernel, names[1], tile)


def states_time(device: Device, configs: Configs, shape: Shape, plan: GroupPlan) -> float:
    """Products h · h of all pairs i ≥ j of token tiles."""
    c = configs.gram
    pairs = pairs_at_most(plan.group, c)
    cells = pairs * c.tokens**2
    return launch_time(
        device,
        pair_counts("states", "even dim", f"{c.tokens} x {c.dim}"),
        pairs,
        products=tile_time(device, 2.0 * cells * shape.dim, c.tokens, c.tokens),
        iterations=ceil(shape.dim / c.dim),
        moved=4.0 * cells,
    )


def gram_time(device: Device, configs: Configs, plan: GroupPlan, columns: int) -> float:
    """Label terms and products E · E of all pairs over ``columns``."""
    c = configs.gram
    pairs = pairs_at_most(plan.group, c)
    cells = pairs * c.tokens**2
    labels = launch_time(
        device,
        pair_counts("label_terms", "", f"{c.tokens} x {c.columns} x {LABELS}"),
        pairs,
        iterations=c.tokens / LABELS,
        # Entries of E at labels are read alone: 32 bytes of memory each.
        moved=4.0 * cells + 2 * 32.0 * cells,
        waits=c.tokens / LABELS,
    )
    parts = vocabulary_parts(pairs, columns, c)
    return labels + launch_time(
        device,
        pair_counts("gram", "", f"{c.tokens} x {c.columns}"),
        pairs * parts,
        products=tile_time(device, 2.0 * cells * columns, c.tokens, c.tokens, more_bytes=4.0 * cells * parts),
        iterations=ceil(columns / c.columns / parts),
        moved=2.0 * plan.group.slots_bound * columns,
    )


def row_times(device: Device, configs: Configs, shape: Shape, plan: GroupPlan) -> Times:
    """Passes over tokens and slots; each has few programs, and waits for memory more than it computes."""
    group = plan.group
    tokens, slots, dim = group.tokens_bound, group.slots_bound, shape.dim
    name = "soft-cap" if shape.softcap else "plain"
    config = configs.logits if plan.keep_first else configs.statistics
    blocks = ceil(shape.vocab / config.vocab)
    sums = 4.0 * blocks * (3 if shape.softcap else 2)
    at_once = plan.statistics_tokens
    parts = [min(at_once, tokens - first) for first in range(0, tokens, at_once)]
    steps = ceil(blocks / ROWS.blocks)
    statistics = sum(
        launch_time(
            device,
            counts("token_statistics", name),
            ceil(part / ROWS.tokens),
            iterations=steps,
            moved=2 * sums * part,  # written by the logits kernel, read here
            waits=steps + 4,
        )
        for part in parts
    )
    longest = max(group.lengths or (tokens,))
    return {
        "label_logits": launch_time(
            device,
            counts("label_logits", name),
            ceil(tokens / ROWS.label_tokens),
            iterations=ceil(dim / ROWS.label_dim),
            moved=4.0 * tokens * dim,  # a row of W and of the hidden states
            waits=ceil(dim / ROWS.label_dim) + 3,
        ),
        "token_statistics": statistics,
        # Nothing is flagged: two launches of the rescue and one of the statistics end at once.
        "rescue": 3 * len(parts) * (device.launch + device.latency),
        "sample_sums": launch_time(
            device,
            counts("sample_sums", name),
            group.samples,
            iterations=2 * ceil(longest / ROWS.sample_block),
            moved=40.0 * slots,
            waits=2 * ceil(longest / ROWS.sample_block) + 3,
        ),
    }


def slot_times(device: Device, shape: Shape, plan: GroupPlan) -> Times:
    """Label entries of all chunks, and hidden states copied to their slots."""
    slots, dim = plan.group.slots_bound, shape.dim
    chunks = ceil(shape.vocab / plan.columns)
    entries = counts("label_entries", "clear")
    programs = ceil(slots / ENTRIES.slots)
    clear = ceil(plan.columns / ENTRIES.columns)
    first = launch_time(device, entries, programs, iterations=clear, moved=2.0 * 16 * plan.columns, waits=3)
    times = {"label_entries": first + (chunks - 1) * (device.launch + 2 * device.latency)}
    if plan.pack:
        blocks = programs_of_pack(slots, dim)
        times["pack"] = launch_time(device, counts("pack", ""), blocks, moved=4.0 * slots * dim, waits=3)
    return times


def programs_of_pack(slots: int, dim: int) -> int:
    """Programs that copy hidden states."""
    return ceil(slots / PACK.slots) * ceil(dim / PACK.columns)


def group_times(device: Device, configs: Configs, shape: Shape, plan: GroupPlan, *, linear: bool) -> Times:
    """Seconds of a group by kernel, named as the launch functions; ``again`` is the logits kernel's second product.

    Raises:
        MissingCountError: ``compiled.csv`` has no counts of these tiles.
    """
    group = plan.group
    assert group.lengths is not None
    lengths, tokens, vocab = list(group.lengths), group.tokens_bound, shape.vocab
    chunks = [min(plan.columns, vocab - first) for first in range(0, vocab, plan.columns)]
    kept = plan.columns if plan.keep_first else 0
    times: Times = {"logits": logits_time(device, configs, shape, tokens, vocab, stored=kept)}
    times["again"] = sum(
        logits_time(device, configs, shape, tokens, chunk, stored=chunk, again=True)
        for chunk in (chunks[1:] if plan.keep_first else chunks)
    )
    times |= row_times(device, configs, shape, plan)
    if plan.by_pairs:
        states = states_time(device, configs, shape, plan)
        times["gram"] = states + sum(gram_time(device, configs, plan, chunk) for chunk in chunks)
        times["segment_sums"] = len(chunks) * (device.launch + device.latency)
        return times
    times |= slot_times(device, shape, plan)
    rule = "sgd" if linear else "adamw"
    times["direct"] = sum(direct_time(device, configs, shape, lengths, chunk, rule) for chunk in chunks)
    # Partial sums of every sample and tile, once for the squares and once for the products with W.
    c = configs.direct
    partials = len(lengths) * ceil(vocab / c.vocab) * ceil(shape.dim / c.dim)
    times["row_sums"] = 2 * len(chunks) * (device.launch + device.latency) + 8.0 * partials / device.memory
    return times
