"""Read inputs as one sequence of records: files, URLs, folders, standard input and hub datasets.

``source.py`` defines the interface of an input, ``system/places.py`` opens local files and URLs,
``streams.py`` opens, decompresses and hashes them, ``encodings.py`` names text that is not UTF-8, ``line_scan.py``
counts lines, ``json_files.py`` (with ``json_texts.py``), ``csv_files.py`` and ``tables.py`` (with ``arrow_values.py``)
each read one family of formats, as do ``arrow_files.py`` and ``arrow_messages.py`` (headers without columns).
``trees.py`` is a folder of files whose paths give columns, ``saved_datasets.py`` opens datasets of ``datasets``,
``lance_datasets.py`` those of Lance. ``webdataset_files.py`` (with ``tar_members.py`` and ``webdataset_samples.py``)
reads WebDataset shards, ``token_files.py`` (with ``token_opening.py``, ``token_arrays.py`` and
``token_documents.py``) files of tokens. ``kinds.py`` is the table of all kinds of inputs, ``inputs.py`` resolves an
input name. ``python_data.py`` recognises what Python callers give, ``python_rows.py`` and ``one_pass.py`` read it,
``names_or_texts.py`` tells lists of names from lists of texts. ``corpus.py`` joins the inputs.

The names below are imported on first use: callers with tokenised data do not need pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.data.reading.corpus import (
        Corpus,
        corpus_from_rows,
        corpus_of,
        open_corpus,
        reopen_corpus,
        restored_corpus,
    )
    from donod_fast.data.reading.source import KnownFile

__all__ = ["Corpus", "KnownFile", "corpus_from_rows", "corpus_of", "open_corpus", "reopen_corpus", "restored_corpus"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from donod_fast.data.reading import corpus

        return getattr(corpus, name)
    raise AttributeError(f"module 'donod_fast.data.reading' has no attribute {name!r}")
