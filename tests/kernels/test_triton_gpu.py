"""The Triton kernels on a CUDA device, through the public functions."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from head_cases import (
    BOUNDS,
    MIB,
    UPDATES,
    Case,
    assert_identical,
    assert_scores,
    every_update,
    make_bias,
    make_case,
    truth,
)
from triton_cases import TINY, call_of

from donod_fast.errors import InputError
from donod_fast.kernels import DonNod, don_nod, reference_don_nod
from donod_fast.kernels.triton_backend import autotune, configs, logits, plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
CONFIDENT = (0.0, 3.0, 9.0, 18.0, 40.0)
# Past 128 tokens, 256 vocabulary rows and 128 dimensions, with remainders.
LENGTHS = (0, 1, 2, 37, 3, 300, 0, 130)
VOCAB, DIM = 1003, 300


def triton(case: Case, **options: Any) -> DonNod:
    return don_nod(*case, backend="triton", **options)


def on_device(case: Case) -> Case:
    """The case with its bounds on its own device (``make_case`` puts them there), told apart from host bounds."""
    assert case.cu_seqlens.device == case.hidden.device
    return case


def with_host_bounds(case: Case) -> Case:
    return case._replace(cu_seqlens=case.cu_seqlens.cpu())


@pytest.mark.parametrize("bounds", [on_device, with_host_bounds], ids=["device bounds", "host bounds"])
@pytest.mark.parametrize("workspace", [2 * MIB, 256 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", UPDATES)
def test_every_update_dtype_and_workspace_keeps_its_bound(
    name: str, dtype: torch.dtype, margins: tuple[float, ...] | None, workspace: int, bounds: Any
) -> None:
    host = make_case(LENGTHS, VOCAB, DIM, margins=margins, dtype=dtype)
    case = bounds(Case(*(x.cuda() for x in host)))
    update, expected = every_update(host)[name], truth(host, update=every_update(host)[name])
    if name == "adamw-state":
        state = update.state
        moved = type(state)(state.exp_avg.cuda(), state.exp_avg_sq.cuda(), state.step)
        update = type(update)(update.betas, update.eps, moved)
    found = triton(case, update=update, workspace_bytes=workspace)
    assert found.don.device == case.hidden.device
    assert_scores(found, expected, BOUNDS[dtype])


HEADS: dict[str, dict[str, Any]] = {
    "bias": {"bias": make_bias(VOCAB)},
    "negative-scale": {"logit_scale": -0.7},
    "softcap": {"softcap": 20.0},
    "bias-scale-softcap": {"bias": make_bias(VOCAB), "logit_scale": 0.7, "softcap": 15.0},
    "decay-sum": {"weight_decay": 0.1, "reduction": "sum"},
    "storage": {"storage_dtype": torch.bfloat16, "lr": 1e-3},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_keeps_its_bound(head: str, update: str, dtype: torch.dtype) -> None:
    if head == "storage" and dtype == torch.float32:
        pytest.skip("a float32 W′ on the border of two bfloat16 values may fall to either side")
    host = make_case(LENGTHS, VOCAB, DIM, margins=CONFIDENT, dtype=dtype)
    expected = truth(host, update=update, **HEADS[head])
    moved = {name: value.cuda() if torch.is_tensor(value) else value for name, value in HEADS[head].items()}
    found = triton(Case(*(x.cuda() for x in host)), update=update, **moved)
    assert_scores(found, expected, max(BOUNDS[dtype], 1e-4 if head == "storage" else 0.0))


@pytest.mark.parametrize("workspace", [16 * MIB, 256 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
def test_a_large_head_whose_signals_are_bfloat16_keeps_the_contracts_bound(
    update: str, dtype: torch.dtype, workspace: int
) -> None:
    case = make_case((1, 150, 0, 30, 700), vocab=32_000, dim=1024, dtype=dtype, device="cuda")
    assert case.weight.numel() >= logits.SMALL_HEAD
    assert call_of(case).signals == torch.bfloat16
    wide = (case.hidden.double(), case.weight.double(), case.labels, case.cu_seqlens)
    expected = DonNod(*(column.cpu() for column in reference_don_nod(*wide, update=update)[:7]))
    assert_scores(triton(case, update=update, workspace_bytes=workspace), expected, 1e-4)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_a_long_sample_of_a_linear_update_takes_either_way(update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_case((600, 3), VOCAB, DIM)
    case, expected = Case(*(x.cuda() for x in host)), truth(host, update=update)
    for limit in (0.0, 1e9):
        monkeypatch.setattr(plan, "gram_limit", lambda *_, limit=limit: limit)
        assert_scores(triton(with_host_bounds(case), update=update), expected, BOUNDS[torch.float32])


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_two_runs_are_equal_bit_by_bit(update: str) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, dtype=torch.bfloat16, device="cuda")
    assert_identical(cpu(triton(case, update=update)), cpu(triton(case, update=update)))


def cpu(scores: DonNod) -> DonNod:
    return DonNod(*(column.cpu() for column in scores if column is not None))


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_memory_that_held_nan_before_is_no_part_of_the_result(update: str) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, dtype=torch.bfloat16, device="cuda")
    expected = cpu(triton(case, update=update))
    torch.cuda.synchronize()
    poison = [torch.full((64 * MIB,), torch.nan, device="cuda") for _ in range(4)]
    del poison  # back to the allocator, which returns it again unchanged
    assert_identical(cpu(triton(case, update=update)), expected)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_labels_outside_the_vocabulary_and_invalid_bounds_give_nan(update: str) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, device="cuda")
    expected, first = cpu(triton(case, update=update)), int(case.cu_seqlens[5])
    scored = first + (case.labels[first : first + 9] >= 0).nonzero().squeeze(1)[:2]
    for wrong in (VOCAB, 10**12, -1):
        labels = case.labels.clone()
        labels[scored] = wrong
        found = cpu(triton(case._replace(labels=labels), update=update))
        assert found.don.isnan().tolist() == [i in (0, 5, 6) for i in range(len(LENGTHS))]
        others = [1, 2, 3, 4, 7]
        assert_identical(DonNod(*(x[others] for x in found[:7])), DonNod(*(x[others] for x in expected[:7])))
    bounds = case.cu_seqlens.clone()
    bounds[3] = 10**6
    assert bool(triton(case._replace(cu_seqlens=bounds), update=update).don.isnan().all())


def test_in_debug_mode_they_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DONOD_FAST_DEBUG", "1")
    case = make_case((3, 4), VOCAB, DIM, device="cuda")
    with pytest.raises(InputError, match="outside the 1003 rows of weight"):
        triton(case._replace(labels=torch.full_like(case.labels, VOCAB)))
    with pytest.raises(InputError, match="cu_seqlens must run from 0"):
        triton(case._replace(cu_seqlens=case.cu_seqlens + 1))


@pytest.mark.parametrize("workspace", [2 * MIB, 256 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("bounds", [on_device, with_host_bounds], ids=["device bounds", "host bounds"])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_a_call_waits_for_nothing(update: str, bounds: Any, workspace: int) -> None:
    case = bounds(make_case(LENGTHS, VOCAB, DIM, device="cuda"))
    expected = cpu(triton(case, update=update, workspace_bytes=workspace))  # compiles, which may wait
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = triton(case, update=update, workspace_bytes=workspace)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert_identical(cpu(found), expected)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_a_captured_graph_follows_the_values_that_it_is_replayed_with(update: str) -> None:
    case = make_case((3, 150, 0, 40), VOCAB, DIM, device="cuda")
    static = Case(*(x.clone() for x in case))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        triton(static, update=update)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = triton(static, update=update)
    other = make_case((90, 0, 2, 101), VOCAB, DIM, device="cuda", seed=5)
    assert other.hidden.shape == case.hidden.shape
    fewer = other.labels.clone()
    fewer[10:60] = -100
    for now in (case, other, other._replace(labels=fewer)):
        for target, values in zip(static, now, strict=True):
            target.copy_(values)
        graph.replay()
        assert_identical(cpu(captured), cpu(triton(now, update=update)))
        assert_scores(cpu(captured), truth(Case(*(x.cpu() for x in now)), update=update), BOUNDS[torch.float32])


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_compiling_whole_changes_neither_a_dtype_nor_a_bit(update: str) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, dtype=torch.bfloat16, device="cuda")

    def score(hidden: torch.Tensor, labels: torch.Tensor) -> DonNod:
        return triton(case._replace(hidden=hidden * 2, labels=labels), update=update)

    compiled = torch.compile(score, fullgraph=True)
    eager, found = score(case.hidden, case.labels), compiled(case.hidden, case.labels)
    assert [column.dtype for column in found[:7]] == [column.dtype for column in eager[:7]]
    assert_identical(cpu(found), cpu(eager))


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_a_call_runs_on_the_device_of_its_tensors(update: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    host = make_case(LENGTHS, VOCAB, DIM)
    second = Case(*(x.to("cuda:1") for x in host))
    assert torch.cuda.current_device() == 0
    found = triton(second, update=update)
    assert torch.cuda.current_device() == 0
    assert found.don.device == second.hidden.device
    assert_scores(found, truth(host, update=update), BOUNDS[torch.float32])


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_a_call_stays_within_its_workspace_for_all_heads_and_tokens(update: str) -> None:
    for lengths, vocab, dim in (((400, 30, 70), 8_192, 512), ((400, 30, 70), 65_536, 512), ((400,) * 8, 32_768, 1024)):
        case = make_case(lengths, vocab, dim, dtype=torch.bfloat16, device="cuda")
        options: dict[str, Any] = {"update": update, "workspace_bytes": 16 * MIB}
        triton(case, **options)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        triton(case, **options)
        torch.cuda.synchronize()
        held = torch.cuda.max_memory_allocated() - before
        # Tables and statistics: 256 bytes a row, 64 a slot (steps of up to 64); ‖W‖ keeps 8 bytes for 8 rows of W.
        slack = 320 * len(case.labels) + 64 * 64 * len(lengths) + vocab + MIB
        assert held <= 16 * MIB + slack, f"{held / MIB:.1f} MiB at {vocab} x {dim}, {len(case.labels)} rows"


def test_offsets_past_two_to_the_thirty_one_do_not_wrap() -> None:
    """E of 70,000 tokens × 32,768 columns has more than 2³¹ elements."""
    if torch.cuda.get_device_properties(0).total_memory < 40 << 30:
        pytest.skip("needs 40 GB of device memory")
    vocab, dim, tokens = 32_768, 16, 70_000
    assert tokens * vocab > 2**31
    case = make_case((tokens // 2, tokens // 2), vocab, dim, dtype=torch.bfloat16, unscored=0, device="cuda")
    for update in ("adamw", "sgd"):
        whole = cpu(triton(case, update=update, workspace_bytes=24 << 30))
        small = cpu(triton(case, update=update, workspace_bytes=512 * MIB))
        assert_scores(whole, small, 1e-4)
        last = case._replace(
            hidden=case.hidden[tokens // 2 :],
            labels=case.labels[tokens // 2 :],
            cu_seqlens=torch.tensor([0, tokens // 2], dtype=torch.int32, device="cuda"),
        )
        alone = cpu(triton(last, update=update, workspace_bytes=24 << 30))
        assert_scores(DonNod(*(column[1:] for column in whole[:7])), alone, 1e-4)
        for start, stop in pairwise((0, tokens // 2, tokens)):
            z = case.hidden[start:stop].float() @ case.weight.float().T
            loss = torch.nn.functional.cross_entropy(z, case.labels[start:stop]).double().cpu()
            torch.testing.assert_close(whole.loss[start // (tokens // 2)], loss, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_measured_tiles_score_right_and_are_kept(update: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DONOD_FAST_AUTOTUNE", "1")
    monkeypatch.setenv("DONOD_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr(autotune, "_chosen", {})
    host = make_case((40, 3), VOCAB, DIM, dtype=torch.bfloat16)
    case = Case(*(x.cuda() for x in host))
    first = cpu(triton(case, update=update))
    assert_scores(first, truth(host, update=update), BOUNDS[torch.bfloat16])
    kept = json.loads((tmp_path / "autotune.json").read_text(encoding="utf-8"))
    assert any(torch.cuda.get_device_name() in key for key in kept)
    monkeypatch.setattr(autotune, "_chosen", {})
    monkeypatch.setattr(autotune, "measure", lambda *_: pytest.fail("measured again"))
    assert_identical(cpu(triton(case, update=update)), first)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_the_small_tiles_of_interpreter_tests_work_on_a_device_too(update: str, dtype: torch.dtype) -> None:
    host = make_case((0, 1, 2, 37), vocab=131, dim=37, margins=CONFIDENT, dtype=dtype)
    with configs.override(TINY):
        found = triton(Case(*(x.cuda() for x in host)), update=update, workspace_bytes=MIB)
    assert_scores(found, truth(host, update=update), BOUNDS[dtype])
