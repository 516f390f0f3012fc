"""A folder of results that a run resumes: ``settings.json``, files of lines, and finally ``result.json``.

Lines are appended during the run, and a restarted run resumes from them. ``settings.json`` records the settings that
produced them; a run with different settings is refused.

Every line and every JSON file has a checksum, and ``result.json`` has one of each other file. A folder of an earlier
release has none: its ``settings.json`` has no version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.evaluation.lines import checked_lines, drop_torn_line
from donod_fast.system.checked_files import file_digest
from donod_fast.system.checked_json import DamagedError, parsed, verified, with_checksum
from donod_fast.system.files import atomic_writer, read_regular, remove
from donod_fast.system.fingerprints import is_same_model

SETTINGS, RESULT = "settings.json", "result.json"

VERSION = 2
"""Version of the files; earlier releases wrote none, and no checksums."""

_VERSION, _FILES = "version", "files"

_T = TypeVar("_T")


class ResultFolder:
    """A folder with a complete or partial evaluation.

    Attributes:
        path: the folder.
        appended: names of the files of lines that a run appends to; set by subclasses.
        written: names of the files that only a finished run writes.
        remedies: end of the message about a damaged line, by the file's name.
    """

    appended: ClassVar[tuple[str, ...]] = ()
    written: ClassVar[tuple[str, ...]] = ()
    remedies: ClassVar[Mapping[str, str]] = {}

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open_or_create(cls, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> Self:
        """Open a folder that was made with the same settings, or initialise an empty one. The caller holds its lock.

        Args:
            path: the folder, which exists.
            settings: everything that decides the lines; must be JSON-serialisable.
            overwrite: first delete the files of an earlier evaluation.

        Raises:
            SettingsMismatchError: it was made with different settings; the message lists each difference.
            StoreError: it cannot be read or written.
        """
        folder = cls(path)
        wanted = json.loads(json.dumps(settings))
        if overwrite:
            # Delete the settings last: if we are killed here, the rest is still recognised as an evaluation.
            for name in (RESULT, *reversed(cls.appended), *cls.written, SETTINGS):
                remove(path / name)
        if (path / SETTINGS).exists():
            unlike = differences(folder.settings(), wanted)
            if unlike:
                raise SettingsMismatchError(
                    f"{path} contains an evaluation made with different settings:\n  "
                    + "\n  ".join(unlike)
                    + "\nUse another --out folder, the same settings, or --overwrite to drop the old evaluation."
                )
            if folder.has_checksums:
                for name in cls.appended:
                    drop_torn_line(path / name)
            return folder
        if any((path / name).exists() for name in cls.appended):
            raise StoreError(f"{path} contains {' or '.join(cls.appended)} but no {SETTINGS}; use another folder")
        folder.write_json(SETTINGS, {**wanted, _VERSION: VERSION})
        return folder

    @property
    def has_checksums(self) -> bool:
        """Whether all lines of the files have checksums. Raises StoreError: the settings cannot be read."""
        return _VERSION in self.read(SETTINGS)

    def settings(self) -> dict[str, Any]:
        """The settings of the evaluation. Raises StoreError: they are missing or damaged."""
        return {name: value for name, value in self.read(SETTINGS).items() if name != _VERSION}

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder, without its checksum, which is verified.

        Raises:
            StoreError: it is missing or damaged.
        """
        file = self.path / name
        try:
            content = parsed(read_regular(file))
            if not isinstance(content, dict):
                raise DamagedError(f"it holds a {type(content).__name__}, not an object")
            checked = _VERSION in content if name == SETTINGS else self.has_checksums
            return verified(content, needs_checksum=checked)
        except FileNotFoundError:
            raise StoreError(
                f"{self.path} contains no {name}: give the folder of a finished `donod-fast eval … --out`"
            ) from None
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error}); evaluate again with --overwrite") from error
        except DamagedError as error:
            raise StoreError(
                f"{file} is damaged ({error}); restore it from a copy, or evaluate again with --overwrite"
            ) from error

    def lines(self, name: str, of: Callable[[Mapping[str, Any]], _T]) -> list[_T]:
        """The lines of a file, each read by ``of``, which raises DamagedError. Raises StoreError: names the record."""
        file = self.path / name
        found = []
        for number, line in enumerate(
            checked_lines(file, self.remedies[name], needs_checksums=self.has_checksums), start=1
        ):
            try:
                found.append(of(line))
            except DamagedError as error:
                raise StoreError(f"{file}, record {number} is damaged ({error}); {self.remedies[name]}") from error
        return found

    def check_finished(self) -> None:
        """Compare the files of a finished evaluation with the checksums in its result.

        Raises:
            StoreError: a file was changed after the evaluation finished.
        """
        if not (self.path / RESULT).exists():
            return
        for name, wanted in self.read(RESULT).get(_FILES, {}).items():
            if _file_digest(self.path / name) != wanted:
                raise StoreError(
                    f"{self.path / name} is not the file that the evaluation wrote: it was changed or cut afterwards; "
                    "evaluate again with the same settings, which writes what is missing"
                )

    def write_finished(self, files: Mapping[str, bytes], result: Mapping[str, Any]) -> None:
        """Write the files of a finished evaluation whole, and the result with their checksums last."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        settings = _file_digest(self.path / SETTINGS)  # a result belongs to one evaluation
        if any(_file_digest(self.path / name) != digest for name, digest in digests.items()):
            remove(self.path / RESULT)  # one of an earlier run would not agree with them
        for name, content in files.items():
            self._write(name, content)
        self.write_json(RESULT, {**result, _FILES: {**digests, SETTINGS: settings}})

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write a JSON file with its checksum atomically."""
        self._write(name, (json.dumps(with_checksum(data), indent=2) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        with atomic_writer(self.path / name) as file:
            file.write(data)


def _file_digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error})") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line per differing setting, named as ``section.key``."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b and not (key == "fingerprint" and is_same_model(a, b)):
            lines.append(f"{prefix}{key}: {a!r} in the folder, {b!r} requested")
    return lines


__all__ = ["RESULT", "SETTINGS", "VERSION", "ResultFolder", "differences"]
