"""Attention within packed samples: each kernel equals one dense formula, or says why it does not support a layer.

Functions with the signatures of the GPU kernels in each release replace them and compute the same formula densely. So
these tests check which arguments the kernels receive.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from varlen_fakes import Request, dense, flash_2_7, varlen_2_10, varlen_2_13

from donod_fast.models.packing import choose_kernel, kernel_mismatch
from donod_fast.models.varlen_attention import (
    PLAIN,
    AttentionCall,
    VarlenKernel,
    kernels_for,
    layer_function,
    package_kernel,
    plain_varlen,
    torch_kernel,
)

try:
    from torch.nn.attention.varlen import varlen_attn as installed_varlen_attn
except ImportError:  # torch before 2.10
    installed_varlen_attn = None

CALL = AttentionCall(0, torch.device("cpu"), torch.bfloat16, heads=4, key_heads=2, head_dim=8, value_dim=8)
LENGTHS = (9, 1, 4, 17)
WINDOWS, SOFTCAPS, SINKS = (None, 1, 4, 17, 1000), (None, 2.0), (False, True)


@functools.wraps(installed_varlen_attn or varlen_2_13)
def varlen_installed(*arguments: Any, **options: Any) -> Any:
    return varlen_2_13(*arguments, **options)


KERNELS: dict[str, VarlenKernel] = {
    "plain": PLAIN,
    "torch 2.10": torch_kernel(varlen_2_10, Request),
    "torch 2.13": torch_kernel(varlen_2_13, Request),
    "package": package_kernel(flash_2_7),
}
if installed_varlen_attn is not None and "window_size" in inspect.signature(installed_varlen_attn).parameters:
    KERNELS["torch installed"] = torch_kernel(varlen_installed, Request)


def drawn(call: AttentionCall, lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> tuple[Tensor, ...]:
    """(query, key, value, bounds, sinks) that the call describes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(call.dtype)

    total = sum(lengths)
    bounds = torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)], dtype=torch.int32)
    query, key = draw(total, call.heads, call.head_dim), draw(total, call.key_heads, call.head_dim)
    return query, key, draw(total, call.key_heads, call.value_dim), bounds, draw(call.heads)


def assert_equals_dense(kernel: VarlenKernel, call: AttentionCall, scale: float, lengths: tuple[int, ...]) -> None:
    query, key, value, bounds, sinks = drawn(call, lengths)
    options = {"scale": scale, "softcap": call.softcap, "sinks": sinks if call.sinks else None}
    found = kernel.run(query, key, value, bounds, max(lengths), window=call.window, **options)
    truth, _ = dense(query, key, value, bounds, left=-1 if call.window is None else call.window - 1, **options)
    assert found.dtype == call.dtype
    limit = 1e-6 if call.dtype == torch.float64 else 3e-2  # the log-sum-exp is float32
    torch.testing.assert_close(found, truth, rtol=limit, atol=limit)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (6, 1)])
def test_every_feature_that_a_kernel_accepts_matches_the_formula(kernel: str, heads: tuple[int, int]) -> None:
    served = 0
    for window, softcap, sinks in product(WINDOWS, SOFTCAPS, SINKS):
        call = replace(CALL, window=window, softcap=softcap, sinks=sinks, heads=heads[0], key_heads=heads[1])
        if not KERNELS[kernel].refuse(call):
            served += 1
            for scale in (8**-0.5, 0.9):
                assert_equals_dense(KERNELS[kernel], replace(call, dtype=torch.float64), scale, LENGTHS)
    assert served == {"plain": 20, "torch 2.10": 2, "package": 20}.get(kernel, 10)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dims", [(12, 8), (8, 20), (5, 5), (24, 16)])
def test_values_may_have_another_width_and_widths_need_no_divisor(kernel: str, dims: tuple[int, int]) -> None:
    call = replace(CALL, dtype=torch.float64, head_dim=dims[0], value_dim=dims[1])
    assert_equals_dense(KERNELS[kernel], call, dims[0] ** -0.5, LENGTHS)
    assert_equals_dense(KERNELS[kernel], replace(call, sinks=True), 0.3, LENGTHS)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    window=st.one_of(st.none(), st.integers(1, 14)),
    softcap=st.sampled_from(SOFTCAPS),
    sinks=st.booleans(),
)
def test_plain_attention_is_the_formula_for_any_lengths(
    lengths: list[int], window: int | None, softcap: float | None, sinks: bool
) -> None:
    call = replace(CALL, dtype=torch.float64, window=window, softcap=softcap, sinks=sinks)
    assert_equals_dense(PLAIN, call, 0.5, tuple(lengths))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("softcap", SOFTCAPS)
def test_plain_attention_serves_every_dtype(dtype: torch.dtype, softcap: float | None) -> None:
    assert_equals_dense(PLAIN, replace(CALL, dtype=dtype, softcap=softcap, window=4), 0.4, LENGTHS)


def test_the_log_sum_exp_may_come_either_way_round_but_no_other() -> None:
    def given_as(change: Callable[[Tensor], Tensor]) -> VarlenKernel:
        def varlen(*arguments: Any, return_aux: Any = None, scale: Any = None, window_size: Any = (-1, -1)) -> Any:
            options = {"scale": scale, "window_size": window_size, "enable_gqa": True}
            out, lse = varlen_2_13(*arguments, return_aux=Request(True), **options)
            return (out, change(lse)) if return_aux else out

        return torch_kernel(varlen, Request)

    call = replace(CALL, dtype=torch.float64, sinks=True, key_heads=4)
    assert_equals_dense(given_as(lambda lse: lse.T.contiguous()), call, 0.5, LENGTHS)
    with pytest.raises(RuntimeError, match="log-sum-exp of shape"):
        assert_equals_dense(given_as(lambda lse: lse.reshape(2, 2, -1)), call, 0.5, LENGTHS)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "window": ("torch 2.10", {"window": 4}, "has no sliding window"),
    "soft-cap": ("torch 2.13", {"softcap": 50.0}, "has no soft-cap"),
    "float32": ("torch 2.13", {"dtype": torch.float32}, "supports float16 and bfloat16, not float32"),
    "wide heads": ("torch 2.13", {"head_dim": 512}, "up to 256 dimensions, not 512"),
    "wide values": ("package", {"value_dim": 264}, "up to 256 dimensions, not 264"),
    "float64": ("package", {"dtype": torch.float64}, "the installed flash-attention package supports"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_kernel_has_not_is_refused_with_a_reason(what: str) -> None:
    kernel, changes, reason = REFUSED[what]
    assert reason in KERNELS[kernel].refuse(replace(CALL, **changes))
    assert not KERNELS[kernel].refuse(CALL)


def test_sinks_are_refused_without_a_log_sum_exp() -> None:
    assert "sinks need" in torch_kernel(varlen_2_13, None).refuse(replace(CALL, sinks=True))


def test_an_older_package_has_no_soft_cap() -> None:
    def flash_2_5(q: Any, k: Any, v: Any, softmax_scale: Any, causal: Any, window_size: Any) -> None:
        """Without soft-caps."""

    assert "release 2.6 added it" in package_kernel(flash_2_5).refuse(replace(CALL, softcap=50.0))


def test_names_hold_no_flash_and_have_no_masks_in_transformers() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    for kernel in KERNELS.values():
        assert "flash" not in kernel.name and kernel.name not in ALL_MASK_ATTENTION_FUNCTIONS


def _as_if_released(change: Callable[..., dict[str, Any]]) -> VarlenKernel:
    """The function of torch 2.13 with its options changed, as a build might have it that does something else."""

    @functools.wraps(varlen_2_13)
    def varlen(*arguments: Any, **options: Any) -> Any:
        return varlen_2_13(*arguments, **{**options, **change(**options)})

    return torch_kernel(varlen, Request)


WRONG: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Any]]] = {
    "a window one too wide": (lambda window_size, **_: {"window_size": (window_size[0] + 1, 0)}, {"window": 7}),
    "no window": (lambda **_: {"window_size": (-1, 0)}, {"window": 4096}),
    "not causal": (lambda **_: {"window_size": (-1, -1)}, {}),
    "another scale": (lambda scale, **_: {"scale": scale * 1.2}, {}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_kernel_that_computes_something_else_on_a_device_is_found_out(what: str) -> None:
    change, changes = WRONG[what]
    call = replace(CALL, **changes)
    assert kernel_mismatch(torch_kernel(varlen_2_13, Request), call) == ""
    assert "differs from plain attention" in kernel_mismatch(_as_if_released(change), call)


def test_the_next_kernel_replaces_one_that_refuses_fails_or_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no kernel image is available")

    unbuilt = VarlenKernel("unbuilt", broken, lambda call: "")
    wrong = _as_if_released(WRONG["not causal"][0])
    package = KERNELS["package"]

    def choose(*kernels: VarlenKernel, **changes: Any) -> VarlenKernel | str:
        monkeypatch.setattr("donod_fast.models.packing.kernels_for", lambda device: (list(kernels), ["absent"]))
        return choose_kernel(torch.device("cpu"), [CALL, replace(CALL, layer=1, **changes)])

    assert choose(unbuilt, wrong, package) is package
    assert choose(KERNELS["torch 2.13"], package, softcap=3.0) is package
    refusal = choose(unbuilt, wrong, KERNELS["torch 2.13"], softcap=3.0)
    assert isinstance(refusal, str)
    for part in ("absent", "unbuilt fails on this device: no kernel image", "has no soft-cap"):
        assert part in refusal


def test_a_cpu_has_the_plain_kernel_and_cuda_that_of_this_torch() -> None:
    assert kernels_for(torch.device("cpu")) == ([PLAIN], [])
    kernels, absent = kernels_for(torch.device("cuda"))
    if "torch installed" in KERNELS:
        assert kernels[0].name == "donod_varlen"
    assert len(kernels) + len(absent) == 2


def test_a_layer_is_served_in_transformers_shapes() -> None:
    query, key, value, bounds, sinks = drawn(replace(CALL, dtype=torch.float64))
    attend = layer_function(PLAIN)
    found, weights = attend(
        torch.nn.Identity(),
        *(x.transpose(0, 1)[None] for x in (query, key, value)),
        None,
        dropout=0.0,
        sliding_window=4,
        s_aux=sinks,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=17,
        max_length_k=17,
    )
    truth = plain_varlen(query, key, value, bounds, 17, scale=1 / math.sqrt(8), window=4, softcap=None, sinks=sinks)
    assert weights is None
    torch.testing.assert_close(found[0], truth)
    with pytest.raises(RuntimeError, match="without the bounds"):
        attend(torch.nn.Identity(), *(x.transpose(0, 1)[None] for x in (query, key, value)), None)
