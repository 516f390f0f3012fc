"""How records are read, as one value that is sent to other processes and recorded in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from donod_fast.data.column_map import ColumnMap


@dataclass(frozen=True, slots=True)
class ReadRules:
    """How a record becomes a sample.

    Attributes:
        format: a format name of :mod:`donod_fast.data.formats`, or ``"auto"``; without effect beside ``columns``.
        columns: the columns to read, None to find them by their names.
        preference: which of two answers to score, ``"chosen"`` or ``"rejected"``; None refuses records that have two.
        text_only: leave out images, audio and video; otherwise records that have some are refused.
    """

    format: str = "auto"
    columns: ColumnMap | None = None
    preference: str | None = None
    text_only: bool = False

    def as_json(self) -> dict[str, Any]:
        """The rules as JSON values; those of no effect are left out, as in the manifests of earlier releases."""
        found: dict[str, Any] = {"format": self.format}
        if self.columns is not None:
            found["columns"] = self.columns.as_json()
        if self.preference is not None:
            found["preference"] = self.preference
        if self.text_only:
            found["text_only"] = True
        return found

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> ReadRules:
        """Read the output of :meth:`as_json`; further entries are ignored."""
        columns = content.get("columns")
        return ReadRules(
            str(content.get("format", "auto")),
            None if columns is None else ColumnMap.from_json(columns),
            content.get("preference"),
            bool(content.get("text_only")),
        )


__all__ = ["ReadRules"]
