"""Packed samples on a CUDA device agree with the float32 formula on the CPU, without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from packed_cases import LENGTHS, PACKED, SAMPLES, model_of
from tiny_models import tiny_tokenizer

from donod_fast.errors import ModelError
from donod_fast.models.batching import collate
from donod_fast.models.loading import wrap_model
from donod_fast.models.packing import kernel_mismatch
from donod_fast.models.trunk import Trunk
from donod_fast.models.varlen_attention import AttentionCall, kernels_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

WIDE = {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.05}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {**PACKED["llama"], **WIDE},
    "mistral-window": {**PACKED["mistral-window"], **WIDE},
    "mistral-wide-window": {**PACKED["mistral-wide-window"], **WIDE},
    "gpt-oss": {**PACKED["gpt-oss"], **WIDE, "head_dim": 64},
}
KERNELS, ABSENT = kernels_for(torch.device("cuda"))


@pytest.fixture(autouse=True)
def no_sync_debug() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def trunk_of(config: dict[str, Any], dtype: torch.dtype, device: str, packing: str = "auto") -> Trunk:
    return Trunk(wrap_model(model_of(config).to(device, dtype), tiny_tokenizer()), packing=packing)


def median_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.float().cpu(), wanted.float().cpu()
    return float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).median())


def test_there_is_a_kernel_for_this_device() -> None:
    assert KERNELS, ABSENT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", MODELS)
def test_packed_states_are_those_of_the_formula(kind: str, dtype: torch.dtype) -> None:
    trunk = trunk_of(MODELS[kind], dtype, "cuda")
    if not trunk.packs:  # as torch 2.10, which has no windows
        assert kind != "llama" and "sliding window" in trunk.packing_refusal
        return
    batch = collate(SAMPLES, range(len(SAMPLES)), packed=True, pin=True)
    found = trunk.states(batch)
    truth = trunk_of(MODELS[kind], torch.float32, "cpu", "on").states(batch)
    for ours, wanted in zip(found.split(LENGTHS), truth.split(LENGTHS), strict=True):
        if len(ours) > 2:  # the median of fewer is not robust against an expert that is chosen for a rounding
            assert median_error(ours, wanted) < 3e-2
    assert torch.equal(trunk.states(batch), found)  # bit for bit


@pytest.mark.parametrize("kind", MODELS)
def test_packed_states_are_those_of_padded_rows_in_any_order(kind: str) -> None:
    trunk = trunk_of(MODELS[kind], torch.bfloat16, "cuda")
    if not trunk.packs:
        pytest.skip(trunk.packing_refusal)
    padded = trunk.states(collate(SAMPLES, range(len(SAMPLES)))).unflatten(0, (len(SAMPLES), -1))
    for members in ((0, 1, 2, 3, 4, 5, 6), (4, 1, 6), (3,)):
        states = trunk.states(collate(SAMPLES, members, packed=True))
        for member, ours in zip(members, states.split([LENGTHS[i] for i in members]), strict=True):
            if len(ours) > 2:
                assert median_error(ours, padded[member, : len(ours)]) < 2e-2


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_feature_that_a_kernel_accepts_matches_the_formula(kernel: Any, dtype: torch.dtype) -> None:
    call = AttentionCall(0, torch.device("cuda"), dtype, 8, 2, 64, 64)
    for window, softcap, sinks, heads, dims in product(
        (None, 1, 4, 4096), (None, 20.0), (False, True), ((8, 2), (4, 4), (83, 1)), ((64, 64), (128, 64), (40, 24))
    ):
        asked = replace(
            call,
            window=window,
            softcap=softcap,
            sinks=sinks,
            heads=heads[0],
            key_heads=heads[1],
            head_dim=dims[0],
            value_dim=dims[1],
        )
        if not kernel.refuse(asked):
            assert kernel_mismatch(kernel, asked) == "", asked


def test_a_soft_cap_is_served_by_the_package_or_padded() -> None:
    config = {**PACKED["gemma2"], **WIDE, "head_dim": 64, "attn_logit_softcapping": 20.0}
    trunk = trunk_of(config, torch.bfloat16, "cuda")
    if not trunk.packs:
        assert "has no soft-cap" in trunk.packing_refusal
        with pytest.raises(ModelError, match="has no soft-cap"):
            trunk_of(config, torch.bfloat16, "cuda", "on")
    batch = collate(SAMPLES, (1, 3, 4), packed=trunk.packs)
    truth = trunk_of(config, torch.float32, "cpu", "on" if trunk.packs else "off").states(batch)
    found = trunk.states(batch)
    rows = batch.predictors
    assert median_error(found[rows.cuda()], truth[rows]) < 3e-2


def test_float32_is_padded_and_says_why() -> None:
    trunk = trunk_of(MODELS["llama"], torch.float32, "cuda")
    assert not trunk.packs and "supports float16 and bfloat16, not float32" in trunk.packing_refusal


@pytest.mark.parametrize("kind", ["llama", "mistral-window"])
def test_a_packed_batch_runs_without_waiting_for_the_device(kind: str) -> None:
    trunk = trunk_of(MODELS[kind], torch.bfloat16, "cuda")
    if not trunk.packs:
        pytest.skip(trunk.packing_refusal)
    batches = [collate(SAMPLES, members, packed=True, pin=True) for members in ((0, 1, 2, 3), (4, 5, 6))]
    wanted = [trunk.states(batch) for batch in batches]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    found = [trunk.states(batch) for batch in batches]
    torch.cuda.set_sync_debug_mode("default")
    for ours, again in zip(found, wanted, strict=True):
        assert torch.equal(ours, again)
