"""Libraries that report who uses them, or look for news, are told not to: a run with local inputs makes no request.

They read these variables when they are imported, and child processes inherit them. What the user has set stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # TRL reports each training; the hub client asks for a list of agents
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets counts the use of its readers
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers asks a service to convert a hub model
    "USE_HUB_KERNELS": "0",  # transformers takes kernels from the hub, which are code
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",  # https://donottrack.sh
}


def keep_libraries_quiet() -> None:
    """Set :data:`QUIET` in this process; a second call changes nothing."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    constants = sys.modules.get("huggingface_hub.constants")  # it was imported before us, and has read its variables
    if constants is not None and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1":
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


@contextmanager
def offline() -> Iterator[None]:
    """In this block, the hub's client reads its cache and asks no server."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


__all__ = ["QUIET", "keep_libraries_quiet", "offline"]
