"""The manifest of a scores folder: the settings that determine the numbers, and the differences of two manifests."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from donod_fast.confidential import hidden
from donod_fast.errors import StoreError
from donod_fast.system.fingerprints import is_same_model

if TYPE_CHECKING:
    from donod_fast.system.storage import Storage

MANIFEST = "manifest.json"
VERSION = 2

OPTIONS = "options"
WORKING_FOLDER = "working_folder"
"""Key among the recorded options: the folder that their relative paths start from."""

"""Section with the options of the run, named as on the command line; folders of release 0.1.0 do not have it."""

# Sections of a manifest that determine the numbers: a run that adds to a folder must agree with all of them.
_DECISIVE = ("input.fingerprint", "input.rows", "part_rows", "carry", "model.fingerprint", "model.revision",
             "model.dtype", "model.precision", "model.weight_norm", "update", "masks", "head")  # fmt: skip

# Exceptions: sections about what is scored, not how; and the norm, whose last digit depends on the number of threads.
_NO_SETTINGS = ("input.fingerprint", "input.rows", "part_rows", "model.weight_norm")

# Entries that readers need, with their types.
_WANTED = (("version", int), ("input", dict), ("input.rows", int), ("part_rows", int), ("update", dict),
           ("update.storage_dtype", (str, type(None))), ("model", dict), ("model.weight_norm", float))  # fmt: skip


def is_whole(manifest: Any) -> bool:
    """Whether the content of a manifest file has all entries that readers need."""
    return isinstance(manifest, dict) and all(isinstance(at(manifest, name), kind) for name, kind in _WANTED)


def read_manifest(storage: Storage, name: str) -> dict[str, Any]:
    """Read the manifest of a folder; ``name`` is the folder's name in messages.

    Raises:
        StoreError: the manifest is missing, damaged or of another version.
    """
    file = storage.url(MANIFEST)
    try:
        manifest: dict[str, Any] = hidden(json.loads(storage.read(MANIFEST).decode("utf-8")))  # as releases wrote it
    except FileNotFoundError:
        raise StoreError(f"{name} holds no {MANIFEST}: name a folder that `donod-fast score` wrote") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be read ({error}); score again with --overwrite") from error
    if not is_whole(manifest):
        raise StoreError(f"{file} is damaged; score again with --overwrite")
    if manifest["version"] != VERSION:
        raise StoreError(f"{file} is not of version {VERSION}: another release of donod-fast wrote it")
    return manifest


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
    "MANIFEST",
    "OPTIONS",
    "VERSION",
    "WORKING_FOLDER",
    "at",
    "differences",
    "is_whole",
    "read_manifest",
    "settings_hash",
]
