"""Settings of the update: checked when created, readable in a manifest, and passed on to the kernels."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from donod_fast.errors import InputError
from donod_fast.kernels import SGD, AdamW, Sign
from donod_fast.models.head import Head
from donod_fast.scoring.forward import HeadCall
from donod_fast.scoring.settings import REDUCTIONS, STORAGE_DTYPES, UPDATES, UpdateSettings


def test_the_defaults_are_those_of_the_paper_s_training() -> None:
    told = UpdateSettings().as_dict()
    assert (told["update"], told["lr"], told["weight_decay"], told["eps"]) == ("adamw", 2e-5, 0.0, 1e-8)
    assert (told["reduction"], told["storage_dtype"]) == ("mean", None)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("update", ["adam", "", None]),
        ("reduction", ["max", None]),
        ("storage_dtype", ["int8", "bf16", ""]),
        ("lr", [0.0, -1.0, math.inf, math.nan]),
        ("weight_decay", [-1e-9, math.inf, math.nan]),
        ("eps", [0.0, -1.0, math.nan, math.inf]),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InputError, match=name.replace("_", " ")):
            UpdateSettings(**{name: value})


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("storage", [None, *STORAGE_DTYPES])
def test_every_allowed_combination_reaches_the_kernels(update: str, reduction: str, storage: str | None) -> None:
    settings = UpdateSettings(update, 1e-3, 0.1, 1e-6, reduction, storage)
    assert UpdateSettings(**json.loads(json.dumps(settings.as_dict()))) == settings
    assert isinstance(settings.rule(), {"adamw": AdamW, "sgd": SGD, "sign": Sign}[update])
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(3, 4, generator=generator), torch.randn(5, 4, generator=generator)
    call = HeadCall(Head(weight, None, 1.0, None, False), settings)
    scores = call.scores(hidden, torch.tensor([0, 1, 2]), torch.tensor([0, 3]))
    assert math.isfinite(float(scores.don)) and float(scores.nod) > 0


def test_eps_reaches_adamw() -> None:
    rule = UpdateSettings(eps=1e-3).rule()
    assert isinstance(rule, AdamW) and rule.eps == 1e-3
