"""The arguments of each kind of instruction, and their validation when a file is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from donod_fast.errors import CorpusError, suggest
from donod_fast.evaluation.harness.instructions.checks import CHECKS, RELATIONS
from donod_fast.evaluation.harness.texts import is_text
from donod_fast.system.wording import shown

_SHOWN = 60
"""Characters of a wrong value in a message."""

_Rule = tuple[str, Callable[[Any], bool]]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


_COUNT: _Rule = ("a number ≥ 0", _is_count)
_POSITION: _Rule = ("a number ≥ 1", lambda value: _is_count(value) and value > 0)
_TEXT: _Rule = ("a text", is_text)
_TEXTS: _Rule = ("a list of texts", lambda value: isinstance(value, list) and bool(value) and all(map(is_text, value)))
_LETTER: _Rule = ("one character", lambda value: is_text(value) and len(value.strip()) == 1)
_RELATION: _Rule = (" or ".join(map(repr, RELATIONS)), lambda value: value in RELATIONS)

_ARGUMENTS: Mapping[str, Mapping[str, _Rule]] = {
    "keywords:existence": {"keywords": _TEXTS},
    "keywords:frequency": {"keyword": _TEXT, "frequency": _COUNT, "relation": _RELATION},
    "keywords:forbidden_words": {"forbidden_words": _TEXTS},
    "keywords:letter_frequency": {"letter": _LETTER, "let_frequency": _COUNT, "let_relation": _RELATION},
    "language:response_language": {"language": _TEXT},
    "length_constraints:number_sentences": {"num_sentences": _COUNT, "relation": _RELATION},
    "length_constraints:number_paragraphs": {"num_paragraphs": _COUNT},
    "length_constraints:number_words": {"num_words": _COUNT, "relation": _RELATION},
    "length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": _COUNT,
        "nth_paragraph": _POSITION,
        "first_word": _TEXT,
    },
    "detectable_content:number_placeholders": {"num_placeholders": _COUNT},
    "detectable_content:postscript": {"postscript_marker": _TEXT},
    "detectable_format:number_bullet_lists": {"num_bullets": _COUNT},
    "detectable_format:number_highlighted_sections": {"num_highlights": _COUNT},
    "detectable_format:multiple_sections": {"section_spliter": _TEXT, "num_sections": _COUNT},
    "combination:repeat_prompt": {"prompt_to_repeat": _TEXT},
    "startend:end_checker": {"end_phrase": _TEXT},
    "change_case:capital_word_frequency": {"capital_frequency": _COUNT, "capital_relation": _RELATION},
}


def checked_arguments(place: str, kind: str, given: Any) -> dict[str, Any]:
    """The arguments of an instruction, without those that are null (some copies of the file have all names everywhere).

    Args:
        place: file, line and field, for messages.
        kind: name of the instruction.
        given: its entry of ``kwargs``.

    Raises:
        CorpusError: the kind is unknown, or an argument is missing, unknown or wrong; names it.
    """
    if not isinstance(kind, str) or kind not in CHECKS:
        raise CorpusError(
            f"{place}: {shown(kind, _SHOWN)} is no instruction of IFEval{suggest(kind, CHECKS)}; correct the file"
        )
    if not isinstance(given, dict):
        raise CorpusError(
            f"{place}: the arguments of {kind} are {shown(given, _SHOWN)}, not an object; correct the file"
        )
    rules = _ARGUMENTS.get(kind, {})
    found = {name: value for name, value in given.items() if value is not None}
    for name in found.keys() - rules.keys():
        raise CorpusError(f"{place}: {kind} has no argument {shown(name, _SHOWN)}; correct the file")
    for name, (wanted, fits) in rules.items():
        if name not in found:
            raise CorpusError(f"{place}: {kind} lacks its argument {name}; correct the file")
        if not fits(found[name]):
            raise CorpusError(
                f"{place}: {name} of {kind} is {shown(found[name], _SHOWN)}, not {wanted}; correct the file"
            )
    if found.get("nth_paragraph", 0) > found.get("num_paragraphs", 0):
        raise CorpusError(f"{place}: nth_paragraph of {kind} is beyond num_paragraphs; correct the file")
    return found


__all__ = ["checked_arguments"]
