"""Criteria on a CUDA device, with batches launched ahead: the same values as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from score_runs import short_rows
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.criteria.registry import parse_signals
from donod_fast.scoring.scorer import Scorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

NAMES = "perplexity,el2n,grand,ifd,embedding"


def test_criteria_on_a_gpu_are_those_of_the_cpu() -> None:
    rows = short_rows(60, seed=5)
    tables = [
        Scorer(tiny_model("llama").to(device), tiny_tokenizer(), signals=parse_signals(NAMES)).score_table(rows)
        for device in ("cpu", "cuda")
    ]
    for name in ("perplexity", "el2n", "grand", "answer_loss", "ifd_loss", "ifd_ppl"):
        ours, theirs = (np.array(table.column(name).to_pylist()) for table in tables)
        assert np.allclose(ours, theirs, rtol=1e-4, equal_nan=True)
    vectors = [[one for one in table.column("embedding").to_pylist() if one is not None] for table in tables]
    assert np.allclose(*vectors, atol=1e-4)


def test_criteria_added_later_on_a_gpu_are_those_computed_together() -> None:
    scorer = Scorer(tiny_model("llama").to("cuda"), tiny_tokenizer(), signals=parse_signals("el2n,ifd"))
    rows = short_rows(60, seed=5)
    table = scorer.score_table(rows)
    from donod_fast.data.reading import corpus_from_rows

    samples = scorer.masker.tokenize_many(list(corpus_from_rows(rows).records()))
    later = scorer.sample_scorer.add(samples, table.column("loss").to_pylist(), scorer.sample_scorer.signals)
    for at, name in enumerate(("el2n", "answer_loss", "ifd_loss", "ifd_ppl")):
        wanted = np.array(table.column(name).to_pylist())
        found = np.array([np.nan if row[at] is None else row[at] for row in later])
        assert np.allclose(found, wanted, rtol=1e-4, equal_nan=True)
