"""The estimates of ``--dry-run`` agree with an actual run."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from score_runs import short_rows
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows
from donod_fast.models.batching import Batch
from donod_fast.scoring.budget import Budget
from donod_fast.scoring.dry_run import plan_run
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.threads import worker_count


def test_a_plan_counts_what_the_run_will_do() -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
    rows = [*short_rows(150, seed=4), {"question": "x" * 90, "answer": "y" * 90}]
    plan = plan_run(corpus_from_rows(rows), scorer, workspace_bytes=1 << 20)
    table = scorer.score_table(rows).to_pylist()
    assert plan.rows == len(rows)
    assert plan.by_status == Counter(row["status"] for row in table)
    assert plan.truncated == sum(row["truncated"] for row in table) == 1
    scored = [row for row in table if row["status"] == "scored"]
    assert plan.scored_tokens == sum(row["scored_tokens"] for row in scored)
    assert plan.tokens == sum(min(row["tokens"], 128) for row in scored)
    assert sum(plan.formats.values()) == len(rows)
    assert 32 <= plan.sample_rows <= 64
    assert plan.model_bytes >= 4 * scorer.loaded.model.num_parameters()
    assert plan.seconds > 0 and plan.workspace_bytes == 1 << 20


@pytest.mark.parametrize("packing", ["off", "on"])
def test_a_plan_counts_the_batches_that_a_run_makes(packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), packing=packing, token_budget=256)
    rows = short_rows(150, seed=4)
    found = Budget(256, "what fits", bytes_per_token=1000.0)
    plan = plan_run(corpus_from_rows(rows), scorer, workspace_bytes=1 << 20, part_rows=40, budget=found)
    made: list[Batch] = []
    states = scorer.trunk.scored_states
    monkeypatch.setattr(scorer.trunk, "scored_states", lambda batch: made.append(batch) or states(batch))
    records = list(corpus_from_rows(rows).records())
    for start in range(0, len(rows), 40):
        scorer.score_records(records[start : start + 40])
    assert plan.batches == len(made)
    # Every token that has to be run has a slot of its own: of a padded batch those that are not zero-filled
    used = sum(batch.tokens if packing == "on" else int((batch.input_ids != 0).sum()) for batch in made)
    assert plan.slots_used == pytest.approx(used / sum(batch.tokens for batch in made))
    assert (plan.packed, plan.slots_used == 1.0) == ((True, True) if packing == "on" else (False, False))
    assert bool(plan.packing_refusal) == (packing == "off")
    assert (plan.token_budget, plan.token_budget_how) == (256, "what fits")
    assert plan.batch_bytes == worker_count(torch.device("cpu")) * 256_000


def test_a_corpus_without_a_row_to_score_takes_no_time() -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
    plan = plan_run(corpus_from_rows([{"x": 1}] * 5), scorer, workspace_bytes=1 << 20)
    assert (plan.by_status, plan.seconds, plan.sample_rows) == ({"unknown_format": 5}, 0.0, 0)


def test_a_corpus_longer_than_a_chunk_is_counted_whole() -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
    plan = plan_run(corpus_from_rows([{"x": 1}] * 2500), scorer, workspace_bytes=1 << 20)
    assert plan.by_status == {"unknown_format": 2500}
