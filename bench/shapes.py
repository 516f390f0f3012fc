"""Cases of the head phase: output layers of known models, token counts and sample lengths.

No data is needed: the lengths are drawn from log-normal distributions fitted once (see ``LENGTHS``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Shape:
    """An output layer.

    Attributes:
        name: its name on the command line.
        vocab, dim: rows and columns of W.
        softcap: cap of the logits, or None.
        tokens: numbers of scored tokens, one run for each.
        profiles: names of length profiles, one run for each.
        small: suits a CPU; the others are for an accelerator.
    """

    name: str
    vocab: int
    dim: int
    softcap: float | None = None
    tokens: tuple[int, ...] = (8192, 32768)
    profiles: tuple[str, ...] = ("gsm8k", "1000", "code")
    small: bool = False


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("llama-2-7b", 32000, 4096),
        Shape("llama-3.1-8b", 128256, 4096),
        Shape("qwen2.5-7b", 152064, 3584),
        Shape("gemma-2-2b", 256000, 2304, softcap=30.0),
        Shape("small", 32000, 1024, tokens=(1024,), profiles=("gsm8k",), small=True),
        Shape("tiny", 4096, 256, tokens=(4096,), small=True),
    )
}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Scored tokens of a sample: log-normal, rounded, within the range of the data.

    Attributes:
        mu, sigma: mean and standard deviation of the logarithm.
        low, high: shortest and longest sample of the data.
        source: the data that was fitted.
    """

    name: str
    mu: float
    sigma: float
    low: int
    high: int
    source: str

    def draw(self, random: Random) -> int:
        """One length."""
        return min(max(round(random.lognormvariate(self.mu, self.sigma)), self.low), self.high)


# Fitted by the mean and standard deviation of log(tokens), tokens counted by the Llama 2 tokenizer (32,000 pieces) over
# the response alone, including its closing token. Means of the data: 130.6 and 88.9 tokens.
LENGTHS = {
    lengths.name: lengths
    for lengths in (
        Lengths("gsm8k", 4.783, 0.421, 30, 476, "the 7,473 answers of GSM8K train"),
        Lengths("code", 4.309, 0.659, 2, 413, "the 4,535 outputs of CodeAlpaca (new_codealpaca.json)"),
        Lengths("1000", math.log(1000), 0.0, 1000, 1000, "every sample 1,000 tokens (the last one the rest)"),
    )
}


def sample_lengths(lengths: Lengths, tokens: int, *, seed: int = 0) -> list[int]:
    """Lengths of samples with ``tokens`` tokens in total; the last one is cut to fit."""
    random = Random(seed)
    found: list[int] = []
    while tokens > 0:
        found.append(min(lengths.draw(random), tokens))
        tokens -= found[-1]
    return found
