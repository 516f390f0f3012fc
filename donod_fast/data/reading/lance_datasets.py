"""Lance datasets: folders of versions, read by the package ``lance`` at one version that is recorded.

A row of a Lance dataset is found by its number without reading the rows before it, so reading starts anywhere. Rows are
counted by fragment from the version's manifest: physical rows minus deleted ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from donod_fast.data.reading.source import Anywhere
from donod_fast.data.reading.tables import rows_of_batch, table_records
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError, InputError
from donod_fast.system.places import LocalPlace, Place

LANCE = "lance"
SUFFIX = ".lance"
NEWEST = "latest"
"""The revision that is the newest version, even if another one was scored before."""

_READING: dict[str, Any] = {
    "io_buffer_size": 1 << 26,
    "batch_readahead": 2,
    "fragment_readahead": 1,
    "scan_in_order": True,
    "blob_handling": "all_binary",
}
"""Without the first three options a scan holds up to 2 GiB of pages; without the last, blobs are positions in files."""

_BLOB = {"lance-encoding:blob": "true"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LanceRows(Anywhere):
    """A version of a Lance dataset, with nulls left out of the records as in Parquet.

    Attributes:
        name: the dataset as the user gave it.
        path: its folder.
        version: which version is read.
        rows: number of rows.
        digest: hash of the version's schema and of its fragments: their files, rows and deletions. File names are
            unique, so that it changes when values do.
        size: bytes of its files.
    """

    name: str
    path: str
    version: int
    rows: int
    digest: str
    size: int

    def describe(self) -> dict[str, Any]:
        """Folder, version, rows and digest as JSON types."""
        return {
            "kind": LANCE,
            "name": self.name,
            "path": self.path,
            "version": self.version,
            "rows": self.rows,
            "digest": self.digest,
        }

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream rows as records; see :class:`Source`."""
        return table_records(self.arrow_batches(start, stop), self.name, first_row)

    def arrow_schema(self) -> pa.Schema:
        """The schema of the batches. Raises CorpusError: the version cannot be read."""
        with _lance_errors(self.name, self.version):
            schema: pa.Schema = _opened(self.path, self.version).scanner(**_READING).projected_schema
            return schema.with_metadata(_opened(self.path, self.version).schema.metadata)

    def written_schema(self) -> pa.Schema:
        """The schema that makes Lance store the batches as this version does: blobs are marked as such.

        Raises:
            CorpusError: the version cannot be read.
        """
        schema = self.arrow_schema()
        with _lance_errors(self.name, self.version):
            stored = _opened(self.path, self.version).schema
        for at, field in enumerate(stored):
            if isinstance(field.type, pa.BaseExtensionType) and field.type.extension_name.startswith("lance.blob"):
                schema = schema.set(at, schema.field(at).with_metadata({**(field.metadata or {}), **_BLOB}))
        return schema

    def storage_version(self) -> str:
        """The version of the files' format, as Lance names it. Raises CorpusError: it cannot be read."""
        with _lance_errors(self.name, self.version):
            return str(_opened(self.path, self.version).data_storage_version)

    def arrow_batches(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Stream rows as Arrow batches; see :meth:`ParquetFile.arrow_batches`. Blobs are read as bytes.

        Raises:
            CorpusError: the rows cannot be read, or the version is gone.
        """
        if start >= stop:
            return
        at = start
        with _lance_errors(f"{self.name}, record {start} and after", self.version):
            scanner = _opened(self.path, self.version).scanner(
                offset=start, limit=stop - start, batch_size=rows_of_batch(self.size, self.rows), **_READING
            )
            for batch in scanner.to_batches():
                batch.validate(full=True)
                yield at, batch
                at += batch.num_rows
        if at != stop:
            raise CorpusError(f"{self.name}: version {self.version} ends at row {at}, not at {stop}; restore its files")


def is_lance(folder: Place) -> bool:
    """Whether a folder is a Lance dataset. Behind a URL the name decides."""
    if isinstance(folder, LocalPlace):
        return (folder.path / "_versions").is_dir()
    return folder.url.rstrip("/").endswith(SUFFIX)


def open_lance(
    name: str, folder: Place, revision: str | None = None, known: Mapping[str, Any] | None = None
) -> LanceRows:
    """Open a Lance dataset at one version. It reads the version's manifest and no row.

    Args:
        name: the dataset as the user gave it.
        folder: its folder.
        revision: a version's number, a tag, or ``NEWEST``; None for the version that is known, else the newest.
        known: its entry in the description of a corpus that was scored before.

    Raises:
        CorpusError: it is damaged or behind a URL, or there is no such version.
        InputError: the package is not installed.
    """
    if not isinstance(folder, LocalPlace):
        raise CorpusError(
            f"{name}: a Lance dataset behind a URL is not read, because its reader takes credentials of its own; "
            "download the folder, or convert it to Parquet"
        )
    path = str(folder.path.absolute())
    if revision is not None and revision != NEWEST:
        with _lance_errors(name, revision):
            return _source(name, path, _opened(path, int(revision) if revision.isdigit() else revision))
    with _lance_errors(name):
        newest = _opened(path, None)
    if known is None or revision == NEWEST or known.get("version") == newest.version:
        return _source(name, path, newest)
    version = known["version"]
    found = _restored(name, path, version)
    _log.warning(
        "%s: reads version %s, which was scored before; the newest is %s (--data-revision %s reads it)",
        *(name, version, newest.version, NEWEST),
    )
    return found


def restored_lance(entry: Mapping[str, Any]) -> LanceRows:
    """The version of an entry, opened again. Raises CorpusError: it is missing or has changed."""
    from donod_fast.data.reading.saved_datasets import changed_input

    if not is_lance(LocalPlace(Path(entry["path"]))):
        raise CorpusError(f"{entry['path']}: the Lance dataset is missing; restore it")
    found = _restored(entry["name"], entry["path"], entry["version"])
    if found.digest != entry["digest"]:
        raise changed_input(entry["path"], f"version {found.version} has other fragments")
    return found


def _restored(name: str, path: str, version: int) -> LanceRows:
    try:
        with _lance_errors(name, version):
            return _source(name, path, _opened(path, version))
    except CorpusError as error:
        with _lance_errors(name):
            left = [one["version"] for one in _opened(path, None).versions()]
        if version in left:
            raise
        raise CorpusError(
            f"{name}: version {version}, which was scored, is gone (cleaned up); there are {_joined(left)}. The scores "
            f"that are stored stay. Restore the version, or score the newest one: --data-revision {NEWEST} with "
            "--rescore-changed or into another folder. A tag keeps a version from being cleaned up"
        ) from error


def _joined(versions: list[int]) -> str:
    return f"{versions[0]} to {versions[-1]}" if len(versions) > 2 else " and ".join(map(str, versions))


def _source(name: str, path: str, dataset: Any) -> LanceRows:
    facts = [fragment.metadata.to_json() for fragment in dataset.get_fragments()]
    rows = sum(fragment["physical_rows"] - _deleted(fragment) for fragment in facts)
    schema = dataset.schema.serialize().to_pybytes()
    if len(set(dataset.schema.names)) < len(dataset.schema.names):
        raise CorpusError(f"{name}: two columns have the same name; rename one")
    digest = hashlib.sha256(schema + json.dumps(facts, sort_keys=True).encode()).hexdigest()
    size = sum(file.get("file_size_bytes") or 0 for fragment in facts for file in fragment["files"])
    return LanceRows(name, path, int(dataset.version), rows, f"lance {digest}", size)


def _deleted(fragment: Mapping[str, Any]) -> int:
    deletions = fragment.get("deletion_file") or {}
    return int(deletions.get("num_deleted_rows") or 0)


@functools.lru_cache(maxsize=8)
def _cached(path: str, version: int) -> Any:
    return lance_package().dataset(path, version=version)


def _opened(path: str, version: int | str | None) -> Any:
    if isinstance(version, int):
        return _cached(path, version)
    return lance_package().dataset(path, version=version)


def lance_package() -> Any:
    """The package ``lance``. Raises InputError: it is not installed."""
    try:
        import lance
    except ImportError as error:
        raise InputError(
            f"Lance datasets need the package pylance ({error}): pip install 'donod-fast[lance]'"
        ) from None
    return lance


@contextmanager
def _lance_errors(name: str, version: object = None) -> Iterator[None]:
    """Convert any error of Lance, the panics of its library too, into a CorpusError with the version."""
    try:
        yield
    except (CorpusError, InputError, GeneratorExit, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        which = "" if version is None else f" at version {version}"
        reason = str(error).split("\n")[0][:300]
        raise CorpusError(
            f"{name}: the Lance dataset cannot be read{which}: {reason}; restore its files, or check --data-revision"
        ) from error


__all__ = ["LANCE", "NEWEST", "SUFFIX", "LanceRows", "is_lance", "lance_package", "open_lance", "restored_lance"]
