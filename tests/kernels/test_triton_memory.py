"""Memory under the shipped Hopper tiles: old contents are no part of a result, and every access is inside a tensor.

The signals are bfloat16 whatever the size of the head, as those of a large one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from head_cases import Case, assert_identical, make_bias, make_case, make_state
from memory_checks import Launches, checked_memory, kernels_of, poisoned
from torch import Tensor
from triton_cases import PATHS, call_of, interpreted, paths_of, scores_of, workspace_for

from donod_fast.kernels import AdamW, don_nod, float8, gradient_products, topsis, triton_backend
from donod_fast.kernels.triton_backend import configs, logits
from donod_fast.kernels.triton_backend.configs import Configs, fixed_configs

pytestmark = interpreted

# Three blocks of the logits kernel, five of 128 vocabulary rows and two of 128 dimensions, the last ones not full.
VOCAB, DIM = 520, 144
MARGINS = (0.0, 9.0, 30.0)
CASE = make_case((1, 0, 35), VOCAB, DIM, dtype=torch.bfloat16, margins=MARGINS)
# Too wide for hidden states to be packed in a stored group.
WIDE = make_case((2, 33), VOCAB, 208, dtype=torch.bfloat16, margins=MARGINS)
# More tokens than a block of the logits kernel: the sums of all of them need more memory than those of a block.
TALL = make_case((2, 160), VOCAB, DIM, dtype=torch.bfloat16, margins=MARGINS)
# Pairs need an eighth of the workspace for a pair of tiles of 128: a batch that does not fit in the rest.
LARGE = make_case((2, 400), VOCAB, DIM, dtype=torch.bfloat16, margins=MARGINS)
# Values of floats and of integers. Maxima and comparisons ignore NaN; a few calls also try a large number.
POISONS = ((torch.nan, 2**30), (2.0**30, -(2**30)))
MAPPED = {"bias": make_bias(VOCAB), "softcap": 20.0, "logit_scale": -0.7}
ROUNDED = {"storage_dtype": torch.bfloat16, "lr": 1e-3, "weight_decay": 0.1}
# name: (case, class of the direct kernel's tiles, arguments, what the plan does, whether bounds are on the host)
CALLS: dict[str, tuple[Case, str, dict[str, Any], set[str], bool]] = {
    "short": (CASE, "short", {}, {"stored", "packed", "one group"}, True),
    "short, looked up": (WIDE, "short", {}, {"stored", "looked up"}, True),
    "short, several groups": (CASE, "short", {}, PATHS["groups"], True),
    "long": (CASE, "long", {}, {"stored", "packed"}, True),
    "long, streamed": (CASE, "long", {}, {*PATHS["kept"], "looked up"}, False),
    "heavy, given state": (CASE, "heavy", {"update": AdamW(state=make_state(CASE))}, {"stored", "packed"}, True),
    "heavy, rounded": (WIDE, "heavy", ROUNDED, {"stored", "looked up"}, True),
    "soft-cap": (CASE, "short", {"softcap": 20.0}, {"stored", "packed"}, True),
    "bias": (CASE, "short", {"bias": make_bias(VOCAB)}, {"stored", "packed"}, True),
    "all, streamed": (TALL, "short", MAPPED, PATHS["chunks"], False),
    "sign": (CASE, "long", {"update": "sign"}, {"stored", "packed"}, True),
    "pairs": (CASE, "short", {"update": "sgd"}, {"stored", "pairs"}, True),
    "pairs, soft-cap": (CASE, "long", {"update": "sgd", **MAPPED}, {"stored", "pairs"}, True),
    "pairs, streamed": (LARGE, "short", {"update": "sgd", "bias": make_bias(VOCAB)}, {*PATHS["kept"], "pairs"}, False),
}


@pytest.fixture(autouse=True)
def rounded_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits, "SMALL_HEAD", 0)


def hopper(direct: str, *, mapped: bool) -> Configs:
    return fixed_configs("sm_90", torch.bfloat16, torch.bfloat16, mapped=mapped, direct=direct)


def scored_by(name: str) -> Callable[[], Any]:
    """A run of one of ``CALLS``, on the path that it names."""
    case, direct, options, wanted, on_host = CALLS[name]
    tiles = hopper(direct, mapped="bias" in options or "softcap" in options)

    def make(size: int) -> Any:
        return call_of(case, workspace_bytes=size, bounds_on_host=on_host, **options)

    size = 64 << 20 if wanted <= paths_of(make(64 << 20), tiles) else workspace_for(make, wanted, tiles)
    assert wanted <= paths_of(make(size), tiles)
    return lambda: scores_of(make(size), tiles)


def crossed(case: Case, other: Case, **options: Any) -> Tensor:
    with configs.override(hopper("short", mapped="bias" in options or "softcap" in options)):
        return gradient_products(
            case.hidden, case.labels, case.cu_seqlens, other.hidden, other.labels, other.cu_seqlens, case.weight,
            backend="triton", **options,
        )  # fmt: skip


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("name", CALLS)
def test_with_shipped_tiles_old_memory_is_no_part_of_the_scores(name: str) -> None:
    run = scored_by(name)
    with poisoned(0.0, 0):
        expected = run()
    live = expected.scored_tokens > 0
    assert bool(expected.nod[live].isfinite().all())
    for floats, integers in POISONS if name in ("short", "pairs") else POISONS[:1]:
        with poisoned(floats, integers), checked_memory():
            assert_identical(run(), expected)


def test_nor_is_it_of_scores_in_float8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "LEAST_TOKENS", 10)
    call = replace(call_of(CASE), float8=True)
    tiles = hopper("short", mapped=False)
    with poisoned(0.0, 0):
        expected = scores_of(call, tiles)
    with poisoned(*POISONS[0]), checked_memory() as launches:
        assert_identical(scores_of(call, tiles), expected)
    assert "float8_kernel" in launches.names


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("options", "workspace"), [({}, 64 << 20), (MAPPED, 1 << 20)], ids=["stored", "streamed, all"])
def test_nor_is_it_of_the_products_of_two_sets(options: dict[str, Any], workspace: int) -> None:
    other = make_case((2, 0, 66), VOCAB, DIM, dtype=torch.bfloat16, margins=MARGINS, seed=1)
    with poisoned(0.0, 0):
        expected = crossed(CASE, other, workspace_bytes=workspace, **options)
    assert expected.isnan().tolist() == [[False, True, False], [True] * 3, [False, True, False]]
    with poisoned(*POISONS[0]), checked_memory():
        found = crossed(CASE, other, workspace_bytes=workspace, **options)
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def modules_with_kernels() -> list[Any]:
    names = [module.name for module in pkgutil.iter_modules(triton_backend.__path__) if module.name != "compiled"]
    return [importlib.import_module(f"{triton_backend.__name__}.{name}") for name in names]


def test_every_kernel_accesses_only_the_tensors_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two programs store to one address either, and none loads what another stores. Every kernel is launched."""
    monkeypatch.setattr(float8, "LEAST_TOKENS", 10)
    ragged = make_case((3, 0, 18), vocab=131, dim=33, dtype=torch.bfloat16, margins=MARGINS)
    mapped = {**MAPPED, "bias": make_bias(131)}
    with checked_memory() as launches:
        scores_of(replace(call_of(ragged), float8=True), hopper("short", mapped=False))
        don_nod(*ragged, backend="triton")
        don_nod(*ragged, update="sgd", backend="triton")
        crossed(ragged, ragged)
        monkeypatch.setattr(logits, "SMALL_HEAD", 1 << 23)
        for update in ("adamw", "sgd"):
            don_nod(*ragged, update=update, backend="triton", extras=("token_loss",), **mapped)
        topsis(torch.rand(1025, dtype=torch.float64), torch.rand(1025, dtype=torch.float64), backend="triton")
    assert launches.names >= kernels_of(*modules_with_kernels())


@triton.jit
def shifted_kernel(x, y, shift, n, PER_PROGRAM: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * PER_PROGRAM + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at + shift, mask=at < n, other=0.0), mask=at < n)


def launched(shift: int, n: int, per_program: int, same: bool = False) -> Launches:
    x = torch.zeros(3, 32)[1]
    y = x if same else torch.zeros(3, 32)[1]
    with checked_memory() as launches:
        shifted_kernel[(2,)](x, y, shift, n, PER_PROGRAM=per_program, BLOCK=16)
    return launches


@pytest.mark.parametrize(
    ("shift", "n", "per_program", "same", "problem"),
    [
        (0, 33, 17, False, "a load of 16 addresses is outside"),
        (1, 32, 16, False, "a load of 16 addresses is outside"),
        (-1, 32, 16, False, "a load of 16 addresses is outside"),
        (0, 32, 15, False, "two programs of shifted_kernel store to one address"),
        (-16, 32, 32, True, "outside of every tensor"),
        (16, 16, 0, True, "two programs"),
        (1, 31, 16, True, "a program of shifted_kernel loads what another one stores"),
    ],
)
def test_each_of_these_checks_can_fail(shift: int, n: int, per_program: int, same: bool, problem: str) -> None:
    """Memory on both sides of the row belongs to the same allocation, so that nothing crashes."""
    with pytest.raises(Exception, match=problem):
        launched(shift, n, per_program, same)


@triton.jit
def storing_kernel(y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, at.to(tl.float32), mask=at < n)


def test_a_store_past_the_end_is_found_too() -> None:
    rows = torch.zeros(3, 16)
    with pytest.raises(Exception, match="a store of 17 addresses is outside"), checked_memory():
        storing_kernel[(1,)](rows[1], 17, BLOCK=32)


def test_a_kernel_without_a_fault_passes_them() -> None:
    assert launched(0, 32, 16).names == {"shifted_kernel"}


def test_what_is_allocated_in_a_poisoned_block_is_poisoned() -> None:
    with poisoned(torch.nan, 2**30):
        like = torch.zeros(3)
        for tensor in (torch.empty(3), torch.empty_like(like), like.new_empty(3), torch.empty_strided((3,), (1,))):
            assert bool(tensor.isnan().all())
        assert torch.empty(2, dtype=torch.int32).tolist() == [2**30] * 2
    assert torch.zeros(3).tolist() == [0.0] * 3
