"""Settings of loading a model, as options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.system.options import check_choices, option

DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16")
PRECISIONS = ("auto", "float8")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Device maps that accelerate computes."""

PANEL = "Model"

MEMORY_SIZE = re.compile(r"[0-9]+(\.[0-9]+)? ?([KMGT]i?B)?", re.IGNORECASE)
"""A size such as ``20GiB``."""


def parse_max_memory(text: str) -> dict[int | str, int | str]:
    """Parse ``"0=20GiB,cpu=60GiB"``: sizes by device index or ``cpu``.

    Raises:
        InputError: the text cannot be read.
    """
    sizes: dict[int | str, int | str] = {}
    for part in text.split(","):
        key, equals, size = (piece.strip() for piece in part.partition("="))
        if not equals or not MEMORY_SIZE.fullmatch(size) or not (key.isdecimal() or key == "cpu"):
            raise InputError(f"max memory {text!r} cannot be read; write for example 0=20GiB,cpu=60GiB")
        sizes[int(key) if key.isdecimal() else key] = int(size) if size.isdecimal() else size
    return sizes


@dataclass(frozen=True, slots=True)
class ModelName:
    """A causal language model.

    Attributes:
        model: folder or hub id, or a name in ``models.packaged.PACKAGED``.
    """

    model: str = option(help="Folder or hub id of a causal language model (safetensors), or smollm2.", panel=PANEL)


@dataclass(frozen=True, slots=True)
class ModelSource(ModelName):
    """A causal language model on one device. Attributes are the arguments of ``models.loading.load_model``.

    Raises:
        InputError: names the setting with a wrong value.
    """

    revision: str | None = option(None, help="Revision of a hub model.", panel=PANEL)
    dtype: str = option(
        "auto", help="Data type of the weights: auto, float32, bfloat16 or float16.", panel=PANEL, choices=DTYPE_NAMES
    )
    device: str | None = option(
        None, help="Device, for example cuda:1 or cpu.", panel=PANEL, shown="cuda if available, else cpu"
    )
    trust_remote_code: bool = option(False, help="Run code that comes with the model.", panel=PANEL)

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, slots=True)
class ModelSettings(ModelSource):
    """A causal language model on one device, or spread over several. See :class:`ModelSource`.

    Attributes:
        precision: ``"float8"`` quantises the decoder's linear layers; ``"auto"`` leaves them as stored.
        device_map: one of :data:`DEVICE_MAPS`, or the device of each module by its name; None for one device.
        max_memory: memory limits of a device map, as ``"0=20GiB,cpu=60GiB"`` or by device.
        offload_folder: where a device map puts weights that fit on no device.
    """

    precision: str = option(
        "auto",
        help="Precision of the decoder layers: auto (as stored) or float8.",
        panel=PANEL,
        choices=PRECISIONS,
    )
    device_map: str | Mapping[str, Any] | None = option(
        None,
        help="Spread a large model over devices: auto, balanced, balanced_low_0 or sequential.",
        panel=PANEL,
        choices=DEVICE_MAPS,
        type=str | None,
    )
    max_memory: str | Mapping[int | str, int | str] | None = option(
        None,
        help="Memory limits of a device map, for example 0=20GiB,cpu=60GiB.",
        panel=PANEL,
        type=str | None,
    )
    offload_folder: Path | None = option(None, help="Folder for weights that a device map off-loads.", panel=PANEL)

    def __post_init__(self) -> None:
        check_choices(self)
        if isinstance(self.max_memory, str):
            parse_max_memory(self.max_memory)


__all__ = [
    "DEVICE_MAPS",
    "DTYPE_NAMES",
    "MEMORY_SIZE",
    "PRECISIONS",
    "ModelName",
    "ModelSettings",
    "ModelSource",
    "parse_max_memory",
]
