"""The group of a row: the value of a carried column, or the input file of the row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from donod_fast.data.reading.trees import FOLDER
from donod_fast.errors import InputError
from donod_fast.scores.rows import CARRIED

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

BY_FILE = "file"


class Groups(Protocol):
    """Numbers groups in order of appearance.

    Attributes:
        names: names of the groups so far; None is the group of rows without a value.
        column: the column of the parts that it reads, None if it needs none.
    """

    names: list[str | None]
    column: str | None

    def numbers(self, rows: Any, values: Any) -> Any:
        """The group of each row, (n,) int32, from (n,) row numbers and the values of ``column`` as an Arrow array."""


class OneGroup:
    """All rows are one group."""

    def __init__(self) -> None:
        self.names: list[str | None] = [None]
        self.column: str | None = None

    def numbers(self, rows: Any, values: Any) -> Any:
        """Zeros."""
        return np.zeros(len(rows), np.int32)


class FileGroups:
    """One group per input of the corpus."""

    def __init__(self, folder: ScoresFolder) -> None:
        self.names: list[str | None] = [str(entry["name"]) for entry in folder.manifest["input"]["inputs"]]
        self.column: str | None = None
        segments = folder.plan.inputs_of_parts()
        self._inputs, self._first = segments[:, 0].astype(np.int32), segments[:, 1]

    def numbers(self, rows: Any, values: Any) -> Any:
        """Positions of the inputs in the corpus."""
        return self._inputs[np.searchsorted(self._first, rows, side="right") - 1]


class PathGroups(FileGroups):
    """One group per value that the paths of a tree's files give a column."""

    def __init__(self, folder: ScoresFolder, column: str) -> None:
        super().__init__(folder)
        values = [_path_value(entry, column) for entry in folder.manifest["input"]["inputs"]]
        self.names = list(dict.fromkeys(values))
        places = {value: at for at, value in enumerate(self.names)}
        self._inputs = np.array([places[value] for value in values], np.int32)[self._inputs]


class CarriedGroups:
    """One group per value of a carried column; rows without a value also form a group."""

    def __init__(self, column: str) -> None:
        self.names: list[str | None] = []
        self.column: str | None = CARRIED + column
        self._numbers: dict[str | None, int] = {}

    def numbers(self, rows: Any, values: Any) -> Any:
        """Numbers of the values; new values get the next ones."""
        encoded = values.dictionary_encode(null_encoding="encode")
        chunks = [chunk for chunk in encoded.chunks if len(chunk)] if hasattr(encoded, "chunks") else [encoded]
        return np.concatenate(
            [np.zeros(0, np.int32)]
            + [
                np.array([self._number(name) for name in chunk.dictionary.to_pylist()], np.int32)[
                    chunk.indices.to_numpy(zero_copy_only=False)
                ]
                for chunk in chunks
            ]
        )

    def _number(self, name: str | None) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


def path_columns(folder: ScoresFolder) -> tuple[str, ...]:
    """The columns that the paths of a tree's files give: ``folder``, and those that keys or ``--path-columns`` name.

    A carried column of the same name counts more, and is left out here.
    """
    trees = [entry["tree"] for entry in folder.manifest["input"].get("inputs") or () if entry.get("tree")]
    names = dict.fromkeys(name for tree in trees for name in tree["columns"])
    if trees:
        names[FOLDER] = None
    return tuple(name for name in names if name not in folder.carry)


def _path_value(entry: Mapping[str, Any], column: str) -> str | None:
    tree = entry.get("tree")
    if tree is None:
        return None
    if column == FOLDER and column not in tree["columns"]:
        return str(tree["folder"])
    value = tree["columns"].get(column)
    return None if value is None else str(value)


def groups_by(folder: ScoresFolder, by: str | None) -> Groups:
    """Make the groups of ``--by``: None for one group, ``"file"``, a carried column (``NAME`` or ``record.NAME``), or a
    column of :func:`path_columns`.

    Raises:
        InputError: the folder does not carry that column.
    """
    carried: Mapping[str, None] = dict.fromkeys(folder.carry)
    if by is None:
        return OneGroup()
    if by in carried:
        return CarriedGroups(by)
    if by == BY_FILE:
        return FileGroups(folder)
    if by in (paths := path_columns(folder)):
        return PathGroups(folder, by)
    by = by.removeprefix(CARRIED)  # the name of the column in the scores
    if by in carried:
        return CarriedGroups(by)
    there = f"it carries {', '.join(carried)}" if carried else "it carries no column"
    there += f", and paths give {', '.join(paths)}" if paths else ""
    raise InputError(
        f"--by {by}: {folder.name} does not carry the records' column {by!r} ({there}); score into a new folder with "
        f"`donod-fast score … --carry {by}`, or use --by {BY_FILE}"
    )


__all__ = ["BY_FILE", "Groups", "PathGroups", "groups_by", "path_columns"]
