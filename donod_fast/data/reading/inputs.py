"""Resolve an input name: a file, a URL, a glob, a saved dataset's folder, standard input or a hub id."""

from __future__ import annotations

import atexit
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from donod_fast.data.reading.csv_files import CsvFile, open_csv
from donod_fast.data.reading.json_documents import JsonDocument, open_json_document, sniff_json
from donod_fast.data.reading.json_files import JsonLinesFile, open_json_lines
from donod_fast.data.reading.line_scan import Checkpoints
from donod_fast.data.reading.source import Checkpoint, KnownFile, Source
from donod_fast.data.reading.streams import BUFFER_BYTES, CODECS, facts_of_entry, file_errors
from donod_fast.data.reading.tables import DatasetRows, ParquetFile, open_parquet
from donod_fast.data.settings import STDIN
from donod_fast.errors import CorpusError
from donod_fast.system.limits import ReadLimits
from donod_fast.system.patterns import matching_files
from donod_fast.system.places import LocalPlace, Place, RemotePlace, Stat, local_path, remote_info, remote_matches
from donod_fast.system.wording import plural

REMOTE_OPENERS = 8
"""Number of files that are opened at a time if a URL with wildcards matches several."""

SPOOL_NAME = "stdin.jsonl"

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",  # by name; its content may be JSON Lines
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""File suffix → kind of file; each may be followed by a suffix of ``CODECS``."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_KNOWN_FILES = ", ".join(KINDS) + " (also with " + " or ".join(CODECS) + "), or - for standard input"


@dataclass(frozen=True, slots=True)
class _Opening:
    """What opening a file depends on: the files that are known, by path or URL, and the limits."""

    known: Mapping[str, KnownFile]
    limits: ReadLimits


def find_sources(
    name: str,
    split: str,
    revision: str | None,
    spool_dir: Path | None,
    known: Mapping[str, KnownFile] | None = None,
    limits: ReadLimits = ReadLimits.DEFAULT,
) -> list[Source]:
    """Open all files or the dataset that one input name refers to.

    Args:
        name: as the user gave it.
        split: the split of a dataset with splits.
        revision: the revision of a hub dataset; None for the newest.
        spool_dir: where to keep a copy of standard input; None for a temporary file.
        known: files that need not be read, by path or URL; see :func:`open_corpus`.
        limits: the limits on its files.

    Raises:
        CorpusError: the input does not exist or cannot be read.
    """
    opening = _Opening({} if known is None else known, limits)
    if name == STDIN:
        place = LocalPlace(_spooled(sys.stdin.buffer, spool_dir).absolute())
        return [_known_source(STDIN, place, {"json", "jsonl"}, None, opening) or _sniffed(STDIN, place, None, limits)]
    try:
        path = local_path(name)
        if path is None:
            return _remote_sources(name, opening)
        return _local_sources(name, path, split, opening) or [open_hub_dataset(name, split, revision)]
    except (OSError, ValueError) as error:  # a name too long for the file system, a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise CorpusError(f"{name[:200]!r}: cannot be opened: {reason}; check the path") from error


def open_file(
    name: str, place: Place, kind: str, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT
) -> Source:
    """Open a file of a known kind, counting and hashing it.

    Raises:
        CorpusError: it cannot be read as this kind.
    """
    if kind == "jsonl":
        return open_json_lines(name, place, compression, limits)
    if kind == "json":
        return open_json_document(name, place, compression, limits)
    if kind == "parquet":
        return open_parquet(name, place, compression, limits)
    return open_csv(name, place, compression, kind, limits)


def restored_file(
    entry: Mapping[str, Any],
    checkpoints: Iterable[Checkpoint],
    name: str | None = None,
    limits: ReadLimits | None = None,
) -> Source:
    """Make a file's source from its description, without reading the file.

    Args:
        entry: its entry in a description.
        checkpoints: positions where reading can start, by ascending row.
        name: how the user names the file now; None for the name it had.
        limits: the limits that it is read within now; None for those it had.

    Raises:
        KeyError: the entry is incomplete.
    """
    facts, rows, kind = facts_of_entry(entry, name, limits), int(entry["rows"]), entry["kind"]
    if kind == "jsonl":
        return JsonLinesFile(facts, rows, Checkpoints(checkpoints))
    if kind == "json":
        return JsonDocument(facts, rows)
    if kind == "parquet":
        return ParquetFile(facts, rows, tuple(entry.get("row_groups", ())))
    return CsvFile(facts, rows, kind)


def _local_sources(name: str, path: Path, split: str, opening: _Opening) -> list[Source]:
    """The sources at a path or glob; empty if the name can only be a hub id."""
    if not name:
        raise CorpusError("an input's name is empty; give a file, a folder, a pattern or a hub id")
    if path.is_dir():
        return [open_saved_dataset(name, path, split)]
    if path.exists():
        return [_open_local(name, path, opening)]
    if glob.has_magic(name):
        files = matching_files(str(path))
        if not files:
            raise CorpusError(f"{name}: the pattern matches no file; check it, and quote it for the shell")
        return [_open_local(match, Path(match), opening) for match in files]
    if _HUB_ID.fullmatch(name) and _kind_and_codec(path.name) is None and not path.is_symlink():
        return []
    raise CorpusError(f"{name}: there is no such file; check the path")


def _open_local(name: str, path: Path, opening: _Opening) -> Source:
    if not path.is_file():
        raise CorpusError(f"{name}: not a regular file; pipe its content in and name it {STDIN}")
    return _open_by_suffix(name, LocalPlace(path.absolute()), path.name, opening)


def _remote_sources(url: str, opening: _Opening) -> list[Source]:
    """The sources behind a URL, which may have wildcards."""
    with file_errors(url):
        try:
            info = remote_info(url)
        except FileNotFoundError:
            if not glob.has_magic(url):
                raise
            matches = remote_matches(url)
            if not matches:
                raise CorpusError(f"{url}: the pattern matches no file; check it, and quote it for the shell") from None
            with ThreadPoolExecutor(REMOTE_OPENERS) as pool:
                return list(pool.map(lambda match: _open_remote(match[0], opening, match[1]), matches))
    if info.get("type") == "directory":
        raise CorpusError(f"{url}: a folder; give its files: '{url.rstrip('/')}/*.jsonl'")
    return [_open_remote(url, opening)]


def _open_remote(url: str, opening: _Opening, listed: Stat | None = None) -> Source:
    # The part of a web address after "?" does not belong to the file's name.
    path = urlsplit(url).path if url.lower().startswith(("http://", "https://")) else url.partition("::")[0]
    return _open_by_suffix(url, RemotePlace(url), path.rpartition("/")[2], opening, listed)


def _open_by_suffix(name: str, place: Place, file_name: str, opening: _Opening, listed: Stat | None = None) -> Source:
    found = _kind_and_codec(file_name)
    if found is None:
        raise CorpusError(f"{name}: unknown kind of file; known are {_KNOWN_FILES}")
    kind, compression = found
    # Only the content of a .json file tells its kind.
    kinds = {"json", "jsonl"} if kind == "json" else {kind}
    source = _known_source(name, place, kinds, compression, opening, listed)
    if source is not None:
        return source
    if kind == "json":
        return _sniffed(name, place, compression, opening.limits)
    return open_file(name, place, kind, compression, opening.limits)


def _sniffed(name: str, place: Place, compression: str | None, limits: ReadLimits) -> Source:
    return open_file(name, place, sniff_json(name, place, compression, limits), compression, limits)


def _known_source(
    name: str,
    place: Place,
    kinds: Collection[str],
    compression: str | None,
    opening: _Opening,
    listed: Stat | None = None,
) -> Source | None:
    """The source of a file whose size and stamp have not changed; None if it must be read.

    ``listed`` is its entry in a fresh listing, which saves one request per file.
    """
    file = opening.known.get(str(place))
    if file is None or file.entry.get("kind") not in kinds or file.entry.get("compression") != compression:
        return None
    with file_errors(name):
        stat = place.stat() if listed is None else listed
    if not is_same(file.entry, stat) or not _is_within(file.entry, opening.limits):
        return None
    try:
        return restored_file(file.entry, file.checkpoints, name, opening.limits)
    except KeyError:  # an entry written by an older version
        return None


def _is_within(entry: Mapping[str, Any], limits: ReadLimits) -> bool:
    """Whether an entry tells which records of the file are too large; those of earlier releases do not."""
    kind, longest, had = entry["kind"], entry.get("longest"), ReadLimits.from_json(entry.get("limits")).record_bytes
    if kind == "parquet" or (had == limits.record_bytes and (longest or kind == "json")):
        return True
    if kind == "json":  # whose records were within the limit
        return bool(limits.record_bytes >= had)
    if longest:  # where a CSV file continues after a row that is too large depends on the limit
        return bool(kind == "jsonl" or longest <= min(had, limits.record_bytes))
    return bool(entry.get("compression") is None and entry["size"] <= limits.record_bytes)


def is_same(entry: Mapping[str, Any], stat: Stat) -> bool:
    """Whether a file's size and time stamp agree with its entry.

    An empty stamp (``""``: a web server that reports neither etag nor time) proves nothing.
    """
    return stat.stamp != "" and entry.get("size") == stat.size and entry.get("stamp") == stat.stamp


def _kind_and_codec(file_name: str) -> tuple[str, str | None] | None:
    """A file's kind and compression from its suffixes; None if they are unknown."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(file_name).suffixes]
    compression = CODECS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    return None if kind is None else (kind, compression)


def _is_saved_dataset(path: Path) -> bool:
    return any((path / marker).is_file() for marker in ("state.json", "dataset_dict.json"))


def open_saved_dataset(name: str, path: Path, split: str) -> DatasetRows:
    """Open a folder that ``datasets.save_to_disk`` wrote.

    Raises:
        CorpusError: it is not such a folder, is damaged, or lacks the split.
    """
    if not _is_saved_dataset(path):
        within = sorted(child.name for child in path.iterdir() if _is_saved_dataset(child))
        if within:  # Axolotl's dataset_prepared_path has one for each configuration
            shown = ", ".join(f"{name.rstrip('/')}/{child}" for child in within[:5])
            raise CorpusError(f"{name}: a folder with {plural(len(within), 'saved dataset')}; name one: {shown}")
        raise CorpusError(f"{name}: a folder, but not one from save_to_disk; give its files: '{name}/*.jsonl'")
    import datasets  # slow to import, and few inputs need it

    try:
        dataset: Any = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets lets errors of pyarrow and json through
        raise CorpusError(f"{name}: the saved dataset cannot be read: {error}; save it again") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise CorpusError(f"{name}: no split {split!r}; it has {', '.join(map(str, dataset))}")
        dataset = dataset[split]
    return DatasetRows(name, dataset, {"kind": "saved", "path": str(path.absolute()), "split": split})


def open_hub_dataset(hub_id: str, split: str, revision: str | None) -> DatasetRows:
    """Open a dataset of the Hugging Face hub (downloaded, or from the local cache).

    Raises:
        CorpusError: it does not exist, or ``datasets`` cannot load it.
    """
    import datasets

    try:
        dataset: Any = datasets.load_dataset(hub_id, split=split, revision=revision)
    except Exception as error:  # network, missing split, missing configuration, builder errors
        reason = str(error).split("\n")[0]
        raise CorpusError(
            f"{hub_id}: there is no such file, and as a hub dataset (split {split!r}) it cannot be loaded: "
            f"{reason}; check the name, or save it with datasets' save_to_disk and name that folder"
        ) from error
    return DatasetRows(hub_id, dataset, {"kind": "hub", "id": hub_id, "split": split, "revision": revision})


def _spooled(stdin: BinaryIO, spool_dir: Path | None) -> Path:
    """Save standard input to a file, which is complete or absent."""
    folder = spool_dir if spool_dir is not None else Path(tempfile.mkdtemp(prefix="donod-fast-"))
    if spool_dir is None:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / SPOOL_NAME
    partial = folder / f".{SPOOL_NAME}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                shutil.copyfileobj(stdin, file, BUFFER_BYTES)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                _refuse_other_content(path, partial)  # same content: the file keeps its modification time
            else:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise CorpusError(
            f"standard input: cannot be saved in {path}: {error.strerror}; free some space or choose another folder"
        ) from error
    return path


def _refuse_other_content(path: Path, new: Path) -> None:
    """Refuse to replace the copy from which this folder's earlier scores were made: selecting needs it."""
    with path.open("rb") as old_file, new.open("rb") as new_file:
        while True:
            old_block, new_block = old_file.read(BUFFER_BYTES), new_file.read(BUFFER_BYTES)
            if old_block != new_block:
                raise CorpusError(
                    f"standard input: {path} has different rows from an earlier run; "
                    "use another folder, or remove that file and the scores made from it"
                )
            if not new_block:
                return
