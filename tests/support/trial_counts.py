"""How many examples a slow property is tried on."""

from __future__ import annotations

import os


def examples(suite: int, nightly: int) -> int:
    """The number for Hypothesis: a few in the suite, many with ``DONOD_FAST_NIGHTLY=1``."""
    return nightly if os.environ.get("DONOD_FAST_NIGHTLY") == "1" else suite
