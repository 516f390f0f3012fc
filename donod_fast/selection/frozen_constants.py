"""Frozen constants of TOPSIS: what the rows of a corpus decide together, kept so that rows can be ranked in batches.

TOPSIS is global: the closeness of a row depends on the size and on the extremes of both columns over the whole corpus.
A tool that sees one batch of rows at a time cannot compute them. So a first pass makes the constants
(:func:`topsis_constants`), and a second pass applies them to any batch (:meth:`TopsisConstants.apply`), in any process:
each row gets the closeness that it has in the whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.kernels.number_columns import doubles, refuse_other_order
from donod_fast.kernels.topsis import (
    DEFAULT_NORMALISE,
    check_normalise,
    column_constants,
    normalised_weights,
    topsis_from_constants,
)
from donod_fast.scores.manifest import differences
from donod_fast.scores.part_summary import ColumnSummary, combined
from donod_fast.selection.columns_of import Columns, columns_of
from donod_fast.selection.keeping import kept_count
from donod_fast.system.checked_json import DamagedError, parsed_object, with_checksum
from donod_fast.system.storage import Storage, is_url, open_storage
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

FORMAT = "donod_fast.topsis_constants"
VERSION = 1

_ROUNDING = 1e-9
"""Values that were divided by the learning rate and multiplied again may pass an extreme by so much of the largest."""

_SECTIONS = ("model", "update", "masks", "head")
"""Sections of a manifest that say how rows were scored."""

_NOT_COMPARED = ("input.fingerprint", "input.rows", "part_rows", "carry")
"""Settings that say what was scored, or what was kept of it, and not how."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the best share of a corpus ends.

    Attributes:
        keep: the share that was asked for: a fraction (float) of the scored rows, or a count (int).
        closeness: rows with at least this closeness are kept. It lies between the last row that is kept and the next,
            so that the rounding of a value does not change which rows of the corpus are kept.
        wanted: rows that the share asks for.
        rows: rows of the corpus that are kept: more than ``wanted`` if some are tied with the last.
    """

    keep: float | int
    closeness: float
    wanted: int
    rows: int


@dataclass(frozen=True)
class TopsisConstants:
    """Constants of TOPSIS over the rows of a corpus. A small value: it can be pickled, and saved as JSON.

    Attributes:
        don: summary of DON over the scored rows.
        nod: summary of NOD over the scored rows.
        rows: rows of the corpus, scored or not.
        weights: weights of DON and NOD; their sum is 1.
        normalise: what a column is divided by, one of ``donod_fast.kernels.topsis.NORMALISATIONS``.
        per_lr: whether they are constants of DON/lr and NOD/lr, as hosts get them, instead of DON and NOD.
        settings: how the rows were scored: the sections ``model``, ``update``, ``masks`` and ``head`` of a manifest;
            None if it is not known.
        cuts: where the best shares end that were asked for.
    """

    don: ColumnSummary
    nod: ColumnSummary
    rows: int
    weights: tuple[float, float] = (0.5, 0.5)
    normalise: str = DEFAULT_NORMALISE
    per_lr: bool = False
    settings: Mapping[str, Any] | None = None
    cuts: tuple[Cut, ...] = ()

    @property
    def scored(self) -> int:
        """Rows with DON and NOD."""
        return self.rows - self.don.nan

    @property
    def lr(self) -> float | None:
        """Learning rate of the step that scored the rows; None if it is not known."""
        found = ((self.settings or {}).get("update") or {}).get("lr")
        return float(found) if isinstance(found, int | float) and found > 0 else None

    def apply(self, don: Any, nod: Any, *, per_lr: bool | None = None) -> Any:
        """Closeness of some rows to the best values of the corpus, in [0, 1]; higher is better.

        A row of the corpus gets the closeness that it has in the whole corpus, whatever other rows are in its batch.
        A value beyond the extremes of the corpus counts as the extreme: a row cannot be better than the best
        DON and NOD. :meth:`outside` counts such rows.

        Args:
            don: (n,) DON of the rows: a list, or an array of NumPy, torch, pandas, polars or Arrow; NaN or None if a
                row was not scored.
            nod: (n,) NOD of the rows.
            per_lr: whether the values are divided by the learning rate; None if they are as :attr:`per_lr` says.

        Returns:
            (n,) float64: a tensor on the device of ``don`` if that is a tensor, else a NumPy array. NaN if a row was
            not scored. It is computed on the CPU.

        Raises:
            InputError: lengths that differ, something that is not a number, an infinite value, values in another unit
                than ``per_lr`` says, or ``per_lr`` without a known learning rate.
        """
        own = self._in_unit(per_lr)
        found = own._closeness(*own._checked(don, nod))
        if not isinstance(don, Tensor):
            return found.numpy()
        return found if don.device.type == "mps" else found.to(don.device)  # mps has no float64

    def outside(self, don: Any, nod: Any, *, per_lr: bool | None = None) -> int:
        """Number of scored rows with a DON or a NOD beyond the extremes of the corpus; arguments as in :meth:`apply`.

        If it is more than a few, the constants were made of too few rows, or of rows of another kind.
        """
        own = self._in_unit(per_lr)
        first, second = own._checked(don, nod)
        return int((own._beyond(first, second) & ~(first.isnan() | second.isnan())).sum())

    def cut(self, keep: float | int) -> float:
        """The closeness from which a row belongs to the best share of the corpus: keep rows with at least this.

        On the rows of the corpus this keeps exactly the share, and rows that are tied with its last row. On other rows
        it keeps as many of them as belong there.

        Args:
            keep: a share that was asked for when the constants were made.

        Raises:
            InputError: it was not asked for.
        """
        for one in self.cuts:
            if one.keep == keep and isinstance(one.keep, float) == isinstance(keep, float):
                return one.closeness
        known = ", ".join(repr(one.keep) for one in self.cuts) or "none"
        raise InputError(
            f"these constants have no cut for keep={keep!r}; known are {known}. "
            f"Make them again with topsis_constants(scores, keep=({keep!r},))"
        )

    def refuse_other(self, described: Mapping[str, Any]) -> None:
        """Compare the settings with those of a scorer whose rows are to be ranked.

        Args:
            described: from ``Scorer.describe()``, or the manifest of a scores folder.

        Raises:
            SettingsMismatchError: the model, the update, the masks or the head differ; names each difference.
            InputError: the settings of the constants are not known.
        """
        if self.settings is None:
            raise InputError(
                "these constants do not say how their rows were scored; make them of a scores folder, "
                "or with topsis_constants(rows, settings=scorer.describe())"
            )
        unlike = differences(
            self.settings, settings_of(described), ("in the constants", "of the scorer"), but=_NOT_COMPARED
        )
        if unlike:
            raise SettingsMismatchError(
                "the constants of TOPSIS belong to rows that were scored in another way:\n  "
                + "\n  ".join(unlike)
                + "\nUse the same settings, or make the constants again."
            )

    def save(self, path: str | Path) -> None:
        """Write the constants to a file (a path, or a URL of an object store) as JSON with a checksum.

        Raises:
            StoreError: it cannot be written.
        """
        storage, name = _place(path)
        storage.make()
        storage.write(name, json.dumps(with_checksum(self.as_dict()), indent=2).encode() + b"\n")

    def as_dict(self) -> dict[str, Any]:
        """The constants in JSON types."""
        from dataclasses import asdict

        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    def _in_unit(self, per_lr: bool | None) -> TopsisConstants:
        """The same for values that are divided by the learning rate, or are not."""
        if per_lr is None or per_lr == self.per_lr:
            return self
        if self.lr is None:
            raise InputError(
                f"these constants are of {_unit(self.per_lr)} and do not say at which learning rate; "
                "make them of a scores folder, or with topsis_constants(rows, settings=scorer.describe())"
            )
        don, nod = (_changed_unit(one, self.lr, divide=per_lr) for one in (self.don, self.nod))
        return replace(self, don=don, nod=nod, per_lr=per_lr)

    def _checked(self, don: Any, nod: Any) -> tuple[Tensor, Tensor]:
        refuse_other_order(don, nod)
        first, second = (torch.from_numpy(doubles(name, one)) for name, one in (("don", don), ("nod", nod)))
        if first.shape != second.shape:
            raise InputError(f"don and nod must have the same length, got {len(first)} and {len(second)}")
        self._refuse_other_unit(first, second)
        return first, second

    def _refuse_other_unit(self, don: Tensor, nod: Tensor) -> None:
        """Refuse values of which none fits, if most would fit in the other unit."""
        there = ~(don.isnan() | nod.isnan())
        if self.lr is None or not there.any() or not self._beyond(don[there], nod[there], _ROUNDING).all():
            return
        other = self._in_unit(not self.per_lr)
        if 2 * int(other._beyond(don[there], nod[there], _ROUNDING).sum()) < int(there.sum()):
            raise InputError(
                f"the values are {_unit(not self.per_lr)}, but the constants are of {_unit(self.per_lr)}; "
                f"pass per_lr={not self.per_lr}"
            )

    def _beyond(self, don: Tensor, nod: Tensor, slack: float = 0.0) -> Tensor:
        """Which values are beyond the extremes, by more than ``slack`` of the largest."""
        first, second = (
            (values < column.low - slack * column.scale) | (values > column.high + slack * column.scale)
            for values, column in ((don, self.don), (nod, self.nod))
        )
        return first | second

    def _closeness(self, don: Tensor, nod: Tensor) -> Tensor:
        unscored = don.isnan() | nod.isnan()
        don, nod = (
            values.masked_fill(unscored, math.nan).clamp(column.low, column.high)
            for values, column in ((don, self.don), (nod, self.nod))
        )
        found = topsis_from_constants(
            don, nod, combined([self.don]), combined([self.nod]), weights=self.weights, normalise=self.normalise
        )
        return found.masked_fill(unscored, math.nan)


def topsis_constants(
    scores: Any,
    *,
    weights: tuple[float, float] = (0.5, 0.5),
    normalise: str = DEFAULT_NORMALISE,
    keep: Sequence[float | int] | float = (),
    settings: Mapping[str, Any] | None = None,
) -> TopsisConstants:
    """Make the constants of TOPSIS over the rows of a corpus.

    Of a scores folder they are computed from the footers of its parts, as ``donod-fast select --engine duckdb`` does;
    the closeness is that of :func:`donod_fast.topsis` up to the rounding of its last digits. Of columns in memory it is
    bit-for-bit that of :func:`donod_fast.topsis` on a CPU.

    Args:
        scores: a scores folder (path, URL or ``ScoresFolder``); or rows: a table or a mapping with the columns ``don``
            and ``nod``, or ``donod_don_per_lr`` and ``donod_nod_per_lr`` as hosts get them (Arrow, pandas, datasets, a
            dict of columns, or a list of dicts). A row that was not scored has NaN or None.
        weights: weights of DON and NOD; only their ratio matters.
        normalise: what a column is divided by, one of ``donod_fast.kernels.topsis.NORMALISATIONS``.
        keep: shares of which to compute where they end: fractions (0.3) or counts (300). This reads the rows of a
            folder, and takes eight bytes of memory a row.
        settings: how the rows were scored (``Scorer.describe()``), for rows; a folder says it.

    Raises:
        InputError: no row is scored, a column is missing, a value is infinite, or an argument has a wrong value.
        StoreError: the folder is unfinished or damaged.
    """
    from donod_fast.scores.folder import ScoresFolder

    check_normalise(normalise)
    shares = tuple(keep) if isinstance(keep, Sequence) else (keep,)
    if isinstance(scores, str | Path):
        scores = ScoresFolder.open(scores)
    if isinstance(scores, ScoresFolder):
        if settings is not None:
            raise InputError("settings are for rows; a scores folder says how it was scored")
        don, nod = scores.column_summaries(sums=normalise == "sum")
        made = TopsisConstants(don, nod, scores.rows, settings=settings_of(scores.manifest))
        columns = None
    else:
        columns = columns_of(scores)
        made = _of_columns(columns, None if settings is None else settings_of(settings))
    if made.scored == 0:
        raise InputError(f"TOPSIS has no constants: none of the {plural(made.rows, 'row')} has scores")
    if made.don.nan != made.nod.nan:
        raise InputError("some rows have only one of DON and NOD, which `donod-fast score` does not write")
    for name, column in (("don", made.don), ("nod", made.nod)):
        if not math.isfinite(column.scale):
            raise InputError(f"column {name} has an infinite score; mark rows that were not scored by NaN")
    made = replace(made, weights=normalised_weights(weights), normalise=normalise)
    if not shares:
        return made
    found = _columns_of_folder(scores) if columns is None else columns
    values = made._closeness(torch.from_numpy(found.don), torch.from_numpy(found.nod))
    return replace(made, cuts=_cuts(values[~values.isnan()].numpy(), shares))


def load_constants(path: str | Path) -> TopsisConstants:
    """Read what :meth:`TopsisConstants.save` wrote.

    Raises:
        StoreError: the file is missing or damaged, or another release wrote it in another form.
    """
    from donod_fast.selection.constants_schema import checked_constants

    storage, name = _place(path)
    try:
        content = parsed_object(storage.read(name), needs_checksum=True)
        if content.get("format") != FORMAT:
            raise DamagedError("it is no file of TOPSIS's constants")
        if content.get("version") != VERSION:
            raise StoreError(f"{path} is not of version {VERSION}: another release of donod-fast wrote it")
        found = checked_constants(content)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; write it with topsis_constants(scores).save({str(path)!r})") from None
    except DamagedError as error:
        raise StoreError(f"{path} is damaged ({error}); make the constants again") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error})") from error
    don, nod = (ColumnSummary(**found.pop(one)) for one in ("don", "nod"))
    cuts = tuple(Cut(**one) for one in found.pop("cuts"))
    return TopsisConstants(don, nod, cuts=cuts, **{**found, "weights": tuple(found["weights"])})


def settings_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a manifest, or of ``Scorer.describe()``, that say how rows are scored, in JSON types.

    Raises:
        InputError: one is missing.
    """
    lacking = [name for name in ("model", "update") if not isinstance(described.get(name), Mapping)]
    if lacking:
        raise InputError(f"the settings have no section {lacking[0]!r}; give Scorer.describe() or a manifest")
    found: dict[str, Any] = json.loads(json.dumps({name: described.get(name) for name in _SECTIONS}))
    return found


def _of_columns(columns: Columns, settings: Mapping[str, Any] | None) -> TopsisConstants:
    unscored = np.isnan(columns.don) | np.isnan(columns.nod)
    don, nod = (_summary(np.where(unscored, np.nan, one)) for one in (columns.don, columns.nod))
    return TopsisConstants(don, nod, len(columns.don), per_lr=columns.per_lr, settings=settings)


def _summary(column: Any) -> ColumnSummary:
    """A summary with the sums that :func:`donod_fast.topsis` computes, which round in another order."""
    summary = ColumnSummary.of(column)
    if summary.nan == len(column):
        return summary
    sums = column_constants(torch.from_numpy(column))
    return replace(summary, squares=float(sums.squares), absolutes=float(sums.absolutes))


def _columns_of_folder(folder: ScoresFolder) -> Columns:
    from donod_fast.selection.out_of_core.loading import read_narrow

    table = read_narrow(folder, ["row", "don", "nod"])
    don, nod = (table.column(name).to_numpy().copy() for name in ("don", "nod"))
    return Columns(don, nod, per_lr=False)


def _cuts(values: Any, shares: Sequence[float | int]) -> tuple[Cut, ...]:
    rising = np.sort(values)
    found = []
    for keep in shares:
        wanted = kept_count(keep, len(rising))
        last = float(rising[len(rising) - wanted])
        below = int(np.searchsorted(rising, last))  # rows that are worse than the last kept one
        between = 0.0 if below == 0 else (float(rising[below - 1]) + last) / 2
        closeness = between if below == 0 or between > rising[below - 1] else last
        found.append(Cut(keep, closeness, wanted, len(rising) - below))
    return tuple(found)


def _changed_unit(column: ColumnSummary, lr: float, *, divide: bool) -> ColumnSummary:
    def changed(value: float) -> float:
        return value / lr if divide else value * lr

    return replace(column, low=changed(column.low), high=changed(column.high), scale=changed(column.scale))


def _unit(per_lr: bool) -> str:
    return "DON/lr and NOD/lr" if per_lr else "DON and NOD"


def _place(path: str | Path) -> tuple[Storage, str]:
    if is_url(path):
        folder, _, name = str(path).rpartition("/")
        return open_storage(folder), name
    return open_storage(Path(path).parent), Path(path).name


__all__ = ["Cut", "TopsisConstants", "load_constants", "settings_of", "topsis_constants"]
