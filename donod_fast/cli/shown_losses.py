"""The losses that ``donod-fast show --losses`` shows: those that ``score`` recorded, else by the model, loaded then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from donod_fast.data.types import TokenizedSample
from donod_fast.data.viewing import COMPUTED, RECORDED
from donod_fast.models.settings import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from donod_fast.data.masking import Masker
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.scoring.row_losses import RowLosses


class ShownLosses:
    """Losses of rows.

    Attributes:
        source: where those of the last row come from, as in ``RowView.losses_from``.

    Args:
        model: the model; its weights are loaded only for a row whose losses are not recorded.
        folder: the scores folder whose losses may be shown, None for none.
        why_not: why the recorded losses are not those of the rows shown, "" if they are.
    """

    def __init__(self, model: ModelSource, folder: ScoresFolder | None, why_not: str = "") -> None:
        from donod_fast.scores.token_losses import RecordedLosses

        self.source = ""
        self._model, self._why_not, self._is_of_scores = model, why_not, folder is not None
        self._recorded = None if folder is None or why_not else RecordedLosses(folder)
        self._computed: RowLosses | None = None

    def of(self, sample: TokenizedSample) -> Sequence[float]:
        """Cross entropy of each scored token in nats, in order; empty for a row that is not scored.

        Raises:
            ModelError: the model cannot be loaded or scored with.
            StoreError: the file with the losses is damaged.
        """
        self.source = ""
        if not sample.scored_tokens:
            return []
        recorded = None if self._recorded is None else self._recorded.of(sample.row)
        if recorded is not None and len(recorded) == sample.scored_tokens:
            self.source = RECORDED
            return recorded
        self.source = COMPUTED
        if self._computed is None:
            self._computed = self._loaded(sample.row)
        return self._computed.of(sample)

    def _loaded(self, row: int) -> RowLosses:
        from donod_fast.models.loading import load_settings
        from donod_fast.scoring.row_losses import RowLosses

        if self._is_of_scores:
            why = self._why_not or f"row {row} has no recorded losses of these tokens"
            typer.echo(f"losses: by the model, which is loaded now, because {why}", err=True)
        return RowLosses(load_settings(self._model))


def why_not_recorded(
    folder: ScoresFolder, masker: Masker, tokenizer: PreTrainedTokenizerBase, model: ModelSource
) -> str:
    """Why the losses that a folder records are not those of these tokens by this model; "" if they are."""
    from donod_fast.scores.token_losses import has_token_losses
    from donod_fast.scoring.recorded_masks import mask_differences

    if not has_token_losses(folder):
        return f"{folder.name} records none (score --token-losses adds them)"
    scored = folder.manifest["model"]
    given = (("model", model.model), ("revision", model.revision), ("dtype", model.dtype))
    for name, value in given:
        recorded = scored.get("name" if name == "model" else name)
        if value in (None, "auto", recorded) or (name == "model" and _is_same_folder(value, recorded)):
            continue
        return f"it was scored with {name} {recorded}, not {value}"
    unlike = mask_differences(folder, masker, tokenizer)
    return f"it was scored with other tokens: {unlike[0]}" if unlike else ""


def _is_same_folder(one: str, other: object) -> bool:
    return isinstance(other, str) and Path(one).is_dir() and Path(one).resolve() == Path(other).resolve()


__all__ = ["ShownLosses", "why_not_recorded"]
