"""Counts of compiled kernels, from ``bench/results/compiled.csv`` (``make compiled``)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "results" / "compiled.csv"
Key = tuple[str, str, str, str]


class MissingCountError(LookupError):
    """The table has no row for a kernel, or one of another tile."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one kernel; instructions, special and float64 operations are those of a warp.

    ``setup`` and ``epilogue`` run once per tile (the direct kernel's epilogue per tile and sample), ``loop`` and
    its parts once per iteration. Where a kernel has several main loops, they are alternatives or run one after the
    other; ``loop`` is the longest.
    """

    warps: int
    programs: int
    setup: int
    loop: int
    loop_special: int
    loop_float64: int
    epilogue: int
    epilogue_special: int
    epilogue_float64: int
    epilogue_shared: int  # bytes a thread


def counts(kernel: str, variant: str, tile: str = "", *, architecture: str = "sm_90", dtype: str = "bf16") -> Counts:
    """Counts of a shipped variant; ``tile`` is checked where given.

    Raises:
        MissingCountError: the table has no such row, or its tile is another one.
    """
    row = _rows(TABLE).get((architecture, kernel, variant, dtype))
    name = f"{kernel} ({variant}, {dtype}) on {architecture}"
    if row is None:
        raise MissingCountError(f"{TABLE.name} has no counts of {name}; write it again: make compiled")
    if tile and row["tile"] != tile:
        raise MissingCountError(
            f"{TABLE.name} counts {name} in tiles of {row['tile']}, not {tile}; write it again: make compiled"
        )
    try:
        loops, special, float64 = ([int(n) for n in row[name].split("+") if n] for name in _LOOPS)
        longest = loops.index(max(loops)) if loops else 0
        return Counts(
            warps=int(row["warps"]),
            programs=int(row["programs"]),
            setup=int(row["setup"]),
            loop=loops[longest] if loops else 0,
            loop_special=special[longest] if loops else 0,
            loop_float64=float64[longest] if loops else 0,
            epilogue=int(row["epilogue"]),
            epilogue_special=int(row["epilogue_special"]),
            epilogue_float64=int(row["epilogue_float64"]),
            epilogue_shared=int(row["epilogue_shared"]),
        )
    except KeyError as error:
        raise MissingCountError(f"{TABLE.name} has no column {error}; write it again: make compiled") from None


_LOOPS = ("loops", "loops_special", "loops_float64")


@cache
def _rows(path: Path) -> dict[Key, dict[str, str]]:
    with path.open(newline="") as file:
        return {(row["architecture"], row["kernel"], row["variant"], row["dtype"]): row for row in csv.DictReader(file)}
