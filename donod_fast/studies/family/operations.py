"""The operations of the family's tasks: their wordings and their Python code.

An operation maps one value to one value; values are integers, lists of integers, and strings. ``{v}`` is the
placeholder of the value in an expression, ``{k}`` that of the constant in expression and phrases.
"""

from __future__ import annotations

from dataclasses import dataclass

NUMBER, LIST, TEXT = "number", "list", "text"


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a task.

    Attributes:
        name: its name within signatures.
        takes: type of its input: ``number``, ``list`` or ``text``.
        gives: type of its output.
        expression: Python with ``{v}`` and, if it has a constant, ``{k}``.
        phrases: wordings of the request, each an imperative without a capital letter.
        constants: possible values of ``{k}`` as text; empty without a constant.
    """

    name: str
    takes: str
    gives: str
    expression: str
    phrases: tuple[str, ...]
    constants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a task with two branches; attributes as in :class:`Operation`."""

    name: str
    takes: str
    expression: str
    phrases: tuple[str, ...]
    constants: tuple[str, ...] = ()


_SMALL = tuple("23456789")
_COUNT = tuple("234")
_LETTERS = tuple("aeiost")

OPERATIONS = (
    # number → number
    Operation("add", NUMBER, NUMBER, "{v} + {k}", ("add {k}", "increase it by {k}", "make it {k} larger"), _SMALL),
    Operation("subtract", NUMBER, NUMBER, "{v} - {k}", ("subtract {k}", "lower it by {k}", "take away {k}"), _SMALL),
    Operation("multiply", NUMBER, NUMBER, "{v} * {k}", ("multiply by {k}", "scale it {k} times"), tuple("3456789")),
    Operation("double", NUMBER, NUMBER, "{v} * 2", ("double it", "take it twice")),
    Operation("square", NUMBER, NUMBER, "{v} ** 2", ("square it", "multiply it by itself")),
    Operation("cube", NUMBER, NUMBER, "{v} ** 3", ("cube it", "raise it to the third power")),
    Operation("negate", NUMBER, NUMBER, "-{v}", ("negate it", "flip its sign")),
    Operation("magnitude", NUMBER, NUMBER, "abs({v})", ("take the absolute value", "drop its sign")),
    Operation("halve", NUMBER, NUMBER, "{v} // 2", ("halve it", "cut it in two")),
    Operation("divide", NUMBER, NUMBER, "{v} // {k}", ("divide by {k}", "split it in {k} parts"), tuple("3456789")),
    Operation("remainder", NUMBER, NUMBER, "{v} % {k}", ("keep the remainder by {k}", "reduce it modulo {k}"), _SMALL),
    Operation("cap", NUMBER, NUMBER, "min({v}, {k})", ("cap it at {k}", "let it be at most {k}"), _SMALL),
    Operation("floor", NUMBER, NUMBER, "max({v}, {k})", ("raise it to at least {k}", "let it be at least {k}"), _SMALL),
    Operation(
        "distance",
        NUMBER,
        NUMBER,
        "abs({v} - {k})",
        ("find its distance from {k}", "measure how far it is from {k}"),
        _SMALL,
    ),
    # number → list, number → text
    Operation("below", NUMBER, LIST, "list(range({v}))", ("list the numbers below it", "count up to it")),
    Operation("digits", NUMBER, LIST, "[int(d) for d in str(abs({v}))]", ("list its digits", "break it into digits")),
    Operation("repeated", NUMBER, LIST, "[{v}] * {k}", ("list it {k} times", "make a list of {k} copies"), _COUNT),
    Operation("written", NUMBER, TEXT, "str({v})", ("write it as text", "turn it into a string")),
    # list → list
    Operation("evens", LIST, LIST, "[x for x in {v} if x % 2 == 0]", ("keep the even numbers", "drop the odd numbers")),
    Operation(
        "odds", LIST, LIST, "[x for x in {v} if x % 2 == 1]", ("keep the odd numbers", "remove all even numbers")
    ),
    Operation(
        "positives", LIST, LIST, "[x for x in {v} if x > 0]", ("keep the positive numbers", "drop what is not positive")
    ),
    Operation(
        "above", LIST, LIST, "[x for x in {v} if x > {k}]", ("keep the numbers above {k}", "drop all up to {k}"), _SMALL
    ),
    Operation(
        "under",
        LIST,
        LIST,
        "[x for x in {v} if x < {k}]",
        ("keep the numbers under {k}", "drop all from {k} on"),
        _SMALL,
    ),
    Operation(
        "multiples",
        LIST,
        LIST,
        "[x for x in {v} if x % {k} == 0]",
        ("keep the multiples of {k}", "keep what {k} divides"),
        tuple("345"),
    ),
    Operation(
        "each_add",
        LIST,
        LIST,
        "[x + {k} for x in {v}]",
        ("add {k} to each number", "increase every number by {k}"),
        _SMALL,
    ),
    Operation(
        "each_subtract",
        LIST,
        LIST,
        "[x - {k} for x in {v}]",
        ("subtract {k} from each number", "lower every number by {k}"),
        _SMALL,
    ),
    Operation(
        "each_multiply",
        LIST,
        LIST,
        "[x * {k} for x in {v}]",
        ("multiply each number by {k}", "scale every number {k} times"),
        _SMALL,
    ),
    Operation(
        "each_square", LIST, LIST, "[x ** 2 for x in {v}]", ("square each number", "multiply every number by itself")
    ),
    Operation("each_negate", LIST, LIST, "[-x for x in {v}]", ("negate each number", "flip every sign")),
    Operation("each_magnitude", LIST, LIST, "[abs(x) for x in {v}]", ("take each absolute value", "drop every sign")),
    Operation("sorted", LIST, LIST, "sorted({v})", ("sort the list", "put the numbers in order")),
    Operation(
        "descending", LIST, LIST, "sorted({v}, reverse=True)", ("sort the list downwards", "put the largest first")
    ),
    Operation("reversed", LIST, LIST, "{v}[::-1]", ("reverse the list", "turn the list around")),
    Operation("unique", LIST, LIST, "sorted(set({v}))", ("keep each value once in order", "sort the different values")),
    Operation("without_first", LIST, LIST, "{v}[1:]", ("drop the first number", "skip the first number")),
    Operation("without_last", LIST, LIST, "{v}[:-1]", ("drop the last number", "leave out the last number")),
    Operation(
        "take", LIST, LIST, "{v}[:{k}]", ("keep the first {k} numbers", "cut the list after {k} numbers"), _COUNT
    ),
    Operation(
        "take_last",
        LIST,
        LIST,
        "{v}[-{k}:]",
        ("keep the last {k} numbers", "keep only {k} numbers from the end"),
        _COUNT,
    ),
    Operation("every_second", LIST, LIST, "{v}[::2]", ("keep every second number", "skip every other number")),
    Operation("append", LIST, LIST, "{v} + [{k}]", ("append {k}", "put {k} at the end"), _SMALL),
    Operation("prepend", LIST, LIST, "[{k}] + {v}", ("prepend {k}", "put {k} in front"), _SMALL),
    # list → number, list → text
    Operation("sum", LIST, NUMBER, "sum({v})", ("add them up", "find the total")),
    Operation("largest", LIST, NUMBER, "max({v}, default=0)", ("find the largest", "take the maximum")),
    Operation("smallest", LIST, NUMBER, "min({v}, default=0)", ("find the smallest", "take the minimum")),
    Operation("length", LIST, NUMBER, "len({v})", ("count the numbers", "find how many there are")),
    Operation(
        "occurrences", LIST, NUMBER, "{v}.count({k})", ("count how often {k} occurs", "find how many are {k}"), _SMALL
    ),
    Operation(
        "different", LIST, NUMBER, "len(set({v}))", ("count the different values", "find how many values differ")
    ),
    Operation(
        "joined", LIST, TEXT, "' '.join(str(x) for x in {v})", ("join them with spaces", "write them in one line")
    ),
    # text → text
    Operation("upper", TEXT, TEXT, "{v}.upper()", ("make it upper case", "capitalize all letters")),
    Operation("lower", TEXT, TEXT, "{v}.lower()", ("make it lower case", "use small letters")),
    Operation("backwards", TEXT, TEXT, "{v}[::-1]", ("reverse the text", "read it backwards")),
    Operation("swapped", TEXT, TEXT, "{v}.swapcase()", ("swap the case", "exchange small and capital letters")),
    Operation(
        "beginning", TEXT, TEXT, "{v}[:{k}]", ("keep the first {k} letters", "cut the text after {k} letters"), _COUNT
    ),
    Operation(
        "ending", TEXT, TEXT, "{v}[-{k}:]", ("keep the last {k} letters", "keep only {k} letters from the end"), _COUNT
    ),
    Operation("without", TEXT, TEXT, "{v}.replace('{k}', '')", ("remove every {k}", "delete the letter {k}"), _LETTERS),
    Operation(
        "starred",
        TEXT,
        TEXT,
        "{v}.replace('{k}', '*')",
        ("replace every {k} by a star", "hide the letter {k}"),
        _LETTERS,
    ),
    Operation("twice", TEXT, TEXT, "{v} * 2", ("repeat it", "write it twice")),
    Operation("exclaimed", TEXT, TEXT, "{v} + '!'", ("add an exclamation mark", "end it with a mark")),
    Operation("bracketed", TEXT, TEXT, "'(' + {v} + ')'", ("put it in brackets", "wrap it in brackets")),
    Operation("spaceless", TEXT, TEXT, "{v}.replace(' ', '')", ("remove the spaces", "delete all blanks")),
    Operation(
        "dashed", TEXT, TEXT, "{v}.replace(' ', '-')", ("replace spaces by dashes", "join the words with dashes")
    ),
    # text → number, text → list
    Operation("letters", TEXT, NUMBER, "len({v})", ("count the letters", "find its length")),
    Operation("words", TEXT, NUMBER, "len({v}.split())", ("count the words", "find how many words it has")),
    Operation(
        "letter_count", TEXT, NUMBER, "{v}.count('{k}')", ("count every {k}", "find how often {k} is there"), _LETTERS
    ),
    Operation(
        "word_lengths",
        TEXT,
        LIST,
        "[len(w) for w in {v}.split()]",
        ("list the length of each word", "measure every word"),
    ),
    Operation(
        "places",
        TEXT,
        LIST,
        "[i for i, c in enumerate({v}) if c == '{k}']",
        ("list the places of {k}", "find where {k} stands"),
        _LETTERS,
    ),
)

CONDITIONS = (
    Condition("even", NUMBER, "{v} % 2 == 0", ("it is even", "two divides it")),
    Condition("negative", NUMBER, "{v} < 0", ("it is negative", "it is below zero")),
    Condition("more_than", NUMBER, "{v} > {k}", ("it is more than {k}", "it exceeds {k}"), _SMALL),
    Condition("less_than", NUMBER, "{v} < {k}", ("it is less than {k}", "{k} exceeds it"), _SMALL),
    Condition("divisible", NUMBER, "{v} % {k} == 0", ("{k} divides it", "it is a multiple of {k}"), tuple("345")),
    Condition(
        "long_list",
        LIST,
        "len({v}) > {k}",
        ("there are more than {k} numbers", "the list is longer than {k}"),
        tuple("345"),
    ),
    Condition("holds", LIST, "{k} in {v}", ("{k} is among them", "the list holds {k}"), _SMALL),
    Condition(
        "large_sum", LIST, "sum({v}) > {k}", ("the total is more than {k}", "they add up to more than {k}"), _SMALL
    ),
    Condition(
        "long_text", TEXT, "len({v}) > {k}", ("there are more than {k} letters", "the text is longer than {k}"), _SMALL
    ),
    Condition("has_letter", TEXT, "'{k}' in {v}", ("it has the letter {k}", "{k} is in the text"), _LETTERS),
    Condition("has_space", TEXT, "' ' in {v}", ("it has a space", "there is more than one word")),
)

BY_NAME = {operation.name: operation for operation in OPERATIONS}
CONDITION_BY_NAME = {condition.name: condition for condition in CONDITIONS}
