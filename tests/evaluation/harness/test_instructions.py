"""The checks of IFEval's instructions: each kind, all real arguments, and the public checker as an oracle."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import langdetect
import nltk
import pytest
from eval_cases import DATA
from ifeval_cases import ENGLISH, FOREIGN, breaking, following, jumbled

from donod_fast.evaluation.harness.instructions.checks import CHECKS
from donod_fast.evaluation.harness.instructions.language import detect_language
from donod_fast.evaluation.harness.instructions.verdict import Instruction, loose, loose_variants, strict

FILE = DATA / "ifeval" / "input_data.jsonl"
MADE: dict[str, dict[str, Any]] = {
    "keywords:existence": {"keywords": ["c++ (new)", "hou"]},
    "keywords:frequency": {"keyword": "why?", "frequency": 3, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["rock", "field"]},
    "keywords:letter_frequency": {"letter": "#", "let_frequency": 4, "let_relation": "less than"},
    "language:response_language": {"language": "fi"},
    "length_constraints:number_sentences": {"num_sentences": 4, "relation": "less than"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 3},
    "length_constraints:number_words": {"num_words": 20, "relation": "at least"},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "elm"},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "detectable_content:postscript": {"postscript_marker": "P.P.S"},
    "detectable_format:number_bullet_lists": {"num_bullets": 3},
    "detectable_format:constrained_response": {},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:multiple_sections": {"section_spliter": "Part (a)", "num_sections": 2},
    "detectable_format:json_format": {},
    "detectable_format:title": {},
    "combination:two_responses": {},
    "combination:repeat_prompt": {"prompt_to_repeat": "Write a (short) text."},
    "startend:end_checker": {"end_phrase": "Peace!"},
    "startend:quotation": {},
    "change_case:capital_word_frequency": {"capital_frequency": 3, "capital_relation": "at least"},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "punctuation:no_comma": {},
}
"""Arguments of each kind, signs of regular expressions among them: a keyword is a text, not a pattern."""


def real_arguments() -> list[tuple[str, dict[str, Any]]]:
    if not FILE.exists():
        return []
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    return [pair for row in rows for pair in zip(row["instruction_id_list"], row["kwargs"], strict=True)]


def test_the_cases_name_every_kind() -> None:
    assert MADE.keys() == CHECKS.keys() and len(CHECKS) == 25


@pytest.mark.parametrize("kind", MADE)
def test_each_kind_passes_and_fails(kind: str) -> None:
    instruction = Instruction(kind, MADE[kind])
    good, bad = following(kind, MADE[kind]), breaking(kind, MADE[kind])
    assert instruction.is_followed(good), good
    assert not instruction.is_followed(bad), bad
    assert not instruction.is_followed(" \n")


@pytest.mark.shared
@pytest.mark.skipif(not FILE.exists(), reason="IFEval's file is absent")
def test_all_real_arguments_pass_and_fail() -> None:
    found = real_arguments()
    wrong = []
    for kind, arguments in found:
        instruction = Instruction(kind, arguments)
        if not instruction.is_followed(following(kind, arguments)):
            wrong.append((kind, arguments, "follows"))
        if instruction.is_followed(breaking(kind, arguments)):
            wrong.append((kind, arguments, "breaks"))
    assert len(found) == 834 and not wrong


def test_loose_forgives_a_first_and_last_line_and_bold_type() -> None:
    end = Instruction("startend:end_checker", {"end_phrase": "The end"})
    quoted = Instruction("startend:quotation")
    for response in ("Sure:\nA text. The end", "A text. **The end**", "A text. The end\n(42 words)"):
        assert loose([end], response) == [True]
    assert strict([end], "A text. The end\n(42 words)") == [False]
    assert loose([quoted, end], 'Sure:\n"*A* text."\nDone.') == [True, False]
    assert loose_variants("a\n*b*\nc") == ["a\n*b*\nc", "a\nb\nc", "*b*\nc", "b\nc", "a\n*b*", "a\nb", "*b*", "b"]


@pytest.mark.parametrize("code", FOREIGN)
def test_a_language_is_recognised_at_every_call_alike(code: str) -> None:
    assert {detect_language(FOREIGN[code]) for _ in range(5)} == {code}


def test_an_ambiguous_text_has_the_same_language_at_every_call() -> None:
    texts = ("taxi hotel radio", "I am in")
    assert any(len({langdetect.detect(text) for _ in range(60)}) > 1 for text in texts)  # without a seed
    assert all(len({detect_language(text) for _ in range(60)}) == 1 for text in texts)


def test_language_detection_leaves_the_seed_of_others_alone() -> None:
    with mock.patch.object(langdetect.DetectorFactory, "seed", 17):
        assert detect_language(ENGLISH) == "en"
        assert langdetect.DetectorFactory.seed == 17
    assert detect_language("123 !?") is None


def test_deep_json_is_no_json_and_no_error() -> None:
    assert not Instruction("detectable_format:json_format").is_followed("[" * 100_000)


REPEATED = (
    "\n",
    " \n",
    " ",
    "[",
    "<<",
    ">> <<",
    "*",
    "**a",
    "* \n",
    "-\n",
    "p. ",
    "P.S",
    "...",
    "a.",
    "?!",
    "'",
    '"',
    "A-",
    "\t\n",
    "{",
    "(",
)
"""What a model that repeats itself may write."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", MADE)
def test_a_repeated_response_is_judged_in_linear_time(kind: str) -> None:
    instruction = Instruction(kind, MADE[kind])
    for piece in REPEATED:
        loose([instruction], "x" + piece * (12_000 // len(piece)))


class _Punkt:
    """Punkt without trained parameters, for the public checker, which cannot load its own here."""

    def tokenize(self, text: str) -> list[str]:
        from donod_fast.evaluation.harness.instructions.sentences import split_sentences

        return split_sentences(text)


@pytest.fixture(scope="module")
def public() -> Iterator[Any]:
    """The public checker as lm-eval has it. Its look-up of ``punkt_tab`` is answered, and its splitter replaced."""
    dictionaries = SimpleNamespace(immutabledict=dict)  # a package that only this checker needs
    with (
        mock.patch.object(nltk.data, "find", return_value="there"),
        mock.patch.dict(sys.modules, {"immutabledict": dictionaries}),  # type: ignore[dict-item]
    ):
        instructions = importlib.import_module("lm_eval.tasks.ifeval.instructions_registry")
        util = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
    words = nltk.tokenize.NLTKWordTokenizer()

    def tokenized(text: str) -> list[str]:
        return [word for sentence in _Punkt().tokenize(text) for word in words.tokenize(sentence)]

    with (
        mock.patch.object(util, "_get_sentence_tokenizer", _Punkt),
        mock.patch.object(util.nltk, "word_tokenize", tokenized),
        mock.patch.object(langdetect.DetectorFactory, "seed", 0),
    ):
        yield instructions.INSTRUCTION_DICT


def verdict_of(public: Any, kind: str, arguments: dict[str, Any], response: str) -> bool:
    checker = public[kind](kind)
    checker.build_description(**{name: value for name, value in arguments.items() if value})
    return bool(response.strip()) and bool(checker.check_following(response))


@pytest.mark.shared
@pytest.mark.skipif(not FILE.exists(), reason="IFEval's file is absent")
def test_verdicts_equal_those_of_the_public_checker(public: Any) -> None:
    random, compared, passed = Random(5), Counter[str](), Counter[str]()
    for kind, arguments in real_arguments():
        if kind == "keywords:letter_frequency" and not arguments["letter"].isalpha():
            continue  # the public checker replaces a sign by a letter drawn at random
        for response in (following(kind, arguments), breaking(kind, arguments), jumbled(random, arguments)):
            wanted = verdict_of(public, kind, arguments, response)
            assert Instruction(kind, arguments).is_followed(response) == wanted, (kind, arguments, response)
            compared[kind] += 1
            passed[kind] += wanted
    assert sum(compared.values()) == 3 * 832 and compared.keys() == CHECKS.keys()
    assert all(0 < passed[kind] < compared[kind] for kind in CHECKS)
