"""Chosen samples of WebDataset shards → a shard with their members byte for byte: names, order, sizes and times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from donod_fast.data.reading.source import Source
from donod_fast.data.reading.tar_members import BLOCK
from donod_fast.data.reading.webdataset_files import WebDatasetFile
from donod_fast.data.reading.webdataset_samples import TarSample
from donod_fast.data.record_files import compressing, new_file
from donod_fast.errors import InputError

TAR = (".tar", ".tar.gz")
_RECORD = 20 * BLOCK
"""An archive is filled up to a multiple of it, as tar programs do."""


def shards(sources: Sequence[Source]) -> list[WebDatasetFile]:
    """The sources, if every one is a WebDataset shard; else none."""
    found = [source for source in sources if isinstance(source, WebDatasetFile)]
    return found if len(found) == len(sources) else []


def refuse_tar(out: Path, sources: Sequence[Source]) -> None:
    """Refuse to write rows of other inputs as a shard. Raises InputError."""
    if not shards(sources):
        raise InputError(
            f"{out}: only samples of WebDataset shards go into a tar archive unchanged; end the name in .jsonl, "
            ".json or .parquet"
        )


def write_tar(sources: Sequence[WebDatasetFile], rows: Iterable[int], out: Path, overwrite: bool) -> None:
    """Write samples as a shard, which is complete or absent.

    Args:
        sources: the shards of the corpus.
        rows: row numbers over all sources. Ascending ones are read in one pass over each shard; others start at the
            nearest known place for each row, which in a compressed shard is its beginning.
        out: the file.
        overwrite: replace a file that is there.

    Raises:
        InputError: two samples have one key, so that a reader would take them for one.
        StoreError: the file is there and may not be replaced, or cannot be written.
        CorpusError: a shard cannot be read, or has changed.
    """
    with new_file(out, overwrite) as file, compressing(file, out.name.lower()) as stream:
        size = sum(_copied(piece, stream) for piece in _pieces(sources, rows, out))
        stream.write(bytes(2 * BLOCK + -(size + 2 * BLOCK) % _RECORD))


def _pieces(sources: Sequence[WebDatasetFile], rows: Iterable[int], out: Path) -> Iterator[bytes]:
    stops = list(accumulate(source.rows for source in sources))
    at, reached = -1, -1
    samples: Iterator[tuple[int, TarSample, Iterator[bytes]]] = iter(())
    keys = _Keys(out)
    for row in rows:
        index = bisect_right(stops, row)
        within = row - (stops[index] - sources[index].rows)
        if index != at or within < reached:
            at, reached = index, within
            samples = sources[index].members(within, sources[index].rows)
        for number, sample, pieces in samples:
            reached = number + 1
            if number == within:
                keys.add(sample)
                yield from pieces
                break


class _Keys:
    """The keys of the samples that are written: members with one key must not come together by the choice."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._extensions: dict[str, int] = {}
        self._last: str | None = None

    def add(self, sample: TarSample) -> None:
        """Take the next sample.

        Raises:
            InputError: it has the key of the one before it, or that of an earlier one and other extensions.
        """
        kind = hash(tuple(sorted(extension for extension, _ in sample.members)))
        if sample.key == self._last or self._extensions.setdefault(sample.key, kind) != kind:
            raise InputError(
                f"{self._out}: two chosen samples have the key {sample.key!r}, so that a reader would join them into "
                "one sample; end the name in .jsonl, or score and select the shards apart"
            )
        self._last = sample.key


def _copied(piece: bytes, stream: BinaryIO) -> int:
    stream.write(piece)
    return len(piece)


__all__ = ["TAR", "refuse_tar", "shards", "write_tar"]
