"""What a report holds: settings as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from donod_fast.errors import InputError
from donod_fast.selection.keeping import parse_keep
from donod_fast.system.options import check_choices, option, parse_names

CONTENTS = "Contents"
OUTPUT = "Output"
AUTO, NONE, MINHASH = "auto", "none", "minhash"
POINTS = 200_000
"""Rows that are shown one by one; of more rows, a sample."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report holds.

    Attributes:
        methods: methods that the reader can choose from, the first is shown at the beginning; empty for ``topsis`` and
            every other one that the scores allow.
        keep: fraction or count that is kept at the beginning.
        sample: rows that are shown one by one; of more rows, a stratified sample.
        records: whether the text of rows is in the file.
        near_duplicates: ``"minhash"``, ``"none"``, or ``"auto"``: by MinHash if it is installed and the rows are few.
        sets: files that ``select --sets`` wrote, whose sets of similar rows the page lists.
        title: heading of the page; "" for the name of the folder.
        max_mb: size of the file at most, in 10⁶ bytes.
        overwrite: replace the file.

    Raises:
        InputError: names the setting with a wrong value.
    """

    methods: tuple[str, ...] = option(
        text="",
        parse=parse_names,
        help="Methods to choose from, separated by commas; the first is shown at the beginning.",
        panel=CONTENTS,
        shown="topsis and all others that the scores allow",
    )
    keep: float | int = option(
        text="0.3", parse=parse_keep, help="What is kept at the beginning: 0.3 or 30%, or a count.", panel=CONTENTS
    )
    sample: int = option(
        POINTS,
        help="Rows that are shown one by one; of more rows, a sample (histograms and totals stay exact).",
        panel=CONTENTS,
        minimum=1,
    )
    records: bool = option(True, help="Put the text of rows into the file.", panel=CONTENTS)
    near_duplicates: str = option(
        AUTO,
        help="Look for near-duplicates: minhash, none, or auto (minhash if it is installed and the rows are few).",
        panel=CONTENTS,
        choices=(AUTO, NONE, MINHASH),
    )
    sets: tuple[str | Path, ...] = option(
        (),
        help="List the sets of similar rows of this file too, which select --sets wrote; may be repeated.",
        panel=CONTENTS,
        type=tuple[Path, ...],
    )
    title: str = option("", help="Heading of the page.", panel=CONTENTS, shown="the name of SCORES")
    max_mb: float = option(30.0, help="Size of the file at most, in MB.", panel=OUTPUT)
    overwrite: bool = option(False, help="Replace OUT.", panel=OUTPUT)

    def __post_init__(self) -> None:
        check_choices(self)
        if not 1 <= self.max_mb <= 1000:
            raise InputError(f"--max-mb must be from 1 to 1000, got {self.max_mb:g}")
        if self.sample < 1:
            raise InputError(f"--sample must be at least 1, got {self.sample}")
        if isinstance(self.keep, bool) or not self.keep > 0 or (isinstance(self.keep, float) and self.keep > 1):
            raise InputError(f"--keep must be a fraction above 0 and at most 1, or a count, got {self.keep!r}")
        twice = [name for name in self.methods if self.methods.count(name) > 1]
        if twice:
            raise InputError(f"--methods names {twice[0]} twice")

    @property
    def most_bytes(self) -> int:
        """Bytes of the file at most."""
        return int(self.max_mb * 1e6)


__all__ = ["AUTO", "CONTENTS", "MINHASH", "NONE", "OUTPUT", "POINTS", "ReportOptions"]
