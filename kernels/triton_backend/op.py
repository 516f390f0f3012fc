"""Triton backend as two registered operators, which ``torch.compile`` and CUDA graphs support.

``donod_fast::head_scores`` is the whole of ``don_nod``; ``donod_fast::gradient_products`` computes products between two
sets of samples. Labels and bounds on the host are checked inside the operator, before any launch (see
``arguments.py``). Values on a device are not read back, except in debug mode (``DONOD_FAST_DEBUG``), which waits for
the device. Otherwise a label outside the vocabulary gives NaN for its sample, and invalid bounds give NaN for every
sample; neither causes reads outside of a tensor.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from donod_fast.kernels.arguments import IGNORE_INDEX, HeadArguments, check_bounds, check_labels
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.scores import DonNod, don_and_nod, with_weight_decay
from donod_fast.kernels.triton_backend import autotune, direct, logits, resources
from donod_fast.kernels.triton_backend.configs import Configs, configs_for
from donod_fast.kernels.triton_backend.language import INTERPRETING, OnDevice
from donod_fast.kernels.triton_backend.reduce import squared_norm
from donod_fast.kernels.triton_backend.run import Call, head_sums
from donod_fast.kernels.updates import SGD, AdamState, AdamW, Sign, Update

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def supports_tensors(hidden: Tensor, weight: Tensor) -> str | None:
    """Reason why the kernels do not support these tensors (device, dtype, layout, architecture), or None."""
    device = hidden.device
    if device.type == "cpu":
        if not INTERPRETING:
            return "hidden is on the CPU, and TRITON_INTERPRET=1 was not set before the kernels were imported"
    elif device.type != "cuda":
        return f"there are kernels for CUDA and ROCm devices, not for {device.type}"
    elif INTERPRETING:
        return "TRITON_INTERPRET=1 is set: the interpreter accepts only CPU tensors"
    elif torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    for name, tensor in (("hidden", hidden), ("weight", weight)):
        if tensor.dtype not in _DTYPES:
            return f"{name} is {tensor.dtype}; the kernels support bfloat16, float16 and float32"
    if hidden.dtype != weight.dtype:
        return f"hidden is {hidden.dtype} but weight is {weight.dtype}; the kernels need the same dtype for both"
    return logits.supports(hidden, weight)


def supports(call: HeadArguments) -> str | None:
    """Reason why the kernels do not support a call of ``don_nod``, or None."""
    bounds = call.cu_seqlens.device
    if bounds.type != "cpu" and bounds != call.hidden.device:
        return f"cu_seqlens is on {bounds}, hidden on {call.hidden.device}; put it there or on the host"
    return (
        supports_tensors(call.hidden, call.weight)
        or direct.supports(call.update, call.storage_dtype)
        or resources.reason_for(lambda: kind_of(call))
    )


def supports_workspace(call: HeadArguments) -> str | None:
    """Reason why the workspace is too small, or None. Reads bounds on the host, except while tracing."""
    if torch.compiler.is_compiling():
        return None
    host = check_bounds(call.cu_seqlens, call.hidden.shape[0]) if call.cu_seqlens.device.type == "cpu" else None
    made = _call_of(call, call.cu_seqlens, host)  # the device of the bounds does not affect the plan
    plan = made.plan(_configs(made))
    return plan if isinstance(plan, str) else None


def kind_of(call: HeadArguments) -> Hashable:
    """Calls of the same kind launch the same kernels with the same tiles."""
    made = _call_of(call, call.cu_seqlens, None)
    flags = (call.head.bias is not None, call.head.logit_scale != 1.0, call.head.softcap is not None)
    rule = (direct.rule_of(call.update), call.storage_dtype, call.hidden.dtype, call.hidden.shape[1])
    return (call.hidden.device, _configs(made), rule, flags)


def attempt_don_nod(call: HeadArguments) -> DonNod | None:
    """``triton_don_nod``, or None if the tiles do not fit the device; ``supports`` gives the reason from then on."""
    return resources.attempt(lambda: kind_of(call), lambda: triton_don_nod(call))


def triton_don_nod(call: HeadArguments) -> DonNod:
    """Compute DON, NOD and the statistics of every sample.

    Raises:
        InputError: labels or bounds on the host (in debug mode also those on the device) are wrong.
        BackendError: the workspace is too small.
    """
    update = call.update
    adamw = update if isinstance(update, AdamW) else AdamW()
    state = adamw.state
    scores, counts, token_loss = head_scores(
        call.hidden,
        call.weight,
        call.labels,
        call.cu_seqlens,
        call.head.bias,
        None if state is None else state.exp_avg,
        None if state is None else state.exp_avg_sq,
        update.name,
        *adamw.betas,
        adamw.eps,
        -1 if state is None else state.step,
        call.lr,
        call.weight_decay,
        call.mean,
        call.head.logit_scale,
        call.head.softcap,
        call.storage_dtype,
        call.weight_norm,
        call.workspace_bytes,
        call.precision,
        "token_loss" in call.extras,
    )
    loss, entropy, dot, update_norm, don, nod = scores.unbind(1)
    scored = DonNod(don, nod, loss, entropy, dot, update_norm, counts)
    if "token_loss" not in call.extras:
        return scored
    # Not in the operator: checks of PyTorch compare its results, and NaN differs from NaN.
    return scored._replace(token_loss=torch.where(call.labels == IGNORE_INDEX, torch.nan, token_loss))


@torch.library.custom_op("donod_fast::head_scores", mutates_args=())
def head_scores(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    cu_seqlens: Tensor,
    bias: Tensor | None,
    exp_avg: Tensor | None,
    exp_avg_sq: Tensor | None,
    update: str,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    lr: float,
    weight_decay: float,
    mean: bool,
    logit_scale: float,
    softcap: float | None,
    storage_dtype: torch.dtype | None,
    weight_norm: float | None,
    workspace_bytes: int,
    precision: str,
    token_losses: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(samples, 6) float64 [loss, entropy, ⟨W, U⟩, ‖U‖, DON, NOD], (samples,) int32 counts, and losses of the tokens.

    The last is (rows,) float64, 0 where a token is not scored, or (0,) without ``token_losses``. Step −1: no state.
    """
    rule: Update
    if update == "adamw":
        state = None if exp_avg is None or exp_avg_sq is None else AdamState(exp_avg, exp_avg_sq, step)
        rule = AdamW((beta1, beta2), eps, state)
    else:
        rule = SGD() if update == "sgd" else Sign()
    arguments = HeadArguments(
        hidden, weight, labels, cu_seqlens, HeadMap(bias, logit_scale, softcap), rule, lr, weight_decay, mean,
        storage_dtype, weight_norm, workspace_bytes, precision=precision,
    )  # fmt: skip
    check_labels(labels, weight.shape[0])
    if os.environ.get("DONOD_FAST_DEBUG"):
        check_bounds(cu_seqlens, hidden.shape[0])
    call = _call_of(arguments, *bounds_of(cu_seqlens, hidden))
    with OnDevice(hidden.device):
        losses = hidden.new_empty(hidden.shape[0] if token_losses else 0, dtype=torch.float64)
        tiles = autotune.tuned(call, _configs(call))
        sums, counts = head_sums(call, tiles, losses) if token_losses else head_sums(call, tiles)
        norm: Tensor | float = squared_norm(weight).sqrt() if weight_norm is None else weight_norm
        loss, entropy, dot, norm_sq = sums.unbind(1)
        if storage_dtype is None:
            dot, norm_sq = with_weight_decay(dot, norm_sq, norm, weight_decay)
        update_norm = norm_sq.sqrt()
        don, nod = don_and_nod(dot, update_norm, norm, lr)
        return torch.stack([loss, entropy, dot, update_norm, don, nod], 1), counts, losses


@head_scores.register_fake
def _(hidden: Tensor, weight: Tensor, labels: Tensor, cu_seqlens: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    samples, losses = cu_seqlens.shape[0] - 1, rest[-1]
    return (
        hidden.new_empty((samples, 6), dtype=torch.float64),
        hidden.new_empty((samples,), dtype=torch.int32),
        hidden.new_empty((hidden.shape[0] if losses else 0,), dtype=torch.float64),
    )


def _configs(call: Call) -> Configs:
    return configs_for(
        call.hidden.device,
        call.hidden.dtype,
        call.signals,
        mapped=call.mapped,
        heavy=call.storage_dtype is not None or (isinstance(call.update, AdamW) and call.update.state is not None),
        tokens=call.hidden.shape[0],
        samples=call.bounds.shape[0] - 1,
        dim=call.hidden.shape[1],
    )


def _call_of(call: HeadArguments, bounds: Tensor, host: list[int] | None) -> Call:
    head = call.head
    return Call(
        hidden=call.hidden,
        weight=call.weight,
        labels=call.labels.contiguous(),  # the kernels step through labels and bias one by one
        bounds=bounds,
        host_bounds=host,
        head=head if head.bias is None else replace(head, bias=head.bias.contiguous()),
        update=call.update,
        lr=call.lr,
        weight_decay=call.weight_decay,
        mean=call.mean,
        storage_dtype=call.storage_dtype,
        workspace_bytes=call.workspace_bytes,
        float8=call.precision == "float8",
    )


def bounds_of(cu_seqlens: Tensor, hidden: Tensor) -> tuple[Tensor, list[int] | None]:
    """Bounds as (samples + 1,) int64 on the device of ``hidden``, and on the host if they were given there.

    Raises:
        InputError: the bounds on the host are invalid.
    """
    if cu_seqlens.device.type == "cpu":
        host = check_bounds(cu_seqlens, hidden.shape[0])
        wide = cu_seqlens.long()
        if hidden.device.type == "cpu":
            return wide, host
        # From pinned memory the copy does not wait.
        return wide.pin_memory().to(hidden.device, non_blocking=True), host
    return cu_seqlens.long(), None
