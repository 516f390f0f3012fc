"""The summaries of all parts, folded into one file: a folder of 10⁵ parts is looked at without opening each of them.

``summaries.parquet`` says what the footers of some parts said. It is a cache, and is never trusted beyond what it can
prove: an entry counts only for a file that has the size, times and identity (on a disk) or the ETag (in an object
store) of the file whose footer was read, in a folder of the same settings, plan and inputs. Every other footer is read.
All of its bytes have checksums; a damaged file is ignored. So it may be absent, old or written by several processes at
once, and no figure is wrong. Whether the *rows* of a part are intact is not its matter: who needs them reads them.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from donod_fast.errors import StoreError, UnreachableError
from donod_fast.scores.parts import checked_summary, damage
from donod_fast.system.sealed_parquet import open_sealed, sealed_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from donod_fast.data.shards import ShardPlan
    from donod_fast.scores.part_summary import PartSummary
    from donod_fast.system.storage import FileFacts, Storage

SUMMARIES = "summaries.parquet"

WORTH = 256
"""So many footers are read again and again; from there on the file is written."""

_SETTLED_SECONDS = 1.0
"""A file that is younger may change without a trace in its times, so it is not folded yet."""

_READERS = 16  # of an object store, which answers slowly, but many requests in parallel
_KEY = b"donod_fast.folder"
_COLUMNS = ("part", "mark", "summary")

_log = logging.getLogger(__name__)


class Parts(Protocol):
    """What the summaries need of the store of the parts."""

    storage: Storage
    manifest: Mapping[str, Any]

    @property
    def plan(self) -> ShardPlan:
        """The plan."""

    @property
    def parts(self) -> int:
        """Number of parts of the finished folder."""

    @property
    def settings(self) -> str:
        """Hash of the settings that determine the scores."""

    @property
    def needs_seal(self) -> bool:
        """Whether every part has checksums."""

    def part_name(self, part: int) -> str:
        """The file name of a part."""

    def summary(self, part: int) -> PartSummary | None:
        """Summary in the footer of a part; None if the part is absent."""


@dataclass(frozen=True)
class Look:
    """The summaries of a folder, as a call found them.

    Attributes:
        summaries: of all parts, in order; None for a part that is absent or damaged.
        damaged: parts with a damaged file, each with the error.
        times: modification time of each part, in seconds since 1970, as far as a listing names it.
        read: number of footers that were read.
    """

    summaries: list[PartSummary | None]
    damaged: dict[int, StoreError]
    times: dict[int, float]
    read: int


@dataclass
class KnownSummaries:
    """Summaries that were read before, in this process or by the one that wrote the file.

    Keep the object to look at a folder several times: only what is new is read.
    """

    _key: str | None = None
    _entries: dict[int, tuple[str, PartSummary]] = field(default_factory=dict)
    _unwritten: int = 0

    def look(self, parts: Parts) -> Look:
        """Find the summaries of all parts.

        Args:
            parts: the parts of a folder.

        Raises:
            StoreError: the folder or its plan cannot be read.
        """
        listed = time.time()
        facts = parts.storage.facts("part-*.parquet")
        self._begin(parts)
        names = [parts.part_name(part) for part in range(parts.parts)]
        found: list[PartSummary | None] = [None] * len(names)
        unknown = []
        for part, name in enumerate(names):
            fact, entry = facts.get(name), self._entries.get(part)
            if fact is not None and entry is not None and fact.mark and fact.mark == entry[0]:
                found[part] = entry[1]
            elif fact is not None or parts.storage.local is None:  # the listing of an object store may lag
                unknown.append(part)
        damaged: dict[int, StoreError] = {}
        for part, summary in zip(unknown, _footers(parts, unknown), strict=True):
            if isinstance(summary, StoreError):
                damaged[part] = summary
                continue
            found[part] = summary
            self._note(part, summary, facts.get(names[part]), listed)
        times = {part: facts[name].modified for part, name in enumerate(names) if name in facts}
        return Look(found, damaged, times, len(unknown))

    def write(self, parts: Parts) -> bool:
        """Write the file if it would save much; returns whether the folder has a file that knows nearly all parts.

        It may be called at any time and by several processes: each writes a whole file of what it has seen.
        """
        if self._unwritten < WORTH:
            return len(self._entries) >= WORTH
        with suppress(StoreError, OSError):  # a folder that cannot be written is looked at all the same
            parts.storage.write(SUMMARIES, self._content())
            self._unwritten = 0
            return True
        return False

    def _begin(self, parts: Parts) -> None:
        """Forget what belongs to another plan or other settings, and read the file, once."""
        key = folder_key(parts)
        if key == self._key:
            return
        self._key, self._entries, self._unwritten = key, {}, 0
        if parts.parts >= WORTH:
            self._entries = _read(parts, key)

    def _note(self, part: int, summary: PartSummary | None, fact: FileFacts | None, listed: float) -> None:
        if summary is None or fact is None or not fact.mark or fact.modified > listed - _SETTLED_SECONDS:
            return
        self._entries[part] = (fact.mark, summary)
        self._unwritten += 1

    def _content(self) -> bytes:
        import pyarrow as pa

        order = sorted(self._entries)
        marks, summaries = zip(*(self._entries[part] for part in order), strict=True)
        texts = [summary.as_json() for summary in summaries]
        columns = [pa.array(order, pa.int64()), pa.array(marks, pa.string()), pa.array(texts, pa.large_string())]
        table = pa.table(columns, names=list(_COLUMNS)).replace_schema_metadata({_KEY: str(self._key).encode()})
        return sealed_bytes(table, compression="zstd", use_dictionary=False)


def write_summaries(parts: Parts, known: KnownSummaries | None = None) -> bool:
    """Look at all parts and write the file of their summaries, if there are enough of them.

    Any process may call this at any time, with or without the lock of the folder, also while others do the same or
    write parts. It raises nothing if the folder cannot be written or a part is damaged: then less is folded.

    Args:
        parts: the parts of a folder.
        known: what is known of them already; None if nothing is.

    Returns:
        Whether the folder has a file that knows nearly all of its parts.
    """
    known = KnownSummaries() if known is None else known
    try:
        known.look(parts)
    except (StoreError, OSError):
        return False
    return known.write(parts)


def folder_key(parts: Parts) -> str:
    """Hash of everything by which a footer is checked besides its own bytes: plan, inputs, settings, generation."""
    manifest = parts.manifest
    corpus = manifest["input"]
    inputs = corpus.get("inputs")
    rows = [corpus["fingerprint"]] if inputs is None else [(entry["digest"], entry["rows"]) for entry in inputs]
    plan = manifest.get("plan") or {}
    cut = (plan.get("sha256"), len(parts.plan), corpus["rows"], manifest["part_rows"], manifest.get("generation"))
    return hashlib.sha256(json.dumps([rows, cut, parts.settings, parts.needs_seal]).encode()).hexdigest()


def _read(parts: Parts, key: str) -> dict[int, tuple[str, PartSummary]]:
    """The entries of the file; none if it is absent, damaged, or of a folder with another key."""
    name = parts.storage.url(SUMMARIES)
    try:
        content = parts.storage.read(SUMMARIES)
    except OSError:
        return {}
    try:
        with damage(name):
            table = open_sealed(io.BytesIO(content), needs_seal=True).table()
            if (table.schema.metadata or {}).get(_KEY) != key.encode():
                return {}
            columns = (table.column(column).to_pylist() for column in _COLUMNS)
            return {
                part: (mark, checked_summary(text.encode(), name)) for part, mark, text in zip(*columns, strict=True)
            }
    except StoreError:
        _log.warning("%s is damaged and is not used; `donod-fast status` writes it again", name)
        return {}


def _footers(parts: Parts, numbers: list[int]) -> Iterable[PartSummary | StoreError | None]:
    """The summaries in the footers of some parts: None for an absent part, the error for a damaged one."""

    def one(part: int) -> PartSummary | StoreError | None:
        try:
            return parts.summary(part)
        except UnreachableError:  # it may be intact
            raise
        except StoreError as error:
            return error

    if parts.storage.local is not None or len(numbers) < 2:
        return [one(part) for part in numbers]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(one, numbers))


__all__ = ["SUMMARIES", "WORTH", "KnownSummaries", "Look", "folder_key", "write_summaries"]
