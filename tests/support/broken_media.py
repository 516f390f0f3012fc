"""Hosts bring torchvision and torchaudio, whose wheels often do not fit a CPU build of torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_HIDE = """import importlib.util

_find = importlib.util.find_spec


def find_spec(name, package=None):
    return None if name.partition(".")[0] == "torchvision" else _find(name, package)


importlib.util.find_spec = find_spec
"""


def hide_broken_media() -> None:
    """Hide both in this process where they are installed and cannot be imported: texts need neither."""
    if find_spec("torchvision") is not None and not _is_importable("torchvision"):
        from transformers import utils

        for place in (utils, utils.import_utils):
            for name in ("is_torchvision_available", "is_torchvision_v2_available"):
                if hasattr(place, name):
                    setattr(place, name, lambda: False)
    if find_spec("torchaudio") is not None and not _is_importable("torchaudio"):
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)


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


def _is_importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        return False
    return True
