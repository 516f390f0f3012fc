"""Tile shapes: one fixed choice per kernel, architecture, element size and shape class.

They were chosen by counting operations (``docs/benchmarks/notes.md``, "Roofline of the Triton kernels").
``compiled.py`` compiles all of them, to check that they fit into the shared memory of each architecture and spill no
registers. They are not tuned on a device yet: set ``DONOD_FAST_AUTOTUNE=1`` to measure candidates on yours
(``autotune.py``). Tests use smaller ones with ``override``, because the interpreter is slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from donod_fast.kernels.triton_backend.architectures import architecture_of


@dataclass(frozen=True, slots=True)
class _Launch:
    warps: int
    stages: int

    @staticmethod
    def precision(dtype: torch.dtype) -> str:
        """Precision of products of float32 operands: float32 (16-bit operands always use the tensor cores)."""
        return "ieee"


@dataclass(frozen=True, slots=True)
class LogitsConfig(_Launch):
    """Block of tokens × vocabulary rows, ``dim`` deep; ``group`` token blocks share a range of W.

    The epilogue processes a block in ``split`` parts (1, 2 or 4). ``tma``: load W by descriptors where its rows are
    aligned (``tma.py``).
    """

    tokens: int
    vocab: int
    dim: int
    split: int = 1
    group: int = 32
    tma: bool = False

    @property
    def tile(self) -> int:
        """Vocabulary rows of a tile."""
        return self.vocab // self.split


@dataclass(frozen=True, slots=True)
class DirectConfig(_Launch):
    """Tile of vocabulary rows × hidden dimensions; ``step`` slots are multiplied at a time.

    Attributes:
        split: parts of the epilogue (1, 2, 4 or 8).
        rows_dim: ``dim`` where hidden states are looked up, which takes registers; 0: the same.
        tma: load tiles by descriptors where rows are aligned (``tma.py``), and hold the tile of W in shared memory.
        keep: without descriptors, hold the tile of W in registers instead of loading it for every sample.
        loaded_zero: begin a sample with a zero from memory. On sm_90 ptxas spends 192 instructions on a constant one.
    """

    vocab: int
    dim: int
    step: int
    split: int = 1
    rows_dim: int = 0
    keep: bool = False
    tma: bool = False
    loaded_zero: bool = False

    @property
    def looked_up(self) -> DirectConfig:
        """The tile where hidden states are looked up."""
        return replace(self, dim=self.rows_dim or self.dim)


@dataclass(frozen=True, slots=True)
class Float8Config(_Launch):
    """Tile of the float8 product; its slots at a time are those of the direct kernel.

    ``promote``: the sum of each step of slots is added to the tile in float32, because the tensor cores keep too few
    bits of a running sum.
    """

    vocab: int
    dim: int
    split: int
    promote: bool


@dataclass(frozen=True, slots=True)
class GramConfig(_Launch):
    """Pair of tiles of ``tokens``; ``columns`` vocabulary rows, or ``dim`` hidden dimensions, at a time.

    The epilogue processes a pair in ``split`` parts (1, 2 or 4).

    The vocabulary is divided among up to ``programs`` programs, with at least ``blocks_of_a_part`` column blocks each.
    """

    tokens: int
    columns: int
    dim: int
    split: int = 1
    programs: int = 1024
    blocks_of_a_part: int = 16


@dataclass(frozen=True, slots=True)
class Configs:
    """Configs of one call; ``statistics`` is for the logits kernel when it stores nothing."""

    logits: LogitsConfig
    statistics: LogitsConfig
    direct: DirectConfig
    gram: GramConfig
    float8: Float8Config | None = None


@dataclass(frozen=True, slots=True)
class RowsConfig:
    """Passes over tokens.

    Statistics: ``tokens`` × ``blocks`` sums of blocks of the vocabulary at a time. Logits of the labels:
    ``label_tokens`` × ``label_dim``. Sums of samples: ``sample_block`` tokens of a sample.
    """

    tokens: int = 32
    blocks: int = 32
    label_tokens: int = 4
    label_dim: int = 512
    sample_block: int = 128
    warps: int = 4


@dataclass(frozen=True, slots=True)
class RescueConfig:
    """Second computation of a few tokens: ``ROWS.tokens`` tokens × ``vocab`` rows, ``dim`` deep.

    Products of float32 are ``wide_dim`` deep: their operands take registers. At most ``lanes`` × ``parts`` programs:
    lanes share the blocks of tokens, parts the vocabulary.
    """

    vocab: int = 16
    dim: int = 64
    wide_dim: int = 16
    lanes: int = 16
    parts: int = 16
    flags: int = 1024
    warps: int = 4
    stages: int = 2

    def depth(self, element_bytes: int) -> int:
        """Hidden dimensions at a time for inputs of this size."""
        return self.dim if element_bytes < 4 else self.wide_dim


@dataclass(frozen=True, slots=True)
class PassConfig:
    """A pass over slots × columns."""

    slots: int = 16
    columns: int = 256
    warps: int = 4


@dataclass(frozen=True, slots=True)
class ReduceConfig:
    """Sums of partial sums, and of squares of W."""

    block: int = 1024
    rows: int = 8
    width: int = 128
    warps: int = 4


ROWS = RowsConfig()
RESCUE = RescueConfig()
ENTRIES = PassConfig(columns=1024)
PACK = PassConfig()
QUANTISE = PassConfig(slots=64, columns=64)
REDUCE = ReduceConfig()

# Samples shorter than this on average count as short. Steps of 32 slots waste 16 slots per sample. Steps of 64 waste
# twice as many but halve the loop overhead, which pays for long samples.
SHORT = 320
# Samples shorter than this on average are mostly one Gram tile of 64, with a quarter of the products of a tile of
# 128. Longer ones load E from the cache half as often with tiles of 128, which is their limit.
BRIEF = 80


@dataclass(frozen=True, slots=True)
class _Row:
    """An architecture's choices: for plain heads, for those with a bias or soft-cap, and by update and length."""

    plain: LogitsConfig
    mapped: LogitsConfig
    short: DirectConfig
    long: DirectConfig
    heavy: DirectConfig  # given state, rounding: more arrays in the epilogue
    gram: GramConfig
    brief: GramConfig  # Gram tiles for samples of mostly one tile


# Direct tiles of four warps leave room for two programs per multiprocessor. For short samples the epilogue takes as
# long as the products, and the two programs overlap them. For long samples the products dominate, and larger tiles need
# less cache bandwidth.
_HOPPER = _Row(
    plain=LogitsConfig(tokens=128, vocab=256, dim=64, split=4, warps=8, stages=4, tma=True),
    mapped=LogitsConfig(tokens=128, vocab=128, dim=64, split=2, warps=8, stages=3, tma=True),
    short=DirectConfig(vocab=128, dim=128, step=32, split=8, warps=4, stages=4, tma=True, loaded_zero=True),
    long=DirectConfig(
        vocab=128, dim=256, step=64, split=8, rows_dim=128, warps=8, stages=3, tma=True, loaded_zero=True
    ),
    heavy=DirectConfig(vocab=128, dim=128, step=32, split=8, warps=8, stages=4, tma=True, loaded_zero=True),
    gram=GramConfig(tokens=128, columns=64, dim=64, split=4, warps=8, stages=3),
    brief=GramConfig(tokens=64, columns=64, dim=64, warps=4, stages=3),
)
# 163 KiB of shared memory; mma.sync keeps its operands in registers too.
_AMPERE = _Row(
    plain=LogitsConfig(tokens=128, vocab=128, dim=32, split=2, warps=8, stages=4),
    mapped=LogitsConfig(tokens=128, vocab=128, dim=32, split=4, warps=8, stages=4),
    short=DirectConfig(vocab=128, dim=128, step=32, split=8, warps=4, stages=3),
    long=DirectConfig(vocab=128, dim=128, step=32, split=8, warps=4, stages=4),
    heavy=DirectConfig(vocab=128, dim=128, step=32, split=4, warps=8, stages=3),
    gram=GramConfig(tokens=128, columns=64, dim=64, split=2, warps=8, stages=3),
    brief=GramConfig(tokens=64, columns=64, dim=64, warps=4, stages=3),
)
_TABLE: dict[str, _Row] = {
    "sm_80": _AMPERE,
    # 99 KiB.
    "sm_89": replace(
        _AMPERE,
        plain=replace(_AMPERE.plain, stages=3),
        mapped=replace(_AMPERE.mapped, stages=3),
        short=replace(_AMPERE.short, split=4, warps=8),
        long=replace(_AMPERE.long, split=4, warps=8, stages=3),
        heavy=replace(_AMPERE.heavy, split=8),
    ),
    "sm_90": _HOPPER,
    "sm_100": replace(
        _HOPPER,
        mapped=replace(_HOPPER.mapped, split=4),
        short=replace(_HOPPER.short, loaded_zero=False),
        long=replace(_HOPPER.long, loaded_zero=False),
        heavy=DirectConfig(vocab=128, dim=64, step=32, warps=8, stages=4, tma=True),
        brief=replace(_HOPPER.brief, warps=8),
    ),
    # 64 KiB of LDS, wavefronts of 64.
    "gfx942": _Row(
        plain=LogitsConfig(tokens=128, vocab=128, dim=32, split=2, warps=8, stages=2),
        mapped=LogitsConfig(tokens=128, vocab=128, dim=32, split=4, warps=8, stages=2),
        short=DirectConfig(vocab=128, dim=128, step=32, split=8, warps=4, stages=2),
        long=DirectConfig(vocab=128, dim=128, step=32, split=8, warps=4, stages=2),
        heavy=DirectConfig(vocab=128, dim=128, step=32, split=4, warps=4, stages=2),
        gram=GramConfig(tokens=128, columns=32, dim=32, split=2, warps=8, stages=2),
        brief=GramConfig(tokens=64, columns=32, dim=32, warps=4, stages=2),
    ),
}
# Two sums a tile on Ada and Hopper, which keep about 14 bits of a running sum of float8 products: narrower tiles leave
# registers for them, and for three programs on a multiprocessor of Hopper. On sm_100 wider ones spill.
FLOAT8 = {
    "sm_89": Float8Config(vocab=128, dim=128, split=4, promote=True, warps=8, stages=3),
    "sm_90": Float8Config(vocab=128, dim=64, split=4, promote=True, warps=4, stages=4),
    "sm_100": Float8Config(vocab=128, dim=64, split=4, promote=False, warps=4, stages=4),
    "gfx942": Float8Config(vocab=128, dim=128, split=4, promote=False, warps=4, stages=2),
}
# float32 products run on the ordinary units, each operand through registers; rows of an odd length are unaligned.
_SMALL = _Row(
    plain=LogitsConfig(tokens=64, vocab=64, dim=16, split=2, warps=4, stages=2),
    mapped=LogitsConfig(tokens=64, vocab=64, dim=16, split=2, warps=4, stages=2),
    short=DirectConfig(vocab=64, dim=64, step=16, split=4, warps=4, stages=2),
    long=DirectConfig(vocab=64, dim=64, step=16, split=4, warps=4, stages=2),
    heavy=DirectConfig(vocab=64, dim=32, step=16, split=2, warps=4, stages=2),
    gram=GramConfig(tokens=32, columns=16, dim=32, warps=4, stages=2),
    brief=GramConfig(tokens=32, columns=16, dim=32, warps=4, stages=2),
)
_SMALL_ON = dict.fromkeys(("sm_89", "sm_100"), replace(_SMALL, mapped=replace(_SMALL.mapped, split=4)))
ARCHITECTURES = tuple(_TABLE)

_override: list[Configs] = []


def ceil_div(number: int, divisor: int) -> int:
    """``number / divisor`` rounded up."""
    return -(-number // divisor)


def shape_class(tokens: int, samples: int) -> str:
    """``"short"`` or ``"long"``, by the mean length: known from shapes, so nothing is read from a device."""
    return "short" if tokens < SHORT * samples else "long"


def is_brief(tokens: int, samples: int) -> bool:
    """Whether samples are mostly one small tile of the Gram kernel, by the mean length."""
    return tokens < BRIEF * samples


def fixed_configs(
    architecture: str,
    dtype: torch.dtype,
    signals: torch.dtype,
    *,
    mapped: bool,
    direct: str,
    odd: bool = False,
    brief: bool = False,
) -> Configs:
    """The shipped choice for inputs of ``dtype`` with error signals of ``signals``, on any architecture.

    ``mapped``: the head has a bias or soft-cap; ``direct``: ``"short"``, ``"long"`` or ``"heavy"``; ``odd``: the hidden
    dimension is not a multiple of 16, so that rows are unaligned and loads narrow: small tiles for every dtype;
    ``brief``: samples are mostly one small tile of the Gram kernel.
    """
    small = _SMALL_ON.get(architecture, _SMALL)
    large = _TABLE.get(architecture, small)  # an unknown architecture gets small tiles for every dtype
    outer = small if odd or dtype == torch.float32 else large
    inner = small if odd or signals == torch.float32 else large
    tiles = {"short": inner.short, "long": inner.long, "heavy": inner.heavy}[direct]
    pairs = inner.brief if brief else inner.gram
    return Configs(outer.mapped if mapped else outer.plain, outer.mapped, tiles, pairs, FLOAT8.get(architecture))


def configs_for(
    device: torch.device,
    dtype: torch.dtype,
    signals: torch.dtype,
    *,
    mapped: bool,
    heavy: bool,
    tokens: int,
    samples: int,
    dim: int,
) -> Configs:
    """Configs of a call with ``tokens`` rows of ``dim`` in ``samples`` samples (before autotuning)."""
    if _override:
        return _override[-1]
    direct = "heavy" if heavy else shape_class(tokens, samples)
    return fixed_configs(
        architecture_of(device),
        dtype,
        signals,
        mapped=mapped,
        direct=direct,
        odd=dim % 16 != 0,
        brief=is_brief(tokens, samples),
    )


@contextmanager
def override(configs: Configs) -> Iterator[None]:
    """Use these tile shapes inside the block on every device."""
    _override.append(configs)
    try:
        yield
    finally:
        _override.pop()
