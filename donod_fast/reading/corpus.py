"""The corpus: all rows of all inputs in one sequence, counted, fingerprinted and reopenable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import CorpusError, InputError
from donod_fast.reading.inputs import STDIN, find_sources, open_file, open_hub_dataset, open_saved_dataset
from donod_fast.reading.source import Source
from donod_fast.reading.tables import PYTHON_ROWS, DatasetRows, RowList
from donod_fast.samples import Record

if TYPE_CHECKING:
    import datasets


class Corpus:
    """The rows of one or more inputs, in the order given. Rows are read when asked for.

    Attributes:
        rows: number of rows over all inputs.
        fingerprint: sha256 (hex) over the content of the inputs in order; names do not count.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        """Join opened inputs.

        Raises:
            CorpusError: they hold no row at all.
        """
        self._sources = tuple(sources)
        self.rows = sum(source.rows for source in self._sources)
        digests = "\n".join(source.digest for source in self._sources)
        self.fingerprint = hashlib.sha256(digests.encode()).hexdigest()
        if self.rows == 0:
            names = ", ".join(str(source.describe()["name"]) for source in self._sources[:5]) or "the input"
            raise CorpusError(f"{names}: holds no row; give a file with at least one record")

    def describe(self) -> dict[str, Any]:
        """Say what the corpus is made of, in JSON types: enough for :func:`reopen_corpus`.

        ``inputs`` holds one entry an input: ``kind``, ``name`` (as given), ``rows``; for a file
        ``path`` (absolute), ``compression``, ``size`` (bytes), ``sha256``; for a saved or hub
        dataset ``path`` or ``id``, ``split``, ``revision``, ``digest``.
        """
        return {
            "rows": self.rows,
            "fingerprint": self.fingerprint,
            "inputs": [source.describe() for source in self._sources],
        }

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Stream the records of the rows ``start <= row < stop`` in order.

        A row that cannot be parsed is a record with a ``problem``. Memory stays flat, but for JSON
        documents, which are loaded one at a time.

        Args:
            start: first row, ≥ 0.
            stop: one past the last row; None (or more than ``rows``) for all.

        Raises:
            CorpusError: an input cannot be read, or has changed since the corpus was opened.
        """
        stop = self.rows if stop is None else min(stop, self.rows)
        first_row = 0
        for source in self._sources:
            low, high = max(start - first_row, 0), min(stop - first_row, source.rows)
            if low < high:
                yield from source.records(first_row, low, high)
            first_row += source.rows


def open_corpus(
    inputs: Sequence[str],
    *,
    split: str = "train",
    revision: str | None = None,
    spool_dir: Path | None = None,
) -> Corpus:
    """Open inputs, counting rows and hashing content in one streaming pass over each file.

    Args:
        inputs: files (JSON Lines, JSON, CSV, TSV, Parquet; each also .gz or .zst), globs, folders
            written by ``datasets.save_to_disk``, ``"-"`` for standard input (JSON or JSON Lines), or,
            where nothing local has that name, ids of hub datasets.
        split: which split of a dataset that has several.
        revision: revision of hub datasets; None for the newest.
        spool_dir: folder that keeps a copy of standard input (``stdin.jsonl``), so that the corpus
            can be reopened; None for a temporary copy.

    Raises:
        CorpusError: an input is absent or cannot be read, or there is no row in all of them.
    """
    if isinstance(inputs, str):
        inputs = [inputs]
    if list(inputs).count(STDIN) > 1:
        raise CorpusError(f"{STDIN}: standard input can be read once only; name it once")
    return Corpus([source for name in inputs for source in find_sources(name, split, revision, spool_dir)])


def corpus_from_rows(rows: Sequence[Mapping[str, Any]] | datasets.Dataset) -> Corpus:
    """Make a corpus of rows given from Python; they are kept by reference, not copied.

    Raises:
        CorpusError: there is no row.
        InputError: ``rows`` is neither a sequence nor one ``datasets.Dataset``.
    """
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        return Corpus([RowList(rows)])
    if not isinstance(rows, Mapping) and hasattr(rows, "_fingerprint") and hasattr(rows, "__len__"):
        # A datasets.Dataset (a DatasetDict is a mapping), told without importing datasets.
        return Corpus([DatasetRows(PYTHON_ROWS, rows, {"kind": "rows"})])
    raise InputError(f"rows is a {type(rows).__name__}; give a list of dicts or one split of a dataset")


def reopen_corpus(description: Mapping[str, Any]) -> Corpus:
    """Open a corpus again from what :meth:`Corpus.describe` said, and check that it is the same.

    Raises:
        CorpusError: an input is gone or its content has changed (named in the message), or the rows
            came from Python and are in no file.
    """
    try:
        return Corpus([_reopened(entry) for entry in description["inputs"]])
    except (KeyError, TypeError) as error:
        raise CorpusError(f"the description of the corpus is damaged ({error!r}); score again") from error


def _reopened(entry: Mapping[str, Any]) -> Source:
    kind, name = entry["kind"], entry["name"]
    if kind == "rows":
        raise CorpusError("the rows were given from Python and are in no file; give the same rows again")
    if kind == "saved":
        return _same_dataset(entry, open_saved_dataset(name, Path(entry["path"]), entry["split"]))
    if kind == "hub":
        return _same_dataset(entry, open_hub_dataset(entry["id"], entry["split"], entry["revision"]))
    path = Path(entry["path"])
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CorpusError(f"{path}: the input is gone ({error.strerror}); put it back there") from error
    # The size first: it is known at once, the hash only after a pass over the file.
    if size != entry["size"]:
        raise _changed(path, f"{size} bytes, {entry['size']} then")
    source = open_file(name, path, kind, entry["compression"])
    if source.describe()["sha256"] != entry["sha256"]:
        raise _changed(path, "same size, other content")
    return source


def _same_dataset(entry: Mapping[str, Any], source: DatasetRows) -> DatasetRows:
    if source.digest != entry["digest"]:
        raise _changed(entry.get("path") or entry["id"], f"{source.digest}, {entry['digest']} then")
    return source


def _changed(path: object, what: str) -> CorpusError:
    return CorpusError(f"{path}: the input has changed since it was scored ({what}); put it back, or score again")
