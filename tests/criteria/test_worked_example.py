"""The example criterion of the guide to extending works as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import short_rows
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows
from donod_fast.scoring.scorer import Scorer

GUIDE = Path(__file__).parents[2] / "docs" / "development" / "extending.md"


def test_the_worked_example_gives_a_column() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "(Criterion)" in block), names)
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), signals=[names["StateNorm"]()])
    rows = short_rows(12, seed=1)
    table = scorer.score_table(rows)
    samples = scorer.masker.tokenize_many(list(corpus_from_rows(rows).records()))
    scored = [i for i, status in enumerate(table.column("status").to_pylist()) if status == "scored"]
    assert scored
    for i in scored:
        with torch.no_grad():
            ids = torch.tensor([samples[i].input_ids])
            hidden = scorer.loaded.model.get_decoder()(ids, use_cache=False).last_hidden_state[0]
        at = [place - 1 for place, flag in enumerate(samples[i].scored) if flag]
        wanted = float(hidden[at].double().norm(dim=1).mean())
        assert table.column("state_norm")[i].as_py() == pytest.approx(wanted, rel=1e-5)
