"""Sets of equal and of nearly equal texts, against an oracle that compares all pairs."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from donod_fast.data.types import Conversation, Message, PlainText, PromptCompletion, TokenRow
from donod_fast.errors import InputError
from donod_fast.selection.dedupe import duplicate_sets
from donod_fast.selection.dedupe.near_texts import bands_of, near_texts
from donod_fast.selection.dedupe.words import Shingler, sample_text, words

VOCABULARY = [f"w{number}" for number in range(400)]


def planted(random_state: random.Random, count: int) -> list[tuple[int, str]]:
    """Texts of which many are edits of others, by zero to many words, under shuffled row numbers."""
    texts = [" ".join(random_state.choices(VOCABULARY, k=random_state.randint(5, 120))) for _ in range(count // 3)]
    while len(texts) < count:
        changed = random_state.choice(texts).split()
        for _ in range(random_state.choice((0, 0, 1, 2, 5, 20))):
            changed[random_state.randrange(len(changed))] = random_state.choice(VOCABULARY)
        texts.append(random_state.choice((" ", "  ", "\n")).join(changed))
    rows = random_state.sample(range(10 * count), count)
    return list(zip(rows, texts, strict=True))


def by_hand(text: str) -> set[tuple[str, ...]]:
    """Shingles without hashes."""
    found = re.findall(r"\w+|[^\w\s]", text.casefold())
    return {tuple(found[at : at + 5]) for at in range(max(1, len(found) - 4))}


def share(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def greedy(texts: Sequence[tuple[int, str]], threshold: float) -> dict[int, int]:
    """All rows that are dropped, with the kept row that each is near to, by comparing all pairs."""
    kept: list[tuple[int, set[tuple[str, ...]]]] = []
    dropped = {}
    for row, text in sorted(texts):
        own = by_hand(text)
        near = next((other for other, shingles in kept if share(own, shingles) >= threshold), None)
        if near is None:
            kept.append((row, own))
        else:
            dropped[row] = near
    return dropped


@pytest.mark.parametrize("seed", range(4))
def test_exact_sets_are_the_classes_of_equal_texts(seed: int) -> None:
    texts = planted(random.Random(seed), 200)
    classes: dict[str, list[int]] = {}
    for row, text in texts:
        classes.setdefault(" ".join(text.split()), []).append(row)
    assert duplicate_sets(texts, "exact") == sorted(sorted(rows) for rows in classes.values() if len(rows) > 1)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 0.95, 1.0])
def test_minhash_sets_are_those_of_all_pairs(threshold: float) -> None:
    """No false pair ever; what is missed must be rare (0.99 at the threshold), so that few texts miss nothing."""
    for seed in range(3):
        texts = planted(random.Random(seed), 150)
        near = near_texts(texts, threshold)
        shingles = {row: by_hand(text) for row, text in texts}
        found = dict(zip(near.dropped.tolist(), near.kept.tolist(), strict=True))
        for row, kept, similarity in zip(near.dropped, near.kept, near.similarity, strict=True):
            assert share(shingles[row], shingles[kept]) == pytest.approx(similarity) and similarity >= threshold
            assert kept < row and kept not in found
        expected = greedy(texts, threshold)
        assert len(found.items() ^ expected.items()) <= 2
        assert len(expected) > 10


def test_the_bands_find_a_pair_at_the_threshold() -> None:
    for threshold in (0.05, 0.2, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0):
        bands, length = bands_of(threshold)
        assert bands * length <= 128
        assert 1 - (1 - threshold**length) ** bands >= 0.99 or length == 1


@pytest.mark.parametrize("kind", ["exact", "minhash"])
def test_the_order_of_the_texts_changes_nothing(kind: str) -> None:
    texts = planted(random.Random(7), 200)
    shuffled = random.Random(8).sample(texts, len(texts))
    assert duplicate_sets(texts, kind) == duplicate_sets(shuffled, kind) != []


def test_another_process_finds_the_same_shingles(tmp_path: Path) -> None:
    program = (
        "from donod_fast.selection.dedupe.words import Shingler; "
        "print(Shingler().shingles('some words that are hashed the same').tolist())"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.strip() == str(Shingler().shingles("some words that are hashed the same").tolist())


def test_rows_without_a_word_are_in_no_set() -> None:
    texts = [(0, ""), (1, " \n"), (2, ""), (3, "one"), (4, "one")]
    for kind in ("exact", "minhash"):
        assert duplicate_sets(texts, kind) == [[3, 4]]
        assert duplicate_sets([], kind) == []


def test_signs_count_and_case_counts_only_in_exact() -> None:
    texts = [(0, "What is 1 + 2?"), (1, "What is 1 - 2?"), (2, "what is 1 + 2?"), (3, "What  is 1 + 2?")]
    assert duplicate_sets(texts, "exact") == [[0, 3]]
    assert duplicate_sets(texts, "minhash", 1.0) == [[0, 2, 3]]


def test_scripts_without_spaces_have_words() -> None:
    assert words("中文abc テスト") == ["中", "文", "abc", "テ", "ス", "ト"]
    assert len(words("ภาษาไทย")) > 3


def test_the_text_of_a_sample_is_its_conversation() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"b": 1, "a": 2}}}
    turns = (Message("user", "q"), Message("assistant", "a", (call,)))
    text = sample_text(Conversation(turns, tools=({"name": "never shown"},)))
    assert "user: q" in text and '"a": 2, "b": 1' in text and "never shown" not in text
    thought = Message(
        "assistant", "a", own={"role": "assistant", "content": "a", "reasoning_content": "why", "id": "7"}
    )
    assert "why" in sample_text(Conversation((thought,))) and "7" not in sample_text(Conversation((thought,)))
    assert sample_text(PromptCompletion("p", "c")) == "p\nc"
    assert sample_text(PlainText("t")) == "t"
    assert sample_text(TokenRow((3, 14), (-100, 14))) == "3 14"


def test_what_cannot_be_meant_is_refused() -> None:
    for kind, threshold, said in (
        ("exact", 0.5, "no threshold"),
        ("minhash", 0.0, "above 0"),
        ("minhash", float("nan"), "above 0"),
        ("minhsh", None, "did you mean 'minhash'"),
        ("embedding", None, "texts are compared by"),
    ):
        with pytest.raises(InputError, match=said):
            duplicate_sets([], kind, threshold)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(InputError, match=r"donod-fast\[dedupe\]"):
        duplicate_sets([(0, "a")], "minhash")
