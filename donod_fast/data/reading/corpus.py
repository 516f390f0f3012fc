"""The corpus: all rows of all inputs as one sequence, with row count and fingerprint; it can be reopened."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from donod_fast.data.reading.inputs import find_sources
from donod_fast.data.reading.kinds import OTHER_KINDS, is_same, reopened_file, restored_file
from donod_fast.data.reading.names_or_texts import refuse_text
from donod_fast.data.reading.python_data import Data, source_of
from donod_fast.data.reading.saved_datasets import changed_input
from donod_fast.data.reading.source import Checkpoint, KnownFile, Source
from donod_fast.data.reading.streams import check_unchanged
from donod_fast.data.settings import STDIN, CorpusSettings
from donod_fast.data.token_rules import TokenRules
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError, InputError
from donod_fast.system.limits import ReadLimits
from donod_fast.system.places import hidden_names, place_of_entry


class Corpus:
    """The rows of one or more inputs, in the order given. Rows are read on demand.

    Attributes:
        sources: the inputs in order.
        rows: number of rows over all inputs.
        fingerprint: sha256 (hex) over the digests of the inputs in order: their content (of Parquet files
            footer and size); names do not matter.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        """Join opened inputs.

        Raises:
            CorpusError: they have no rows.
        """
        self.sources = tuple(sources)
        self._stops = list(accumulate(source.rows for source in self.sources))
        self.rows = self._stops[-1] if self._stops else 0
        digests = "\n".join(source.digest for source in self.sources)
        self.fingerprint = hashlib.sha256(digests.encode()).hexdigest()
        if self.rows == 0:
            names = ", ".join(str(source.describe()["name"]) for source in self.sources[:5]) or "the input"
            raise CorpusError(f"{names}: contains no rows; give a file with at least one record")

    def describe(self) -> dict[str, Any]:
        """Describe the inputs in JSON types, in enough detail for :func:`reopen_corpus`.

        ``inputs`` has one entry per input: ``kind``, ``name`` (as given), ``rows``, ``digest``; for a file
        ``path`` (absolute) or ``url``, ``compression``, ``size`` (bytes), ``stamp`` (modification time or
        etag), ``sha256`` (of a Parquet file ``footer_sha256``); for a saved or hub dataset ``path`` or
        ``id``, ``split``, ``revision``.
        """
        return {
            "rows": self.rows,
            "fingerprint": self.fingerprint,
            "inputs": [source.describe() for source in self.sources],
        }

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Stream the records of the rows ``start <= row < stop`` in order.

        A row that cannot be parsed is a record with a ``problem``. Memory use is constant, except for JSON
        documents that are not arrays, which are loaded whole, one at a time.

        Args:
            start: first row, ≥ 0.
            stop: one past the last row; None (or more than ``rows``) for all.

        Raises:
            CorpusError: an input cannot be read, or has changed since the corpus was opened.
        """
        stop = self.rows if stop is None else min(stop, self.rows)
        for index in range(bisect_right(self._stops, start), len(self.sources)):
            source = self.sources[index]
            first_row = self._stops[index] - source.rows
            if first_row >= stop:
                return
            yield from source.records(first_row, max(start - first_row, 0), min(stop - first_row, source.rows))

    def check_unchanged(self, start: int, stop: int) -> None:
        """Check that the files with the rows ``start <= row < stop`` have not changed since they were opened.

        :meth:`records` does this at its end; call this method if you stop earlier.

        Raises:
            CorpusError: a file is missing or has changed.
        """
        for index in range(bisect_right(self._stops, start), len(self.sources)):
            source = self.sources[index]
            if self._stops[index] - source.rows >= stop:
                return
            facts = getattr(source, "facts", None)
            if facts is not None:
                check_unchanged(facts)


def open_corpus(
    inputs: Sequence[str],
    *,
    split: str = "train",
    revision: str | None = None,
    spool_dir: Path | None = None,
    known: Mapping[str, KnownFile] | None = None,
    limits: ReadLimits = ReadLimits.DEFAULT,
    tokens: TokenRules | None = None,
) -> Corpus:
    """Open inputs, counting rows and hashing content in one streaming pass over each file.

    Only the footer of a Parquet file is read.

    Args:
        inputs: files (JSON Lines, JSON, CSV, TSV, Parquet, WebDataset; each also .gz or .zst), URLs of such files
            (``s3://…``, ``gs://…``, anything that fsspec reads), globs of either, folders written by
            ``datasets.save_to_disk``, Lance datasets, ``"-"`` for standard input (JSON or JSON Lines), or, if nothing
            local has that name, ids of hub datasets.
        split: which split of a dataset that has several.
        revision: revision of hub datasets; None for the newest.
        spool_dir: folder that keeps a copy of standard input (``stdin.jsonl``), so that the corpus
            can be reopened; None for a temporary copy.
        known: facts about files from an earlier run, by absolute path or URL (``str`` of the place). A file with the
            same kind, compression, size and stamp as its entry is not read again.
        limits: how large a record may be, and how much a compressed file may expand.
        tokens: what files of tokens (``.npy``) do not say themselves; None if they have a header and metadata.

    Raises:
        CorpusError: an input is missing or cannot be read, or the inputs have no rows.
    """
    if isinstance(inputs, str):
        inputs = [inputs]
    inputs = hidden_names(inputs)
    if inputs.count(STDIN) > 1:
        raise CorpusError(f"{STDIN}: standard input can be read only once; name it once")
    return Corpus(
        [source for name in inputs for source in find_sources(name, split, revision, spool_dir, known, limits, tokens)]
    )


def open_settings(
    settings: CorpusSettings, *, spool_dir: Path | None = None, known: Mapping[str, KnownFile] | None = None
) -> Corpus:
    """Open the inputs of settings; see :func:`open_corpus` for the other arguments and errors."""
    return open_corpus(
        list(settings.data),
        split=settings.split,
        revision=settings.data_revision,
        spool_dir=spool_dir,
        known=known,
        limits=settings.limits,
        tokens=settings.tokens,
    )


def corpus_from_rows(rows: Data) -> Corpus:
    """Make a corpus of rows given from Python; what is in memory is kept by reference, not copied.

    Args:
        rows: a list of dicts or of texts; a frame of pandas or polars, or anything else that gives Arrow data; an
            Arrow table, batch or reader; a ``datasets.Dataset`` or ``IterableDataset``; a generator; or a dict of
            columns. What can be read only once is read to its end here (see ``one_pass.py``).

    Raises:
        CorpusError: there are no rows, or they cannot be read.
        InputError: ``rows`` is none of these, or could mean two things.
    """
    found = source_of(rows)
    if isinstance(found, list):
        raise InputError(f"rows are names of inputs, as {found[0]!r:.80}; open them first")
    return Corpus([found])


def corpus_of(data: Data | Corpus) -> Corpus:
    """Open anything that has rows: a corpus, the name of an input or several of them, or rows given from Python.

    A list of strings is taken for names or for texts by the rule of ``names_or_texts.py``.

    Raises:
        CorpusError: an input is missing or cannot be read, or there are no rows.
        InputError: ``data`` is none of these, or could mean two things.
    """
    if isinstance(data, Corpus):
        return data
    if isinstance(data, str | os.PathLike):
        name = os.fspath(data)
        refuse_text(name)
        return open_corpus([name])
    found = source_of(data)
    return open_corpus(found) if isinstance(found, list) else Corpus([found])


def reopen_corpus(description: Mapping[str, Any], checkpoints: Sequence[Sequence[Checkpoint]] | None = None) -> Corpus:
    """Open a corpus again from a description by :meth:`Corpus.describe`, and check that it is the same.

    A file with the same size and stamp (modification time or etag) is accepted without reading it. If only
    the stamp differs, its content is hashed: all bytes, but only the footer of Parquet files, which proves
    equal columns, row groups, sizes and statistics, but not that every value is equal.

    Args:
        description: the description of the corpus.
        checkpoints: for each input, positions where reading can start, by ascending row; None: reading JSON
            Lines starts at the beginning.

    Raises:
        CorpusError: an input is missing or its content has changed (named in the message), or the rows
            came from Python and are not in a file.
    """
    return _from_entries(description, checkpoints, _reopened)


def restored_corpus(
    description: Mapping[str, Any], checkpoints: Sequence[Sequence[Checkpoint]] | None = None
) -> Corpus:
    """Rebuild a corpus from a description by :meth:`Corpus.describe`, without looking at its files.

    Reading rows checks the size and stamp of each file. Saved and hub datasets are opened.

    Args:
        description: the description of the corpus.
        checkpoints: as for :func:`reopen_corpus`.

    Raises:
        CorpusError: the description is damaged, a dataset is missing or has changed, or the rows came from Python.
    """
    return _from_entries(description, checkpoints, _restored)


def _from_entries(
    description: Mapping[str, Any],
    checkpoints: Sequence[Sequence[Checkpoint]] | None,
    make: Callable[[Mapping[str, Any], Sequence[Checkpoint]], Source],
) -> Corpus:
    try:
        entries = description["inputs"]
        places: Sequence[Sequence[Checkpoint]] = [()] * len(entries) if checkpoints is None else checkpoints
        return Corpus([make(entry, those) for entry, those in zip(entries, places, strict=True)])
    except (KeyError, TypeError) as error:
        raise CorpusError(f"the description of the corpus is damaged ({error!r}); score again") from error


def _restored(entry: Mapping[str, Any], checkpoints: Sequence[Checkpoint]) -> Source:
    other = OTHER_KINDS.get(entry["kind"])
    return restored_file(entry, checkpoints) if other is None else other.restore(entry)


def _reopened(entry: Mapping[str, Any], checkpoints: Sequence[Checkpoint]) -> Source:
    if entry["kind"] in OTHER_KINDS:
        return _restored(entry, checkpoints)
    place = place_of_entry(entry)
    try:
        stat = place.stat()
    except OSError as error:
        raise CorpusError(f"{place}: the input is missing ({error.strerror or error}); restore it") from error
    # Compare the size first: it is known at once, but the hash needs a pass over the file.
    if stat.size != entry["size"]:
        raise changed_input(place, f"{stat.size} bytes, {entry['size']} before")
    if is_same(entry, stat):
        return restored_file(entry, checkpoints)
    source = reopened_file(entry, place)
    if source.digest != entry["digest"]:
        raise changed_input(place, "same size, different content")
    return source
