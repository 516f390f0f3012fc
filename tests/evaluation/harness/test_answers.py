"""The letter that a generated answer names."""

from __future__ import annotations

from random import Random

import pytest

from donod_fast.evaluation.harness.answers import named_letter

FORMS = (
    "{x}", " {x}", "({x})", "{x}.", "{x})", "**{x}**", "({x}) because it is so.", "{x}: it is so", "[{x}]",
    "The answer is {x}.", "The answer is ({x}).", "the answer is therefore {x}", "Answer: {x}", "**Answer:** {x}",
    "The correct answer is option {x}.", "The answer is: **({x})**", "Therefore, the answer is \\boxed{{{x}}}.",
    "A man goes home. It is not (E). The answer is {x}", "The answer is B, no: the answer is {x}",
    "A careful reader takes choice {x}", "I think it is ({x}), not (Q)", "\n\n{x}\n",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("letter", "ABCDE")
def test_the_letter_is_found_in_every_form(form: str, letter: str) -> None:
    if form.startswith("A ") and letter == "A" and "choice" in form:
        pytest.skip("an A at the beginning of a sentence is an article")
    assert named_letter(form.format(x=letter), "ABCDE") == letter


@pytest.mark.parametrize(
    "text",
    ["", "  ", "none", "A man goes home", "(F)", "The answer is G.", "About", "BED", "the answer is 5", "A's", "d"],
)
def test_an_answer_without_a_letter_of_the_options_names_none(text: str) -> None:
    assert named_letter(text, "ABCD") is None


def test_any_text_gives_a_letter_of_the_options_or_none() -> None:
    random = Random(3)
    pieces = [
        "answer",
        " is",
        ":",
        "(",
        ")",
        "A",
        "B",
        "E",
        "*",
        "\\boxed{",
        "}",
        " ",
        "\n",
        "a",
        "therefore",
        "'s",
        "9",
    ]
    for _ in range(3000):
        text = "".join(random.choices(pieces, k=random.randint(0, 14)))
        assert named_letter(text, "ABCD") in (None, *"ABCD")


def test_an_answer_of_any_length_is_read() -> None:
    for text in (
        "answer is " * 5_000,
        "answer is" + " " * 50_000,
        "answer is" + "(" * 50_000,
        "\n" * 50_000,
        "answer" * 9_000,
    ):
        assert named_letter(text, "ABCD") is None
