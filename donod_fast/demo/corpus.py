"""The demonstration's corpus: generated questions and answers, some of them corrupted on purpose.

Everything is drawn from one seeded ``random.Random``, so a seed names a corpus to the byte. The
embedded one is written by ``python -m donod_fast.demo.corpus --out FILE``.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from random import Random
from typing import Any

from donod_fast.demo import language, puzzles
from donod_fast.demo.draft import Draft, Family

Row = dict[str, Any]
"""``id``, ``instruction``, ``input``, ``output``, ``family`` and, once corrupted, ``corruption``."""

DEMO_ROWS = 1000
DEMO_SEED = 20250417
DEMO_SHARE = 0.10

DATA = Path(__file__).parent / "data"
CORPUS_FILE = DATA / "corpus.jsonl"
MODEL_FOLDER = DATA / "model"

FAMILIES: dict[str, Family] = {**puzzles.FAMILIES, **language.FAMILIES}
"""The families by name; a corpus draws them with equal chances."""

CLEAN = "none"
MASK = "___"
MASKED_SHARE = 0.30
FEWEST_WORDS = 4
"""A shorter answer is neither masked nor shuffled: there is too little of it to damage."""

Question = tuple[str, str]
"""What makes two rows the same question: instruction and input."""


def question_of(row: Row) -> Question:
    """The question of a row, without its answer."""
    return row["instruction"], row["input"]


def generate(count: int, seed: int, exclude: Collection[Question] = ()) -> list[Row]:
    """``count`` different questions with right answers.

    Args:
        count: how many rows.
        seed: names the corpus; the same seed gives the same rows.
        exclude: questions that must not be drawn (those of a corpus held out).

    Returns:
        Rows with ``id``, ``instruction``, ``input``, ``output`` and ``family``, no question twice.
    """
    rng = Random(seed)
    names = sorted(FAMILIES)
    seen = set(exclude)
    rows: list[Row] = []
    while len(rows) < count:
        family = rng.choice(names)
        draft: Draft = FAMILIES[family](rng)
        question = (draft.instruction, draft.input)
        if question not in seen:
            seen.add(question)
            rows.append({"id": f"demo-{len(rows):05d}", **draft._asdict(), "family": family})
    return rows


def mask_words(text: str, rng: Random) -> str:
    """The text with 30 % of its words (at least one) replaced by a blank."""
    parts = re.split(r"(\s+)", text)
    places = range(0, len(parts), 2)
    for place in rng.sample(places, max(1, round(MASKED_SHARE * len(places)))):
        parts[place] = MASK
    return "".join(parts)


def shuffle_words(text: str, rng: Random) -> str:
    """The text with its words in another order, its white space where it was."""
    parts = re.split(r"(\s+)", text)
    if len(set(parts[::2])) < 2:
        raise ValueError(f"there is only one order of the words in {text!r}")
    shuffled = text
    while shuffled == text:
        places = parts[::2]
        rng.shuffle(places)
        parts[::2] = places
        shuffled = "".join(parts)
    return shuffled


def _wrong_answer(row: Row, rows: Sequence[Row], rng: Random) -> str:
    while True:
        output: str = rng.choice(rows)["output"]
        if output != row["output"]:
            return output


def corrupt(rows: Sequence[Row], share: float = DEMO_SHARE, *, seed: int) -> tuple[list[Row], list[str]]:
    """Plants corruptions in the answers: ``share`` of all rows for each kind, no row twice.

    Args:
        rows: rows of :func:`generate`; they are not changed.
        share: the part of the rows that each of the three kinds gets.
        seed: names the choice of rows and the damage done to them.

    Returns:
        The rows in the same order, each with its ``corruption``, and that column as a list:
        ``none``, ``masked_words``, ``shuffled_words`` or ``wrong_answer`` (the right answer of
        another question).
    """
    rng = Random(seed)
    each = round(share * len(rows))
    order = list(range(len(rows)))
    rng.shuffle(order)
    long_enough = [i for i in order if len(set(rows[i]["output"].split())) >= FEWEST_WORDS]
    if each * 3 > len(rows) or each * 2 > len(long_enough):
        raise ValueError(f"{len(rows)} rows cannot hold {each} corruptions of each kind")

    masked, shuffled = long_enough[:each], long_enough[each : 2 * each]
    taken = {*masked, *shuffled}
    wrong = [i for i in order if i not in taken][:each]
    damage: dict[str, tuple[list[int], Callable[[Row], str]]] = {
        "masked_words": (masked, lambda row: mask_words(row["output"], rng)),
        "shuffled_words": (shuffled, lambda row: shuffle_words(row["output"], rng)),
        "wrong_answer": (wrong, lambda row: _wrong_answer(row, rows, rng)),
    }
    corrupted = [{**row, "corruption": CLEAN} for row in rows]
    for kind, (places, damaged) in damage.items():
        for i in sorted(places):
            corrupted[i] = {**rows[i], "output": damaged(rows[i]), "corruption": kind}
    return corrupted, [row["corruption"] for row in corrupted]


def demo_corpus() -> list[Row]:
    """Generate the embedded corpus: 1,000 rows, 10 % with each corruption."""
    rows, _ = corrupt(generate(DEMO_ROWS, DEMO_SEED), DEMO_SHARE, seed=DEMO_SEED + 1)
    return rows


def write_corpus(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as JSON Lines: UTF-8, one record a line, a bare line feed on every system."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def read_corpus(path: Path = CORPUS_FILE) -> list[Row]:
    """Reads what :func:`write_corpus` wrote; by default the embedded corpus."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """``python -m donod_fast.demo.corpus --out FILE`` writes the embedded corpus."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=CORPUS_FILE, help="the file to write")
    write_corpus(parser.parse_args().out, demo_corpus())


if __name__ == "__main__":
    main()
