"""The token budget fits the free memory and is not larger than useful."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.models.batching import Batch
from donod_fast.models.trunk import synthetic_batch
from donod_fast.scoring import budget
from donod_fast.scoring.budget import (
    CPU_PLATEAU,
    PACKED_PLATEAU,
    PADDED_PLATEAU,
    STEP,
    Budget,
    cpu_budget,
    find_token_budget,
    probed_budget,
    settled,
)
from donod_fast.scoring.scorer import Scorer

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass
class Device:
    """A device whose batches take ``once`` bytes and ``each`` for every token, and that has ``total``."""

    total: int
    once: int
    each: int
    held: int = 0
    batches: list[int] = field(default_factory=list)

    def run(self, tokens: int) -> None:
        self.batches.append(tokens)
        self.held = self.once + self.each * tokens
        if self.held > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def free(self) -> int:
        return self.total

    def peak(self, run: Callable[[], object]) -> int:
        run()
        return self.held


def found(device: Device, workspace: int = 256 * MIB, plateau: int = PACKED_PLATEAU) -> Budget:
    return probed_budget(device, device.run, workspace_bytes=workspace, plateau=plateau)


@pytest.mark.parametrize("once", [0, 3 * MIB, 700 * MIB])
@pytest.mark.parametrize("each", [40 * KIB, 230 * KIB, 1 * MIB])
@pytest.mark.parametrize("total", [4 * GIB, 9 * GIB])
def test_a_budget_fills_four_fifths_of_the_memory_left_by_the_workspace(total: int, each: int, once: int) -> None:
    device = Device(total, once, each)
    tokens = found(device, plateau=10**9).tokens
    need = once + 256 * MIB + each * tokens
    assert tokens % STEP == 0
    assert need <= 0.8 * total < need + each * STEP
    device.run(tokens)  # it does fit


def test_a_large_memory_is_not_filled() -> None:
    large = found(Device(60 * GIB, 0, 200 * KIB))
    assert (large.tokens, large.bytes_per_token, large.free_bytes) == (PACKED_PLATEAU, 200 * KIB, 60 * GIB)
    assert large.how == "larger batches are not faster: 200.0 KiB a token measured, 60.0 GiB free"
    assert found(Device(8 * GIB, 0, 1 * MIB)).how == "what fits: 1.0 MiB a token measured, 8.0 GiB free"


def test_a_probe_that_does_not_fit_is_halved_until_it_does() -> None:
    device = Device(600 * MIB, 0, MIB)
    tokens = found(device, workspace=0).tokens
    assert max(device.batches) == 2048 and device.batches[-1] <= 600
    assert tokens == 256  # 480 fit


def test_without_room_for_any_probe_the_smallest_budget_is_tried() -> None:
    nothing = found(Device(MIB, 0, MIB))
    assert (nothing.tokens, nothing.bytes_per_token) == (STEP, None)
    assert nothing.how == "memory is short: a probe of 32 tokens does not fit"
    assert found(Device(3 * GIB, 0, MIB), workspace=3 * GIB).tokens == STEP


def test_another_error_than_of_memory_is_not_swallowed() -> None:
    def broken(tokens: int) -> None:
        raise RuntimeError("illegal instruction")

    with pytest.raises(RuntimeError, match="illegal instruction"):
        probed_budget(Device(GIB, 0, KIB), broken, workspace_bytes=0, plateau=1024)


def test_a_peak_that_does_not_grow_with_the_batch_also_gives_a_budget() -> None:
    assert found(Device(4 * GIB, 2 * GIB, 0), workspace=0).tokens == 1536  # by 1 MiB a token of the larger probe


def test_a_cpu_has_its_plateau_and_less_where_memory_is_short() -> None:
    assert cpu_budget(20 * GIB, 100 * KIB, workers=2, workspace_bytes=256 * MIB).tokens == CPU_PLATEAU
    assert cpu_budget(None, 100 * KIB, workers=2, workspace_bytes=256 * MIB).tokens == CPU_PLATEAU
    # 0.8 · 512 MiB − 256 MiB is room for 787 tokens of each worker
    short = cpu_budget(512 * MIB, 100 * KIB, workers=2, workspace_bytes=256 * MIB)
    assert (short.tokens, short.how) == (768, "memory is short: 512.0 MiB free")
    assert cpu_budget(MIB, 100 * KIB, workers=2, workspace_bytes=256 * MIB).tokens == STEP


@pytest.mark.parametrize(
    ("own", "recorded", "wanted"),
    [(1024, 1024, 1024), (1024, 512, 512), (20_224, 20_480, 20_480), (8192, 32_768, 8192), (1024, None, 1024)],
)
def test_a_resumed_run_uses_the_recorded_budget_if_it_fits(own: int, recorded: int | None, wanted: int) -> None:
    assert settled(own, recorded) == wanted


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tokens", [32, 512, 2048])
def test_a_synthetic_batch_uses_all_of_the_requested_slots(tokens: int, packed: bool) -> None:
    scorer = Scorer(tiny_model("llama", max_position_embeddings=512), tiny_tokenizer())
    batch = synthetic_batch(scorer.loaded, tokens, packed=packed)
    assert batch.tokens == len(batch.labels) == tokens
    assert bool((batch.predictors == torch.arange(tokens)).all())


def test_the_budget_of_a_model_on_a_cpu_needs_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
    monkeypatch.setattr(budget, "free_bytes", lambda device: 8 * GIB)

    def not_run(batch: Batch) -> None:
        pytest.fail("the model was run")

    found = find_token_budget(scorer.loaded, scorer.trunk, not_run, workspace_bytes=256 * MIB)
    assert (found.tokens, found.how, found.free_bytes) == (CPU_PLATEAU, "the best size on CPUs", 8 * GIB)
    assert found.bytes_per_token == (6 * 32 + 3 * 48) * 4  # float32, 32 wide, 48 in the wide layer


@pytest.mark.parametrize("packing", ["off", "on"])
def test_the_probe_runs_the_models_trunk_and_the_smallest_device_decides(
    packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), packing=packing)
    devices = [Device(GIB, 0, 100 * KIB), Device(300 * MIB, 0, 100 * KIB), Device(GIB, 0, 20 * KIB)]
    states = scorer.trunk.scored_states

    def watched(batch: Batch) -> torch.Tensor:
        for device in devices:
            device.run(batch.tokens)
        return states(batch)

    monkeypatch.setattr(scorer.trunk, "scored_states", watched)
    found = find_token_budget(
        scorer.loaded, scorer.trunk, scorer.sample_scorer.forward.scores, workspace_bytes=16 * MIB, meters=devices
    )
    assert (found.tokens, found.bytes_per_token) == (2048, 100 * KIB)  # (0.8 · 300 MiB − 16 MiB) / 100 KiB is 2293
    assert {32, 512, 2048} == set(devices[0].batches)
    few = find_token_budget(
        scorer.loaded, scorer.trunk, scorer.sample_scorer.forward.scores, workspace_bytes=16 * MIB, meters=devices[2:]
    )
    assert few.tokens == (PADDED_PLATEAU if packing == "off" else PACKED_PLATEAU)
