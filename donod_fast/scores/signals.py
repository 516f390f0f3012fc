"""The criteria of a scores folder, as its manifest has them, and the columns that they are in a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.errors import SettingsMismatchError
from donod_fast.scores.columns import Column


@dataclass(frozen=True, slots=True)
class SignalEntry:
    """A criterion whose columns a folder has, or is to have.

    Attributes:
        name: of the criterion.
        settings: what decides its numbers.
        fingerprint: hash of name and settings.
        columns: that it yields.
    """

    name: str
    settings: Mapping[str, Any]
    fingerprint: str
    columns: tuple[Column, ...]

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> SignalEntry:
        """Read what :meth:`as_dict` wrote."""
        return SignalEntry(**{**content, "columns": tuple(Column(**column) for column in content["columns"])})

    def as_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


def joined(old: Sequence[SignalEntry], new: Iterable[SignalEntry], where: str) -> tuple[SignalEntry, ...]:
    """The entries of a folder and further ones.

    Raises:
        SettingsMismatchError: one is there already with other settings, or has a column of another.
    """
    found = {entry.name: entry for entry in old}
    for entry in new:
        there = found.setdefault(entry.name, entry)
        if there.fingerprint != entry.fingerprint:
            keys = sorted(there.settings.keys() | entry.settings.keys())
            lines = [
                f"signals.{entry.name}.{key}: {there.settings.get(key)!r} in the folder, "
                f"{entry.settings.get(key)!r} asked for"
                for key in keys
                if there.settings.get(key) != entry.settings.get(key)
            ]
            raise SettingsMismatchError(
                f"{where} holds columns of {entry.name} made with other settings:\n  "
                + "\n  ".join(lines)
                + "\nUse another --out folder, the same settings, or --overwrite to drop the old scores."
            )
    owner: dict[str, str] = {}
    for entry in found.values():
        for column in entry.columns:
            if owner.setdefault(column.name, entry.name) != entry.name:
                raise SettingsMismatchError(
                    f"{where}: {owner[column.name]} and {entry.name} both give a column {column.name!r}"
                )
    return tuple(found.values())


__all__ = ["SignalEntry", "joined"]
