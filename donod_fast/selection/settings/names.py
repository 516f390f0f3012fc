"""Names of methods and choices, headings of the help, and the readers of what is typed."""

from __future__ import annotations

import re
from typing import Any

from donod_fast.errors import InputError
from donod_fast.scoring.settings import DEFAULT_NORMALISE, NORMALISATIONS
from donod_fast.system.options import option

KMEANS_IFD = "kmeans-ifd"
KCENTER = "kcenter"
CLUSTER_BALANCED = "cluster-balanced"
BY_EMBEDDINGS = (KMEANS_IFD, KCENTER, CLUSTER_BALANCED)
"""Methods that choose rows by their embeddings, and do not rank the others."""
IN_CLUSTERS = (KMEANS_IFD, CLUSTER_BALANCED)
"""Methods that keep a share of each cluster."""
CLUSTERS = 10
ENGINES = ("auto", "memory", "duckdb")
ORDERS = ("first", "second")
CORRELATIONS = ("spearman", "kendall")
ROW_ORDERS = ("input", "best")
"""Orders in which a subset is written: that of the corpus, or best first."""

RANKING = "Ranking"
RUNNING = "Running"
CHOOSING = "Choosing"
OUTPUT = "Output"
MIB = 1 << 20

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str) -> int:
    """Read ``"2GiB"``, ``"500MB"`` or a number of bytes.

    Raises:
        InputError: the text is not a size.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B)?", text.strip(), re.IGNORECASE)
    unit = "" if found is None else (found[2] or "").upper()
    if found is None or unit not in _UNITS or float(found[1]) == 0:
        raise InputError(f"--memory {text!r} is not a size; write for example 2GiB or 500MB")
    return int(float(found[1]) * _UNITS[unit])


def check_memory(memory: int) -> None:
    """Refuse a limit below one byte. Raises InputError."""
    if memory < 1:
        raise InputError(f"memory must be at least 1 byte, got {memory}; write for example 2GiB or 500MB")


def parse_weights(text: str) -> tuple[float, float]:
    """Read the weights of DON and NOD, as ``"0.5,0.5"``.

    Raises:
        InputError: the text is not two numbers.
    """
    try:
        don, nod = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--weights must be two numbers with a comma, for example 0.5,0.5; got {text!r}") from None
    return don, nod


def normalise_option(panel: str = RANKING) -> Any:
    """A field with what TOPSIS divides the columns by: the option ``--normalise``."""
    return option(
        DEFAULT_NORMALISE,
        help=f"What TOPSIS divides DON and NOD by: {', '.join(NORMALISATIONS)}.",
        panel=panel,
        choices=NORMALISATIONS,
    )


__all__ = [
    "BY_EMBEDDINGS",
    "CHOOSING",
    "CLUSTERS",
    "CLUSTER_BALANCED",
    "CORRELATIONS",
    "ENGINES",
    "IN_CLUSTERS",
    "KCENTER",
    "KMEANS_IFD",
    "MIB",
    "ORDERS",
    "OUTPUT",
    "RANKING",
    "ROW_ORDERS",
    "RUNNING",
    "check_memory",
    "normalise_option",
    "parse_size",
    "parse_weights",
]
