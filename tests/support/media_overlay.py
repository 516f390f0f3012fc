"""Run a host although its torchvision or torchaudio does not fit the installed torch (their wheels want CUDA)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_HIDE = """import importlib.util

_find = importlib.util.find_spec


def find_spec(name, package=None):
    return None if name.partition(".")[0] == "torchvision" else _find(name, package)


importlib.util.find_spec = find_spec
"""


def media_overlay(place: Path) -> dict[str, str]:
    """Environment variables of a process that runs texts only; empty where both packages can be imported."""
    broken = [
        name
        for name in ("torchvision", "torchaudio")
        if subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode
    ]
    if "torchvision" in broken:
        (place / "sitecustomize.py").write_text(_HIDE)
    if "torchaudio" in broken:
        (place / "torchaudio.py").write_text('"""Stands in for a package that cannot be imported."""\n')
    return {"PYTHONPATH": str(place)} if broken else {}
