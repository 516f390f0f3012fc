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
        StoreError: the file is there and may not be replaced, or cannot be written.
        CorpusError: a shard cannot be read, or has changed.
    """
    with new_file(out, overwrite) as file, compressing(file, out.name.lower()) as stream:
        size = sum(_copied(piece, stream) for piece in _pieces(sources, rows))
        stream.write(bytes(2 * BLOCK + -(size + 2 * BLOCK) % _RECORD))


def _pieces(sources: Sequence[WebDatasetFile], rows: Iterable[int]) -> Iterator[bytes]:
    stops = list(accumulate(source.rows for source in sources))
    at, reached = -1, -1
    samples: Iterator[tuple[int, Iterator[bytes]]] = iter(())
    for row in rows:
        index = bisect_right(stops, row)
        within = row - (stops[index] - sources[index].rows)
        if index != at or within < reached:
            at, reached = index, within
            samples = sources[index].members(within, sources[index].rows)
        for number, pieces in samples:
            reached = number + 1
            if number == within:
                yield from pieces
                break


def _copied(piece: bytes, stream: BinaryIO) -> int:
    stream.write(piece)
    return len(piece)


__all__ = ["TAR", "refuse_tar", "shards", "write_tar"]
