"""Settings of program generation, validated and recorded with the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.errors import InputError
from donod_fast.evaluation.prompts import STOPS
from donod_fast.system.options import option

PANEL = "Generation"


def _some(given: list[str]) -> tuple[str, ...] | None:
    return tuple(given) or None


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Settings of program generation. Decoding is greedy if the temperature is 0.

    Attributes:
        style: a prompt style of :data:`donod_fast.evaluation.prompts.STOPS`.
        samples_per_task: programs per task.
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: share of the probability that tokens are drawn from.
        seed: seed of the draws; a sample depends only on it, its task and its number.
        max_new_tokens: maximum tokens per sample.
        stops: strings that end a sample; None: the style's own.
        template: chat template of the style ``chat``, as in ``donod-fast score --template``.
        batch_rows: samples per batch; None chooses by the memory that keys and values need.

    Raises:
        InputError: a setting has an invalid value; the message names it.
    """

    style: str = "completion"
    samples_per_task: int = option(1, help="Programs per task.", panel=PANEL, minimum=1)
    temperature: float = option(0.0, help="Sampling temperature; 0 is greedy.", panel=PANEL)
    top_p: float = option(1.0, help="Sample from the likeliest tokens of this probability mass.", panel=PANEL)
    seed: int = option(0, help="Seed of the sampling.", panel=PANEL)
    max_new_tokens: int = option(512, help="Maximum length of a program in tokens.", panel=PANEL, minimum=1)
    stops: tuple[str, ...] | None = option(
        text=[],
        parse=_some,
        name="stop",
        help="Text that ends a program; may be repeated.",
        panel=PANEL,
        shown="those of the style",
    )
    template: str = option("auto", help="Chat template of the style chat, as for `score`.", panel=PANEL)
    batch_rows: int | None = option(
        None, help="Number of programs generated in parallel.", panel=PANEL, minimum=1, shown="by free memory"
    )

    def __post_init__(self) -> None:
        if self.style not in STOPS:
            raise InputError(f"style must be one of {', '.join(STOPS)}, got {self.style!r}")
        for name, value in (
            ("samples_per_task", self.samples_per_task),
            ("max_new_tokens", self.max_new_tokens),
            ("batch_rows", 1 if self.batch_rows is None else self.batch_rows),
        ):
            if value < 1:
                raise InputError(f"{name} must be ≥ 1, got {value}")
        if not 0.0 <= self.temperature < float("inf"):
            raise InputError(f"temperature must be finite and ≥ 0, got {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise InputError(f"top_p must be > 0 and ≤ 1, got {self.top_p}")
        if self.samples_per_task > 1 and self.temperature == 0.0:
            raise InputError(
                f"{self.samples_per_task} samples per task at temperature 0 are all equal; "
                "set a temperature, for example 0.2"
            )
        if self.stops is not None and not all(self.stops):
            raise InputError("a stop must not be empty")

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stops in use: ``stops``, or the style's own."""
        return STOPS[self.style] if self.stops is None else self.stops

    def as_dict(self) -> dict[str, Any]:
        """The settings that decide the samples, JSON-serialisable."""
        record = asdict(self)
        del record["batch_rows"]
        return {**record, "stops": list(self.stop_texts)}
