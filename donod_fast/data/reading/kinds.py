"""All kinds of inputs in one table: how each is recognised, opened, and opened again from its description.

A kind of *files* is recognised by the suffix of the name. A kind of *folders* is recognised by a look into the folder,
which may be behind a URL. The others, data sets of the hub and rows from Python, have an entry in a description only.
A new kind is an entry here; ``data/targets.py`` says what writes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from donod_fast.data.reading.csv_files import CsvFile, open_csv
from donod_fast.data.reading.json_documents import JsonDocument, open_json_document, sniff_json
from donod_fast.data.reading.json_files import JsonLinesFile, open_json_lines
from donod_fast.data.reading.lance_datasets import LANCE, is_lance, open_lance, restored_lance
from donod_fast.data.reading.line_scan import Checkpoints
from donod_fast.data.reading.saved_datasets import (
    HUB,
    SAVED,
    is_saved_dataset,
    open_saved_dataset,
    restored_hub,
    restored_saved,
)
from donod_fast.data.reading.source import Checkpoint, Source
from donod_fast.data.reading.streams import CODECS, FileFacts, facts_of_entry
from donod_fast.data.reading.tables import ParquetFile, open_parquet
from donod_fast.data.reading.token_files import TOKENS
from donod_fast.data.reading.token_opening import companions_same, open_tokens, reopened_tokens, restored_tokens
from donod_fast.data.reading.webdataset_files import WEBDATASET, WebDatasetFile, open_webdataset
from donod_fast.data.token_rules import TokenRules
from donod_fast.errors import CorpusError
from donod_fast.system.limits import ReadLimits
from donod_fast.system.places import Place, Stat

ROWS = "rows"
"""Kind of rows that were given from Python."""

Opener = Callable[[str, Place, str | None, ReadLimits], Source]
"""Opens a file: its name for messages, its place, its compression (``"gzip"``, ``"zstd"``, None), the limits."""

Restorer = Callable[[FileFacts, Mapping[str, Any], Iterable[Checkpoint]], Source]
"""Makes a file's source without reading it: its facts, its entry in a description, and its checkpoints."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of files.

    Attributes:
        name: in descriptions.
        suffixes: of names; each may be followed by a suffix of ``CODECS``.
        open: reads what is needed, hashes and counts.
        restore: makes the source of a file that is known.
        content: looks into a file and returns the name of the kind that it is; None if the suffix decides.
        may_be: names of the kinds that a file of these suffixes can be.
        footer_only: whether opening reads only the facts about the rows, so that limits on records do not count then.
        reopen: opens the file of an entry again if ``open`` needs more than name, place, compression and limits.
        same: whether the files beside a file are those of its entry, and the rules for tokens too, if they are given.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Opener
    restore: Restorer
    content: Callable[[str, Place, str | None, ReadLimits], str] | None = None
    may_be: tuple[str, ...] = ()
    footer_only: bool = False
    reopen: Callable[[Mapping[str, Any]], Source] | None = None
    same: Callable[[Mapping[str, Any], TokenRules | None], bool] | None = None


@dataclass(frozen=True, slots=True)
class OtherKind:
    """A kind of inputs that are not files.

    Attributes:
        name: in descriptions.
        needs: what an entry of a description must have.
        restore: opens the input of an entry again, and refuses one that has changed.
        is_one: whether a folder is of this kind; None if no folder is.
        open: opens such a folder: its name for messages, its place, the split.
        open_version: opens a folder of versions: its name, its place, the revision asked for, and its entry in the
            description of an earlier run.
    """

    name: str
    needs: tuple[str, ...]
    restore: Callable[[Mapping[str, Any]], Source]
    is_one: Callable[[Place], bool] | None = None
    open: Callable[[str, Place, str], Source] | None = None
    open_version: Callable[[str, Place, str | None, Mapping[str, Any] | None], Source] | None = None


def _refuse_rows(entry: Mapping[str, Any]) -> Source:
    raise CorpusError("the rows were given from Python and are not in a file; give the same rows again")


def _csv_kind(name: str) -> FileKind:
    def open_it(file: str, place: Place, compression: str | None, limits: ReadLimits) -> Source:
        return open_csv(file, place, compression, name, limits)

    return FileKind(name, (f".{name}",), open_it, lambda facts, entry, _: CsvFile(facts, int(entry["rows"]), name))


def _open_tokens(
    name: str, place: Place, compression: str | None, limits: ReadLimits, rules: TokenRules | None = None
) -> Source:
    if compression is not None:
        raise CorpusError(f"{name}: tokens are read at any place, so a compressed file is not; decompress it")
    return open_tokens(name, place, limits, TokenRules() if rules is None else rules)


FILES = (
    FileKind(
        "jsonl",
        (".jsonl", ".ndjson"),
        open_json_lines,
        lambda facts, entry, places: JsonLinesFile(facts, int(entry["rows"]), Checkpoints(places)),
    ),
    FileKind(
        "json",
        (".json",),
        open_json_document,
        lambda facts, entry, _: JsonDocument(facts, int(entry["rows"])),
        content=sniff_json,
        may_be=("json", "jsonl"),
    ),
    _csv_kind("csv"),
    _csv_kind("tsv"),
    FileKind(
        "parquet",
        (".parquet",),
        open_parquet,
        lambda facts, entry, _: ParquetFile(facts, int(entry["rows"]), tuple(entry.get("row_groups", ()))),
        footer_only=True,
    ),
    FileKind(
        WEBDATASET,
        (".tar",),
        open_webdataset,
        lambda facts, entry, places: WebDatasetFile(facts, int(entry["rows"]), Checkpoints(places)),
        footer_only=True,
    ),
    FileKind(
        TOKENS,
        (".npy",),
        _open_tokens,
        restored_tokens,
        footer_only=True,
        reopen=reopened_tokens,
        same=companions_same,
    ),
)

OTHERS = (
    OtherKind(SAVED, ("path", "split"), restored_saved, is_saved_dataset, open_saved_dataset),
    OtherKind(LANCE, ("path", "version"), restored_lance, is_lance, open_version=open_lance),
    OtherKind(HUB, ("id", "split"), restored_hub),
    OtherKind(ROWS, (), _refuse_rows),
)

FILE_KINDS = {kind.name: kind for kind in FILES}
OTHER_KINDS = {kind.name: kind for kind in OTHERS}
SUFFIXES = {suffix: kind for kind in FILES for suffix in kind.suffixes}
FOLDER_KINDS = tuple(kind for kind in OTHERS if kind.is_one is not None)

KNOWN_FILES = ", ".join(SUFFIXES) + " (also with " + " or ".join(CODECS) + "), or - for standard input"


def kind_and_codec(file_name: str) -> tuple[FileKind, str | None] | None:
    """A file's kind and compression by its suffixes; None if they are unknown."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(file_name).suffixes]
    compression = CODECS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    kind = SUFFIXES.get(suffixes[-1]) if suffixes else None
    return None if kind is None else (kind, compression)


def open_file(
    name: str,
    place: Place,
    kind: str,
    compression: str | None,
    limits: ReadLimits = ReadLimits.DEFAULT,
    tokens: TokenRules | None = None,
) -> Source:
    """Open a file of a known kind, counting and hashing it; ``tokens``: the rules for a file of tokens.

    Raises:
        CorpusError: it cannot be read as this kind.
    """
    if kind == TOKENS:
        return _open_tokens(name, place, compression, limits, tokens)
    return FILE_KINDS[kind].open(name, place, compression, limits)


def reopened_file(entry: Mapping[str, Any], place: Place) -> Source:
    """Open the file of an entry again, with the limits that it had. Raises CorpusError: it cannot be read."""
    kind = FILE_KINDS[entry["kind"]]
    if kind.reopen is not None:
        return kind.reopen(entry)
    limits = ReadLimits.from_json(entry.get("limits"))
    return open_file(entry["name"], place, kind.name, entry["compression"], limits)


def is_same(entry: Mapping[str, Any], stat: Stat, tokens: TokenRules | None = None) -> bool:
    """Whether a file's size and time stamp agree with its entry, and those of the files beside it.

    An empty stamp (``""``: a web server that reports neither etag nor time) proves nothing.
    """
    if stat.stamp == "" or entry.get("size") != stat.size or entry.get("stamp") != stat.stamp:
        return False
    same = FILE_KINDS[entry["kind"]].same
    return same is None or same(entry, tokens)


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
    return FILE_KINDS[entry["kind"]].restore(facts_of_entry(entry, name, limits), entry, checkpoints)


def open_folder(
    name: str, place: Place, split: str, revision: str | None = None, known: Mapping[str, Any] | None = None
) -> Source | None:
    """Open a folder of a known kind; None if it is of none.

    Args:
        name: the folder as the user gave it.
        place: where it is.
        split: the split of a dataset with splits.
        revision: the version of a folder of versions.
        known: its entry in the description of an earlier run.

    Raises:
        CorpusError: it cannot be read as the kind that it is.
    """
    for kind in FOLDER_KINDS:
        if kind.is_one is None or not kind.is_one(place):
            continue
        if kind.open_version is not None:
            entry = known if known is not None and known.get("kind") == kind.name else None
            return kind.open_version(name, place, revision, entry)
        if kind.open is not None:
            return kind.open(name, place, split)
    return None


def needed_entries() -> dict[str, tuple[str, ...]]:
    """What an entry of a description must have, by kind."""
    return {**dict.fromkeys(FILE_KINDS, ("size", "stamp")), **{kind.name: kind.needs for kind in OTHERS}}


__all__ = [
    "FILE_KINDS",
    "FOLDER_KINDS",
    "KNOWN_FILES",
    "OTHER_KINDS",
    "ROWS",
    "SUFFIXES",
    "FileKind",
    "OtherKind",
    "is_same",
    "kind_and_codec",
    "needed_entries",
    "open_file",
    "open_folder",
    "reopened_file",
    "restored_file",
]
