"""From input names to records: files, URLs, folders, standard input and hub datasets as one row sequence.

``source.py`` says what every input offers, ``places.py`` where its bytes lie (here or behind a URL),
``streams.py`` opens, decompresses and hashes them, ``line_scan.py`` counts lines, ``json_files.py``,
``csv_files.py`` and ``tables.py`` know one family of formats each, ``inputs.py`` finds what an input name
means, and ``corpus.py`` strings the inputs together.

The names below are imported when first used: who has tokens already need not have pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.data.reading.corpus import Corpus, corpus_from_rows, open_corpus, reopen_corpus, restored_corpus
    from donod_fast.data.reading.source import KnownFile

__all__ = ["Corpus", "KnownFile", "corpus_from_rows", "open_corpus", "reopen_corpus", "restored_corpus"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from donod_fast.data.reading import corpus

        return getattr(corpus, name)
    raise AttributeError(f"module 'donod_fast.data.reading' has no attribute {name!r}")
