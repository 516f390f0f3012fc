"""``ScorerSpec``: everything that it takes to load a scorer, as one value that another process can be given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from donod_fast.criteria.base import Criterion
from donod_fast.data.masking import MaskSettings
from donod_fast.kernels.arguments import DEFAULT_WORKSPACE
from donod_fast.models.placement import DeviceMap, MaxMemory
from donod_fast.scoring.settings import UpdateSettings

if TYPE_CHECKING:
    from donod_fast.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True)
class ScorerSpec:
    """How to load a model and score with it. Fields are those of ``Scorer.from_pretrained``."""

    model: str
    revision: str | None = None
    dtype: str = "auto"
    device: str | None = None
    trust_remote_code: bool = False
    precision: str = "auto"
    device_map: DeviceMap | None = None
    max_memory: MaxMemory | None = None
    offload_folder: Path | None = None
    update: UpdateSettings = field(default_factory=UpdateSettings)
    masks: MaskSettings = field(default_factory=MaskSettings)
    token_budget: int | None = None
    workspace_bytes: int = DEFAULT_WORKSPACE
    backend: str = "auto"
    packing: str = "auto"
    compile: bool = False
    carry: tuple[str, ...] = ()
    signals: tuple[Criterion, ...] = ()

    def on(self, device: str) -> ScorerSpec:
        """The same on another device."""
        return replace(self, device=device)

    def load(self) -> Scorer:
        """Load the scorer.

        Raises:
            ModelError: the model cannot be loaded or scored with.
            InputError: names a setting with a wrong value.
        """
        from donod_fast.scoring.scorer import Scorer

        return Scorer.from_pretrained(
            self.model,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.trust_remote_code,
            precision=self.precision,
            device_map=self.device_map,
            max_memory=self.max_memory,
            offload_folder=self.offload_folder,
            update=self.update,
            masks=self.masks,
            token_budget=self.token_budget,
            workspace_bytes=self.workspace_bytes,
            backend=self.backend,
            packing=self.packing,
            compile=self.compile,
            carry=self.carry,
            signals=self.signals,
        )


__all__ = ["ScorerSpec"]
