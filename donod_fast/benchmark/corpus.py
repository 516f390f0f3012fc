"""Corpora for the benchmark: random ones with known lengths, or the user's own, as samples and as a file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

from donod_fast.data.types import IGNORE_INDEX, Status, TokenizedSample
from donod_fast.errors import CorpusError

if TYPE_CHECKING:
    from donod_fast.data.masking import Masker

QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Distribution of prompt and answer lengths of a corpus.

    Attributes:
        prompt, answer: number of tokens at ``QUANTILES``.
        correlation: correlation between the normal scores of both lengths.
        source: the corpus in which they were measured.
    """

    name: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    correlation: float
    source: str

    def draw(self, draw: random.Random) -> tuple[int, int]:
        """Number of tokens of one row's prompt and answer."""
        first, second = draw.gauss(), draw.gauss()
        second = self.correlation * first + (1.0 - self.correlation**2) ** 0.5 * second
        uniform = NormalDist().cdf
        return _between(self.prompt, uniform(first)), _between(self.answer, uniform(second))


# Counted by the Llama 2 tokenizer (32,000 pieces): prompt "<s>[INST] question [/INST]", answer with its closing token.
LENGTHS = {
    lengths.name: lengths
    for lengths in (
        Lengths(
            "gsm8k",
            (20, 37, 43, 48, 56, 69, 86, 107, 120, 150, 247),
            (30, 49, 61, 69, 89, 119, 161, 208, 242, 306, 476),
            0.57,
            "the 7,473 rows of GSM8K train, 204 tokens on average, of which 131 are scored",
        ),
        Lengths(
            "code",
            (19, 23, 26, 28, 33, 42, 56, 73, 87, 121, 210),
            (2, 11, 22, 33, 53, 83, 115, 153, 179, 243, 413),
            0.0,
            "the 4,535 rows of CodeAlpaca (new_codealpaca.json), 136 tokens on average, of which 89 are scored",
        ),
    )
}


def random_samples(
    lengths: Lengths, vocab: int, *, tokens: int | None = None, rows: int | None = None, seed: int = 0
) -> list[TokenizedSample]:
    """Samples of random ids, with the requested number of rows or at least the requested number of tokens."""
    draw = random.Random(seed)
    samples: list[TokenizedSample] = []
    total = 0
    while len(samples) < (rows or 0) or total < (tokens or 0):
        prompt, answer = lengths.draw(draw)
        ids = tuple(draw.choices(range(vocab), k=prompt + answer))
        scored = (False,) * prompt + (True,) * answer
        row = len(samples)
        samples.append(
            TokenizedSample(row, f"row{row}", Status.SCORED, "", ids, scored, len(ids), False, "tokenized", "labels")
        )
        total += len(ids)
    return samples


def write_tokens(path: Path, samples: Sequence[TokenizedSample]) -> None:
    """Write the samples as JSON Lines of token ids and labels, a file that needs no tokenizer."""
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            labels = [i if flag else IGNORE_INDEX for i, flag in zip(sample.input_ids, sample.scored, strict=True)]
            file.write(json.dumps({"id": sample.id, "input_ids": sample.input_ids, "labels": labels}) + "\n")


def user_samples(data: str, masker: Masker, path: Path, *, rows: int | None) -> list[TokenizedSample]:
    """Tokenise the first rows of a user's corpus that can be scored, and write their records to ``path`` as JSON Lines.

    Raises:
        CorpusError: it cannot be read, or none of its rows can be scored.
    """
    from donod_fast.data.reading import open_corpus
    from donod_fast.data.record_files import json_line

    corpus = open_corpus([data])
    records = list(corpus.records(0, corpus.rows if rows is None else min(rows, corpus.rows)))
    found = masker.tokenize_many(records)
    kept = [(record, sample) for record, sample in zip(records, found, strict=True) if sample.status is Status.SCORED]
    if not kept:
        first = found[0].detail if found else "it has no rows"
        raise CorpusError(f"{data}: none of its rows can be scored; the first one: {first}")
    with path.open("wb") as file:
        for record, _ in kept:
            file.write(json_line(record))
    return [sample for _, sample in kept]


def _between(values: Sequence[int], share: float) -> int:
    """The value at a quantile, by linear interpolation."""
    above = next(i for i in range(1, len(QUANTILES)) if share <= QUANTILES[i])
    low, high = QUANTILES[above - 1], QUANTILES[above]
    return round(values[above - 1] + (values[above] - values[above - 1]) * (share - low) / (high - low))
