"""The token budget and the processes of several devices, on CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from score_runs import assert_same_bits, short_rows, write_lines
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

from donod_fast.data.reading import open_corpus
from donod_fast.engines.devices import parse_devices, score_on_devices
from donod_fast.engines.local import score_corpus
from donod_fast.engines.request import RunOptions
from donod_fast.models.trunk import synthetic_batch
from donod_fast.scores.folder import locked
from donod_fast.scoring.budget import PACKED_PLATEAU, STEP, CudaMeter, find_token_budget, probed_budget
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.spec import ScorerSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MIB = 2**20


def scorer_on_cuda() -> Scorer:
    """Large enough that activations, not what is allocated once, are measured."""
    model = tiny_model("llama", hidden_size=512, intermediate_size=2048, num_hidden_layers=4)
    return Scorer(model.to("cuda", torch.bfloat16), tiny_tokenizer(), token_budget=1024)


def test_what_a_probe_measures_holds_for_larger_batches() -> None:
    scorer = scorer_on_cuda()
    found = find_token_budget(
        scorer.loaded, scorer.trunk, scorer.sample_scorer.forward.scores, workspace_bytes=256 * MIB
    )
    assert found.tokens % STEP == 0 and STEP <= found.tokens <= PACKED_PLATEAU
    assert found.bytes_per_token is not None and found.free_bytes is not None
    batch = synthetic_batch(scorer.loaded, 16_384, packed=scorer.trunk.packs)
    peak = CudaMeter(scorer.loaded.device).peak(lambda: scorer.trunk.scored_states(batch))
    assert peak <= 1.15 * 16_384 * found.bytes_per_token + 64 * MIB


def test_a_batch_of_the_budget_fits_into_the_memory_that_it_was_found_for() -> None:
    scorer = scorer_on_cuda()
    room = 200 * MIB

    class Small(CudaMeter):
        def free(self) -> int:
            return room

    packed = scorer.trunk.packs
    found = probed_budget(
        Small(scorer.loaded.device),
        lambda tokens: scorer.trunk.scored_states(synthetic_batch(scorer.loaded, tokens, packed=packed)),
        workspace_bytes=32 * MIB,
        plateau=10**9,
    )
    size = 1 << (found.tokens.bit_length() - 1)  # synthetic batches are powers of two
    batch = synthetic_batch(scorer.loaded, size, packed=packed)
    assert CudaMeter(scorer.loaded.device).peak(lambda: scorer.trunk.scored_states(batch)) <= room
    assert found.tokens > 1024


def test_memory_that_the_allocator_keeps_counts_as_free() -> None:
    meter = CudaMeter(torch.device("cuda:0"))
    torch.cuda.empty_cache()
    before = meter.free()
    block = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda:0")
    assert meter.free() <= before - 250 * MIB
    del block
    assert torch.cuda.memory_reserved() >= 256 * MIB
    assert meter.free() >= before - 8 * MIB


def test_every_device_together_writes_the_bits_that_one_writes(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    data = write_lines(tmp_path / "rows.jsonl", short_rows(200))
    spec = ScorerSpec(str(model), token_budget=1024)
    corpus = open_corpus([str(data)])
    with locked(tmp_path / "wanted"):
        wanted = score_corpus(corpus, spec.on("cuda:0").load(), tmp_path / "wanted", part_rows=20)
    names = parse_devices("all")
    assert names[0] == "cuda:0"
    # Two processes at least, and where there is one device they share it
    several = names if len(names) > 1 else names * 2
    with locked(tmp_path / "found"):
        found = score_on_devices(corpus, spec, tmp_path / "found", several, RunOptions(part_rows=20))
    assert_same_bits(found.folder.table(), wanted.folder.table())


def test_devices_that_find_their_own_budget_agree_on_one(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    data = write_lines(tmp_path / "rows.jsonl", short_rows(60))
    with locked(tmp_path / "out"):
        outcome = score_on_devices(
            open_corpus([str(data)]),
            ScorerSpec(str(model)),
            tmp_path / "out",
            ["cuda:0", "cuda:0"],
            RunOptions(part_rows=10),
        )
    assert outcome.folder.manifest["token_budget"] >= STEP
    assert sum(outcome.counts.values()) == 60
