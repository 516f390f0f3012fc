"""The compilations that are shipped: every kernel, its constants and the types of its arguments, by architecture.

`compiled.py` compiles them ahead of time. A new kernel adds an entry to ``KERNELS``, its pointers and numbers to the
tables of types, and its cases to ``variants``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl

from donod_fast.kernels.triton_backend import (
    direct,
    float8,
    float8_operands,
    gram,
    label_entries,
    label_logits,
    logits,
    pack,
    products,
    reduce,
    rescue,
    rows,
    topsis,
)
from donod_fast.kernels.triton_backend.configs import (
    ENTRIES,
    FLOAT8,
    PACK,
    QUANTISE,
    REDUCE,
    RESCUE,
    ROWS,
    GramConfig,
    fixed_configs,
)

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
    "label_values": "fp64",
    "flagged": "i32",
    "scale": "fp64",
    "token_weight": "fp64",
    "out": "fp64",
}
_FLOAT32 = ("reference", "rest", "sums", "share", "label_signal", "label_slope", "states", "partials",
            "numbers", "row_scale", "state_scale")  # fmt: skip
_FLOATS = ("scale_log2", "decay_rate", "cap_log2", "product_scale", "lr", "inverse_lr",
           "weight_decay", "beta1", "beta2", "step_size", "root_scale", "eps", "magnitude",
           "sign", "don_weight", "nod_weight")  # fmt: skip
_INTEGERS = ("first", "samples", "base_sample", "token_offset", "tokens_bound", "columns", "columns_stored", "stored",
             "vocab", "dim", "padded_dim", "parts", "items", "rows", "slots", "n", "width", "tiles", "blocks",
             "token_blocks", "part_columns", "align")  # fmt: skip
# Constants whose product is the number of elements of a program's result.
OUTPUT_TILES = {
    "logits": ("BLOCK_TOKENS", "BLOCK_VOCAB"),
    "direct": ("BLOCK_VOCAB", "BLOCK_DIM"),
    "states": ("BLOCK_TOKENS", "BLOCK_TOKENS"),
    "float8": ("BLOCK_VOCAB", "BLOCK_DIM"),
    "gram": ("BLOCK_TOKENS", "BLOCK_TOKENS"),
}
OF_ROWS = ("dim", "hidden_stride", "weight_stride", "state_stride")


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


KERNELS = {
    "label_logits": label_logits.label_logits_kernel,
    "logits": logits.logits_kernel,
    "rescue": rescue.rescue_kernel,
    "token_statistics": rows.token_statistics_kernel,
    "sample_sums": rows.sample_sums_kernel,
    "label_entries": label_entries.label_entries_kernel,
    "pack": pack.pack_kernel,
    "direct": direct.direct_kernel,
    "states": gram.states_kernel,
    "label_terms": gram.label_terms_kernel,
    "float8_states": float8_operands.states_kernel,
    "float8_signals": float8_operands.signals_kernel,
    "float8": float8.float8_kernel,
    "gram": gram.gram_kernel,
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
    bias: bool = False
    again: bool = False
    only_statistics: bool = False
    width: str = "even"
    even_vocab: bool = True
    tma: bool = True

    @property
    def flags(self) -> dict[str, bool]:
        return {
            "HAS_BIAS": self.bias,
            "HAS_CAP": self.mapped,
            "SUMS": not self.again,
            "STORE": not self.only_statistics,
            "EVEN_DIM": self.width == "even",
            "EVEN_VOCAB": self.even_vocab,
        }


_BASE: dict[str, Any] = {"PRECISION": "ieee", "INTERPRETED": False}


def _base(architecture: str) -> dict[str, Any]:
    return {**_BASE, "RECIPROCAL": "gcn" if architecture.startswith("gfx") else "ptx"}


# Hidden dimensions: "even" is a multiple of the block, "ragged" a multiple of 16, "odd" neither.
_ALL = {"mapped": True, "bias": True}
_LOGITS_CASES = (
    _LogitsCase("plain"),
    _LogitsCase("plain, ragged dim", width="ragged"),
    _LogitsCase("plain, ragged vocabulary", even_vocab=False),
    _LogitsCase("plain, no TMA", tma=False),
    _LogitsCase("soft-cap", mapped=True),
    _LogitsCase("all, ragged dim", **_ALL, width="ragged", even_vocab=False),
    _LogitsCase("all, odd dim", **_ALL, width="odd", even_vocab=False),
    _LogitsCase("statistics only", only_statistics=True),
    _LogitsCase("statistics only, all", **_ALL, only_statistics=True, width="ragged", even_vocab=False),
    _LogitsCase("again", again=True),
    _LogitsCase("again, all, ragged dim", **_ALL, again=True, width="ragged", even_vocab=False),
    _LogitsCase("statistics only, soft-cap", mapped=True, only_statistics=True),
    _LogitsCase("again, soft-cap", mapped=True, again=True),
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
    yield from _float8_kernels(architecture)
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
    for case in _LOGITS_CASES[:7] if half else _LOGITS_CASES:
        configs = chosen[case.mapped, "short", case.width == "odd"]
        config = configs.statistics if case.only_statistics else configs.logits
        tma = config.tma and case.width != "odd" and case.tma
        if not case.tma and not config.tma:
            continue
        constants = {**_base(architecture), **case.flags, "ODD": case.width == "odd", "TMA": tma,
                     "BLOCK_TOKENS": config.tokens, "BLOCK_VOCAB": config.vocab, "BLOCK_DIM": config.dim,
                     "SPLIT": config.split, "GROUP": config.group}  # fmt: skip
        types = {"exps": _NAMES[signals]}
        if tma:
            types["weight"] = _descriptor(dtype, config.vocab, config.dim)
        yield Variant("logits", case.name, architecture, name, config.warps, config.stages,
                      tuple(constants.items()), tuple(types.items()))  # fmt: skip
    for shape in ("short", "long", "heavy"):
        if shape == "long" and chosen[False, "long", False] == chosen[False, "short", False]:
            continue
        for label, rule, storage, packed, width in _HEAVY_CASES if shape == "heavy" else _DIRECT_CASES:
            if half and packed:
                continue
            d = chosen[False, shape, width == "odd"].direct
            d = d if packed else d.looked_up
            if "no TMA" in label and not d.tma:
                continue
            tma = d.tma and packed and "no TMA" not in label
            constants = {**_BASE, "ODD": width == "odd", "RULE": rule, "NEEDS_WEIGHT": rule != "sgd",
                         "STORAGE": storage, "PACKED": packed, "TMA": tma, "EVEN_DIM": width == "even" or tma,
                         "RECIPROCAL": "gcn" if architecture.startswith("gfx") else "ptx", "BLOCK_VOCAB": d.vocab,
                         "BLOCK_DIM": d.dim, "STEP": d.step, "SPLIT": d.split, "KEEP": d.keep and not tma,
                         "LOADED_ZERO": d.loaded_zero}  # fmt: skip
            types = {"signals": _NAMES[signals], "hidden": _NAMES[signals] if packed else name,
                     "exp_avg": "fp32", "exp_avg_sq": "fp32"}  # fmt: skip
            if tma:
                types["signals"] = _descriptor(signals, d.step, d.vocab)
                types["hidden"] = _descriptor(signals, d.step, d.dim)
                types["weight"] = _descriptor(dtype, d.vocab, d.dim)
            yield Variant("direct", f"{shape}: {label}", architecture, name, d.warps, d.stages,
                          tuple(constants.items()), tuple(types.items()))  # fmt: skip
    if not half:
        yield from _pair_kernels(architecture, dtype, signals)


def _pair_kernels(architecture: str, dtype: torch.dtype, signals: torch.dtype) -> Iterator[Variant]:
    types = tuple((f"{side}_exps", _NAMES[signals]) for side in ("left", "right"))
    done: list[tuple[GramConfig, str]] = []
    for brief, width in ((False, "even"), (False, "ragged"), (False, "odd"), (True, "even"), (True, "ragged")):
        g = fixed_configs(
            architecture, dtype, signals, mapped=False, direct="short", odd=width == "odd", brief=brief
        ).gram  # fmt: skip
        if (g, width) in done:
            continue
        done.append((g, width))
        products = {**_BASE, "BLOCK_TOKENS": g.tokens}
        cases = {"states": {**products, "ODD": width == "odd", "EVEN_DIM": width == "even", "BLOCK_DIM": g.dim}}
        if width != "ragged":
            cases["label_terms"] = {"BLOCK_TOKENS": g.tokens, "BLOCK_COLUMNS": g.columns, "BLOCK_LABELS": gram.LABELS}
            cases["gram"] = {**products, "SPLIT": g.split, "BLOCK_COLUMNS": g.columns}
        for kernel, constants in cases.items():
            for sets in (1, 2):
                # The name says what differs: tiles for short samples, products with another set, the width of rows.
                words = ("brief" if brief else "", "two sets" if sets == 2 else "",
                         f"{width} dim" if kernel == "states" or width == "odd" else "")  # fmt: skip
                label = ", ".join(word for word in words if word)
                yield Variant(kernel, label, architecture, _NAMES[dtype], g.warps, g.stages,
                              tuple({**constants, "CROSS": sets == 2}.items()), types)  # fmt: skip


def _float8_kernels(architecture: str) -> Iterator[Variant]:
    config = FLOAT8.get(architecture)
    if config is None:
        return
    # gfx942 has a format with another bias.
    form, limit = ("fp8e4b8", 240.0) if architecture.startswith("gfx") else ("fp8e4nv", 448.0)
    types = (("quantised", form), ("states", form))
    bf16 = torch.bfloat16
    both = (fixed_configs(architecture, bf16, bf16, mapped=False, direct=shape).direct for shape in ("short", "long"))
    base = {"LIMIT": limit, "INTERPRETED": False, "BLOCK_SLOTS": QUANTISE.slots}
    for step in sorted({one.step for one in both}):
        yield Variant("float8_states", f"steps of {step}", architecture, "bf16", QUANTISE.warps, 3,
                      tuple({**base, "BLOCK_DIM": QUANTISE.columns, "ALIGN": step}.items()), types)  # fmt: skip
        tile = {"BLOCK_SLOTS": min(QUANTISE.slots, step), "BLOCK_COLUMNS": QUANTISE.columns}
        yield Variant("float8_signals", f"steps of {step}", architecture, "bf16", QUANTISE.warps, 3,
                      tuple({**base, **tile}.items()), types)  # fmt: skip
        for label, rule, even in (
            ("adamw", "adamw", True),
            ("adamw, ragged dim", "adamw", False),
            ("sign", "sign", True),
        ):
            constants = {"RULE": rule, "EVEN_DIM": even, "RECIPROCAL": _base(architecture)["RECIPROCAL"],
                         "INTERPRETED": False, "BLOCK_VOCAB": config.vocab, "BLOCK_DIM": config.dim,
                         "STEP": step, "SPLIT": config.split, "PROMOTE": config.promote}  # fmt: skip
            yield Variant("float8", f"{label}, steps of {step}", architecture, "bf16", config.warps, config.stages,
                          tuple(constants.items()), types)  # fmt: skip


def _row_kernels(architecture: str, dtype: str) -> Iterator[Variant]:
    exps = (("exps", dtype),)
    for cap in (False, True):
        head = {"HAS_BIAS": cap, "HAS_CAP": cap}
        label = "soft-cap" if cap else "plain"
        tile = {"BLOCK_TOKENS": ROWS.label_tokens, "BLOCK_DIM": ROWS.label_dim}
        yield Variant("label_logits", label, architecture, dtype, ROWS.warps, 3, tuple({**head, **tile}.items()))
        for again in (False, True):
            tile = {"BLOCK_TOKENS": ROWS.tokens, "BLOCK_PARTS": ROWS.blocks}
            yield Variant("token_statistics", label + (", again" if again else ""), architecture, dtype, ROWS.warps, 3,
                          tuple({**head, "AGAIN": again, **tile}.items()))  # fmt: skip
        for tops in (False, True):
            depth = RESCUE.depth(4 if dtype == "fp32" else 2)
            tile = {"BLOCK_TOKENS": ROWS.tokens, "BLOCK_VOCAB": RESCUE.vocab, "BLOCK_DIM": depth}
            constants = {**_base(architecture), **head, **tile, "TOPS": tops, "STORE": not tops,
                         "PARTS": RESCUE.parts,
                         "BLOCK_FLAGS": RESCUE.flags}  # fmt: skip
            yield Variant("rescue", label + (", tops" if tops else ""), architecture, dtype, RESCUE.warps,
                          RESCUE.stages, tuple(constants.items()), exps)  # fmt: skip
        yield Variant("sample_sums", label, architecture, dtype, ROWS.warps, 3,
                      (("HAS_CAP", cap), ("BLOCK", ROWS.sample_block)), (("sums", "fp64"),))  # fmt: skip
    for clear in (False, True):
        constants = {"CLEAR": clear, "INTERPRETED": False, "BLOCK_SLOTS": ENTRIES.slots,
                     "BLOCK_COLUMNS": ENTRIES.columns}  # fmt: skip
        yield Variant("label_entries", "clear" if clear else "", architecture, dtype, ENTRIES.warps, 3,
                      tuple(constants.items()), exps)  # fmt: skip
    yield Variant("pack", "", architecture, dtype, PACK.warps, 3,
                  (("BLOCK_SLOTS", PACK.slots), ("BLOCK_DIM", PACK.columns)))  # fmt: skip
    for by_bounds in (False, True):
        yield Variant("segment_sums", "bounds" if by_bounds else "rows", architecture, dtype, REDUCE.warps, 3,
                      (("BY_BOUNDS", by_bounds), ("BLOCK", REDUCE.block)))  # fmt: skip
    yield Variant("squares", "", architecture, dtype, REDUCE.warps, 3,
                  (("BLOCK_ROWS", REDUCE.rows), ("BLOCK", REDUCE.width)), (("partials", "fp64"),))  # fmt: skip


def is_core(variant: Variant) -> bool:
    """Whether large models use a variant: bfloat16 (or a dtype that its kernel has alone) at even sizes."""
    alone = variant.kernel in ("rectangle_sums", "topsis_constants", "topsis_closeness")
    return (variant.dtype == "bf16" or alone) and not any(word in variant.name for word in ("ragged", "odd", ", rows"))


_BUDGETED = {("direct", "short: adamw"), ("direct", "short: sign"), ("direct", "short: sgd"), ("logits", "plain"),
             ("logits", "soft-cap"), ("gram", "")}  # fmt: skip


def share_of(chosen: list[Variant]) -> list[Variant]:
    """Of these variants the core ones that have a budget on sm_80 or sm_90, and of each other kernel and architecture
    the first core one: what a test can compile in a minute.
    """
    seen: set[tuple[str, str]] = set()
    share = []
    for variant in filter(is_core, chosen):
        place = (variant.architecture, variant.kernel)
        has_budget = variant.architecture in ("sm_80", "sm_90") and (variant.kernel, variant.name) in _BUDGETED
        if has_budget or place not in seen:
            share.append(variant)
        seen.add(place)
    return share


def type_of(argument: str, variant: Variant, types: dict[str, str]) -> str:
    """Type of an argument in Triton's notation; ``types`` are the pointers whose type the variant sets."""
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
