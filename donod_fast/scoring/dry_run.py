"""``--dry-run``: rows, memory and time of a run, before it starts."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from donod_fast.data.grouping import grouped
from donod_fast.data.reading import Corpus
from donod_fast.data.shards import PART_ROWS
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.models.batching import batch_slots, make_batches
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.scoring.budget import Budget, activation_bytes
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.memory import free_bytes
from donod_fast.system.threads import worker_count

# Rows that are scored for the estimate of time; their lengths are spread over the corpus's.
_SAMPLE_ROWS = 64

_BYTES_PER_LOSS, _BYTES_PER_ROW = 4, 4


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Forecast of a scoring run, from reading all rows and timing a sample.

    Attributes:
        rows: rows of the input.
        by_status: rows by their status after reading and masking (``scored`` means ready).
        formats: rows by record format.
        records: columns that no score depends on, rewrites, and turns left out by flags.
        truncated: rows that the length limit cuts.
        tokens: tokens of the ready rows within the length limit.
        scored_tokens: of those, how many are targets.
        model_bytes: parameters and buffers.
        token_budget: slots of a batch, padding included.
        token_budget_how: how that number was found.
        packed: whether samples are packed into one row; else they are padded to similar lengths.
        packing_refusal: why they are not packed, or empty.
        batches: batches of the ready rows.
        slots_used: share of the batches' slots that hold a token that must be run.
        batch_bytes: the trunk's activations (measured by a probe, or estimated), for all batches that run at the same
            time.
        workspace_bytes: limit for the memory of the head mathematics.
        free_bytes: memory that is free on the device of the model now, or None if unknown.
        sample_rows: rows timed.
        tokens_per_second: of the timed sample, trunk and head together.
        seconds: estimate for all ready rows.
        token_loss_bytes: estimate of what the losses of the tokens take in the folder; 0 if they are not recorded.
    """

    rows: int
    by_status: dict[str, int]
    formats: dict[str, int]
    records: SampleCounts
    truncated: int
    tokens: int
    scored_tokens: int
    model_bytes: int
    token_budget: int
    token_budget_how: str
    packed: bool
    packing_refusal: str
    batches: int
    slots_used: float
    batch_bytes: int
    workspace_bytes: int
    free_bytes: int | None
    sample_rows: int
    tokens_per_second: float
    seconds: float
    token_loss_bytes: int = 0


def plan_run(
    corpus: Corpus,
    scorer: Scorer,
    *,
    workspace_bytes: int,
    part_rows: int = PART_ROWS,
    budget: Budget | None = None,
    token_losses: bool = False,
) -> RunPlan:
    """Read and tokenise all rows, and time the scoring of a small sample.

    Args:
        corpus: what to score.
        scorer: the model and the settings.
        workspace_bytes: the scorer's limit for the memory of the head mathematics.
        part_rows: rows of a part; batches are formed within a part.
        budget: how the scorer's token budget was found; None if it was given.
        token_losses: whether the run records the losses of tokens.

    Raises:
        CorpusError: the input cannot be read.
    """
    by_status: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    packs, rope = scorer.trunk.packs, scorer.trunk.rope
    truncated = tokens = scored_tokens = batches = used = slots = 0
    stride = max(1, corpus.rows // _SAMPLE_ROWS)
    sample: list[TokenizedSample] = []
    counts = SampleCounts()
    rows: list[TokenizedSample] = []
    records = grouped(corpus.records(), part_rows)
    for one in (one for some in records for one in scorer.masker.tokenize_many(some)):
        rows.append(one)
        if len(rows) < part_rows and one.row + 1 < corpus.rows:
            continue
        ready: list[TokenizedSample] = []
        counts += SampleCounts.of(rows)
        for tokenized in rows:
            by_status[str(tokenized.status)] += 1
            formats[tokenized.format or "unknown"] += 1
            truncated += tokenized.truncated
            if tokenized.status is Status.SCORED:
                ready.append(tokenized)
                tokens += len(tokenized.input_ids)
                scored_tokens += tokenized.scored_tokens
                if tokenized.row % stride == 0 and len(sample) < _SAMPLE_ROWS:
                    sample.append(tokenized)
        groups = make_batches(ready, scorer.sample_scorer.token_budget, packs, rope)
        batches += len(groups)
        used += sum(batch_slots(ready, group, True, rope) for group in groups)
        slots += sum(batch_slots(ready, group, packs, rope) for group in groups)
        rows = []
    rate = _measure(scorer, sample, token_losses=token_losses)
    model = scorer.loaded.model
    model_bytes = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return RunPlan(
        rows=corpus.rows,
        by_status=dict(by_status),
        formats=dict(formats),
        records=counts,
        truncated=truncated,
        tokens=tokens,
        scored_tokens=scored_tokens,
        model_bytes=model_bytes,
        token_budget=scorer.sample_scorer.token_budget,
        token_budget_how="given" if budget is None else budget.how,
        packed=packs,
        packing_refusal=scorer.trunk.packing_refusal,
        batches=batches,
        slots_used=used / slots if slots else 1.0,
        batch_bytes=_batch_bytes(scorer, budget),
        workspace_bytes=workspace_bytes,
        free_bytes=free_bytes(scorer.loaded.device),
        sample_rows=len(sample),
        tokens_per_second=rate,
        seconds=tokens / rate if rate else 0.0,
        token_loss_bytes=_loss_bytes(scored_tokens, by_status[Status.SCORED]) if token_losses else 0,
    )


def _loss_bytes(tokens: int, rows: int) -> int:
    """Bytes of the losses of tokens: compression saves little."""
    return _BYTES_PER_LOSS * tokens + _BYTES_PER_ROW * rows


def _measure(scorer: Scorer, sample: list[TokenizedSample], *, token_losses: bool) -> float:
    """Tokens per second of the sample, after a short warm-up; 0 if there is nothing to score."""
    if not sample:
        return 0.0
    scorer.sample_scorer.score(sample[:2])
    start = time.perf_counter()
    scorer.sample_scorer.score(sample, token_losses=token_losses)
    return sum(len(s.input_ids) for s in sample) / (time.perf_counter() - start)


def _batch_bytes(scorer: Scorer, budget: Budget | None) -> int:
    """Memory of the batches that run at the same time."""
    measured = None if budget is None else budget.bytes_per_token
    per_token = measured or activation_bytes(scorer.loaded)
    return int(worker_count(scorer.loaded.device) * scorer.sample_scorer.token_budget * per_token)
