"""Words of a text, for comparing texts: case, punctuation and white space do not count."""

from __future__ import annotations

import re
import unicodedata

# Chinese, Japanese and Korean text has no spaces between words, so each of these characters is a word.
_CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CHARACTERS}]|[^\W{_CHARACTERS}]+")


def words_of(text: str) -> list[str]:
    """The words of a text in order, case-folded, in Unicode's compatibility form (NFKC).

    A word is a run of letters, digits and underscores; of Chinese, Japanese and Korean each character is a word.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


__all__ = ["words_of"]
