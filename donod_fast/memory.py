"""How much memory is free."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device (the host's available memory for ``cpu``), None where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        with suppress(OSError):  # Linux: what the page cache would give back counts
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
