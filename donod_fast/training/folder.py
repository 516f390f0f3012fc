"""A training's folder: ``manifest.json`` first, checkpoints while it runs, the model and ``result.json`` last.

The manifest records the model, the settings and the rows of the training. Another training in the same folder is
refused. A folder with a ``result.json`` is finished.

Each JSON file has a checksum, and ``result.json`` one of the manifest, of each file of the model and of the loss curve.
Folders of earlier releases have none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.system.checked_files import file_digest, refuse_changed_files, tree_digests
from donod_fast.system.checked_json import DamagedError, parsed, verified, with_checksum
from donod_fast.system.files import atomic_writer, read_regular, storage_error
from donod_fast.system.fingerprints import is_same_model

VERSION = 2
"""Version of the files: since 2 they have checksums."""

MANIFEST = "manifest.json"
RESULT = "result.json"
LOSSES = "loss.jsonl"
MODEL = "model"
CHECKPOINTS = "checkpoints"
_MARK = "donod_complete.json"
_FILES = "files"
_DECISIVE = ("kind", "settings", "model.identity", "data.fingerprint", "data.rows", "selected")


class TrainingFolder:
    """The files of one training; one process at a time writes and reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_verified = False

    @property
    def model(self) -> Path:
        """The trained model, for transformers."""
        return self.path / MODEL

    @property
    def checkpoints(self) -> Path:
        """Folder of the trainer's checkpoints."""
        return self.path / CHECKPOINTS

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, or check that the existing one describes the same training.

        Raises:
            SettingsMismatchError: it describes another training; names each difference.
            StoreError: it cannot be read or written.
        """
        wanted = json.loads(json.dumps({"version": VERSION, **manifest}))
        old = self.read(MANIFEST)
        if old is None:
            if self.read(RESULT) is not None or self.model.exists():
                raise StoreError(f"{self.path} holds a model but no {MANIFEST}; name another folder")
            self.write(MANIFEST, wanted)
            return
        unlike = list(_differences(old, wanted))
        if unlike and not self.model.exists() and self.newest_checkpoint()[0] is None:
            self.write(MANIFEST, wanted)  # it holds nothing yet that another training could spoil
        elif unlike:
            raise SettingsMismatchError(
                f"{self.path} holds another training:\n  "
                + "\n  ".join(unlike)
                + "\nUse another --out folder, the same settings, or remove this one."
            )

    def result(self) -> dict[str, Any] | None:
        """The result of a finished training, after a check of its files; None if it is unfinished.

        Raises:
            StoreError: the result, the model or the loss curve has changed since it was written.
        """
        found = self.read(RESULT) if self.model.is_dir() else None
        if found is not None:
            files = found.pop(_FILES, {})
            if not self._is_verified:  # once: a model may be large
                refuse_changed_files(self.path, files, f"remove {self.path} and train again")
                self._is_verified = True
        return found

    def read(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file of the folder, without its checksum, which is verified; None if it is absent.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        file = self.path / name
        try:
            content = parsed(read_regular(file))
            if not isinstance(content, dict):
                raise DamagedError(f"it holds a {type(content).__name__}, not an object")
            # The manifest has a version, and the result a list of files, only where they have checksums.
            is_new = content.get("version", 1) != 1 or _FILES in content
            return verified(content, needs_checksum=is_new)
        except FileNotFoundError:
            return None
        except (OSError, DamagedError) as error:
            raise StoreError(f"{file} cannot be read ({error}); remove {self.path} and train again") from error

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, with its checksum, atomically."""
        with atomic_writer(self.path / name) as file:
            file.write(json.dumps(with_checksum(value), indent=2).encode())

    def write_losses(self, losses: Iterable[tuple[int, float]]) -> None:
        """Write the loss curve, one step per line."""
        with atomic_writer(self.path / LOSSES) as file:
            for step, loss in losses:
                file.write(json.dumps({"step": step, "loss": loss}).encode() + b"\n")

    def mark(self, checkpoint: Path, step: int, seconds: float) -> None:
        """Mark a checkpoint as complete, with the training time so far."""
        with atomic_writer(checkpoint / _MARK) as file:
            file.write(json.dumps(with_checksum({"step": step, "seconds": seconds})).encode())

    def newest_checkpoint(self) -> tuple[Path | None, int, float]:
        """The last complete checkpoint, its step, and the seconds until then; (None, 0, 0.0) if there is none."""
        found: tuple[Path | None, int, float] = (None, 0, 0.0)
        for folder in self.checkpoints.glob("checkpoint-*"):
            try:
                content = parsed(read_regular(folder / _MARK))
                mark = verified(content) if isinstance(content, dict) else {}
                if mark.keys() != {"step", "seconds"}:
                    continue
                step, seconds = int(mark["step"]), float(mark["seconds"])
            except (OSError, ValueError, TypeError, OverflowError):
                continue  # it was being written when the run was ended, or is damaged: an earlier one will do
            if step > found[1]:
                found = folder, step, seconds
        return found

    def drop_unfinished(self) -> None:
        """Remove incomplete checkpoints and an incomplete model."""
        whole = self.newest_checkpoint()[0]
        for folder in self.checkpoints.glob("checkpoint-*"):
            if folder != whole and not (folder / _MARK).exists():
                _remove_tree(folder)
        _remove_tree(self.path / f"{MODEL}.tmp")
        if self.read(RESULT) is None:
            _remove_tree(self.model)

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a finished training: all of them, or what a kill left."""
        _remove_tree(self.checkpoints)

    def finish(self, written: Path, losses: Iterable[tuple[int, float]], result: Mapping[str, Any]) -> None:
        """Rename the written model to its final name, then mark the training as finished."""
        try:
            written.rename(self.model)
        except OSError as error:
            raise storage_error(self.model, error) from error
        self.write_losses(losses)
        files = {f"{MODEL}/{name}": digest for name, digest in tree_digests(self.model).items()}
        for name in (LOSSES, MANIFEST):  # the manifest too: a result belongs to one training
            files[name] = file_digest(self.path / name)
        self.write(RESULT, {**result, _FILES: files})
        self.drop_checkpoints()


def _remove_tree(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error(folder, error) from error


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    for name in _DECISIVE:
        before, after = _at(old, name), _at(new, name)
        for key, a, b in _pairs(name, before, after):
            if a != b and not (key == "model.identity" and is_same_model(a, b)):
                yield f"{key}: {a!r} in the folder, {b!r} requested"


def _pairs(name: str, a: Any, b: Any) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from _pairs(f"{name}.{key}", a.get(key), b.get(key))
    else:
        yield name, a, b


def _at(manifest: Mapping[str, Any], name: str) -> Any:
    value: Any = manifest
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


__all__ = ["CHECKPOINTS", "LOSSES", "MANIFEST", "MODEL", "RESULT", "TrainingFolder"]
