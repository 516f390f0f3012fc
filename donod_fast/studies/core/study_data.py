"""The rows that a study works on: what it selects from, what it measures on, and what each seed draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError
from donod_fast.studies.core.settings import INPUT
from donod_fast.studies.core.tables import Data, read_rows
from donod_fast.system.options import option, python_only
from donod_fast.system.wording import plural


@dataclass(frozen=True)
class StudyData:
    """The data of a study.

    Attributes:
        data: records or paths of files to select from; use rows that the model was not trained on.
        skip: rows to skip at the start of ``data``.
        rows: rows to use after these; None for all.
        heldout: records or paths of files to measure the loss on; None for a study that measures no loss. It may be
            the same file as ``data`` if the rows differ.
        heldout_skip: rows to skip at the start of ``heldout``.
        heldout_rows: rows to use after these; None for all.
        masks: settings of reading and masking rows.
    """

    data: Data = option(
        help="Files to take rows from, in this order.", panel=INPUT, is_argument=True, type=tuple[str, ...]
    )
    skip: int = option(0, help="Rows to skip at the start, such as those the model was trained on.", panel=INPUT)
    rows: int | None = None
    heldout: Data | None = None
    heldout_skip: int = 0
    heldout_rows: int | None = None
    masks: MaskSettings = python_only(MaskSettings)

    def read(self, most: int | None = None) -> list[dict[str, Any]]:
        """Read the rows to select from, at most ``most`` of them.

        Raises:
            CorpusError: the data cannot be read, or has no rows after ``skip``.
            InputError: ``skip`` or ``rows`` is negative.
        """
        counts = [count for count in (self.rows, most) if count is not None]
        return read_rows(self.data, skip=self.skip, count=min(counts, default=None))

    def read_heldout(self) -> list[dict[str, Any]]:
        """Read the rows to measure the loss on.

        Raises:
            CorpusError: the data cannot be read, or has no rows after ``heldout_skip``.
            InputError: ``heldout`` is None, or ``heldout_skip`` or ``heldout_rows`` is negative.
        """
        if self.heldout is None:
            raise InputError("this study measures a held-out loss: name the held-out data")
        return read_rows(self.heldout, skip=self.heldout_skip, count=self.heldout_rows)

    def mask_values(self) -> dict[str, Any]:
        """The masks as plain values, for cells and reports."""
        return self.masks.as_key()


def _heldout_rows(default: int) -> Any:
    return option(default, help="Held-out rows to use.", panel=INPUT)


@dataclass(frozen=True, kw_only=True)
class HeldoutData(StudyData):
    """The data of a study that measures a held-out loss. See :class:`StudyData`."""

    heldout: Data | None = option(help="Files to measure the loss on.", panel=INPUT, type=tuple[str, ...])
    heldout_skip: int = option(0, help="Held-out rows to skip at the start.", panel=INPUT)
    heldout_rows: int | None = _heldout_rows(200)


@dataclass(frozen=True, kw_only=True)
class PoolData(HeldoutData):
    """The data of a study that selects from one pool of rows. See :class:`StudyData`."""

    rows: int | None = option(700, help="Rows to select from.", panel=INPUT)
    heldout_rows: int | None = _heldout_rows(100)


@dataclass(frozen=True)
class SeedRows:
    """Rows for each seed, drawn from one pool: different rows for each seed if the pool has enough.

    Attributes:
        pool: all rows.
        rows: how many each seed draws.
        seeds: how many seeds there are.

    Raises:
        InputError: the pool has fewer than ``rows`` rows.
    """

    pool: Sequence[Mapping[str, Any]] = field(repr=False)
    rows: int
    seeds: int

    def __post_init__(self) -> None:
        if self.rows > len(self.pool):
            raise InputError(f"rows is {self.rows}, but the data has only {len(self.pool)} rows; ask for fewer")

    @property
    def disjoint(self) -> bool:
        """Whether no row belongs to two seeds."""
        return self.rows * self.seeds <= len(self.pool)

    def of(self, seed: int) -> list[Mapping[str, Any]]:
        """The rows of one seed, in the order of the pool."""
        places = range(len(self.pool))
        if self.disjoint:
            drawn = Random("rows").sample(places, len(places))[seed * self.rows : (seed + 1) * self.rows]
        else:
            drawn = Random(f"rows/{seed}").sample(places, self.rows)
        return [self.pool[place] for place in sorted(drawn)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {"pool": len(self.pool), "rows": self.rows, "seeds": self.seeds, "disjoint": self.disjoint}


def seed_rows_text(settings: Mapping[str, Any]) -> str:
    """Say in a report how many rows each seed drew, from the settings that :meth:`SeedRows.as_dict` made."""
    rows = "different rows" if settings["disjoint"] else "drawn independently"
    return (
        f"{plural(settings['seeds'], 'seed')} of {plural(settings['rows'], 'row')} each ({rows}, from "
        f"{settings['pool']:,} after the first {settings['skip']:,})"
    )


__all__ = ["HeldoutData", "PoolData", "SeedRows", "StudyData", "seed_rows_text"]
