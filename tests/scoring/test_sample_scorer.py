"""From samples to rows: order, progress, and the kernels' numbers in the right columns."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from score_runs import own_states, short_rows
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.kernels import reference_don_nod
from donod_fast.models.batching import Batch
from donod_fast.scores.rows import SCORE_COLUMNS, ScoreRow, schema, to_table
from donod_fast.scoring import sample_scorer as scoring
from donod_fast.scoring.forward import Forward
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.system.memory import is_out_of_memory

SETTINGS = [
    UpdateSettings(),
    UpdateSettings("sgd", lr=1e-3, weight_decay=0.1, reduction="sum"),
    UpdateSettings("sign", lr=1e-4),
    UpdateSettings("adamw", lr=1e-3, eps=1e-4, storage_dtype="bfloat16"),
]


def prepared(scorer: Scorer, count: int = 12) -> list[TokenizedSample]:
    return scorer.masker.tokenize_many(list(corpus_from_rows(short_rows(count, seed=2)).records()))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: f"{settings.update}-{settings.reduction}")
@pytest.mark.parametrize("kind", ["llama", "gemma2", "phi"])
def test_every_column_is_the_truth_s(kind: str, settings: UpdateSettings) -> None:
    # Gemma 2 caps its logits, Phi has a bias
    scorer = Scorer(tiny_model(kind), tiny_tokenizer(), update=settings)
    samples = [one for one in prepared(scorer) if one.status is Status.SCORED]
    head = scorer.head
    for sample, row in zip(samples, scorer.sample_scorer.score(samples), strict=True):
        hidden, labels, bounds = own_states(scorer, sample)
        truth = reference_don_nod(
            hidden,
            head.weight.double(),
            labels,
            bounds,
            lr=settings.lr,
            update=settings.rule(),
            weight_decay=settings.weight_decay,
            reduction=settings.reduction,
            storage_dtype=settings.rounding(),
            bias=None if head.bias is None else head.bias.double(),
            logit_scale=head.logit_scale,
            softcap=head.softcap,
        )
        scale = {"don": float(truth.nod), "nod": float(truth.nod)}
        # Rounding W' to bfloat16 turns the last bits of a score into whole steps of W'
        bound = 1e-5 if settings.storage_dtype is None else 2e-2
        for name in ("don", "nod", "loss", "entropy", "update_norm"):
            wanted = float(getattr(truth, name))
            assert abs(getattr(row, name) - wanted) <= bound * scale.get(name, abs(wanted)), name


def test_rows_keep_their_order_and_progress_counts_each_once() -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=200)
    samples = prepared(scorer, 30)
    seen: list[tuple[int, int]] = []
    rows = scorer.sample_scorer.score(samples, progress=lambda rows, tokens: seen.append((rows, tokens)))
    assert [row.id for row in rows] == [sample.id for sample in samples]
    assert sum(count for count, _ in seen) == len(samples)
    assert sum(tokens for _, tokens in seen) == sum(len(sample.input_ids) for sample in samples)
    assert scorer.sample_scorer.score([]) == []


def test_a_table_has_the_columns_of_the_contract() -> None:
    names = ["row", "id", "status", "detail", "tokens", "scored_tokens", "truncated", *SCORE_COLUMNS]
    assert schema().names == names
    kinds = {field.name: str(field.type) for field in schema()}
    assert kinds["row"] == "int64" and kinds["tokens"] == kinds["scored_tokens"] == "int32"
    assert all(kinds[name] == "double" for name in SCORE_COLUMNS)
    assert to_table([]).num_rows == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_shortage_of_memory_is_told_from_other_errors(error: Any, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_real_refusal_by_the_cpu_allocator_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batches are launched ahead as on CUDA, and computed only when they are waited for; returns how many fly."""
    flying: list[int] = []

    def late(scores: torch.Tensor) -> Callable[[], torch.Tensor]:
        kept, number = scores.clone(), len(flying)
        with torch.inference_mode():
            scores.fill_(torch.nan)  # an early reader would see this
        flying.append(1)

        def wait() -> torch.Tensor:
            flying[number] = 0
            return kept

        return wait

    monkeypatch.setattr(scoring, "launches_ahead", lambda device: True)
    monkeypatch.setattr(scoring, "to_host", late)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    return flying


def bits(rows: Sequence[ScoreRow]) -> list[bytes]:
    return [struct.pack("6d", *(getattr(row, name) for name in SCORE_COLUMNS)) + repr(row).encode() for row in rows]


def test_rows_launched_ahead_equal_those_of_sequential_batches(ahead: list[int]) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=200)
    samples = prepared(scorer, 40)
    seen: list[tuple[int, int]] = []
    found = scorer.sample_scorer.score(samples, lambda rows, tokens: seen.append((rows, tokens)))
    assert len(ahead) > 5 and sum(ahead) == 0
    with mock.patch.object(scoring, "launches_ahead", lambda device: False):
        wanted = scorer.sample_scorer.score(samples)
    assert bits(found) == bits(wanted)
    assert sum(rows for rows, _ in seen) == len(samples)


def test_out_of_memory_at_a_launch_halves_batches_and_loses_no_row(
    ahead: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=300)
    samples = prepared(scorer, 40)
    launch, calls = Forward.launch, []

    def short_of_memory(forward: Forward, batch: Batch, *arguments: Any) -> torch.Tensor:
        calls.append(batch.tokens)
        if len(calls) > 3 and batch.tokens > 150 and len(batch.members) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return launch(forward, batch, *arguments)

    wanted = scorer.sample_scorer.score(samples)
    assert scorer.sample_scorer.fitting_budget is None
    monkeypatch.setattr(Forward, "launch", short_of_memory)
    found = scorer.sample_scorer.score(samples)
    failed = next(size for size in calls[3:] if size > 150)
    assert scorer.sample_scorer.fitting_budget == failed // 2
    assert len(calls) > 5 and sum(size > 150 for size in calls[3:]) == 1  # none after the one that failed
    for row, other in zip(found, wanted, strict=True):
        assert row.status == other.status and row.id == other.id
        if row.status == Status.SCORED:
            assert row.nod == pytest.approx(other.nod, rel=1e-5) and abs(row.don - other.don) <= 1e-5 * other.nod


def test_a_sample_that_cannot_be_launched_gets_a_status_others_get_scores(
    ahead: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=128)
    samples = [sample for sample in prepared(scorer, 40) if sample.status is Status.SCORED]
    launch, longest = Forward.launch, max(samples, key=lambda sample: len(sample.input_ids))

    def short_of_memory(forward: Forward, batch: Batch, *arguments: Any) -> torch.Tensor:
        if any(samples[i] is longest for i in batch.members):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return launch(forward, batch, *arguments)

    monkeypatch.setattr(Forward, "launch", short_of_memory)
    found = {row.id: row.status for row in scorer.sample_scorer.score(samples)}
    assert found.pop(longest.id) == Status.OUT_OF_MEMORY
    assert set(found.values()) == {Status.SCORED}
