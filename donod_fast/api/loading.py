"""``load_scores``: open scores that were written earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from donod_fast.api.exported import ExportedSource
from donod_fast.api.scores import Scores
from donod_fast.api.source import Source, is_from_python
from donod_fast.errors import CorpusError, InputError
from donod_fast.scores.exporting import is_file_name
from donod_fast.scores.folder import MANIFEST, ScoresFolder
from donod_fast.system.places import local_path
from donod_fast.system.storage import open_storage

_SAVED = "state.json"
"""File that ``datasets`` writes into the folder of a saved dataset."""


def load_scores(place: str | Path, *, data: Any = None) -> Scores:
    """Open the scores of a folder, or of a file or dataset that ``donod-fast export`` wrote. No model is needed.

    Args:
        place: path or URL of a scores folder (finished or not, also a merged one), or of an exported file; or the
            folder of an exported dataset.
        data: the rows that were scored, where they were given from Python: a scores folder does not keep them. They
            must be the same.

    Raises:
        StoreError: the folder holds no scores, or is damaged.
        CorpusError: the exported file cannot be read or holds no scores, or ``data`` are not the rows that were scored.
        InputError: ``data`` is given for scores of files, or ``place`` is neither a text nor a path.
    """
    if not isinstance(place, str | Path):
        raise InputError(f"scores are opened by the path or URL of their folder, got a {type(place).__name__}")
    name = str(place)
    if _is_export(name):
        from donod_fast.data.reading import open_corpus

        if data is not None:
            raise InputError(f"{name} is an exported file, which holds its records; remove data")
        return Scores(ExportedSource(open_corpus([name]), name))
    folder = ScoresFolder.open(name)
    if data is None:
        return Scores(Source(folder))
    from donod_fast.scoring.scorer import as_corpus

    if not is_from_python(folder):
        raise InputError(f"{name} has scores of files, which it reads its records from; remove data")
    corpus = as_corpus(data)
    if corpus.rows != folder.rows:
        raise CorpusError(
            f"{name} has scores of {folder.rows:,} rows, and data has {corpus.rows:,}; give the same rows"
        )
    if corpus.fingerprint != folder.manifest["input"]["fingerprint"]:
        _refuse_other_rows(Source(folder, corpus), name)
    return Scores(Source(folder, corpus))


def _is_export(name: str) -> bool:
    """Whether a name is that of a file, or of a saved dataset, and not of a scores folder."""
    path = local_path(name)
    if path is None:
        return is_file_name(Path(name.partition("?")[0])) and not open_storage(name).exists(MANIFEST)
    return path.is_file() or (path / _SAVED).is_file()


def _refuse_other_rows(source: Source, name: str) -> None:
    """Compare every row with the hash of the row that was scored: equal rows may come from another kind of object.

    Raises:
        CorpusError: a row is another one, or there are no hashes to compare with.
    """
    folder = source.folder
    if any(folder.record_hashes(part) is None for part in range(folder.parts) if folder.has_part(part)):
        raise CorpusError(f"{name} has scores of other rows than data; give the same rows")
    for _ in source.records().records():
        pass  # the corpus of a source compares each record as it is read


__all__ = ["load_scores"]
