"""Held-out loss, compared with a plain forward pass and the model's own cross entropy."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from threshold_fakes import demo_rows

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record
from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.studies.core.heldout import heldout_loss

ROWS = demo_rows(24)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    torch.set_num_threads(1)
    return load_model(MODEL_FOLDER, dtype="float32", device="cpu")


def plain_losses(loaded: LoadedModel, rows: list[dict[str, str]]) -> list[list[float]]:
    """The loss of every scored token of each row, one row at a time."""
    masker = Masker(loaded.tokenizer, MaskSettings(), vocab_size=loaded.model.config.vocab_size)
    found = []
    for number, row in enumerate(rows):
        sample = masker.tokenize(Record(number, "-", "", row))
        with torch.no_grad():
            logits = loaded.model(torch.tensor([sample.input_ids])).logits[0].double()
        losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(sample.input_ids[1:]), reduction="none")
        found.append([float(loss) for loss, scored in zip(losses, sample.scored[1:], strict=True) if scored])
    return found


def test_it_is_the_mean_over_all_scored_tokens(loaded: LoadedModel) -> None:
    by_row = plain_losses(loaded, ROWS)
    tokens = [loss for row in by_row for loss in row]
    found = heldout_loss(loaded, ROWS)
    assert found.loss == pytest.approx(sum(tokens) / len(tokens), rel=1e-5)
    assert (found.rows, found.tokens) == (24, len(tokens))
    assert found.loss != pytest.approx(sum(sum(row) / len(row) for row in by_row) / 24, rel=1e-3), "not over rows"


def test_its_standard_error_is_its_spread_over_other_draws_of_rows(loaded: LoadedModel) -> None:
    found = heldout_loss(loaded, ROWS)
    by_row = plain_losses(loaded, ROWS)
    totals = torch.tensor([[sum(row), len(row)] for row in by_row], dtype=torch.float64)
    draws = totals[torch.randint(24, (4000, 24), generator=torch.Generator().manual_seed(0))].sum(dim=1)
    assert found.error == pytest.approx(float((draws[:, 0] / draws[:, 1]).std()), rel=0.1)


def test_all_ways_to_pass_a_model_give_the_same_loss(loaded: LoadedModel) -> None:
    losses = [
        heldout_loss(MODEL_FOLDER, ROWS[:8]).loss,
        heldout_loss(loaded, ROWS[:8]).loss,
        heldout_loss(loaded.model, ROWS[:8], tokenizer=loaded.tokenizer).loss,
    ]
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in pairwise(losses))


def test_a_model_in_training_mode_is_measured_without_dropout(loaded: LoadedModel) -> None:
    loaded.model.train()
    try:
        first = heldout_loss(loaded.model, ROWS[:8], tokenizer=loaded.tokenizer)
        assert loaded.model.training
    finally:
        loaded.model.eval()
    assert first == heldout_loss(loaded.model, ROWS[:8], tokenizer=loaded.tokenizer)


def test_rows_without_a_loss_do_not_count_and_none_at_all_is_refused(loaded: LoadedModel) -> None:
    broken = {"instruction": "Say it.", "output": ""}
    assert heldout_loss(loaded, [*ROWS[:8], broken]) == heldout_loss(loaded, ROWS[:8])
    with pytest.raises(InputError, match="none of the held-out rows has a loss"):
        heldout_loss(loaded, [broken])
