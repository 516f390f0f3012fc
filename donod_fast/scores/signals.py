"""The criteria of a scores folder as recorded in its manifest, with their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.errors import SettingsMismatchError
from donod_fast.scores.columns import Column


@dataclass(frozen=True, slots=True)
class SignalEntry:
    """A criterion whose columns a folder has or will have.

    Attributes:
        name: name of the criterion.
        settings: settings that determine its numbers.
        fingerprint: hash of name and settings.
        columns: columns that it adds.
    """

    name: str
    settings: Mapping[str, Any]
    fingerprint: str
    columns: tuple[Column, ...]

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> SignalEntry:
        """Parse the output of :meth:`as_dict`."""
        return SignalEntry(**{**content, "columns": tuple(Column(**column) for column in content["columns"])})

    def as_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


def joined(old: Sequence[SignalEntry], new: Iterable[SignalEntry], where: str) -> tuple[SignalEntry, ...]:
    """The entries of a folder together with new ones.

    Raises:
        SettingsMismatchError: an entry exists with other settings, or two criteria have a column of the same name.
    """
    found = {entry.name: entry for entry in old}
    for entry in new:
        there = found.setdefault(entry.name, entry)
        if there.fingerprint != entry.fingerprint:
            keys = sorted(there.settings.keys() | entry.settings.keys())
            lines = [
                f"signals.{entry.name}.{key}: {there.settings.get(key)!r} in the folder, "
                f"{entry.settings.get(key)!r} requested"
                for key in keys
                if there.settings.get(key) != entry.settings.get(key)
            ]
            raise SettingsMismatchError(
                f"{where} holds columns of {entry.name} that were made with other settings:\n  "
                + "\n  ".join(lines)
                + "\nUse another --out folder, the same settings, or --overwrite to drop the old scores."
            )
    owner: dict[str, str] = {}
    for entry in found.values():
        for column in entry.columns:
            if owner.setdefault(column.name, entry.name) != entry.name:
                raise SettingsMismatchError(
                    f"{where}: {owner[column.name]} and {entry.name} both have a column {column.name!r}"
                )
    return tuple(found.values())


__all__ = ["SignalEntry", "joined"]
