"""Read stored files without surprises, and find those below a folder that have changed since they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from donod_fast.errors import StoreError
from donod_fast.system.files import open_regular


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digests(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of every regular file below a folder, by its path there with ``/``; hidden files are left out.

    Args:
        folder: the folder.
        without: names in the folder itself to leave out.

    Raises:
        StoreError: a file cannot be read.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in without or any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        try:
            found[name.as_posix()] = file_digest(path)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    return found


def refuse_changed_files(folder: Path, digests: Mapping[str, str], remedy: str, *, below: str = "") -> None:
    """Compare files with their checksums; what else is in their folders must not be of a kind that loaders look for.

    A folder in ``folder`` that was removed as a whole is left to its reader, and so is a file.

    Args:
        folder: the folder.
        digests: from :func:`tree_digests`.
        remedy: end of the message.
        below: only files of this name, or in the folder of this name.

    Raises:
        StoreError: a file has changed, is gone or is new; names it.
    """
    tops = set()
    for name, wanted in digests.items():
        path = folder / name
        if below and name != below and not name.startswith(f"{below}/"):
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise StoreError(f"{folder} records a checksum of {name!r}, which is outside; {remedy}")
        top = folder / (below or name.partition("/")[0])
        tops.add(top)
        try:
            found = file_digest(path)
        except FileNotFoundError:
            if top != path and top.is_dir():
                raise StoreError(f"{path} is gone since it was written; {remedy}") from None
            continue
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
        if found != wanted:
            raise StoreError(f"{path} has changed since it was written; {remedy}")
    for top in sorted(tops):
        for path in sorted(top.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if name not in digests and path.name.endswith(_LOADED) and not path.is_dir():
                raise StoreError(f"{path} was added after its folder was written; remove it, or {remedy}")


_LOADED = (".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py", ".jsonl", ".parquet")
"""Ends of the names of files that loaders of models and data find on their own."""


__all__ = ["file_digest", "refuse_changed_files", "tree_digests"]
