"""Resolve an input name: a file, a URL, a glob, a saved dataset's folder, standard input or a hub id."""

from __future__ import annotations

import atexit
import glob
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from donod_fast.data.reading.kinds import (
    FILE_KINDS,
    KNOWN_FILES,
    FileKind,
    is_same,
    kind_and_codec,
    open_file,
    open_folder,
    restored_file,
)
from donod_fast.data.reading.saved_datasets import is_saved_dataset, open_hub_dataset
from donod_fast.data.reading.source import KnownFile, Source
from donod_fast.data.reading.streams import BUFFER_BYTES, file_errors
from donod_fast.data.reading.trees import Tree, TreePlace, local_paths, tree_of
from donod_fast.data.settings import STDIN
from donod_fast.data.token_rules import TokenRules
from donod_fast.errors import CorpusError
from donod_fast.system.hub_urls import is_hub_url, pinned
from donod_fast.system.limits import ReadLimits
from donod_fast.system.patterns import expanded, matching_files
from donod_fast.system.places import (
    LocalPlace,
    Place,
    RemotePlace,
    Stat,
    local_path,
    remote_info,
    remote_matches,
    remote_tree,
)
from donod_fast.system.wording import plural

REMOTE_OPENERS = 8
"""Number of files that are opened at a time if a URL with wildcards matches several."""

SPOOL_NAME = "stdin.jsonl"

_log = logging.getLogger(__name__)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class _Opening:
    """What opening an input depends on: what is known, by path or URL, the limits, split and revision."""

    known: Mapping[str, KnownFile]
    limits: ReadLimits
    path_columns: Sequence[str] = ()
    split: str = "train"
    revision: str | None = None
    tokens: TokenRules | None = None

    def folder(self, name: str, place: Place) -> Source | None:
        """Open a folder of a known kind; None if it is of none."""
        known = self.known.get(str(place))
        return open_folder(name, place, self.split, self.revision, None if known is None else known.entry)


def find_sources(
    name: str,
    split: str,
    revision: str | None,
    spool_dir: Path | None,
    known: Mapping[str, KnownFile] | None = None,
    limits: ReadLimits = ReadLimits.DEFAULT,
    path_columns: Sequence[str] = (),
    tokens: TokenRules | None = None,
) -> list[Source]:
    """Open all files or the dataset that one input name refers to.

    Args:
        name: as the user gave it.
        split: the split of a dataset with splits.
        revision: the revision of a hub dataset; None for the newest.
        spool_dir: where to keep a copy of standard input; None for a temporary file.
        known: files that need not be read, by path or URL; see :func:`open_corpus`.
        limits: the limits on its files.
        path_columns: names of the levels of folders of a tree.
        tokens: what files of tokens do not say themselves.

    Raises:
        CorpusError: the input does not exist or cannot be read.
    """
    opening = _Opening({} if known is None else known, limits, path_columns, split, revision, tokens)
    if name == STDIN:
        place = LocalPlace(_spooled(sys.stdin.buffer, spool_dir).absolute())
        kind = FILE_KINDS["json"]  # or JSON Lines
        return [_known_source(STDIN, place, kind.may_be, None, opening) or _opened(STDIN, place, kind, None, opening)]
    names = [name] if "{" not in name or os.path.lexists(name) else expanded(name)
    if names != [name]:
        return [source for one in names for source in _sources(one, opening)]
    return _sources(name, opening)


def _sources(name: str, opening: _Opening) -> list[Source]:
    """The sources of a name without braces that stand for several."""
    try:
        path = local_path(name)
        if path is None:
            return _remote_sources(name, opening)
        return _local_sources(name, path, opening) or [open_hub_dataset(name, opening.split, opening.revision)]
    except (OSError, ValueError) as error:  # a name too long for the file system, a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise CorpusError(f"{name[:200]!r}: cannot be opened: {reason}; check the path") from error


def _local_sources(name: str, path: Path, opening: _Opening) -> list[Source]:
    """The sources at a path or glob; empty if the name can only be a hub id."""
    if not name:
        raise CorpusError("an input's name is empty; give a file, a folder, a pattern or a hub id")
    if path.is_dir():
        return _open_local_folder(name, path, opening)
    if path.exists():
        return [_open_local(name, path, opening)]
    if glob.has_magic(name):
        files = matching_files(str(path))
        if not files:
            raise CorpusError(f"{name}: the pattern matches no file; check it, and quote it for the shell")
        return [_open_local(match, Path(match), opening) for match in files]
    if _HUB_ID.fullmatch(name) and kind_and_codec(path.name) is None and not path.is_symlink():
        return []
    raise CorpusError(f"{name}: there is no such file; check the path")


def _open_local_folder(name: str, path: Path, opening: _Opening) -> list[Source]:
    source = opening.folder(name, LocalPlace(path.absolute()))
    if source is not None:
        return [source]
    within = sorted(child.name for child in path.iterdir() if is_saved_dataset(LocalPlace(child)))
    if within:  # Axolotl's dataset_prepared_path has one for each configuration
        shown = ", ".join(f"{name.rstrip('/')}/{child}" for child in within[:5])
        raise CorpusError(f"{name}: a folder with {plural(len(within), 'saved dataset')}; name one: {shown}")
    tree = tree_of(name, local_paths(path), opening.path_columns, _is_data)
    if tree is None:
        raise CorpusError(
            f"{name}: a folder, but not one from save_to_disk, and without Parquet files; give its files: "
            f"'{name}/*.jsonl'"
        )
    _say_left_out(name, tree)
    return [
        in_tree(_open_local(f"{name.rstrip('/')}/{inside}", path / inside, opening), where)
        for inside, where in tree.files
    ]


def _open_remote_tree(url: str, opening: _Opening) -> list[Source]:
    """The Parquet files of a folder behind a URL."""
    files = remote_tree(url)
    tree = tree_of(url, files, opening.path_columns, _is_data)
    if tree is None and is_hub_url(url):
        return _open_hub_files(url, files, opening)
    if tree is None:
        raise CorpusError(f"{url}: a folder without Parquet files; give its files: '{url.rstrip('/')}/*.jsonl'")
    _say_left_out(url, tree)

    def opened(file: tuple[str, TreePlace]) -> Source:
        at, stat = files[file[0]]
        return in_tree(_open_remote(at, opening, stat), file[1])

    with ThreadPoolExecutor(REMOTE_OPENERS) as pool:
        return list(pool.map(opened, tree.files))


def _open_hub_files(url: str, files: Mapping[str, tuple[str, Stat | None]], opening: _Opening) -> list[Source]:
    """The data files of a data set without Parquet files, which must be of one kind."""
    kinds: dict[str, list[tuple[str, Stat | None]]] = {}
    for path, file in files.items():
        found = kind_and_codec(path.rpartition("/")[2])
        if found is not None and not path.startswith("."):
            kinds.setdefault(found[0].name, []).append(file)
    if len(kinds) != 1:
        counts = ", ".join(f"{len(those):,} {kind}" for kind, those in sorted(kinds.items())) or "none"
        raise CorpusError(f"{url}: data files of one kind are read as a whole, this has {counts}; name the files")
    (those,) = kinds.values()
    if len(those) < len(files):
        _log.warning("%s: %s; left out: %d others", url, plural(len(those), "data file"), len(files) - len(those))
    with ThreadPoolExecutor(REMOTE_OPENERS) as pool:
        return list(pool.map(lambda file: _open_remote(file[0], opening, file[1]), those))


def _is_data(file_name: str) -> bool:
    return kind_and_codec(file_name) is not None


def _say_left_out(name: str, tree: Tree) -> None:
    if tree.said:
        _log.warning("%s: %s; left out: %s", name, plural(len(tree.files), "Parquet file"), tree.said)


def in_tree(source: Source, where: TreePlace) -> Source:
    """The source of a file with its place in a tree."""
    found: Any = source
    return cast("Source", replace(found, facts=replace(found.facts, tree=where)))


def _open_local(name: str, path: Path, opening: _Opening) -> Source:
    if not path.is_file():
        raise CorpusError(f"{name}: not a regular file; pipe its content in and name it {STDIN}")
    return _open_by_suffix(name, LocalPlace(path.absolute()), path.name, opening)


def _remote_sources(url: str, opening: _Opening) -> list[Source]:
    """The sources behind a URL, which may have wildcards."""
    with file_errors(url):
        url = pinned(url, opening.known)
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
        source = opening.folder(url, RemotePlace(url))
        if source is not None:
            return [source]
        return _open_remote_tree(url, opening)
    return [_open_remote(url, opening)]


def _open_remote(url: str, opening: _Opening, listed: Stat | None = None) -> Source:
    # The part of a web address after "?" does not belong to the file's name.
    path = urlsplit(url).path if url.lower().startswith(("http://", "https://")) else url.partition("::")[0]
    return _open_by_suffix(url, RemotePlace(url), path.rpartition("/")[2], opening, listed)


def _open_by_suffix(name: str, place: Place, file_name: str, opening: _Opening, listed: Stat | None = None) -> Source:
    found = kind_and_codec(file_name)
    if found is None:
        raise CorpusError(f"{name}: unknown kind of file; known are {KNOWN_FILES}")
    kind, compression = found
    source = _known_source(name, place, kind.may_be or (kind.name,), compression, opening, listed)
    if source is not None:
        return source
    return _opened(name, place, kind, compression, opening)


def _opened(name: str, place: Place, kind: FileKind, compression: str | None, opening: _Opening) -> Source:
    found = kind.name if kind.content is None else kind.content(name, place, compression, opening.limits)
    return open_file(name, place, found, compression, opening.limits, opening.tokens)


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
    if not is_same(file.entry, stat, opening.tokens) or not _is_within(file.entry, opening.limits):
        return None
    try:
        return restored_file(file.entry, file.checkpoints, name, opening.limits)
    except KeyError:  # an entry written by an older version
        return None


def _is_within(entry: Mapping[str, Any], limits: ReadLimits) -> bool:
    """Whether an entry tells which records of the file are too large; those of earlier releases do not."""
    kind, longest, had = entry["kind"], entry.get("longest"), ReadLimits.from_json(entry.get("limits")).record_bytes
    if FILE_KINDS[kind].footer_only or (had == limits.record_bytes and (longest or kind == "json")):
        return True
    if kind == "json":  # whose records were within the limit
        return bool(limits.record_bytes >= had)
    if longest:  # where a CSV file continues after a row that is too large depends on the limit
        return bool(kind == "jsonl" or longest <= min(had, limits.record_bytes))
    return bool(entry.get("compression") is None and entry["size"] <= limits.record_bytes)


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
