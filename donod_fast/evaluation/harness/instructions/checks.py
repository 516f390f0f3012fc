"""The 25 kinds of instructions of IFEval (Zhou et al., arXiv 2311.07911, Table 3), each as a function of a response.

A check gets the response and the instruction's arguments, which :mod:`.arguments` has validated. It decides as the
benchmark's public checker does, down to its habits: a keyword counts inside longer words, ``less than 5`` allows 4, a
paragraph may be empty only at the two ends. The habits are named where a reader would expect otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from donod_fast.evaluation.harness.instructions.language import detect_language
from donod_fast.evaluation.harness.instructions.sentences import split_sentences
from donod_fast.evaluation.harness.requirements import imported

LESS_THAN, AT_LEAST = RELATIONS = ("less than", "at least")

Check = Callable[..., bool]
"""Called as ``check(response, **arguments)``; the response is not blank."""

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _compared(number: int, relation: str, limit: int) -> bool:
    return number < limit if relation == LESS_THAN else number >= limit


def _occurrences(word: str, response: str) -> int:
    """How often a keyword occurs in any case, inside longer words too."""
    return len(re.findall(re.escape(word.strip()), response, re.IGNORECASE))


def has_keywords(response: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case, inside longer words too."""
    return all(re.search(re.escape(word), response, re.IGNORECASE) for word in keywords)


def has_keyword_so_often(response: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """A keyword occurs so often, in any case, inside longer words too."""
    return _compared(_occurrences(keyword, response), relation, frequency)


def lacks_words(response: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in forbidden_words)


def has_letter_so_often(response: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """A character occurs so often, in any case."""
    return _compared(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def is_in_language(response: str, *, language: str) -> bool:
    """The whole response is in a language. A response without letters passes, as in the public checker."""
    return detect_language(response) in (language, None)


def has_sentences(response: str, *, num_sentences: int, relation: str) -> bool:
    """It has so many sentences; see :mod:`.sentences`."""
    return _compared(len(split_sentences(response)), relation, num_sentences)


def has_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    """It has exactly so many paragraphs between dividers ``***``; empty ones are allowed at both ends only."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", response)]
    if not all(parts[1:-1]):
        return False
    return sum(map(bool, parts)) == num_paragraphs


def has_words(response: str, *, num_words: int, relation: str) -> bool:
    r"""It has so many words, runs of letters, digits and ``_``: "don't" is two."""
    return _compared(len(re.findall(r"\w+", response)), relation, num_words)


def begins_paragraph_with(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """It has exactly so many paragraphs (between blank lines), and one begins with a word.

    The position counts blank paragraphs too (which more than two line ends in a row make), the number does not.
    """
    parts = response.split("\n\n")
    number = sum(bool(part.strip()) for part in parts)
    if nth_paragraph > number or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    found = re.split(r"""[.,?!'"]""", word, maxsplit=1)[0].lower()
    return number == num_paragraphs and found == first_word.lower()


def has_placeholders(response: str, *, num_placeholders: int) -> bool:
    """It has at least so many texts in square brackets, each within a line."""
    number = 0
    for line in response.split("\n"):
        end = 0
        while (start := line.find("[", end)) >= 0 and (end := line.find("]", start)) >= 0:
            number += 1
    return number >= num_placeholders


def has_postscript(response: str, *, postscript_marker: str) -> bool:
    """It has a postscript: the marker anywhere, in any case; ``P.S.`` and ``P.P.S`` also with spaces between."""
    marker = postscript_marker.strip()
    written = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.lower()))
    return re.search(written, response.lower()) is not None


def has_bullets(response: str, *, num_bullets: int) -> bool:
    """It has exactly so many bullets: lines that begin with one ``*``, or with ``-`` (a rule of dashes is one, too)."""
    text = re.sub(r"\n(?:[^\S\n]*\n){2,}", "\n\n", response)  # a model may write nothing but line ends
    stars = re.findall(r"^\s*\*[^*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def is_constrained(response: str) -> bool:
    """It contains one of three answers."""
    return any(answer in response for answer in ANSWERS)


def has_highlights(response: str, *, num_highlights: int) -> bool:
    """It has at least so many texts within a line in ``*…*`` or ``**…**``."""
    single = [text[1:-1] for text in re.findall(r"\*[^\n*]*\*", response)]
    double = [text[2:-2] for text in re.findall(r"\*\*[^\n*]*\*\*", response)]
    return sum(bool(text.strip()) for text in (*single, *double)) >= num_highlights


def has_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    """It has at least so many marks of sections: the word and a number."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", response)) >= num_sections


def is_json(response: str) -> bool:
    """It is JSON as a whole, also within a fenced block."""
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def has_title(response: str) -> bool:
    """It has a title within a line in ``<<…>>``."""
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def has_two_responses(response: str) -> bool:
    """It has two different texts around six asterisks; blank ones are allowed at both ends only."""
    parts = [part.strip() for part in response.split("******")]
    texts = [part for part in parts if part]
    return all(parts[1:-1]) and len(texts) == 2 and texts[0] != texts[1]


def repeats_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    """It begins with the request, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(response: str, *, end_phrase: str) -> bool:
    """It ends with a phrase, in any case; double quotation marks around the response do not count."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@cache
def _word_tokenizer() -> Any:
    return imported("nltk.tokenize", "nltk").NLTKWordTokenizer()


def has_capital_words(response: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """So many words are in upper case. Words are those of the Penn Treebank: a word with a hyphen is one."""
    words = [word for sentence in split_sentences(response) for word in _word_tokenizer().tokenize(sentence)]
    return _compared(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def is_english_in_capitals(response: str) -> bool:
    """All letters are in upper case, and it is English."""
    return response.isupper() and detect_language(response) in ("en", None)


def is_english_in_lower_case(response: str) -> bool:
    """All letters are in lower case, and it is English."""
    return response.islower() and detect_language(response) in ("en", None)


def has_no_comma(response: str) -> bool:
    """It has no comma."""
    return "," not in response


def is_quoted(response: str) -> bool:
    """It is within double quotation marks as a whole."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: Mapping[str, Check] = {
    "keywords:existence": has_keywords,
    "keywords:frequency": has_keyword_so_often,
    "keywords:forbidden_words": lacks_words,
    "keywords:letter_frequency": has_letter_so_often,
    "language:response_language": is_in_language,
    "length_constraints:number_sentences": has_sentences,
    "length_constraints:number_paragraphs": has_paragraphs,
    "length_constraints:number_words": has_words,
    "length_constraints:nth_paragraph_first_word": begins_paragraph_with,
    "detectable_content:number_placeholders": has_placeholders,
    "detectable_content:postscript": has_postscript,
    "detectable_format:number_bullet_lists": has_bullets,
    "detectable_format:constrained_response": is_constrained,
    "detectable_format:number_highlighted_sections": has_highlights,
    "detectable_format:multiple_sections": has_sections,
    "detectable_format:json_format": is_json,
    "detectable_format:title": has_title,
    "combination:two_responses": has_two_responses,
    "combination:repeat_prompt": repeats_prompt,
    "startend:end_checker": ends_with,
    "startend:quotation": is_quoted,
    "change_case:capital_word_frequency": has_capital_words,
    "change_case:english_capital": is_english_in_capitals,
    "change_case:english_lowercase": is_english_in_lower_case,
    "punctuation:no_comma": has_no_comma,
}
"""The checks by the instructions' names in the benchmark's file."""

__all__ = ["AT_LEAST", "CHECKS", "LESS_THAN", "RELATIONS", "Check"]
