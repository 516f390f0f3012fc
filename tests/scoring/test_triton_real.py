"""The Triton kernels on real rows of a trained model agree with float64 autograd, also through the scorer."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from score_runs import own_states, tiny_scorer
from trial_counts import examples

from donod_fast.data.reading import open_corpus
from donod_fast.errors import BackendError
from donod_fast.kernels import don_nod, gradient_products, reference_don_nod
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

SHARED = Path(__file__).parents[2].parent / "shared"
DATA, MODEL = SHARED / "data", SHARED / "models" / "tiny-instruct"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not MODEL.is_dir() or not DATA.is_dir(), reason="the real data of ../shared is absent"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for a device here"),
]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return tiny_scorer(MODEL)


@pytest.fixture(scope="module")
def states(scorer: Scorer) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Float64 hidden states, labels and bounds of a confident and an unseen row: their last tokens, or all at night."""
    records = [
        *islice(open_corpus([str(DATA / "gsm8k/train.jsonl")]).records(), 1),
        *islice(open_corpus([str(DATA / "gsm8k/test.jsonl")]).records(), 1),
    ]
    count = examples(24, 1 << 20)
    found = [own_states(scorer, sample) for sample in scorer.masker.tokenize_many(records)]
    return [(hidden[-count:], labels[-count:], ends.clamp(max=len(labels[-count:]))) for hidden, labels, ends in found]


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_real_rows_are_within_bounds_of_float64_autograd(
    scorer: Scorer, states: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], update: str
) -> None:
    weight = scorer.head.weight
    hidden = torch.cat([state[0] for state in states]).float()
    labels = torch.cat([state[1] for state in states])
    ends = torch.tensor([0, *(len(state[1]) for state in states)]).cumsum(0).int()
    found = don_nod(hidden, weight, labels, ends, update=update, backend="triton")
    truth = reference_don_nod(hidden.double(), weight.double(), labels, ends, update=update)
    assert bool(((found.don - truth.don).abs() <= 1e-5 * truth.nod).all())
    assert bool(((found.nod - truth.nod).abs() <= 1e-5 * truth.nod).all())
    torch.testing.assert_close(found.loss, truth.loss, rtol=1e-5, atol=0.0)
    if update == "sgd":
        norms = gradient_products(hidden, labels, ends, hidden, labels, ends, weight).diagonal().sqrt()
        torch.testing.assert_close(norms, truth.update_norm, rtol=1e-5, atol=0.0)


def test_the_scorer_passes_the_choice_on_and_reports_why_it_fails() -> None:
    rows = list(islice((record.data for record in open_corpus([str(DATA / "gsm8k/test.jsonl")]).records()), 1))
    scorer = tiny_scorer(MODEL, backend="triton", update=UpdateSettings("adamw", eps=1e-31))
    with pytest.raises(BackendError, match="eps"):
        scorer.score_table(rows)
