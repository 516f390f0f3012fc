"""What an input name means: a file, a glob, a saved dataset's folder, standard input or a hub id."""

from __future__ import annotations

import atexit
import glob
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from donod_fast.errors import CorpusError
from donod_fast.reading.csv_files import open_csv
from donod_fast.reading.json_files import open_json_document, open_json_lines, sniff_json
from donod_fast.reading.source import Source
from donod_fast.reading.streams import BUFFER_BYTES, CODECS
from donod_fast.reading.tables import DatasetRows, open_parquet

STDIN = "-"
SPOOL_NAME = "stdin.jsonl"

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",  # by name; sniffing may find JSON Lines in it
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""File suffix → kind of file; each may be followed by a suffix of ``CODECS``."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_KNOWN_FILES = ", ".join(KINDS) + " (also with " + " or ".join(CODECS) + "), or - for standard input"


def find_sources(name: str, split: str, revision: str | None, spool_dir: Path | None) -> list[Source]:
    """Open everything that one input name stands for.

    Args:
        name: as the user gave it.
        split: which split of a dataset with splits.
        revision: which revision of a hub dataset; None for its newest.
        spool_dir: where to keep a copy of standard input; None for a file that goes at exit.

    Raises:
        CorpusError: nothing is there, or it cannot be read.
    """
    if name == STDIN:
        path = _spooled(sys.stdin.buffer, spool_dir)
        return [open_file(STDIN, path, sniff_json(STDIN, path, None), None)]
    try:
        return _local_sources(name, split) or [open_hub_dataset(name, split, revision)]
    except (OSError, ValueError) as error:  # a name too long for the file system, a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise CorpusError(f"{name[:200]!r}: cannot be looked up: {reason}; check the path") from error


def open_file(name: str, path: Path, kind: str, compression: str | None) -> Source:
    """Open a file of a known kind, counting and hashing it.

    Raises:
        CorpusError: it cannot be read as that kind.
    """
    if kind == "jsonl":
        return open_json_lines(name, path, compression)
    if kind == "json":
        return open_json_document(name, path, compression)
    if kind == "parquet":
        return open_parquet(name, path, compression)
    return open_csv(name, path, compression, kind)


def _local_sources(name: str, split: str) -> list[Source]:
    """The sources at a path or glob; empty where the name can only be a hub id."""
    if not name:
        raise CorpusError("an input's name is empty; give a file, a folder, a pattern or a hub id")
    path = Path(name).expanduser()
    if path.is_dir():
        return [open_saved_dataset(name, path, split)]
    if path.exists():
        return [_open_local(name, path)]
    if glob.has_magic(name):
        # glob.glob rather than Path.glob: it takes absolute patterns and leaves hidden files out.
        found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        files = [match for match in found if Path(match).is_file()]
        if not files:
            raise CorpusError(f"{name}: the pattern matches no file; check it, and quote it for the shell")
        return [_open_local(match, Path(match)) for match in files]
    if _HUB_ID.fullmatch(name) and _kind_and_codec(path) is None and not path.is_symlink():
        return []
    raise CorpusError(f"{name}: there is no such file; check the path")


def _open_local(name: str, path: Path) -> Source:
    if not path.is_file():
        raise CorpusError(f"{name}: not a regular file; pipe its content in and name it {STDIN}")
    found = _kind_and_codec(path)
    if found is None:
        raise CorpusError(f"{name}: unknown kind of file; known are {_KNOWN_FILES}")
    kind, compression = found
    if kind == "json":
        kind = sniff_json(name, path, compression)
    return open_file(name, path, kind, compression)


def _kind_and_codec(path: Path) -> tuple[str, str | None] | None:
    """Tell a file's kind and compression by its suffixes; None where they are unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = CODECS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    kind = KINDS.get(suffixes[-1]) if suffixes else None
    return None if kind is None else (kind, compression)


def open_saved_dataset(name: str, path: Path, split: str) -> DatasetRows:
    """Open a folder that ``datasets.save_to_disk`` wrote.

    Raises:
        CorpusError: it is no such folder, is damaged, or lacks the split.
    """
    if not any((path / marker).is_file() for marker in ("state.json", "dataset_dict.json")):
        raise CorpusError(f"{name}: a folder, but no dataset saved by save_to_disk; give its files: '{name}/*.jsonl'")
    import datasets  # takes seconds to import, and few inputs need it

    try:
        dataset: Any = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets passes on whatever pyarrow and json raise
        raise CorpusError(f"{name}: the saved dataset cannot be read: {error}; save it again") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise CorpusError(f"{name}: has no split {split!r}; it has {', '.join(map(str, dataset))}")
        dataset = dataset[split]
    return DatasetRows(name, dataset, {"kind": "saved", "path": str(path.absolute()), "split": split})


def open_hub_dataset(hub_id: str, split: str, revision: str | None) -> DatasetRows:
    """Open a dataset of the Hugging Face hub (downloaded, or from the local cache).

    Raises:
        CorpusError: there is none, or ``datasets`` cannot load it.
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
    """Keep standard input in a file: complete, or not there."""
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
            _refuse_other_content(path, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise CorpusError(
            f"standard input: cannot be kept in {path}: {error.strerror}; make room or choose another folder"
        ) from error
    return path


def _refuse_other_content(path: Path, new: Path) -> None:
    """Keep the copy that earlier scores in this folder were made from: a selection needs it."""
    if not path.exists():
        return
    with path.open("rb") as old_file, new.open("rb") as new_file:
        while True:
            old_block, new_block = old_file.read(BUFFER_BYTES), new_file.read(BUFFER_BYTES)
            if old_block != new_block:
                raise CorpusError(
                    f"standard input: {path} holds other rows from an earlier run; "
                    "use another folder, or remove that file and the scores made from it"
                )
            if not new_block:
                return
