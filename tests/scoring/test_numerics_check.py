"""The self-check passes on sound models of every kind of head, and cannot pass on a wrong one."""

from __future__ import annotations

import math

import pytest
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.types import Record
from donod_fast.errors import InputError
from donod_fast.scoring.numerics_check import CheckLine, check_scorer
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings


@pytest.mark.parametrize("kind", ["llama", "gemma2", "cohere", "phi", "gpt2"])
def test_sound_models_pass_and_the_naive_program_is_shown_without_a_limit(kind: str) -> None:
    scorer = Scorer(tiny_model(kind), tiny_tokenizer(), update=UpdateSettings(weight_decay=0.01))
    lines = check_scorer(scorer)
    assert [line.update for line in lines] == [name for name in ("adamw", "sgd", "sign") for _ in range(4)]
    assert all(line.passed is True for line in lines if line.method.startswith("ours"))
    assert all(line.passed is None for line in lines if line.method.startswith("naive"))
    sgd = {line.method: line.don_error for line in lines if line.update == "sgd"}
    assert sgd["naive bfloat16"] > 100 * sgd["ours"]


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("error", [2e-5, math.nan, math.inf])
def test_no_wrong_figure_passes_wherever_it_stands(place: int, error: float) -> None:
    errors = [1e-9] * 3
    assert CheckLine("ours", "sgd", *errors, limit=1e-5).passed is True
    errors[place] = error
    assert CheckLine("ours", "sgd", *errors, limit=1e-5).passed is False


def test_rows_that_cannot_be_scored_are_no_check() -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
    with pytest.raises(InputError, match="none of the rows can be scored"):
        check_scorer(scorer, [Record(0, "f", "line 1", {"question": "a", "answer": ""})])
