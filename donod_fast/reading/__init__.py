"""From input names to records: files, folders, standard input and hub datasets as one row sequence.

``source.py`` says what every input offers, ``streams.py`` opens, decompresses and hashes bytes,
``json_files.py``, ``csv_files.py`` and ``tables.py`` know one family of formats each, ``inputs.py``
finds what an input name means, and ``corpus.py`` strings the inputs together.

The names below are imported when first used: who has tokens already need not have pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.reading.corpus import Corpus, corpus_from_rows, open_corpus, reopen_corpus

__all__ = ["Corpus", "corpus_from_rows", "open_corpus", "reopen_corpus"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from donod_fast.reading import corpus

        return getattr(corpus, name)
    raise AttributeError(f"module 'donod_fast.reading' has no attribute {name!r}")
