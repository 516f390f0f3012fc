"""Options that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="Folder or hub id of a causal language model (safetensors).")]
Revision = Annotated[str | None, typer.Option(help="Revision of a hub model.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Precision = Annotated[str, typer.Option(help="Of the trunk: auto (as it comes) or float8.")]
Device = Annotated[str | None, typer.Option(help="Device (default: cuda if there is one, else cpu).")]
DeviceMap = Annotated[
    str | None, typer.Option(help="Spread a large model: auto, balanced, balanced_low_0 or sequential.")
]
MaxMemory = Annotated[str | None, typer.Option(help="What a device map may use, for example 0=20GiB,cpu=60GiB.")]
OffloadFolder = Annotated[Path | None, typer.Option(help="Where a device map may off-load weights to.")]
TrustRemoteCode = Annotated[bool, typer.Option(help="Run code that comes with the model.")]
