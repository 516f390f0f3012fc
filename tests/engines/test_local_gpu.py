"""Scoring on a CUDA device: launched ahead without waiting, halved when memory runs out, timed by events."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import assert_same_bits, short_rows, write_lines
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.engines.local import score_corpus
from donod_fast.scores.folder import locked
from donod_fast.scores.rows import SCORE_COLUMNS, ScoreRow
from donod_fast.scoring import sample_scorer as scoring
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.profiling import DEVICE, MAIN, PROCESSES, THREADS, Stages

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ROWS = short_rows(200, seed=5)
GIB = 1 << 30


def cuda_scorer(packing: str = "auto", token_budget: int = 512, **overrides: Any) -> Scorer:
    model = tiny_model("llama", **overrides).to("cuda")
    return Scorer(model, tiny_tokenizer(), token_budget=token_budget, packing=packing)


def prepared(scorer: Scorer, count: int = len(ROWS)) -> list[TokenizedSample]:
    return scorer.masker.tokenize_many(list(corpus_from_rows(ROWS[:count]).records()))


def bits(rows: Sequence[ScoreRow]) -> list[bytes]:
    return [struct.pack("6d", *(getattr(row, name) for name in SCORE_COLUMNS)) + row.status.encode() for row in rows]


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """Whatever makes the host wait for the device, but for an event's own wait, raises."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def packing_scorer() -> Scorer:
    """Padded batches wait once: transformers looks whether positions are those of packed samples."""
    scorer = cuda_scorer()
    if not scorer.trunk.packs:
        pytest.skip(f"packed batches are not served here: {scorer.trunk.packing_refusal}")
    return scorer


def test_nothing_waits_for_the_device_while_batches_are_launched() -> None:
    scorer = packing_scorer()
    samples = prepared(scorer)
    wanted = scorer.sample_scorer.score(samples)  # compiles kernels, which may wait
    assert sum(row.status == Status.SCORED for row in wanted) > 150
    with waits_are_errors():
        found = scorer.sample_scorer.score(samples)
    assert bits(found) == bits(wanted)


def test_nothing_waits_while_it_is_profiled_either() -> None:
    scorer = packing_scorer()
    samples = prepared(scorer)
    scorer.sample_scorer.score(samples)
    stages = Stages()
    with stages.run(scorer.sample_scorer.device), waits_are_errors():
        scorer.sample_scorer.score(samples, stages=stages)


@pytest.mark.parametrize("packing", ["auto", "off"])
def test_batches_launched_ahead_give_the_same_scores_as_sequential_ones(
    packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = cuda_scorer(packing)
    samples = prepared(scorer)
    found = scorer.sample_scorer.score(samples)
    monkeypatch.setattr(scoring, "launches_ahead", lambda device: False)
    assert bits(found) == bits(scorer.sample_scorer.score(samples))


def test_later_batches_are_launched_before_the_first_result_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = cuda_scorer(token_budget=256)
    samples = prepared(scorer)
    log: list[str] = []
    to_host = scoring.to_host

    def watched(scores: torch.Tensor) -> Callable[[], torch.Tensor]:
        wait = to_host(scores)
        log.append("launched")

        def watched_wait() -> torch.Tensor:
            log.append("looked at")
            return wait()

        return watched_wait

    monkeypatch.setattr(scoring, "to_host", watched)
    scorer.sample_scorer.score(samples)
    assert log[:3] == ["launched"] * 3 and log.count("launched") == log.count("looked at") > 5


def test_a_real_out_of_memory_error_halves_batches_and_loses_no_row() -> None:
    scorer = cuda_scorer(token_budget=1 << 16, hidden_size=512, intermediate_size=4096, max_position_embeddings=256)
    text = "the number of red houses is seven and that of blue ones is twelve"
    records = list(corpus_from_rows([{"question": f"{i} ? {text}", "answer": text} for i in range(400)]).records())
    samples = scorer.masker.tokenize_many(records)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    wanted = scorer.sample_scorer.score(samples)
    needed = torch.cuda.max_memory_reserved() - before
    assert needed > GIB // 2, "the test needs batches that are worth limiting"
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    stages = Stages()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.6 * needed) / total)
    try:
        found = scorer.sample_scorer.score(samples, stages=stages)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert stages.report().batches > 2
    assert {row.status for row in found} == {Status.SCORED}
    for row, other in zip(found, wanted, strict=True):
        assert abs(row.nod - other.nod) <= 1e-5 * other.nod and abs(row.don - other.don) <= 1e-5 * other.nod
    assert bits(scorer.sample_scorer.score(samples)) == bits(wanted)  # the full budget again


def test_a_profile_shows_the_device_s_own_time_and_memory(tmp_path: Path) -> None:
    scorer = cuda_scorer()
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    tables = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        stages = Stages(trace=True)
        with locked(out):
            corpus = open_corpus([str(data)])
            outcome = score_corpus(corpus, scorer, out, part_rows=25, workers=workers, stages=stages)
        tables.append(outcome.folder.table())
        report = stages.report()
        found = {(stage.where, stage.name): stage.seconds for stage in report.stages}
        assert {(MAIN, "wait"), (MAIN, "launch"), (MAIN, "results"), (THREADS, "collate"), (THREADS, "write")} <= set(
            found
        )
        assert found[DEVICE, "trunk"] > 0.0 and found[DEVICE, "head"] > 0.0
        device_seconds = sum(seconds for (where, _), seconds in found.items() if where == DEVICE)
        assert 0.0 < device_seconds <= report.wall_seconds and 0.0 < report.busy <= 1.0
        weights = sum(p.numel() * p.element_size() for p in scorer.loaded.model.parameters())
        assert report.peak_bytes >= weights and report.device.startswith("cuda")
        assert any(where in (THREADS, PROCESSES) and name == "tokenize" for where, name in found)
        stages.chrome_trace(tmp_path / "trace.json")
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        assert any(event["ph"] == "M" and event["args"]["name"] == report.device for event in events)
    assert_same_bits(tables[1], tables[0])
