"""``CellStore``: the cells of a study. Each is computed once and cached, so a killed study resumes where it stopped.

A cell is a kind of work (``"train"``, ``"score"``), its settings and its result, all plain JSON values. Its
folder is named by a hash of kind and settings, so equal settings are one cell.

``result.json`` has a checksum of itself and one of each other file of the cell. Those of earlier releases have none.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from donod_fast.errors import StoreError
from donod_fast.system.checked_files import refuse_changed_files, tree_digests
from donod_fast.system.checked_json import DamagedError, parsed, verified, with_checksum
from donod_fast.system.files import atomic_writer, read_regular, storage_error

RESULT = "result.json"
_VERSION = 2  # of result.json: since then it has checksums
_REMEDY = "delete its folder and run the study again"
_FORMAT = 1  # format of result.json; changing it invalidates all cells

Work = Callable[[Path], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Cell:
    """A finished cell.

    Attributes:
        kind: what was done.
        settings: everything that determines the result.
        result: JSON values.
        folder: further output of the work (a model, samples), if there is any.
        seconds: wall time of the work.
        cached: whether the cell existed before.
        files: SHA-256 of its other files, by their paths in the folder.
    """

    kind: str
    settings: Mapping[str, Any]
    result: Mapping[str, Any]
    folder: Path
    seconds: float
    cached: bool
    files: Mapping[str, str] = field(default_factory=dict, repr=False)

    def check_files(self, name: str) -> None:
        """Check that a file or folder of a cached cell is the one that the work wrote; call it before using one.

        Raises:
            StoreError: a file has changed; names it.
        """
        if self.cached:
            refuse_changed_files(self.folder, self.files, _REMEDY, below=name)


class CellStore:
    """Cells in ``root/cells/<kind>-<hash>/``.

    Args:
        root: the study's folder; it is created if needed.
        on_cell: called with each cell that :meth:`result` returns, for progress.

    Raises:
        StoreError: the folder cannot be created.
    """

    def __init__(self, root: Path, on_cell: Callable[[Cell], None] | None = None) -> None:
        self.root = root
        self._cells = root / "cells"
        self._on_cell = on_cell
        try:
            self._cells.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self._cells, error) from error

    def folder(self, kind: str, settings: Mapping[str, Any]) -> Path:
        """The folder of a cell, which need not exist."""
        return self._cells / f"{kind}-{_digest(kind, settings)}"

    def known(self, kind: str, settings: Mapping[str, Any]) -> Cell | None:
        """Return the finished cell, or None.

        Raises:
            StoreError: its file is damaged; the message names it.
        """
        folder = self.folder(kind, settings)
        path = folder / RESULT
        try:
            content = read_regular(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
        return _read(path, content)

    def result(self, kind: str, settings: Mapping[str, Any], work: Work) -> Cell:
        """Return the cell; run ``work`` first if it is not cached.

        ``work`` takes the cell's folder and returns the result. An earlier attempt may have left files in the folder,
        so a training can resume from its checkpoints. Only one process works on a cell at a time. If ``work`` raises,
        nothing is recorded.

        Raises:
            StoreError: the cell cannot be read or written, or its settings or result are not JSON values.
        """
        folder = self.folder(kind, settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        with FileLock(folder.with_suffix(".lock")):
            cell = self.known(kind, settings)
            if cell is None:
                began = time.perf_counter()
                outcome = dict(work(folder))
                seconds = time.perf_counter() - began
                # As a later run will read it: tuples as lists, keys as strings.
                plain = _write(folder, kind, settings, outcome, round(seconds, 3))
                cell = Cell(kind, plain["settings"], plain["result"], folder, plain["seconds"], cached=False)
        if self._on_cell is not None:
            self._on_cell(cell)
        return cell

    def all(self) -> Iterator[Cell]:
        """Iterate over all finished cells, in the order of their folders' names.

        Raises:
            StoreError: a cell's file is damaged.
        """
        for path in sorted(self._cells.glob(f"*/{RESULT}")):
            try:
                content = read_regular(path)
            except OSError as error:
                raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
            yield _read(path, content)

    def rename(self, cell: Cell, settings: Mapping[str, Any]) -> None:
        """Keep a finished cell under other settings; a cell that has these settings already stays.

        Raises:
            StoreError: the cell cannot be written.
        """
        folder = self.folder(cell.kind, settings)
        try:
            with FileLock(folder.with_suffix(".lock")):
                if not (folder / RESULT).exists():
                    shutil.copytree(cell.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(RESULT))
                    _write(folder, cell.kind, settings, cell.result, cell.seconds)
        except OSError as error:
            raise storage_error(folder, error) from error
        self.forget(cell.kind, cell.settings)

    def forget(self, kind: str, settings: Mapping[str, Any]) -> None:
        """Delete a cell and its folder."""
        shutil.rmtree(self.folder(kind, settings), ignore_errors=True)


def _read(path: Path, content: bytes) -> Cell:
    """The cell of a ``result.json``, verified. Raises StoreError: it is damaged; names the field."""
    try:
        found = parsed(content)
        if not isinstance(found, dict):
            raise DamagedError(f"it holds a {type(found).__name__}, not an object")
        kept = verified(found, needs_checksum="version" in found)
        for name, wanted in (("kind", str), ("settings", dict), ("result", dict)):
            if not isinstance(kept.get(name), wanted):
                raise DamagedError(f"{name}: it is missing or no {wanted.__name__}")
        seconds, files = kept.get("seconds"), kept.get("files", {})
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise DamagedError("seconds: it is missing or no duration")
        if not isinstance(files, dict) or not all(isinstance(one, str) for one in files.values()):
            raise DamagedError("files: they are no checksums")
        if path.parent.name != f"{kept['kind']}-{_digest(kept['kind'], kept['settings'])}":
            raise DamagedError("kind, settings: they are not those that its folder is named by")
    except (DamagedError, UnicodeEncodeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}); {_REMEDY}") from error
    return Cell(kept["kind"], kept["settings"], kept["result"], path.parent, float(seconds), cached=True, files=files)


def _write(
    folder: Path, kind: str, settings: Mapping[str, Any], result: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Write ``result.json`` and return its content."""
    content = {"kind": kind, "settings": settings, "result": result, "seconds": seconds}
    plain = json.loads(_json(content, folder))
    files = tree_digests(folder, without=(RESULT,))
    checked = with_checksum({**plain, "version": _VERSION, "files": files})
    with atomic_writer(folder / RESULT) as file:
        file.write(json.dumps(checked, sort_keys=True).encode())
    return checked


def _digest(kind: str, settings: Mapping[str, Any]) -> str:
    text = _json({"format": _FORMAT, "kind": kind, "settings": settings}, None)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _json(value: Mapping[str, Any], where: Path | None) -> str:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=True)
    except (TypeError, ValueError) as error:
        place = f" of {where}" if where is not None else ""
        raise StoreError(f"a cell's settings and result{place} must be JSON values ({error})") from error
