"""Sentences of the texts that IFEval asks for: replies, letters, lists, poems, dialogues."""

from __future__ import annotations

import pytest

from donod_fast.evaluation.harness.instructions.sentences import ABBREVIATIONS, split_sentences

TEXTS = [
    ("", []),
    ("One line without an end", ["One line without an end"]),
    ("It is. Is it? It is! Well...", ["It is.", "Is it?", "It is!", "Well..."]),
    ("Dear Mr. Smith, I met Dr. Lee at 5 p.m. today. Bye.", ["Dear Mr. Smith, I met Dr. Lee at 5 p.m. today.", "Bye."]),
    ("Use, e.g. apples, i.e. none of 3.5 kinds. Or not.", ["Use, e.g. apples, i.e. none of 3.5 kinds.", "Or not."]),
    ('He said "Go." She went.', ['He said "Go."', "She went."]),
    ("“Go!” she said. (He did.) So it was.", ["“Go!”", "she said.", "(He did.)", "So it was."]),
    ("Roses are red,\nviolets are blue.\n\nEnd.", ["Roses are red,\nviolets are blue.", "End."]),
    ("* one\n* two\n* three", ["* one\n* two\n* three"]),
    ("* One.\n* Two.\n* Three.", ["* One.", "* Two.", "* Three."]),
    ("See www.example.com. Then come.", ["See www.example.com.", "Then come."]),
    ("On Jan. 5 the U.S. won 3.2 million. Good.", ["On Jan. 5 the U.S. won 3.2 million.", "Good."]),
    ("P.S. I like it.", ["P.S.", "I like it."]),
    ("Wait!! What?! Yes.", ["Wait!!", "What?!", "Yes."]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), TEXTS)
def test_a_text_is_split_into_its_sentences(text: str, wanted: list[str]) -> None:
    assert split_sentences(text) == wanted


@pytest.mark.parametrize("word", sorted(ABBREVIATIONS))
def test_no_abbreviation_ends_a_sentence_before_a_small_letter(word: str) -> None:
    assert len(split_sentences(f"It is {word}. here and so on. It is so.")) == 2


def test_a_long_text_without_ends_is_one_sentence() -> None:
    assert len(split_sentences("word " * 20_000)) == 1
    assert len(split_sentences("It is so. " * 2_000)) == 2_000
