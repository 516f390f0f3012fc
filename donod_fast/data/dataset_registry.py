"""Add an entry to LLaMA-Factory's ``dataset_info.json``; the other entries stay as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from donod_fast.data.dataset_info import read_entries
from donod_fast.errors import InputError, StoreError
from donod_fast.system.files import atomic_writer, storage_error

FILE = "dataset_info.json"
"""The name that LLaMA-Factory looks for in its ``dataset_dir``."""

fcntl: Any = import_module("fcntl") if os.name == "posix" else None


def registry_file(place: Path) -> Path:
    """The file that a user names: itself, or the one of a folder.

    Raises:
        InputError: LLaMA-Factory would not find a file of this name.
    """
    file = place / FILE if place.is_dir() else place
    if file.name != FILE:
        raise InputError(f"--dataset-info {place}: LLaMA-Factory reads only files named {FILE}; name its dataset_dir")
    return file


def refuse_name(file: Path, name: str, *, overwrite: bool) -> None:
    """Refuse a name that cannot be used, before any work is done.

    Args:
        file: the ``dataset_info.json``; it may be absent.
        name: the name of the data set.
        overwrite: whether an entry of this name may be replaced.

    Raises:
        InputError: LLaMA-Factory cannot be given this name, or the file cannot be read.
        StoreError: the file has an entry of this name, or its folder is absent.
    """
    if not name or name != name.strip() or "," in name:
        raise InputError(f"--dataset {name!r}: LLaMA-Factory separates names by commas; use a name without them")
    if not file.parent.is_dir():
        raise StoreError(f"--dataset-info {file}: there is no folder {file.parent}")
    if file.exists() and name in read_entries(file) and not overwrite:
        raise StoreError(f"{file} has a data set {name!r} already; give another --dataset, or add --overwrite")


def register(file: Path, name: str, data: Path, entry: Mapping[str, Any], *, overwrite: bool) -> None:
    """Add an entry for a file of records.

    The file is written as a whole or not at all. Of two processes that add entries at the same time, one waits.

    Args:
        file: the ``dataset_info.json``, made if it is absent.
        name: the name of the data set.
        data: the file of records.
        entry: the rest of the entry.
        overwrite: replace an entry of this name.

    Raises:
        InputError: the file cannot be read.
        StoreError: it has an entry of this name, or cannot be written.
    """
    file = Path(os.path.realpath(file))  # a link stays a link
    relative = os.path.relpath(os.path.realpath(data), file.parent)
    with _alone(file.parent):
        refuse_name(file, name, overwrite=overwrite)
        entries = read_entries(file) if file.exists() else {}
        entries[name] = {"file_name": Path(relative).as_posix(), **entry}
        with atomic_writer(file) as out:
            out.write(json.dumps(entries, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. The file itself cannot be locked: it is replaced."""
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


__all__ = ["FILE", "refuse_name", "register", "registry_file"]
