"""``don_nod``: entry point of the head mathematics, and the choice of its backend."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import fused, torch_backend
from donod_fast.kernels.arguments import (
    DEFAULT_WORKSPACE,
    HeadArguments,
    check_call,
    check_labels,
    gather_batch,
    prefers_torch,
)
from donod_fast.kernels.float8_support import why_not_float8
from donod_fast.kernels.scores import DonNod
from donod_fast.kernels.token_statistics import mean_error_norm
from donod_fast.kernels.updates import SGD, FactoredAdamW, Update

BACKENDS = ("auto", "torch", "inductor", "triton")


def don_nod(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    *,
    lr: float = 2e-5,
    update: str | Update = "adamw",
    weight_decay: float = 0.0,
    reduction: str = "mean",
    bias: Tensor | None = None,  # (vocab,)
    logit_scale: float = 1.0,
    softcap: float | None = None,
    backend: str = "auto",
    storage_dtype: torch.dtype | None = None,
    weight_norm: float | None = None,
    workspace_bytes: int = DEFAULT_WORKSPACE,
    extras: Collection[str] = (),
    precision: str = "full",
) -> DonNod:
    """Compute DON and NOD of each sample: the effect of one training step on that sample on the output layer W.

    DONOD, arXiv 2504.14810, §3.2: DON = ‖W‖ − ‖W′‖ and NOD = ‖W − W′‖ (Frobenius) for the W′ after one
    optimizer step. Neither the (vocab, dim) gradient nor a copy of W is formed. The logits are
    softcap · tanh((logit_scale · (W h + bias)) / softcap). With tied embeddings only
    W's use in the output layer counts; the bias is not part of W.

    Args:
        hidden: the final-norm hidden states that predict ``labels`` (already shifted).
        weight: the output layer W; tokens and vocabulary are streamed under ``workspace_bytes``.
        labels: the token that each row of ``hidden`` should predict; −100 is not scored.
        cu_seqlens: bounds of the samples in ``hidden``, from 0 to its number of rows, on any device.
        lr: learning rate η of the step.
        update: ``"adamw"`` (first step from fresh state), ``"sgd"``, ``"sign"``, or an update object
            (``AdamW`` with other betas, eps or a given state).
        weight_decay: λ of the step W′ = W − η(U + λW).
        reduction: ``"mean"`` over a sample's scored tokens, or ``"sum"``.
        bias: added to W h, or None.
        logit_scale: multiplies W h + bias.
        softcap: cap of the logits, or None.
        backend: ``"torch"`` (any device), ``"inductor"`` (the same on a CPU with AdamW's passes compiled into one,
            which takes a few seconds once), ``"triton"`` (CUDA and ROCm; CPU tensors under ``TRITON_INTERPRET=1``) or
            ``"auto"``: Triton on an accelerator if it supports the input, else torch.
        storage_dtype: round W′ to this dtype before the norms, as training with weights stored in it does.
        weight_norm: ‖W‖_F if the caller knows it (``frobenius_norm``), else it is computed.
        workspace_bytes: memory limit of the call in addition to its arguments, at least 1 MiB.
        extras: fields of ``DonNod`` to compute as well, ``"error_norm"`` (EL2N), ``"gradient_norm"`` (GraNd of the
            output layer) and ``"token_loss"`` (the loss of each token); the other fields stay bit-for-bit identical.
            ``"torch"`` and ``"inductor"`` take them from the same products. On ``"triton"`` the first costs one more
            logits product, the second costs a call with SGD (unless the update is SGD without decay), and the third
            comes from the same products.
        precision: ``"full"``, or ``"float8"`` to multiply the gradient tiles of samples of at least 400 rows in float8
            (e4m3). It is for AdamW from fresh state and Sign, bfloat16 or float16, and output layers of at least 2²³
            elements, on devices with float8 tensor instructions (compute capability 8.9 and later, gfx942). It needs
            ``cu_seqlens`` on the host: otherwise nothing is multiplied in float8. ``"torch"`` computes the same values
            slowly, to measure their error; ``"auto"`` does so on a CPU only.

    Returns:
        ``DonNod`` of (samples,) tensors on the device of ``hidden``. Arithmetic is float32 (float64 where
        an input is) with float64 sums; the error of DON and NOD is at most 1e-5 · NOD for float32 inputs
        and 1e-4 · NOD for bfloat16 inputs. With ``precision="float8"`` it is of the order of 1e-4 · NOD, and at most
        1e-3 · NOD where ``donod-fast check --head-precision float8`` passes.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value. Label values on an
            accelerator are checked only if the environment variable ``DONOD_FAST_DEBUG`` is set.
        BackendError: the backend that was named does not support the input, or nothing here has float8 for it.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend must be one of {BACKENDS}, got {backend!r}")
    call = check_call(
        hidden,
        weight,
        labels,
        cu_seqlens,
        lr=lr,
        update=update,
        weight_decay=weight_decay,
        reduction=reduction,
        bias=bias,
        logit_scale=logit_scale,
        softcap=softcap,
        storage_dtype=storage_dtype,
        weight_norm=weight_norm,
        workspace_bytes=workspace_bytes,
        extras=extras,
        precision=precision,
    )
    if call.precision == "float8":
        refuse_without_float8(call.weight, call.update, call.storage_dtype, backend)
        if hidden.dtype != weight.dtype:
            raise BackendError(
                f"precision 'float8' is not supported here: hidden is {hidden.dtype} but weight is {weight.dtype}"
            )
    plain_torch = backend == "torch" or (backend == "auto" and prefers_torch(hidden.device))
    rounds = isinstance(call.update, FactoredAdamW) or (call.precision == "float8" and plain_torch)
    if rounds and "gradient_norm" in call.extras:
        return _with_plain_norm(call, backend)
    if plain_torch:
        return torch_backend.torch_don_nod(gather_batch(call))
    if backend == "inductor":
        reason = why_not_inductor(call)
        if reason is not None:
            check_labels(labels, weight.shape[0])
            raise BackendError(f"backend 'inductor' does not support this call: {reason}; use 'torch' or 'auto'")
        return torch_backend.torch_don_nod(gather_batch(call), fused=True)
    reason = why_not_triton(call)
    if reason is None:
        from donod_fast.kernels.triton_backend.op import attempt_don_nod

        scores = attempt_don_nod(call)
        if scores is not None:
            return _with_extras(call, scores)
        reason = why_not_triton(call)  # known since the attempt
    if call.precision == "float8":
        raise BackendError(f"precision 'float8' is not supported here: {reason}")
    if backend == "triton":
        check_labels(labels, weight.shape[0])  # report a wrong argument first, then the unsupported backend
        raise BackendError(f"backend 'triton' does not support this call: {reason}; use 'torch' or 'auto'")
    return torch_backend.torch_don_nod(gather_batch(call))


def refuse_without_float8(
    weight: Tensor,  # (vocab, dim)
    update: Update,
    storage_dtype: torch.dtype | None,
    backend: str,
) -> None:
    """Refuse float8 products that this output layer, update, backend or device does not have.

    Raises:
        BackendError: says which of them, and why.
    """
    reason = why_not_float8(weight, update, storage_dtype, backend)
    if reason is not None:
        raise BackendError(f"precision 'float8' is not supported here: {reason}")


def _with_extras(call: HeadArguments, scores: DonNod) -> DonNod:
    """Add the extras to the scores by further calls, since the Triton kernels do not compute them."""
    if "error_norm" in call.extras:
        scores = scores._replace(error_norm=mean_error_norm(call))
    if "gradient_norm" in call.extras:
        plain = replace(
            call,
            update=SGD(),
            weight_decay=0.0,
            storage_dtype=None,
            weight_norm=0.0,
            extras=frozenset(),
            precision="full",
        )
        if call.update.linear and call.storage_dtype is None and call.weight_decay == 0.0:
            found = scores
        else:
            found = _plain_scores(plain)
        scores = scores._replace(gradient_norm=found.update_norm)
    return scores


def _plain_scores(plain: HeadArguments) -> DonNod:
    if why_not_triton(plain) is None:
        from donod_fast.kernels.triton_backend.op import attempt_don_nod

        found = attempt_don_nod(plain)
        if found is not None:
            return found
    return torch_backend.torch_don_nod(gather_batch(plain))


def _with_plain_norm(call: HeadArguments, backend: str) -> DonNod:
    """Scores, and ‖G‖ from another call: a factored state divides the signals of the first, float8 rounds its tiles."""
    if backend in ("triton", "inductor"):
        reason = why_not_triton(call) if backend == "triton" else why_not_inductor(call)
        if reason is not None:
            raise BackendError(f"backend {backend!r} does not support this call: {reason}; use 'torch' or 'auto'")
    scores = torch_backend.torch_don_nod(gather_batch(replace(call, extras=call.extras - {"gradient_norm"})))
    plain = replace(
        call, update=SGD(), weight_decay=0.0, storage_dtype=None, weight_norm=0.0, extras=frozenset(), precision="full"
    )
    return scores._replace(gradient_norm=torch_backend.torch_don_nod(gather_batch(plain)).update_norm)


def why_not_inductor(call: HeadArguments) -> str | None:
    """Why the torch backend with compiled passes does not support a call; None if it does."""
    if isinstance(call.update, FactoredAdamW):
        return f"the update {call.update.name} has no passes over a gradient to compile"
    if call.hidden.device.type != "cpu":
        return f"it compiles for the CPU, the tensors are on {call.hidden.device}"
    return fused.why_not_inductor()


def why_not_triton(call: HeadArguments) -> str | None:
    """Why the Triton kernels do not support a call; None if they do."""
    if isinstance(call.update, FactoredAdamW):
        return f"the update {call.update.name} has no kernel"
    try:
        from donod_fast.kernels.triton_backend import op
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return op.supports(call) or op.supports_workspace(call)
