"""Which row of the table of tile shapes (``configs.py``) suits a device."""

from __future__ import annotations

import functools
import logging

import torch

_log = logging.getLogger(__name__)

# Small tiles that fit into the shared memory and registers of every device that Triton supports.
CONSERVATIVE = "other"


def architecture_of(device: torch.device) -> str:
    """Name of the table's row for a device; ``CONSERVATIVE``, with a warning, if its architecture is not known.

    The interpreter on a CPU runs the tiles of Hopper.
    """
    if device.type != "cuda":
        return "sm_90"
    if torch.version.hip:
        properties = torch.cuda.get_device_properties(device)
        return _of_amd(properties.gcnArchName.split(":")[0])
    return _of_nvidia(*torch.cuda.get_device_capability(device))


def _of_nvidia(major: int, minor: int) -> str:
    """Row of a compute capability, by the shared memory of a block (CUDA guide, technical specifications)."""
    if major == 8:
        return "sm_80" if minor == 0 else "sm_89"  # 163 KiB; 8.7 has as much, 8.6 and 8.9 have 99 KiB
    if major == 9:
        return "sm_90"  # 227 KiB
    if major == 10:
        return "sm_100"  # 227 KiB and tensor memory
    if major == 12:
        return "sm_89"  # 99 KiB and no tensor memory: the tiles of sm_100 do not fit
    _warn_once(f"compute capability {major}.{minor}")
    return CONSERVATIVE


def _of_amd(name: str) -> str:
    """Row of a target of the AMD GPU backend of LLVM (its user guide lists them)."""
    if name.startswith(("gfx94", "gfx95")):
        return "gfx942"  # CDNA 3 and 4: matrix cores, waves of 64, at least 64 KiB of local memory
    # gfx90a and older have other matrix instructions; gfx10 to gfx12 run waves of 32.
    waves = "waves of 64" if name.startswith("gfx9") else "waves of 32"
    _warn_once(f"{name} ({waves})")
    return CONSERVATIVE


@functools.cache
def _warn_once(what: str) -> None:
    """Warn of an unknown architecture, once a process."""
    _log.warning(
        "no tile shapes were chosen for %s: small, slower ones are used; DONOD_FAST_AUTOTUNE=1 measures others",
        what,
    )
