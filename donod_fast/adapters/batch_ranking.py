"""``BatchScorer``: scores the batches of a host, and ranks each of them if it has frozen constants of TOPSIS."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.adapters.columns import DON, NOD, TOPSIS
from donod_fast.adapters.lazy_scorer import LazyScorer
from donod_fast.adapters.options import scorer_spec
from donod_fast.selection.frozen_constants import TopsisConstants, load_constants

_checked: set[bytes] = set()
"""The pairs of settings and constants that were compared in this process."""


@dataclass(frozen=True)
class BatchScorer:
    """Scores rows that a host gives in batches, and ranks them if it has constants. It can be pickled.

    Attributes:
        lazy: scores them.
        constants: constants of TOPSIS; with them each row gets the column ``donod_topsis``.
    """

    lazy: LazyScorer
    constants: TopsisConstants | None = None

    def columns(
        self, rows: Sequence[Mapping[str, Any]], *, first: int | None = 0, device: str | None = None
    ) -> list[dict[str, Any]]:
        """As ``LazyScorer.columns``, with ``donod_topsis``.

        Raises:
            ModelError: the model cannot be loaded or scored with.
            SettingsMismatchError: the constants belong to rows that were scored with other settings.
        """
        found = self.lazy.columns(rows, first=first, device=device)
        if self.constants is not None and found:
            self._refuse_other(device)
            rank_rows(found, self.constants)
        return found

    def check(self, device: str | None = None) -> None:
        """Load the scorer, and compare the constants with it, before any row. Raises as :meth:`columns`."""
        self.lazy.scorer(device)
        self._refuse_other(device)

    def _refuse_other(self, device: str | None) -> None:
        if self.constants is None or self.constants.settings is None:
            return
        key = hashlib.sha256(pickle.dumps(self)).digest()
        if key not in _checked:
            self.constants.refuse_other(self.lazy.scorer(device).describe())
            _checked.add(key)


def batch_scorer(
    model: str, options: Mapping[str, Any] | None = None, constants: TopsisConstants | str | Path | None = None
) -> BatchScorer:
    """Make a scorer of a host's settings.

    Args:
        model: folder or hub id of a causal language model.
        options: as of :func:`donod_fast.adapters.options.scorer_spec`.
        constants: constants of TOPSIS, or their file.

    Raises:
        InputError: an unknown option, or a wrong value.
        StoreError: the file of the constants cannot be read.
    """
    spec = scorer_spec(model, options)
    found = constants if constants is None or isinstance(constants, TopsisConstants) else load_constants(constants)
    return BatchScorer(LazyScorer(spec), found)


def rank_rows(rows: Sequence[dict[str, Any]], constants: TopsisConstants) -> None:
    """Give rows that have the columns of a host the column ``donod_topsis``: None where a row was not scored."""
    closeness = constants.apply([row[DON] for row in rows], [row[NOD] for row in rows], per_lr=True)
    for row, value in zip(rows, closeness.tolist(), strict=True):
        row[TOPSIS] = value if value == value else None  # NaN


__all__ = ["BatchScorer", "batch_scorer", "rank_rows"]
