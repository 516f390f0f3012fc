"""Check the arguments of ``don_nod`` and collect them in one object."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels.float8 import PRECISIONS, is_long
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.updates import AdamW, FactoredAdamW, Update, resolve_update

IGNORE_INDEX = -100
EXTRAS = ("error_norm", "gradient_norm", "token_loss")
"""Fields of ``DonNod`` that are computed on request."""
MIB = 1 << 20
DEFAULT_WORKSPACE = 256 * MIB
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, eq=False)
class HeadArguments:
    """Arguments of one call of ``don_nod``, with checked shapes, dtypes, devices and host numbers.

    Attributes:
        hidden: (rows, dim) as given.
        weight: (vocab, dim) as given.
        labels: (rows,) int64 or int32.
        cu_seqlens: (samples + 1,) int32 or int64, on any device.
        weight_norm: ‖W‖, or None if it must be computed.
        extras: requested names of ``EXTRAS``.
        precision: one of ``PRECISIONS``, of the gradient products.
    """

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    cu_seqlens: Tensor
    head: HeadMap
    update: Update
    lr: float
    weight_decay: float
    mean: bool
    storage_dtype: torch.dtype | None
    weight_norm: float | None
    workspace_bytes: int
    extras: frozenset[str] = frozenset()
    precision: str = "full"

    @property
    def compute_dtype(self) -> torch.dtype:
        """float64 if any input is, else float32."""
        return torch.float64 if torch.float64 in (self.hidden.dtype, self.weight.dtype) else torch.float32


@dataclass(frozen=True, slots=True, eq=False)
class HeadBatch:
    """Checked input of one call. Sample i has the scored rows ``bounds[i]`` to ``bounds[i + 1]``.

    Attributes:
        hidden: (rows, dim) as given.
        weight: (vocab, dim) as given.
        rows: (scored,) int64, indices of the scored rows of ``hidden``, in order.
        labels: (scored,) int64, their labels.
        bounds: B + 1 host integers, indices into the scored rows.
        compute_dtype: float64 if any input is, else float32.
        float8: numbers of the samples whose gradient products are rounded to float8.
    """

    hidden: Tensor
    weight: Tensor
    rows: Tensor
    labels: Tensor
    bounds: list[int]
    head: HeadMap
    update: Update
    lr: float
    weight_decay: float
    mean: bool
    storage_dtype: torch.dtype | None
    weight_norm: float | None
    workspace_bytes: int
    compute_dtype: torch.dtype
    extras: frozenset[str] = frozenset()
    float8: frozenset[int] = frozenset()

    @property
    def lengths(self) -> list[int]:
        """Number of scored tokens of each sample."""
        return [stop - start for start, stop in pairwise(self.bounds)]

    def token_weight(self, length: int) -> float:
        """W of the loss: 1/N for the mean, 1 for the sum."""
        return 1.0 / length if self.mean else 1.0


class PlainOptions(TypedDict, total=False):
    """Options of the functions that take gradients without a step; see ``don_nod`` for their meaning."""

    reduction: str
    bias: Tensor | None
    logit_scale: float
    softcap: float | None
    workspace_bytes: int


class StepOptions(TypedDict, total=False):
    """Options that ``don_nod`` shares with its reference; see ``don_nod`` for their meaning."""

    lr: float
    update: str | Update
    weight_decay: float
    reduction: str
    bias: Tensor | None
    logit_scale: float
    softcap: float | None
    storage_dtype: torch.dtype | None


def check_call(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    cu_seqlens: Tensor,
    *,
    lr: float = 2e-5,
    update: str | Update = "adamw",
    weight_decay: float = 0.0,
    reduction: str = "mean",
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    storage_dtype: torch.dtype | None = None,
    weight_norm: float | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE,
    extras: Collection[str] = (),
    precision: str = "full",
) -> HeadArguments:
    """Check everything except the values in tensors; raise an InputError that names the argument."""
    if hidden.ndim != 2:
        raise InputError(f"hidden must be (tokens, dim), got shape {tuple(hidden.shape)}")
    if weight.ndim != 2 or weight.shape[1] != hidden.shape[1] or 0 in weight.shape:
        raise InputError(
            f"weight must be (vocab, {hidden.shape[1]}) with vocab > 0 to fit hidden, got {tuple(weight.shape)}"
            + (": gather the sharded weight first" if weight.numel() == 0 else "")
        )
    for name, tensor in (("hidden", hidden), ("weight", weight)):
        if tensor.dtype not in _FLOATS:
            raise InputError(f"{name} must be float64, float32, bfloat16 or float16, got {tensor.dtype}")
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device and holds no values")
    if weight.device != hidden.device:
        raise InputError(f"weight is on {weight.device} but hidden is on {hidden.device}")
    if labels.shape != hidden.shape[:1]:
        raise InputError(f"labels must be ({hidden.shape[0]},) to fit hidden, got {tuple(labels.shape)}")
    if labels.dtype not in (torch.int64, torch.int32):
        raise InputError(f"labels must be int64 or int32, got {labels.dtype}")
    if labels.device != hidden.device:
        raise InputError(f"labels are on {labels.device} but hidden is on {hidden.device}")
    vocab = weight.shape[0]
    if bias is not None and (bias.shape != (vocab,) or bias.device != weight.device or not bias.is_floating_point()):
        raise InputError(
            f"bias must be a floating ({vocab},) tensor on {weight.device}, "
            f"got {bias.dtype} {tuple(bias.shape)} on {bias.device}"
        )
    _check_numbers(lr, weight_decay, weight_norm, logit_scale, softcap)
    if reduction not in ("mean", "sum"):
        raise InputError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    if storage_dtype is not None and storage_dtype not in _FLOATS:
        raise InputError(f"storage_dtype must be a floating dtype or None, got {storage_dtype}")
    if storage_dtype is not None and lr == 0.0:
        raise InputError("storage_dtype asks for a rounded step, which needs lr > 0")
    if not (_is_finite(workspace_bytes) and workspace_bytes >= MIB):
        raise InputError(f"workspace_bytes must be at least {MIB} (1 MiB), got {workspace_bytes!r}")
    resolved = _check_update(update, weight)
    if isinstance(extras, str) or any(name not in EXTRAS for name in extras):
        raise InputError(f"extras must be a collection of names among {EXTRAS}, got {extras!r}")
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    if cu_seqlens.ndim != 1 or cu_seqlens.numel() < 2 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise InputError(
            "cu_seqlens must be (samples + 1,) int32 with at least one sample, "
            f"got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )
    if cu_seqlens.is_meta:
        raise InputError("cu_seqlens is on the meta device and holds no values")
    return HeadArguments(
        hidden=hidden.detach(),
        weight=weight.detach(),
        labels=labels,
        cu_seqlens=cu_seqlens,
        head=HeadMap(None if bias is None else bias.detach(), float(logit_scale), softcap),
        update=resolved,
        lr=float(lr),
        weight_decay=float(weight_decay),
        mean=reduction == "mean",
        storage_dtype=storage_dtype,
        weight_norm=weight_norm,
        workspace_bytes=int(workspace_bytes),
        extras=frozenset(extras),
        precision=precision,
    )


def check_plain_call(
    hidden: Tensor, weight: Tensor, labels: Tensor, cu_seqlens: Tensor, **options: Unpack[PlainOptions]
) -> HeadArguments:
    """``check_call`` for functions without a step."""
    return check_call(hidden, weight, labels, cu_seqlens, lr=0.0, update="sgd", weight_norm=0.0, **options)


def prefers_torch(device: torch.device) -> bool:
    """Whether ``backend="auto"`` is the torch backend on a device, whatever Triton supports."""
    return device.type == "cpu"


def check_labels(labels: Tensor, vocab: int) -> None:
    """Raise InputError for a label outside the vocabulary.

    On an accelerator reading label values would stall the stream, so it happens in debug mode only.
    """
    if labels.device.type != "cpu" and not os.environ.get("DONOD_FAST_DEBUG"):
        return
    wrong = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= vocab))
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise InputError(f"labels[{at}] is {int(labels[at])}, outside the {vocab} rows of weight (and not −100)")


def check_arguments(hidden: Tensor, weight: Tensor, labels: Tensor, cu_seqlens: Tensor, **options: Any) -> HeadBatch:
    """Check every argument of ``don_nod`` and collect them; raise an InputError that names the argument."""
    return gather_batch(check_call(hidden, weight, labels, cu_seqlens, **options))


def gather_batch(call: HeadArguments) -> HeadBatch:
    """Read bounds and labels (this waits for their device) and collect the scored rows."""
    labels = call.labels
    ends = check_bounds(call.cu_seqlens, call.hidden.shape[0])
    check_labels(labels, call.weight.shape[0])
    rows = (labels != IGNORE_INDEX).nonzero().squeeze(1)
    cut = torch.searchsorted(rows, torch.tensor(ends, device=rows.device, dtype=rows.dtype))
    batch = batch_of(call, rows, labels.long()[rows], cut.tolist())
    if call.precision != "float8":
        return batch
    # By rows, scored or not, because that is what the host knows of samples on an accelerator.
    long = (sample for sample, (start, stop) in enumerate(pairwise(ends)) if is_long(stop - start))
    return replace(batch, float8=frozenset(long))


def batch_of(call: HeadArguments, rows: Tensor, labels: Tensor, bounds: list[int]) -> HeadBatch:
    """Batch of the rows ``rows`` (n,) of a call with int64 labels (n,), divided into samples at ``bounds``."""
    return HeadBatch(
        hidden=call.hidden,
        weight=call.weight,
        rows=rows,
        labels=labels,
        bounds=bounds,
        head=call.head,
        update=call.update,
        lr=call.lr,
        weight_decay=call.weight_decay,
        mean=call.mean,
        storage_dtype=call.storage_dtype,
        weight_norm=call.weight_norm,
        workspace_bytes=call.workspace_bytes,
        compute_dtype=call.compute_dtype,
        extras=call.extras,
    )


def _check_numbers(
    lr: float, weight_decay: float, weight_norm: float | None, logit_scale: float, softcap: float | None
) -> None:
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("weight_norm", weight_norm)):
        if value is not None and not (_is_finite(value) and value >= 0.0):
            raise InputError(f"{name} must be a finite number ≥ 0, got {value!r}")
    if not (_is_finite(logit_scale) and logit_scale != 0.0):
        raise InputError(f"logit_scale must be a finite number and not 0, got {logit_scale!r}")
    if softcap is not None and not (_is_finite(softcap) and softcap > 0.0):
        raise InputError(f"softcap must be a finite number > 0, or None, got {softcap!r}")


def _is_finite(value: object) -> bool:
    # Not math.isfinite: under torch.compile a number may be a symbol.
    return isinstance(value, (int, float)) and abs(value) < float("inf")


def _check_update(update: str | Update, weight: Tensor) -> Update:
    resolved = resolve_update(update)
    if isinstance(resolved, FactoredAdamW):
        for name, factor, size in (
            ("rows", resolved.rows, weight.shape[0]),
            ("columns", resolved.columns, weight.shape[1]),
        ):
            if factor.shape != (size,) or factor.device != weight.device:
                raise InputError(
                    f"update: FactoredAdamW's {name} must be ({size},) on {weight.device} to fit weight, "
                    f"got {tuple(factor.shape)} on {factor.device}"
                )
    if isinstance(resolved, AdamW) and resolved.state is not None:
        for name in ("exp_avg", "exp_avg_sq"):
            moment = getattr(resolved.state, name)
            if moment.shape != weight.shape or moment.device != weight.device or not moment.is_floating_point():
                raise InputError(
                    f"update: AdamW's state.{name} must be a floating {tuple(weight.shape)} tensor on {weight.device}, "
                    f"got {moment.dtype} {tuple(moment.shape)} on {moment.device}"
                )
    return resolved


def check_bounds(cu_seqlens: Tensor, tokens: int) -> list[int]:
    """Bounds as host integers; InputError unless they run from 0 to ``tokens`` without decreasing."""
    ends: list[int] = cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] != tokens:
        raise InputError(f"cu_seqlens must run from 0 to {tokens} (the rows of hidden), got {ends[0]} to {ends[-1]}")
    for index, (start, stop) in enumerate(pairwise(ends)):
        if stop < start:
            raise InputError(f"cu_seqlens must not decrease, but falls from {start} to {stop} at {index + 1}")
    return ends
