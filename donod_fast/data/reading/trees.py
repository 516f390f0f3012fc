"""A folder of Parquet files in subfolders, whose names say what the rows are: ``corpus/category=math/part-0.parquet``.

Each file is an input of its own, planned from its footer. Its place in the tree is part of its description: the folder
within the tree, and the columns that the path gives. They are never added to the records, so that a subset is still
what the source has.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from donod_fast.errors import CorpusError, InputError
from donod_fast.system.wording import plural

FOLDER = "folder"
"""Name of the column that every tree has: the folder of a file within it."""

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class TreePlace:
    """Where a file is in a tree.

    Attributes:
        root: the tree as the user named it.
        folder: the folder of the file within the tree, with ``/`` between the parts; empty at the top.
        columns: what the path says of all rows of the file, by name; None for Hive's name of a missing value.
    """

    root: str
    folder: str
    columns: Mapping[str, str | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON types; :meth:`from_json` reads them."""
        return {"root": self.root, "folder": self.folder, "columns": dict(self.columns)}

    @staticmethod
    def from_json(content: Mapping[str, Any] | None) -> TreePlace | None:
        """Read the output of :meth:`as_json`; None for None."""
        return None if content is None else TreePlace(content["root"], content["folder"], content["columns"])


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a tree.

    Attributes:
        files: path of each Parquet file within the tree, and its place; those of one folder follow each other.
        left_out: how many other files there are, by what they are.
    """

    files: tuple[tuple[str, TreePlace], ...]
    left_out: Mapping[str, int]

    @property
    def said(self) -> str:
        """What is left out, in words; empty if nothing is."""
        return ", ".join(f"{count:,} {what}" for what, count in sorted(self.left_out.items()))


def tree_of(
    root: str, paths: Iterable[str], path_columns: Sequence[str], is_data: Callable[[str], bool]
) -> Tree | None:
    """The tree that the files of a folder are; None if no Parquet file is among them.

    Files and folders whose names begin with ``.`` or ``_`` (``_SUCCESS``, ``_metadata``) are not data, as in Spark.

    Args:
        root: the folder as the user named it.
        paths: of all files within it, with ``/`` between the parts.
        path_columns: names of the levels of folders whose names are no ``key=value``, from the top.
        is_data: whether a file of this name would be read if it was named.

    Raises:
        CorpusError: there is data of other kinds beside the Parquet files, or a file is less deep than there are names.
    """
    found: list[str] = []
    others: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for path in paths:
        parts = PurePosixPath(path).parts
        if any(part.startswith((".", "_")) for part in parts):
            left_out["hidden"] += 1
        elif parts[-1].lower().endswith(_SUFFIX):
            found.append(path)
        elif is_data(parts[-1]):
            others["".join(PurePosixPath(parts[-1]).suffixes[-2:]).lower()] += 1
        else:
            left_out[f"{PurePosixPath(parts[-1]).suffix.lower() or 'without a suffix'}"] += 1
    if not found:
        return None
    if others:
        counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(others.items()))
        raise CorpusError(
            f"{root}: a folder with files of several kinds: {len(found):,} {_SUFFIX}, {counts}; name those to score, "
            f"as '{root.rstrip('/')}/**/*{_SUFFIX}'"
        )
    found.sort(key=lambda path: (PurePosixPath(path).parts[:-1], path))
    return Tree(tuple((path, _place(root, path, path_columns)) for path in found), left_out)


def _place(root: str, path: str, names: Sequence[str]) -> TreePlace:
    folders = PurePosixPath(path).parts[:-1]
    columns: dict[str, str | None] = {}
    plain = []
    for folder in folders:
        key, is_hive, value = folder.partition("=")
        if is_hive and key:
            columns[unquote(key)] = None if value == _NO_VALUE else unquote(value)
        else:
            plain.append(folder)
    if len(plain) < len(names):
        raise CorpusError(
            f"{root}: {path} lies in {plural(len(plain), 'folder')} that no key=value names, and --path-columns names "
            f"{len(names)}: {', '.join(names)}; name as many levels as all files have"
        )
    columns |= dict(zip(names, plain, strict=False))
    return TreePlace(root, "/".join(folders), columns)


def local_paths(folder: Path) -> list[str]:
    """The files in a folder and its subfolders, as paths within it; links to folders are not followed."""
    found = []
    for where, _, names in os.walk(folder, followlinks=False):
        found += [(Path(where) / name).relative_to(folder).as_posix() for name in names]
    return found


def parse_path_columns(text: str | None) -> tuple[str, ...]:
    """The names of ``--path-columns``.

    Raises:
        InputError: a name is empty or there twice.
    """
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--path-columns {text}: give different names with commas between, as category,language")
    return names


__all__ = ["FOLDER", "Tree", "TreePlace", "local_paths", "parse_path_columns", "tree_of"]
