"""Reading AGIEval's files and IFEval's, and every way in which they can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eval_cases import DATA
from harness_cases import Record, question, write_agieval, write_ifeval, write_set

from donod_fast.errors import CorpusError, DonodError, InputError
from donod_fast.evaluation.harness.agieval import SETS, SHOTS_FILE, check_sets, read_set, read_shots
from donod_fast.evaluation.harness.ifeval import read_prompts


def test_a_question_is_read_with_its_letters_and_its_prompt(tmp_path: Path) -> None:
    write_set(tmp_path, "lsat-ar", [question(1), question(2, options=5)])
    first, second = read_set(tmp_path, "lsat-ar")
    assert (first.set_name, first.index, first.letters, first.gold) == ("lsat-ar", 0, tuple("ABCD"), 1)
    assert first.prompt == (
        "1 birds sit on a tree.Q: How many birds are 1 and one? Answer Choices: "
        "(A)1 birds (B)2 birds (C)3 birds (D)4 birds\nA: Among A through D, the answer is"
    )
    assert second.passage == "" and second.letters == tuple("ABCDE") and second.digest != first.digest


def test_a_label_means_the_printed_letter(tmp_path: Path) -> None:
    swapped = question(1) | {"options": ["(A)one", "(C)two", "(B)three", "(D)four"], "label": "B"}
    unprinted = question(1) | {"options": ["A one", "(C) two", "three", "(B)four"], "label": "B"}
    write_set(tmp_path, "lsat-ar", [swapped, unprinted])
    first, second = read_set(tmp_path, "lsat-ar")
    assert first.letters == tuple("ACBD") and first.options[first.gold] == "(B)three"
    assert second.letters == tuple("ABCD") and second.options[second.gold] == "(C) two"


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "agieval").is_dir(), reason="AGIEval's files are absent")
def test_all_real_questions_and_shots_are_read() -> None:
    folder = DATA / "agieval"
    counts = {name: len(read_set(folder, name)) for name in SETS}
    assert counts == dict(zip(SETS, (230, 510, 651, 269, 206, 254, 220), strict=True))
    shots = {name: 5 if name in ("aqua-rat", "sat-math") else 3 for name in SETS}
    for name, number in shots.items():
        assert len(read_shots(folder, name, number)) == number
        with pytest.raises(InputError, match=f"has {number} solved questions of {name}"):
            read_shots(folder, name, number + 1)
    # Solved by hand: all in Harbin are northerners and some there are no workers, so (B).
    swapped = [one for one in read_set(folder, "logiqa-en") if one.letters != tuple("ABCD")]
    assert len(swapped) == 19
    harbin = next(one for one in swapped if "Harbin" in one.passage)
    assert harbin.options[harbin.gold] == "(B)Some northerners are not workers."


@pytest.mark.shared
@pytest.mark.skipif(not (DATA / "ifeval").is_dir(), reason="IFEval's file is absent")
def test_all_real_prompts_are_read() -> None:
    prompts = read_prompts(DATA / "ifeval" / "input_data.jsonl")
    assert len(prompts) == 541 and sum(len(one.instructions) for one in prompts) == 834


VALUES: tuple[Any, ...] = (None, 0, 1.5, "", " ", "x" * 500, [], [None], {}, {"a": 1}, True, float("nan"), "\ud800")


def _mutations(record: Record) -> list[Record]:
    """Each field absent, or with a value of another kind."""
    found = [{key: value for key, value in record.items() if key != name} for name in record]
    return found + [record | {name: value} for name in record for value in VALUES]


@pytest.mark.parametrize("kind", ["question", "prompt"])
def test_a_wrong_record_is_refused_by_line_and_field_or_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "lsat-ar.jsonl"
    good: Record = question(1)
    read: Callable[[], Any] = lambda: read_set(tmp_path, "lsat-ar")  # noqa: E731
    if kind == "prompt":
        good = json.loads(write_ifeval(path, 2).read_text().splitlines()[1])
        read = lambda: read_prompts(path)  # noqa: E731
    refused = 0
    for record in _mutations(good):
        path.write_text(json.dumps(good) + "\n" + json.dumps(record) + "\n")
        try:
            assert len(read()) == 2
        except CorpusError as error:
            refused += 1
            assert f"{path}, line 2" in str(error) and len(str(error)) < 400
            continue
        read_fields = {name: value for name, value in record.items() if name not in ("answer", "other")}
        assert "\ud800" not in read_fields.values()  # no tokenizer reads half a character
    assert refused > 20


ARGUMENTS = [
    ("length_constraints:number_words", {"num_words": 5}),
    ("length_constraints:number_words", {"num_words": -5, "relation": "at least"}),
    ("length_constraints:number_words", {"num_words": True, "relation": "at least"}),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at most"}),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least", "more": 1}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "a"}),
    ("keywords:existence", {"keywords": "bird"}),
    ("keywords:existence", {"keywords": []}),
    ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}),
    ("punctuation:no_comma", {"commas": 0}),
    ("punctuation:no_comma", None),
    ("punctuation:no_commas", {}),
    (["punctuation:no_comma"], {}),
    (None, {}),
]


@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS)
def test_a_wrong_instruction_is_refused_by_name(name: Any, arguments: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    record = {"key": 1, "prompt": "Write.", "instruction_id_list": [name], "kwargs": [arguments]}
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(CorpusError, match=r"line 1: .*correct the file"):
        read_prompts(path)


def test_arguments_that_are_null_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    arguments = {"num_words": 5, "relation": "less than", "keywords": None, "letter": None}
    record = {"key": 1, "prompt": "Write.", "instruction_id_list": ["length_constraints:number_words"]}
    path.write_text(json.dumps(record | {"kwargs": [arguments]}) + "\n")
    assert read_prompts(path)[0].instructions[0].arguments == {"num_words": 5, "relation": "less than"}


def test_wrong_places_are_named_with_their_remedy(tmp_path: Path) -> None:
    folder = write_agieval(tmp_path / "agieval")
    file = write_ifeval(tmp_path / "ifeval.jsonl")
    (folder / "sat-en.jsonl").unlink()
    cases: list[tuple[Callable[[], Any], type[DonodError], str]] = [
        (lambda: read_set(folder, "sat-en"), CorpusError, "--sets lsat-ar,lsat-lr,logiqa-en,lsat-rc,aqua-rat,sat-math"),
        (lambda: read_set(tmp_path, "sat-en"), CorpusError, "is it the right folder"),
        (lambda: read_set(file, "sat-en"), CorpusError, "is no folder"),
        (lambda: read_set(tmp_path / "no", "sat-en"), CorpusError, "is no folder"),
        (lambda: read_prompts(folder), CorpusError, "is a folder"),
        (lambda: read_prompts(tmp_path / "no.jsonl"), CorpusError, "cannot be read"),
        (lambda: read_prompts(folder / "lsat-ar.jsonl"), CorpusError, "key is missing; is it IFEval's"),
        (lambda: check_sets(["sat-em"]), InputError, "did you mean 'sat-en'"),
        (lambda: read_shots(tmp_path, "sat-en", 1), CorpusError, "--few-shot needs it"),
        (lambda: read_shots(folder, "lsat-ar", 4), InputError, "has 3 solved questions"),
    ]
    for read, kind, words in cases:
        with pytest.raises(kind, match=words):
            read()
    assert read_shots(tmp_path, "sat-en", 0) == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"a,b\n1,2\n", b",lsat-ar\nsample 1,not a record\n", b",lsat-ar\nsample 1,[1]\n",
        b",lsat-ar\nsample 1,{'question': 'a'}\n", b',lsat-ar\nsample 1,"{\n', b",lsat-ar\nsample 1," + b"(" * 50_000,
        b",lsat-ar\nsample 1," + b"x" * 200_000, b",lsat-ar\nsample 1,__import__('os')\n", b",lsat-ar\n\nsample 1\n",
        b",lsat-ar\nsample 1,\0\n",
    ],
)  # fmt: skip
def test_damaged_shots_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / SHOTS_FILE).write_bytes(content)
    with pytest.raises((CorpusError, InputError), match=SHOTS_FILE):
        read_shots(tmp_path, "lsat-ar", 1)
