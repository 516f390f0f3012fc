"""The scores folder: ``manifest.json`` beside ``part-*.parquet``, each part complete or absent.

Part k holds the rows k · part_rows … of the input. What a folder was made with stands in its manifest; a
run with other settings is refused. A process that scores into a folder holds its lock.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.files import atomic_writer, storage_error
from donod_fast.rows import ScoreRow, schema, to_table

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
LOCK = ".lock"
VERSION = 1

# Sections of a manifest that decide the numbers: a run must agree with all of them to add to a folder.
_DECISIVE = ("input.fingerprint", "input.rows", "part_rows", "model.fingerprint", "model.revision",
             "model.dtype", "model.precision", "model.weight_norm", "update", "masks", "head")  # fmt: skip

# Entries that a reader relies on, with their types.
_WANTED = (("version", int), ("input", dict), ("input.rows", int), ("part_rows", int), ("update", dict),
           ("update.storage_dtype", (str, type(None))), ("model", dict), ("model.weight_norm", float))  # fmt: skip


class ScoresFolder:
    """A scores folder that has a manifest.

    Attributes:
        path: the folder.
        manifest: what it was made with (see ``open_or_create``).
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path, self.manifest = path, manifest

    @staticmethod
    def open(path: Path) -> ScoresFolder:
        """Open an existing folder.

        Raises:
            StoreError: it holds no scores, or its manifest is damaged or of a later version.
        """
        file = path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(f"{path} holds no {MANIFEST}: name a folder that `donod-fast score` wrote") from None
        except (OSError, ValueError) as error:
            raise StoreError(f"{file} cannot be read ({error}); score again with --overwrite") from error
        if not isinstance(manifest, dict) or not all(isinstance(_at(manifest, name), kind) for name, kind in _WANTED):
            raise StoreError(f"{file} is damaged; score again with --overwrite")
        if manifest["version"] != VERSION:
            raise StoreError(f"{file} is not of version {VERSION}: another release of donod-fast wrote it")
        return ScoresFolder(path, manifest)

    @staticmethod
    def open_or_create(path: Path, manifest: Mapping[str, Any], *, overwrite: bool = False) -> ScoresFolder:
        """Open the folder if it was made with the same settings, or start it with this manifest.

        With ``overwrite`` the scores that it holds are dropped first. ``manifest`` holds ``input``, ``model``,
        ``update``, ``masks``, ``head``, ``part_rows`` and whatever else is worth recording.

        Raises:
            SettingsMismatchError: the folder was made with other settings; names each difference.
            StoreError: it cannot be read or written.
        """
        manifest = {"version": VERSION, **manifest}
        # Through JSON once, so that what is compared is what a reader would read.
        wanted = json.loads(json.dumps(manifest))
        if overwrite:
            # The manifest first: if we are killed here, what is left is no folder of scores.
            for old in [path / MANIFEST, *path.glob("part-*.parquet")]:
                remove(old)
        if (path / MANIFEST).exists():
            folder = ScoresFolder.open(path)
            unlike = differences(folder.manifest, wanted)
            if unlike:
                raise SettingsMismatchError(
                    f"{path} holds scores made with other settings:\n  "
                    + "\n  ".join(unlike)
                    + "\nUse another --out folder, the same settings, or --overwrite to drop the old scores."
                )
            return folder
        if list(path.glob("part-*.parquet")):
            raise StoreError(f"{path} holds parts but no {MANIFEST}; use another folder, or --overwrite")
        with atomic_writer(path / MANIFEST) as file:
            file.write(json.dumps(wanted, indent=2).encode())
        return ScoresFolder(path, wanted)

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return int(self.manifest["input"]["rows"])

    @property
    def part_rows(self) -> int:
        """Rows of a part (the last one may have fewer)."""
        return int(self.manifest["part_rows"])

    @property
    def parts(self) -> int:
        """How many parts a finished folder has."""
        return -(-self.rows // self.part_rows)

    def part_path(self, part: int) -> Path:
        """The file of a part."""
        return self.path / f"part-{part:06d}.parquet"

    def part_range(self, part: int) -> tuple[int, int]:
        """First row of a part and one past its last."""
        return part * self.part_rows, min((part + 1) * self.part_rows, self.rows)

    def write_part(self, part: int, rows: Sequence[ScoreRow]) -> None:
        """Commit a part: after this returns it survives a crash; before, there is no trace of it."""
        import pyarrow.parquet as pq

        start, stop = self.part_range(part)
        numbers = [row.row for row in rows]
        if numbers != list(range(start, stop)):
            raise StoreError(f"part {part} must hold rows {start} to {stop - 1} in order, each once")
        with atomic_writer(self.part_path(part)) as file:
            # Without checksums a flipped bit of a score would be read back as another score.
            pq.write_table(to_table(rows), file, compression="zstd", write_page_checksum=True)

    def missing_parts(self) -> list[int]:
        """Parts that are absent or do not read back as themselves (such a file is dropped)."""
        missing = []
        for part in range(self.parts):
            try:
                whole = self._read_part(part) is not None
            except StoreError:
                remove(self.part_path(part))
                whole = False
            if not whole:
                missing.append(part)
        return missing

    def counts(self) -> Counter[str]:
        """Rows by status over the parts that are there."""
        counts: Counter[str] = Counter()
        for part in range(self.parts):
            table = self._read_part(part)
            if table is not None:
                counts.update(table.column("status").to_pylist())
        return counts

    def first_detail(self) -> str:
        """Why the first row has no score, "" where it has one or its part is absent; reads one part only.

        Raises:
            StoreError: the part is damaged.
        """
        table = self._read_part(0)
        return "" if table is None else str(table.column("detail")[0].as_py())

    def table(self) -> pa.Table:
        """All rows in input order.

        Raises:
            StoreError: the run is unfinished or a part is damaged.
        """
        import pyarrow as pa

        tables = [self._read_part(part) for part in range(self.parts)]
        there = [table for table in tables if table is not None]
        if len(there) < len(tables):
            raise StoreError(
                f"{self.path} is unfinished: {len(there)} of {len(tables)} parts are there; "
                "run `donod-fast score` again with the same settings to finish it"
            )
        return pa.concat_tables(there)

    def _read_part(self, part: int) -> pa.Table | None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.part_path(part)
        if not path.exists():
            return None
        start, stop = self.part_range(part)
        try:
            # Opened here: Arrow takes no path that is not Unicode.
            with path.open("rb") as file:
                table = pq.ParquetFile(file, page_checksum_verification=True).read()
                table.validate(full=True)
        except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(f"{path} is damaged ({reason}); run `donod-fast score` again to replace it") from error
        if not table.schema.equals(schema()) or table["row"].to_pylist() != list(range(start, stop)):
            raise StoreError(
                f"{path} does not hold the scores of rows {start} to {stop - 1}; "
                "run `donod-fast score` again to replace it"
            )
        return table


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder for one process, made if need be.

    Temporary files of a killed process are removed. The lock goes with the process, however it ends.

    Raises:
        StoreError: another process holds it, or it cannot be written.
    """
    import filelock

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(f"{path} is in use: another process scores into it; wait for it to end") from None
    except (OSError, NotImplementedError) as error:
        raise storage_error(path, error if isinstance(error, OSError) else OSError(str(error))) from error
    try:
        for file in path.glob(".*.tmp"):
            remove(file)
        yield
    finally:
        lock.release()


def remove(file: Path) -> None:
    """Delete a file if it is there.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(file, error) from error


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], where: tuple[str, str] = ("in the folder", "asked for")
) -> list[str]:
    """One line per decisive setting that differs, named as ``section.key``; ``where`` names the two manifests."""
    lines = []
    for name in _DECISIVE:
        before, after = _at(old, name), _at(new, name)
        if isinstance(before, dict) and isinstance(after, dict):
            keys = sorted(before.keys() | after.keys())
            pairs = [(f"{name}.{key}", before.get(key), after.get(key)) for key in keys]
        else:
            pairs = [(name, before, after)]
        lines += [f"{key}: {a!r} {where[0]}, {b!r} {where[1]}" for key, a, b in pairs if not _equal(key, a, b)]
    return lines


def _equal(key: str, a: Any, b: Any) -> bool:
    if key == "model.precision" and a is None:
        return True  # a folder from before it was recorded
    if key == "model.weight_norm" and isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12)  # its last digit depends on the number of threads
    return bool(a == b)


def _at(manifest: Mapping[str, Any], name: str) -> Any:
    value: Any = manifest
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


__all__ = ["LOCK", "MANIFEST", "ScoresFolder", "differences", "locked", "remove"]
