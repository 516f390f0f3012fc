"""donod_fast: DON and NOD of every sample of an instruction-tuning corpus, at the price of one inference pass.

The names below are imported when first used, so that ``import donod_fast`` loads neither
transformers nor triton (nor torch).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from donod_fast._version import __version__
from donod_fast.system.silence import keep_libraries_quiet

if TYPE_CHECKING:
    from donod_fast.api.loading import load_scores
    from donod_fast.api.scorer import Scorer
    from donod_fast.api.scores import Scores
    from donod_fast.api.selection import Selection
    from donod_fast.kernels import (
        SGD,
        AdamW,
        DonNod,
        Sign,
        don_nod,
        don_nod_padded,
        gradient_products,
        token_statistics,
        topsis,
    )
    from donod_fast.selection.frozen_constants import TopsisConstants, load_constants, topsis_constants

keep_libraries_quiet()

_HOMES = {
    "don_nod": "donod_fast.kernels",
    "don_nod_padded": "donod_fast.kernels",
    "DonNod": "donod_fast.kernels",
    "AdamW": "donod_fast.kernels",
    "SGD": "donod_fast.kernels",
    "Sign": "donod_fast.kernels",
    "gradient_products": "donod_fast.kernels",
    "token_statistics": "donod_fast.kernels",
    "topsis": "donod_fast.kernels",
    "Scorer": "donod_fast.api.scorer",
    "Scores": "donod_fast.api.scores",
    "Selection": "donod_fast.api.selection",
    "load_scores": "donod_fast.api.loading",
    "TopsisConstants": "donod_fast.selection.frozen_constants",
    "topsis_constants": "donod_fast.selection.frozen_constants",
    "load_constants": "donod_fast.selection.frozen_constants",
}

__all__ = [
    "SGD",
    "AdamW",
    "DonNod",
    "Scorer",
    "Scores",
    "Selection",
    "Sign",
    "TopsisConstants",
    "__version__",
    "don_nod",
    "don_nod_padded",
    "gradient_products",
    "load_constants",
    "load_scores",
    "token_statistics",
    "topsis",
    "topsis_constants",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'donod_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
