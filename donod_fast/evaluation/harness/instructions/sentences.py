"""Split English text into sentences without a download: Punkt's algorithm with a list of abbreviations of our own.

The public checker of IFEval loads Punkt's trained English parameters (``punkt_tab``), which no package contains.
Punkt's algorithm (Kiss and Strunk, Computational Linguistics 32(4), 2006) is in NLTK and needs no file. Its parameters
are :data:`ABBREVIATIONS` here; the lists of collocations and of frequent first words, which training finds, are empty.

The two differ only at a period after an abbreviation or a number: ``punkt_tab`` knows further abbreviations of the
newspapers that it was trained on, and which words often begin a sentence. In both, a line
end alone ends no sentence (a list of bullets without periods is one), and ``!`` and ``?`` end one even before a small
letter ("Go!" she said: two).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from donod_fast.evaluation.harness.requirements import imported

_WORDS = (
    "mr mrs ms dr prof rev hon st sr jr gen col capt lt sgt cmdr adm gov sen rep pres supt messrs mme mlle",
    "ph.d m.d b.a m.a b.sc m.sc inc ltd co corp llc bros dept assn univ",
    "e.g i.e vs cf viz al approx ca ed eds vol pp fig figs eq nos ch sec resp",
    "u.s u.s.a u.k u.n e.u d.c l.a n.y ave blvd rd mt ft",
    "a.m p.m b.c a.d jan feb mar apr jun jul aug sept sep oct nov dec mon tue tues wed thu thur thurs fri sat sun",
)
ABBREVIATIONS = frozenset(word for words in _WORDS for word in words.split())
"""Words that a period follows without ending the sentence: in lower case, without the last period."""


@cache
def _tokenizer() -> Any:
    punkt = imported("nltk.tokenize.punkt", "nltk")
    parameters = punkt.PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return punkt.PunktSentenceTokenizer(parameters)


def split_sentences(text: str) -> list[str]:
    """The sentences of an English text, without the white space around them."""
    return [str(one) for one in _tokenizer().tokenize(text)]


__all__ = ["ABBREVIATIONS", "split_sentences"]
