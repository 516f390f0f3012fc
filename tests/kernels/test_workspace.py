"""Memory that a call allocates: at most ``workspace_bytes``, and never a V × d or M × V tensor.

Counted by the allocator's own events (``torch.profiler``), so that temporaries inside an operator count too.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from allocation_counts import KIB, allocations, slack
from head_cases import MIB, UPDATES, every_update, make_bias, make_case

from donod_fast.kernels import don_nod, frobenius_norm
from donod_fast.kernels.arguments import check_arguments
from donod_fast.kernels.workspace import Workspace, plan_workspace


def test_the_counter_counts() -> None:
    peak, largest = allocations(lambda: [torch.zeros(MIB, dtype=torch.uint8) for _ in range(3)])
    assert 3 * MIB <= peak < 3 * MIB + 64 * KIB
    assert MIB <= largest < MIB + 64 * KIB
    peak, _ = allocations(lambda: [torch.zeros(MIB // 4).sum() for _ in range(3)])
    assert peak < 2 * MIB


# At 1 MiB, V · d and M · V are each some three times the workspace; see the paths' own test below.
VOCAB, DIM = 3001, 257
SHAPES = {"stored": (20, 3, 0, 11, 9, 1, *([20] * 10)), "streamed": (260, 3, 31)}
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": make_bias(VOCAB)},
    "softcap": {"bias": make_bias(VOCAB), "logit_scale": 0.5, "softcap": 20.0},
    "storage": {"storage_dtype": torch.bfloat16},
}


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "head", "dtype"),
    [
        *((name, "plain", torch.float32) for name in UPDATES),
        ("adamw", "bias", torch.bfloat16),
        ("adamw", "softcap", torch.bfloat16),
        ("sgd", "softcap", torch.bfloat16),
        ("adamw-state", "storage", torch.float32),
    ],
    ids=str,
)
def test_a_call_holds_no_more_than_its_workspace(name: str, head: str, dtype: torch.dtype, shape: str) -> None:
    case = make_case(SHAPES[shape], VOCAB, DIM, dtype=dtype)
    options = {"update": every_update(case)[name], "weight_norm": frobenius_norm(case.weight), **HEADS[head]}
    whole = 4 * VOCAB * min(DIM, sum(SHAPES[shape]))
    assert whole > 2.5 * MIB, "the case should need more than it gets"
    peak, largest = allocations(lambda: don_nod(*case, **options, workspace_bytes=MIB))
    assert peak <= MIB + slack(case), f"{peak / MIB:.2f} of the workspace"
    assert largest < whole


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_so_does_one_in_float64(update: str) -> None:
    case = make_case((20, 260), vocab=1009, dim=301, dtype=torch.float64)
    options = {"update": update, "weight_norm": frobenius_norm(case.weight), "workspace_bytes": MIB}
    peak, _ = allocations(lambda: don_nod(*case, **options))
    assert peak <= MIB + slack(case), f"{peak / MIB:.2f} of the workspace"


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_and_one_of_a_wide_head(update: str) -> None:
    """A token's own row of hidden states is large here."""
    case = make_case((170, 5, 40), vocab=257, dim=2053)
    options = {"update": update, "weight_norm": frobenius_norm(case.weight), "workspace_bytes": MIB}
    peak, _ = allocations(lambda: don_nod(*case, **options))
    assert peak <= MIB + slack(case), f"{peak / MIB:.2f} of the workspace"


def test_the_norm_of_the_weight_is_taken_within_the_workspace_too() -> None:
    case = make_case((3,), vocab=20_011, dim=301)
    peak, _ = allocations(lambda: don_nod(*case, update="sgd", workspace_bytes=MIB))
    assert peak <= MIB + slack(case), f"{peak / MIB:.2f} of the workspace"


def test_more_workspace_is_not_held_without_need() -> None:
    case = make_case((40, 12), vocab=507, dim=67)
    peak, _ = allocations(lambda: don_nod(*case, workspace_bytes=1 << 40))
    assert peak <= 4 * MIB


def plan_of(lengths: tuple[int, ...], vocab: int, dim: int, workspace: int) -> Workspace:
    case = make_case(lengths, vocab, dim)
    batch = check_arguments(
        *case,
        lr=1e-5,
        update="adamw",
        weight_decay=0.0,
        reduction="mean",
        bias=None,
        logit_scale=1.0,
        softcap=None,
        storage_dtype=None,
        weight_norm=None,
        workspace_bytes=workspace,
    )
    return plan_workspace(batch)


def test_the_shapes_of_these_tests_take_the_paths_that_they_name() -> None:
    plan = plan_of(SHAPES["streamed"], VOCAB, DIM, MIB)
    assert plan.group_tokens >= max(SHAPES["stored"])
    assert plan.group_tokens < sum(SHAPES["stored"]), "several groups"
    assert plan.group_tokens < 31
    assert plan.stream_tokens < 260, "several blocks of tokens"
    assert plan.stream_vocab < VOCAB, "several chunks of the vocabulary"
    assert plan.tile_rows < VOCAB, "several tiles"
    # test_exactness and its neighbours: 507 columns at 1 MiB.
    small = plan_of((150,), 507, 67, MIB)
    assert small.group_tokens < 150
    assert small.stream_vocab < 507
    assert small.tile_rows < 507


@pytest.mark.parametrize("vocab", [1, 2, 507, 128_257, 1_000_003])
@pytest.mark.parametrize("workspace", [MIB, 3 * MIB, 256 * MIB])
def test_every_size_of_a_plan_is_usable(vocab: int, workspace: int) -> None:
    plan = plan_of((2,), vocab, 1, workspace)
    assert plan.group_tokens >= 0
    for name in ("row_block", "tile_rows", "stream_tokens", "stream_vocab", "cast_rows"):
        assert getattr(plan, name) >= 1, name
