"""The demonstration's corpus: reproducible byte for byte, and corrupted exactly as its labels say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from donod_fast.demo.corpus import (
    CORPUS_FILE,
    DEMO_ROWS,
    FAMILIES,
    MASK,
    corrupt,
    demo_corpus,
    generate,
    mask_words,
    question_of,
    read_corpus,
    shuffle_words,
    write_corpus,
)

KINDS = ("masked_words", "shuffled_words", "wrong_answer")


def test_a_seed_names_a_corpus() -> None:
    assert generate(200, 3) == generate(200, 3)
    assert generate(200, 3) != generate(200, 4)


def test_a_longer_corpus_begins_with_the_shorter_one() -> None:
    assert generate(300, 3)[:200] == generate(200, 3)


def test_no_question_is_drawn_twice_and_ids_are_unique() -> None:
    rows = generate(5000, 1)
    assert len({question_of(row) for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)


def test_excluded_questions_are_not_drawn() -> None:
    held_out = {question_of(row) for row in generate(1000, 1)}
    assert not held_out & {question_of(row) for row in generate(1000, 1, exclude=held_out)}


def test_every_family_is_drawn() -> None:
    families = Counter(row["family"] for row in generate(1000, 2))
    assert set(families) == set(FAMILIES)
    assert len(FAMILIES) >= 10
    assert min(families.values()) >= 20


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_an_instruction_and_an_answer_in_clean_text(name: str) -> None:
    rng = Random(0)
    drafts = [FAMILIES[name](rng) for _ in range(300)]
    for draft in drafts:
        assert draft.instruction and draft.output
        assert all(text == text.strip() and "{" not in text for text in draft[:2])
        assert 1 <= len(draft.output.split()) <= 80
        assert MASK not in draft.output
    assert len({draft.instruction + draft.input for draft in drafts}) > 30


def test_answers_range_from_one_word_to_a_story() -> None:
    lengths = [len(row["output"].split()) for row in generate(1000, 2)]
    assert min(lengths) == 1
    assert max(lengths) >= 60


def test_arithmetic_in_the_answers_is_right() -> None:
    checked = 0
    for row in generate(2000, 5):
        words = row["output"].replace(",", " ").replace(".", " ").replace("First", "").split()
        for i, word in enumerate(words):
            if word == "=" and i >= 3 and words[i - 2] in "+-*":
                a, sign, b = words[i - 3 : i]
                left = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
                assert left == int(words[i + 1]), row
                checked += 1
    assert checked > 300


@pytest.mark.parametrize("share", [0.0, 0.05, 0.10, 1 / 3])
def test_each_kind_has_exactly_its_share(share: float) -> None:
    rows = generate(600, 7)
    corrupted, labels = corrupt(rows, share, seed=8)
    counts = Counter(labels)
    assert [counts[kind] for kind in KINDS] == [round(600 * share)] * 3
    assert labels == [row["corruption"] for row in corrupted]


def test_a_corruption_changes_the_answer_and_nothing_else() -> None:
    rows = generate(1000, 7)
    corrupted, labels = corrupt(rows, seed=8)
    for row, changed, label in zip(rows, corrupted, labels, strict=True):
        assert {**changed, "output": row["output"]} == {**row, "corruption": label}
        assert (changed["output"] != row["output"]) == (label != "none")


def test_corrupting_is_reproducible_and_leaves_its_input_alone() -> None:
    rows = generate(500, 7)
    copies = [dict(row) for row in rows]
    assert corrupt(rows, seed=8) == corrupt(rows, seed=8)
    assert corrupt(rows, seed=8) != corrupt(rows, seed=9)
    assert rows == copies


def test_thirty_per_cent_of_the_words_are_masked_in_place() -> None:
    text = "one two three\nfour five six seven eight  nine ten"
    masked = mask_words(text, Random(0))
    assert masked.split().count(MASK) == 3
    assert len(masked.split()) == 10
    assert all(new in (old, MASK) for old, new in zip(text.split(), masked.split(), strict=True))
    assert "\n" in masked and "  " in masked
    assert mask_words("word", Random(0)) == MASK


def test_shuffling_keeps_the_words_and_the_white_space() -> None:
    text = "one two three\nfour five"
    for seed in range(50):
        shuffled = shuffle_words(text, Random(seed))
        assert shuffled != text
        assert sorted(shuffled.split()) == sorted(text.split())
        assert shuffled.index("\n") > 0 and shuffled.count(" ") == 3
    with pytest.raises(ValueError, match="only one order"):
        shuffle_words("same same same", Random(0))


def test_a_wrong_answer_is_the_answer_of_another_row_and_differs() -> None:
    rows = generate(1000, 7)
    corrupted, labels = corrupt(rows, seed=8)
    answers = Counter(row["output"] for row in rows)
    for row, changed, label in zip(rows, corrupted, labels, strict=True):
        if label == "wrong_answer":
            assert changed["output"] != row["output"]
            assert answers[changed["output"]] >= 1


def test_more_corruption_than_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        corrupt(generate(100, 7), 0.4, seed=8)


def test_the_embedded_corpus_is_what_its_script_writes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", demo_corpus())
    assert (tmp_path / "corpus.jsonl").read_bytes() == CORPUS_FILE.read_bytes()


def test_the_embedded_corpus_has_1000_rows_and_10_percent_of_each_kind() -> None:
    rows = read_corpus()
    counts = Counter(row["corruption"] for row in rows)
    assert len(rows) == DEMO_ROWS == 1000
    assert counts == {"none": 700, **dict.fromkeys(KINDS, 100)}
