"""``ScorerSpec``: everything needed to load a scorer, as one value that can be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from donod_fast.data.settings import MaskSettings
from donod_fast.models.settings import ModelSettings
from donod_fast.scoring.settings import ColumnSettings, ComputeSettings, UpdateSettings

if TYPE_CHECKING:
    from donod_fast.criteria.base import Criterion
    from donod_fast.scoring.scorer import Scorer

_COMPUTE = ComputeSettings()


@dataclass(frozen=True, slots=True)
class ScorerSpec(ModelSettings):
    """How to load a model and score with it. Fields are as in ``Scorer.from_pretrained``."""

    update: UpdateSettings = field(default_factory=UpdateSettings)
    masks: MaskSettings = field(default_factory=MaskSettings)
    token_budget: int | None = _COMPUTE.token_budget
    workspace_bytes: int = _COMPUTE.workspace_bytes
    backend: str = _COMPUTE.backend
    packing: str = _COMPUTE.packing
    compile: bool = False
    carry: tuple[str, ...] = ()
    signals: tuple[Criterion, ...] = ()

    @staticmethod
    def of(
        model: ModelSettings,
        masks: MaskSettings,
        update: UpdateSettings,
        columns: ColumnSettings,
        compute: ComputeSettings,
    ) -> ScorerSpec:
        """The spec of these settings; the decoder is compiled only if ``compute`` says on.

        Raises:
            InputError: an unknown criterion, or one that lacks what it needs; a dataset_info.json that cannot be read.
            CorpusError: a reference set cannot be read.
        """
        return ScorerSpec(
            model.model,
            revision=model.revision,
            dtype=model.dtype,
            device=model.device,
            trust_remote_code=model.trust_remote_code,
            precision=model.precision,
            device_map=model.device_map,
            max_memory=model.max_memory,
            offload_folder=model.offload_folder,
            update=update,
            masks=masks.resolved(),
            token_budget=compute.token_budget,
            workspace_bytes=compute.workspace_bytes,
            backend=compute.backend,
            packing=compute.packing,
            compile=compute.compile == "on",
            carry=columns.carried,
            signals=columns.criteria(),
        )

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
