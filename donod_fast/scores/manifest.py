"""The manifest of a scores folder: the settings that determine the numbers, and the differences of two manifests."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from donod_fast.confidential import hidden
from donod_fast.errors import StoreError
from donod_fast.system.checked_json import CHECKSUM, DamagedError, parsed, verified, with_checksum
from donod_fast.system.fingerprints import is_same_model
from donod_fast.system.storage import unreadable

if TYPE_CHECKING:
    from donod_fast.system.storage import Storage

MANIFEST = "manifest.json"
VERSION = 3
"""Version that is written: the manifest and all parts have checksums."""

_UNCHECKED = 2
"""Version of releases that wrote no checksums; it is read."""

OLDER_PARTS = "older_parts"
"""Entry of a folder that a release without checksums began: some of its files have none."""

_log = logging.getLogger(__name__)

OPTIONS = "options"
"""Section with the options of the run, named as on the command line; folders of release 0.1.0 do not have it."""

TOKEN_LOSSES = "token_losses"
"""Entry of a folder that records the losses of its tokens. It decides no score."""

COMPACTED = "compacted"
"""Entry of a folder whose parts were joined: when. The times of older parts are not those of their scoring."""

WORKING_FOLDER = "working_folder"
"""Key among the recorded options: the folder that their relative paths start from."""

# Sections of a manifest that determine the numbers: a run that adds to a folder must agree with all of them.
_DECISIVE = ("input.fingerprint", "input.rows", "part_rows", "carry", "model.fingerprint", "model.revision",
             "model.dtype", "model.precision", "model.weight_norm", "update", "masks", "head")  # fmt: skip

# Exceptions: sections about what is scored, not how; and the norm, whose last digit depends on the number of threads.
_NO_SETTINGS = ("input.fingerprint", "input.rows", "part_rows", "model.weight_norm")


def read_manifest(storage: Storage, name: str) -> dict[str, Any]:
    """Read the manifest of a folder, and verify its checksum and the type of every entry.

    Args:
        storage: the folder.
        name: the folder's name in messages.

    Raises:
        StoreError: the manifest is missing, damaged or of another version; names the entry that is wrong.
    """
    from donod_fast.scores.manifest_schema import check_manifest

    file = storage.url(MANIFEST)
    try:
        content = parsed(storage.read(MANIFEST))
        if not isinstance(content, dict):
            raise DamagedError(f"it holds a {type(content).__name__}, not an object")
        _refuse_other_version(content.get("version"), file)
        check_manifest(content)  # first, because it can name the entry
        is_old = _is_unchecked(content)
        manifest: dict[str, Any] = hidden(
            verified(content, needs_checksum=not is_old)
        )  # earlier releases wrote secrets of URLs
    except FileNotFoundError:
        raise StoreError(f"{name} holds no {MANIFEST}: name a folder that `donod-fast score` wrote") from None
    except DamagedError as error:
        raise StoreError(f"{file} is damaged ({error}); {_AGAIN}") from error
    except (OSError, MemoryError) as error:
        if storage.local is None and isinstance(error, OSError):
            raise unreadable(storage, MANIFEST, error) from error
        raise StoreError(f"{file} cannot be read ({error}); {_AGAIN}") from error
    if is_old:
        _warn_unchecked(name)
    return manifest


@functools.cache
def _warn_unchecked(name: str) -> None:
    """Say it once: a command opens a folder several times."""
    _log.warning("%s was begun by a release that wrote no checksums: damage to its files may go unnoticed", name)


def manifest_bytes(manifest: Mapping[str, Any], before: Mapping[str, Any]) -> bytes:
    """The file of a manifest in the version of this release.

    Args:
        manifest: its entries.
        before: the entries of the manifest that it replaces.
    """
    older = {OLDER_PARTS: True} if before.get("version") == _UNCHECKED else {}
    return json.dumps(with_checksum({**manifest, **older, "version": VERSION}), indent=2).encode()


def has_unchecked_parts(manifest: Mapping[str, Any]) -> bool:
    """Whether parts and plan of the folder may be without checksums."""
    return manifest["version"] == _UNCHECKED or bool(manifest.get(OLDER_PARTS))


def _is_unchecked(manifest: Mapping[str, Any]) -> bool:
    """Whether a release that wrote no checksums wrote this manifest: no trace of a later version is in it."""
    return manifest.get("version") == _UNCHECKED and not any(key in manifest for key in (CHECKSUM, OLDER_PARTS))


def _refuse_other_version(version: Any, file: str) -> None:
    if isinstance(version, int) and version not in (VERSION, _UNCHECKED):
        raise StoreError(f"{file} is not of version {VERSION}: another release of donod-fast wrote it")


_AGAIN = "restore it from a copy, or score again with --overwrite"


def settings_hash(manifest: Mapping[str, Any]) -> str:
    """Hash of the settings that determine the scores; scores with equal hashes may be combined."""
    settings = {name: at(manifest, name) for name in _DECISIVE if name not in _NO_SETTINGS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: tuple[str, str] = ("in the folder", "requested"),
    *,
    but: tuple[str, ...] = (),
) -> list[str]:
    """One line per differing setting that determines the numbers, named as ``section.key``.

    Args:
        old: first manifest.
        new: second manifest.
        where: names of the two in the lines.
        but: settings that may differ.
    """
    lines = []
    for name in _DECISIVE:
        if name in but:
            continue
        before, after = at(old, name), at(new, name)
        if isinstance(before, dict) and isinstance(after, dict):
            keys = sorted(before.keys() | after.keys())
            pairs = [(f"{name}.{key}", before.get(key), after.get(key)) for key in keys]
        else:
            pairs = [(name, before, after)]
        lines += [f"{key}: {a!r} {where[0]}, {b!r} {where[1]}" for key, a, b in pairs if not _equal(key, a, b)]
    return lines


def _equal(key: str, a: Any, b: Any) -> bool:
    if key == "model.precision" and a is None:
        return True  # the folder is older than this entry
    if key == "model.fingerprint":
        return is_same_model(a, b)
    if key == "model.weight_norm" and isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12)
    return bool(a == b)


def at(manifest: Mapping[str, Any], name: str) -> Any:
    """The entry named ``section.key``; None if it is missing."""
    value: Any = manifest
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return [] if value is None and name == "carry" else value


__all__ = [
    "COMPACTED",
    "MANIFEST",
    "OPTIONS",
    "TOKEN_LOSSES",
    "VERSION",
    "WORKING_FOLDER",
    "at",
    "differences",
    "has_unchecked_parts",
    "manifest_bytes",
    "read_manifest",
    "settings_hash",
]
