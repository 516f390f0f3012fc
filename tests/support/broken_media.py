"""Hosts bring torchvision and torchaudio, whose wheels often do not fit a CPU build of torch."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def hide_broken_media() -> None:
    """Hide both where they are installed and cannot be imported: texts need neither."""
    if find_spec("torchvision") is not None and not _is_importable("torchvision"):
        from transformers import utils

        for place in (utils, utils.import_utils):
            for name in ("is_torchvision_available", "is_torchvision_v2_available"):
                if hasattr(place, name):
                    setattr(place, name, lambda: False)
    if find_spec("torchaudio") is not None and not _is_importable("torchaudio"):
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)


def _is_importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        return False
    return True
