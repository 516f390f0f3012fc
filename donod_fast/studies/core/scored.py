"""Scores of records as cells of a study, identified by model, update, masks and the records' text.

A sample's scores do not depend on its batch, so a study may score a corpus once and then only what it changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from donod_fast.criteria.base import Criterion
from donod_fast.criteria.running import fingerprints
from donod_fast.data.masking import MaskSettings
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.cells import Cell, CellStore

COLUMNS = ("don", "nod", "loss", "entropy")
_CHUNK = 128  # rows of a cell; a killed study loses at most one cell


@dataclass(frozen=True)
class Scores:
    """Columns of scores, (n,) float64 each; NaN if a row has no scores.

    Attributes:
        don, nod, loss, entropy: as in a scores table.
        more: number columns of further criteria by name.
        seconds: wall time of computing them; 0.0 if unknown.
    """

    don: Tensor
    nod: Tensor
    loss: Tensor
    entropy: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    seconds: float = field(default=0.0, kw_only=True, compare=False)

    def replaced(self, places: Sequence[int], others: Scores) -> Scores:
        """These scores with the rows at ``places`` replaced by ``others``."""
        at = torch.tensor(list(places), dtype=torch.int64)
        return Scores(
            *(getattr(self, name).index_copy(0, at, getattr(others, name)) for name in COLUMNS),
            more={name: column.index_copy(0, at, others.more[name]) for name, column in self.more.items()},
        )

    def picked(self, places: Sequence[int]) -> Scores:
        """The scores at ``places``, in their order."""
        at = torch.tensor(list(places), dtype=torch.int64)
        return Scores(
            *(getattr(self, name)[at] for name in COLUMNS),
            more={name: column[at] for name, column in self.more.items()},
        )

    def columns(self) -> ScoreColumns:
        """The columns for ranking; rows are numbered from 0."""
        more = {"entropy": self.entropy, **self.more}
        return ScoreColumns(torch.arange(len(self.don)), self.don, self.nod, self.loss, more)


class ScoringCells:
    """Scores records with one model, by any update, and keeps the scores in a ``CellStore``.

    Args:
        store: store of the cells.
        model: a folder or hub id, or a loaded model.
        masks: settings of reading and masking rows.
        signals: further criteria, whose number columns are stored as well.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(
        self,
        store: CellStore,
        model: str | Path | LoadedModel,
        masks: MaskSettings | None = None,
        signals: Sequence[Criterion] = (),
    ) -> None:
        self.loaded = model if isinstance(model, LoadedModel) else load_model(model)
        self._store, self._masks, self._signals = store, masks or MaskSettings(), tuple(signals)
        self._scorers: dict[UpdateSettings, Scorer] = {}
        self._decisive = {**model_key(self.loaded, self._masks), "dtype": str(self.loaded.dtype)}
        if signals:
            self._decisive["signals"] = dict(fingerprints(signals))

    def describe(self) -> dict[str, Any]:
        """Name of the model for a report."""
        loaded = self.loaded
        dtype = str(loaded.dtype).removeprefix("torch.")
        return {"model": loaded.name, "fingerprint": loaded.fingerprint, "dtype": dtype, "device": str(loaded.device)}

    def score(self, records: Sequence[Mapping[str, Any]], update: UpdateSettings) -> Scores:
        """Scores in the order of the records.

        Raises:
            ModelError: the model cannot be used for scoring.
            StoreError: a cell cannot be read or written.
        """
        cells = [self._part(records[at : at + _CHUNK], update) for at in range(0, len(records), _CHUNK)]
        parts = [cell.result for cell in cells]

        def column(name: str) -> Tensor:
            return torch.tensor([x for part in parts for x in part[name]], dtype=torch.float64)

        further = [name for name in parts[0] if name not in COLUMNS] if parts else []
        more, seconds = {name: column(name) for name in further}, sum(cell.seconds for cell in cells)
        return Scores(*map(column, COLUMNS), more=more, seconds=seconds)

    def _part(self, records: Sequence[Mapping[str, Any]], update: UpdateSettings) -> Cell:
        def work(_: Path) -> Mapping[str, Any]:
            scorer = self._scorers.get(update)
            if scorer is None:
                scorer = self._scorers[update] = Scorer(
                    self.loaded, update=update, masks=self._masks, signals=self._signals
                )
            table = scorer.score_table(list(records))
            further = [column.name for column in scorer.sample_scorer.signals.columns if column.kind == "number"]
            return {name: table.column(name).to_pylist() for name in (*COLUMNS, *further)}

        settings = {**self._decisive, "update": update.as_dict(), "records": digest(records)}
        return self._store.result("scores", settings, work)


def model_key(loaded: LoadedModel, masks: MaskSettings) -> dict[str, Any]:
    """Identification of a model in a cell's settings: its weights, tokenizer and chat template, and the masks."""
    tokenizer = loaded.tokenizer
    words = digest([sorted(tokenizer.get_vocab().items()), getattr(tokenizer, "chat_template", None)])
    return {"fingerprint": loaded.fingerprint, "tokenizer": words, "masks": masks.as_key()}


def digest(value: Any) -> str:
    """Hash of JSON values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
