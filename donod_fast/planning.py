"""``--dry-run``: what a run will meet, hold and take, before it starts."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass

import torch

from donod_fast.reading import Corpus
from donod_fast.samples import Status, TokenizedSample
from donod_fast.scorer import PART_ROWS, Scorer
from donod_fast.workers import worker_count

# Rows that are scored for the estimate of time; their lengths are spread over the corpus's.
_SAMPLE_ROWS = 64


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a scoring run will be, from a full reading and a timed sample.

    Attributes:
        rows: rows of the input.
        by_status: rows by the status that reading and masking gives them (``scored`` = ready).
        formats: rows by record format.
        truncated: rows that the length limit cuts.
        tokens: tokens of the ready rows within the length limit.
        scored_tokens: of those, how many are targets.
        model_bytes: parameters and buffers.
        batch_bytes: estimate of the trunk's activations, for all batches that are under way at a time.
        workspace_bytes: bound on what the head mathematics holds.
        free_bytes: memory that is free on the device of the model now, or None if unknown.
        sample_rows: rows timed.
        tokens_per_second: of the timed sample, trunk and head together.
        seconds: estimate for all ready rows.
    """

    rows: int
    by_status: dict[str, int]
    formats: dict[str, int]
    truncated: int
    tokens: int
    scored_tokens: int
    model_bytes: int
    batch_bytes: int
    workspace_bytes: int
    free_bytes: int | None
    sample_rows: int
    tokens_per_second: float
    seconds: float


def plan_run(corpus: Corpus, scorer: Scorer, *, workspace_bytes: int) -> RunPlan:
    """Read and tokenise everything, score a small sample against the clock.

    Raises:
        CorpusError: the input cannot be read.
    """
    by_status: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    truncated = tokens = scored_tokens = 0
    stride = max(1, corpus.rows // _SAMPLE_ROWS)
    sample: list[TokenizedSample] = []
    chunk = []
    for record in corpus.records():
        chunk.append(record)
        if len(chunk) < PART_ROWS and record.row + 1 < corpus.rows:
            continue
        for tokenized in scorer.masker.tokenize_many(chunk):
            by_status[str(tokenized.status)] += 1
            formats[tokenized.format or "unknown"] += 1
            truncated += tokenized.truncated
            if tokenized.status is Status.SCORED:
                tokens += len(tokenized.input_ids)
                scored_tokens += tokenized.scored_tokens
                if tokenized.row % stride == 0 and len(sample) < _SAMPLE_ROWS:
                    sample.append(tokenized)
        chunk = []
    rate = _measure(scorer, sample)
    model = scorer.loaded.model
    model_bytes = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return RunPlan(
        rows=corpus.rows,
        by_status=dict(by_status),
        formats=dict(formats),
        truncated=truncated,
        tokens=tokens,
        scored_tokens=scored_tokens,
        model_bytes=model_bytes,
        batch_bytes=_activation_bytes(scorer),
        workspace_bytes=workspace_bytes,
        free_bytes=_free_bytes(scorer.loaded.device),
        sample_rows=len(sample),
        tokens_per_second=rate,
        seconds=tokens / rate if rate else 0.0,
    )


def _measure(scorer: Scorer, sample: list[TokenizedSample]) -> float:
    """Tokens per second of the sample, after a short warm-up; 0 where there is nothing to score."""
    if not sample:
        return 0.0
    scorer.samples.score(sample[:2])
    start = time.perf_counter()
    scorer.samples.score(sample)
    return sum(len(s.input_ids) for s in sample) / (time.perf_counter() - start)


def _activation_bytes(scorer: Scorer) -> int:
    """Hidden state, residual, attention projections and the wide layer, of every batch under way at a time."""
    config = getattr(scorer.loaded.model.config, "get_text_config", lambda: scorer.loaded.model.config)()
    dim = scorer.head.weight.shape[1]
    wide = getattr(config, "intermediate_size", None) or 4 * dim
    size = torch.finfo(scorer.loaded.dtype).bits // 8
    batches = worker_count(scorer.loaded.device)
    return batches * scorer.samples.token_budget * (6 * dim + 3 * int(wide)) * size


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
