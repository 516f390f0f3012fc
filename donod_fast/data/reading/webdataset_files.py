"""WebDataset shards: tar archives in which consecutive members with one key are a sample."""

from __future__ import annotations

import hashlib
import io
import logging
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from donod_fast.data.reading.bounded_streams import refuse_sparse
from donod_fast.data.reading.line_scan import Checkpoints
from donod_fast.data.reading.source import Checkpoint, Unmarked
from donod_fast.data.reading.streams import (
    FileFacts,
    changed_error,
    file_errors,
    peeking,
    refuse_moving,
    scanning,
    unchanged,
)
from donod_fast.data.reading.tar_members import Member, TarWalk
from donod_fast.data.reading.webdataset_samples import TarSample, is_text, key_and_extension, record_of, sample_hash
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.system.limits import ReadLimits
from donod_fast.system.places import Place
from donod_fast.system.wording import plural

WEBDATASET = "webdataset"
CHECKPOINT_SAMPLES = 64
"""Samples between two stored byte offsets, from which reading can start near any sample."""

_BUFFER_BYTES = 1 << 14
"""Bytes that are read at once around a header; contents may lie between them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WebDatasetFile(Unmarked):
    """A shard. A sample whose texts cannot be read is a row with a problem.

    Attributes:
        facts: the file as scanned. Unless it is compressed, only the headers of the members were read and hashed:
            names, sizes and times.
        rows: number of samples.
        checkpoints: rows with the byte where their first member begins, and the number of the sample from 1.
    """

    facts: FileFacts
    rows: int
    checkpoints: Checkpoints = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Hash of the kind, the headers and the size, or of the bytes as stored if it is compressed."""
        return f"{WEBDATASET} {self.facts.digest}"

    def describe(self) -> dict[str, Any]:
        """The facts that :func:`open_webdataset` and a later check need, as JSON types."""
        return self.facts.describe(WEBDATASET, self.rows)

    def checkpoint(self, row: int) -> Checkpoint | None:
        """The nearest checkpoint at or before a row; None if the file is compressed. See :class:`Source`."""
        return self.checkpoints.before(row) if self.facts.compression is None else None

    def checkpoint_after(self, row: int) -> int:
        """The byte offset of the first checkpoint at or after a row, or the file's size; see :class:`Source`."""
        if self.facts.compression is not None:
            return -1
        offset = self.checkpoints.offset_after(row)
        return self.facts.size if offset is None else offset

    def records(self, first_row: int, start: int, stop: int) -> Iterator[Record]:
        """Stream samples as records; see :class:`Source`."""
        with ExitStack() as stack:
            for row, _, sample in self._samples(stack, start, stop, is_text):
                data, problem = record_of(sample, self.facts.limits)
                place, own = f"sample {sample.key!r}", sample_hash(sample)
                yield Record(first_row + row, self.facts.name, place, data, None, problem, hash=own)

    def members(self, start: int, stop: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The members of the samples ``start <= i < stop`` as they are in the archive, with headers and filling.

        Yields:
            The number of a sample within the file, and its bytes, to be read before the next one is asked for. Those of
            a compressed file are in memory.

        Raises:
            CorpusError: the file cannot be read, or has changed.
        """
        compressed = self.facts.compression is not None
        with ExitStack() as stack:
            for row, walk, sample in self._samples(stack, start, stop, lambda _: compressed, raw=compressed):
                own = [member for _, member in sample.members]
                if compressed:
                    yield row, (sample.contents[member.begin] for member in own)
                else:
                    yield row, chain.from_iterable(walk.pieces(member.begin, member.end) for member in own)

    def _samples(
        self, stack: ExitStack, start: int, stop: int, wanted: Callable[[str], bool], *, raw: bool = False
    ) -> Iterator[tuple[int, TarWalk, TarSample]]:
        """The samples with the contents of the wanted extensions; ``raw``: with headers and filling, of any size."""
        if start >= stop:
            return
        facts = self.facts
        row, offset, _ = self.checkpoint(start) or (0, 0, 1)
        stack.enter_context(unchanged(facts))
        walk = _walk(stack, facts, offset)
        key, members, contents, room = None, _Members(), dict[int, bytes](), facts.limits.record_bytes
        row -= 1
        for member in walk:
            found = key_and_extension(member.name)
            if found is None:
                continue
            if found[0] != key:
                if key is not None and row >= start:
                    yield row, walk, TarSample(key, tuple(members), contents)
                row += 1
                if row == stop:
                    return
                key, members, contents, room = found[0], _Members(), {}, facts.limits.record_bytes
            members.append((found[1], member))
            if row < start or not wanted(found[1]):
                continue
            if raw:
                contents[member.begin] = walk.header + b"".join(walk.pieces(member.content, member.end))
            elif member.size <= room:
                room -= member.size
                contents[member.begin] = walk.content(member)
        if key is not None and start <= row:
            yield row, walk, TarSample(key, tuple(members), contents)
        if row + 1 < stop:
            raise changed_error(facts, f"{plural(row + 1, 'sample')}, {self.rows} before")


_Members = list[tuple[str, Member]]


def _walk(stack: ExitStack, facts: FileFacts, offset: int) -> TarWalk:
    name = facts.name
    if facts.compression is not None:
        stream = peeking(name, facts.place, facts.compression, size=facts.size, limits=facts.limits)
        return TarWalk(name, stack.enter_context(stream), seeks=False)
    stack.enter_context(file_errors(name))
    file = stack.enter_context(facts.place.open_table(facts.size))
    buffered = io.BufferedReader(file, _BUFFER_BYTES)
    buffered.seek(offset)
    return TarWalk(name, buffered, offset)


def open_webdataset(
    name: str, place: Place, compression: str | None, limits: ReadLimits = ReadLimits.DEFAULT
) -> WebDatasetFile:
    """Count the samples of a shard from the headers of its members; a compressed one is read whole.

    Raises:
        CorpusError: the file is damaged, cut off or no tar archive, or the members of a sample are apart.
    """
    if compression is not None:
        with scanning(name, place, compression, limits) as scan:
            index = _Index(name)
            index.add_all(TarWalk(name, scan.stream, seeks=False))
        return WebDatasetFile(scan.facts, index.rows, Checkpoints())
    headers = hashlib.sha256()
    with ExitStack() as stack:
        with file_errors(name):
            stat = place.settled_stat()
            refuse_sparse(name, place, stat.size)
            file = stack.enter_context(place.open_table(stat.size))
        index = _Index(name)
        with file_errors(name, file):
            walk = TarWalk(name, io.BufferedReader(file, _BUFFER_BYTES), on_header=headers.update)
            index.add_all(walk)
    refuse_moving(name, place, stat, walk.at)
    facts = FileFacts(name, place, None, stat.size, stat.stamp, headers.hexdigest(), True, limits=limits)
    return WebDatasetFile(facts, index.rows, index.checkpoints)


class _Index:
    """What a first walk finds: the number of samples, and where some of them begin.

    For each sample 16 bytes are kept until the end, to find samples whose members are apart.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.rows = 0
        self.checkpoints = Checkpoints()
        self._keys, self._extensions = array("Q"), array("Q")

    def add_all(self, walk: Iterable[Member]) -> None:
        """Take all members of an archive.

        Raises:
            CorpusError: the archive is damaged, or the members of a sample are apart.
        """
        key: str | None = None
        own: list[str] = []
        strays, first = 0, ""
        for member in walk:
            found = key_and_extension(member.name)
            if found is None:
                strays, first = strays + 1, first or member.name
                continue
            if found[0] != key:
                self._finish(own)
                key, own = found[0], []
                if self.rows % CHECKPOINT_SAMPLES == 0:
                    self.checkpoints.append(self.rows, member.begin, self.rows + 1)
                self._keys.append(_number(key))
                self.rows += 1
            own.append(found[1])
        self._finish(own)
        self._refuse_apart()
        if strays:
            _log.warning(
                "%s: %s in no sample, because the names are no key with an extension; the first is %r",
                *(self._name, "1 member is" if strays == 1 else f"{strays:,} members are", first),
            )

    def _finish(self, extensions: list[str]) -> None:
        if extensions:
            self._extensions.append(_number("\0".join(sorted(extensions))))

    def _refuse_apart(self) -> None:
        """Refuse two samples of one key with different extensions: they are one sample in two places."""
        keys, kinds = np.frombuffer(self._keys, np.uint64), np.frombuffer(self._extensions, np.uint64)
        order = np.lexsort((np.arange(len(keys)), keys))
        same = keys[order[1:]] == keys[order[:-1]]
        apart = np.flatnonzero(same & (kinds[order[1:]] != kinds[order[:-1]]))
        if len(apart):
            one, two = int(order[apart[0]]), int(order[apart[0] + 1])
            raise CorpusError(
                f"{self._name}: the samples {one} and {two} have one key and different extensions: the members of a "
                "sample are apart from each other; write the archive in the order of the names (tar --sort=name)"
            )


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


__all__ = ["WEBDATASET", "WebDatasetFile", "open_webdataset"]
