"""Fixtures for the tests of scores folders."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def scorer() -> object:
    from tiny_models import tiny_model, tiny_tokenizer

    from donod_fast.scoring.scorer import Scorer

    return Scorer(tiny_model("llama"), tiny_tokenizer())
