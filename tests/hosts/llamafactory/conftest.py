"""LLaMA-Factory imports torchvision and torchaudio, whose wheels often do not fit a CPU build of torch."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def hide_broken_media() -> None:
    """Hide both where they cannot be imported: texts need neither."""
    from transformers import utils

    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError):
        for place in (utils, utils.import_utils):
            for name in ("is_torchvision_available", "is_torchvision_v2_available"):
                if hasattr(place, name):
                    setattr(place, name, lambda: False)
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError):
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)


if find_spec("llamafactory") is not None:
    hide_broken_media()
