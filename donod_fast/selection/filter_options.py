"""Which of the kept rows are written: settings as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from donod_fast.errors import InputError
from donod_fast.system.options import option


@dataclass(frozen=True)
class FilterOptions:
    """Which of the kept rows are written.

    Attributes:
        where: conditions, see :func:`parse_condition`. Conditions on different columns must all hold; of those on one
            column, one must.
        only_rows: a file of row numbers, one a line; only these rows.

    Raises:
        InputError: a condition cannot be read.
    """

    where: tuple[str, ...] = option(
        (),
        help="Write only kept rows with COLUMN=LOW:HIGH (one may be empty) or COLUMN=TEXT; may be repeated.",
        panel="Choosing",
    )
    only_rows: Path | None = option(
        None, help="Write only kept rows whose numbers this file lists, one a line.", panel="Choosing"
    )

    def __post_init__(self) -> None:
        for text in self.where:
            parse_condition(text)

    @property
    def is_empty(self) -> bool:
        """Whether every kept row is written."""
        return not self.where and self.only_rows is None

    @property
    def text(self) -> str:
        """The conditions as they were given."""
        given = [f"--where {text}" for text in self.where]
        return " ".join(given + ([] if self.only_rows is None else [f"--only-rows {self.only_rows}"]))


def parse_condition(text: str) -> tuple[str, str]:
    """Split ``COLUMN=VALUE``.

    For a column of numbers the value is ``LOW:HIGH``, both included, either may be empty; or one number. For a flag it
    is ``true`` or ``false``. For a column of text it is the whole text; nothing means rows without a value.

    Raises:
        InputError: there is no ``=``.
    """
    column, found, value = text.partition("=")
    if not found or not column.strip():
        raise InputError(f"--where {text!r} is no condition; write for example loss=0.5:2, tokens=:512 or source=code")
    return column.strip(), value


__all__ = ["FilterOptions", "parse_condition"]
