"""From input names to records: files, folders, standard input and hub datasets as one row sequence.

``source.py`` says what every input offers, ``streams.py`` opens, decompresses and hashes bytes,
``json_files.py``, ``csv_files.py`` and ``tables.py`` know one family of formats each, ``inputs.py``
finds what an input name means, and ``corpus.py`` strings the inputs together.
"""

from donod_fast.reading.corpus import Corpus, corpus_from_rows, open_corpus, reopen_corpus

__all__ = ["Corpus", "corpus_from_rows", "open_corpus", "reopen_corpus"]
