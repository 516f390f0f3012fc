"""(a) Versions, and the rates on which every prediction rests: products, copies, and copies inside the cache."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import metadata

import torch

from lease.rows import Setting, digits, median_ms

_PACKAGES = ("torch", "triton", "transformers", "pytest", "pytest-xdist", "liger-kernel", "cut-cross-entropy")


def run(setting: Setting) -> None:
    """Add the rows."""
    setting.add("versions", "python", value=platform.python_version())
    for package in _PACKAGES:
        try:
            setting.add("versions", package, value=metadata.version(package))
        except metadata.PackageNotFoundError:
            setting.add("versions", package, note="not installed")
    if not setting.dry:
        _device(setting)
    _rates(setting)


def _device(setting: Setting) -> None:
    properties = torch.cuda.get_device_properties(0)
    setting.add("device", "name", value=torch.cuda.get_device_name())
    setting.add("device", "multiprocessors", value=properties.multi_processor_count)
    setting.add("device", "memory", value=properties.total_memory >> 20, unit="MiB")
    setting.add("device", "cache", value=getattr(properties, "L2_cache_size", 0) >> 20, unit="MiB")
    smi = shutil.which("nvidia-smi")
    if smi:
        query = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
        command = [smi, f"--query-gpu={query}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        setting.add("device", "nvidia-smi", value=done.stdout.strip(), note=query)


def _rates(setting: Setting) -> None:
    size = 256 if setting.dry else 8192
    place = {"device": setting.device, "dtype": torch.bfloat16}
    left, right = (torch.randn(size, size, **place) for _ in range(2))
    out = torch.empty_like(left)
    times = [median_ms(lambda: torch.mm(left, right, out=out)) for _ in range(2)]
    rates = [digits(2e-9 * size**3 / ms) for ms in times]
    setting.add(f"bf16 {size}^3", "product", median_ms=digits(times[0]), value=rates[0], unit="TFLOP/s",
                note=f"again: {rates[1]}")  # fmt: skip
    one = torch.zeros(1, device=setting.device)
    ms = median_ms(lambda: one.add_(1.0), rounds=200)
    setting.add("one element", "shortest launch", median_ms=digits(ms), note="from one launch to the next")
    for name, mib in (("copy", 4096), ("copy inside the cache", 8)):
        source = torch.randn((mib << 20 if not setting.dry else 1 << 20) // 2, **place)
        target = torch.empty_like(source)
        ms = median_ms(lambda target=target, source=source: target.copy_(source), rounds=50)
        moved = 2 * source.numel() * source.element_size()
        setting.add(f"{source.numel() * 2 >> 20} MiB", name, median_ms=digits(ms), value=digits(1e-9 * moved / ms),
                    unit="TB/s", note="bytes read and written")  # fmt: skip
