"""Attention functions for samples that are packed into a single row.

In transformers a layer can use any registered attention function. It is called with

    query (1, H, T, D), key (1, H_kv, T, D), value (1, H_kv, T, D), scaling, sliding_window, softcap, s_aux (sinks)

and with the bounds of the samples, which the model passes on as keyword arguments. Every function here wraps a
:class:`VarlenKernel`. On CUDA the kernel is ``torch.nn.attention.varlen`` or the flash-attention package.
:data:`PLAIN` computes the same in ordinary PyTorch, for the CPU and as the reference.

    out_i = Σ_j p_ij v_j,  p = softmax over {j ≤ i of the same sample, i − j < window} of cap(scale · q_i·k_j)

A sink adds a logit to the softmax's sum but no value, which scales ``out_i`` by sigmoid(lse_i − sink).
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from donod_fast.system.wording import shortened

_HALF = (torch.float16, torch.bfloat16)
_WIDEST = 256
"""The largest head dimension of the flash-attention kernels."""


@dataclass(frozen=True)
class AttentionCall:
    """Call of attention by one layer.

    Attributes:
        layer: index of the layer, None if the layer does not know it.
        device: device of the query.
        dtype: dtype of the query.
        heads: H, number of heads of the query.
        key_heads: H_kv, number of heads of the key, a divisor of H.
        head_dim: D, width of a head of query and key.
        value_dim: width of a head of the value (different from D in latent attention).
        window: number of tokens that a token sees, including itself; None for all.
        softcap: c of c · tanh(score / c), or None.
        sinks: whether each head has a learnt sink.
        causal: False if the layer also attends to later tokens.
        bounded: whether the layer passed on the bounds of the samples.
        others: names of passed tensors that no kernel here uses (a mask, a position bias).
    """

    layer: int | None
    device: torch.device
    dtype: torch.dtype
    heads: int
    key_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    causal: bool = True
    bounded: bool = True
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class VarlenKernel:
    """Attention within samples of a packed row.

    Attributes:
        name: name in the registry. It must not contain "flash", because models take such a name for one of
            transformers' own functions.
        run: ``(query (T, H, D), key (T, H_kv, D), value (T, H_kv, D_v), bounds (B + 1,) int32, longest, *, scale,
            window, softcap, sinks (H,) or None) -> (T, H, D_v)``. ``longest`` is the length of the longest sample.
        refuse: ``(call) -> str``, the reason why the kernel does not support a call; "" if it does.
    """

    name: str
    run: Callable[..., Tensor]
    refuse: Callable[[AttentionCall], str]


def kernels_for(device: torch.device) -> tuple[list[VarlenKernel], list[str]]:
    """Kernels for a device, best first, and the reasons why others are not available."""
    if device.type != "cuda":
        return [PLAIN], []
    kernels, absent = [], []
    for make in (_torch_varlen, _flash_package):
        found = make()
        if isinstance(found, VarlenKernel):
            kernels.append(found)
        else:
            absent.append(found)
    return kernels, absent


def plain_varlen(
    query: Tensor,  # (T, H, D)
    key: Tensor,  # (T, H_kv, D)
    value: Tensor,  # (T, H_kv, D_v)
    bounds: Tensor,  # (B + 1,) int32
    longest: int,  # not needed here
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,  # (H,)
) -> Tensor:
    """Compute the formula sample by sample, (T, H, D_v) in the dtype of the value. On CUDA it waits for the bounds."""
    shared = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(shared, dim=1) if shared > 1 else x for x in (key, value))
    parts = []
    for start, end in pairwise(bounds.tolist()):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))  # (H, L, D)
        length = end - start
        if softcap is None and sinks is None and (window is None or length <= window):
            part = functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, scale=scale)[0]
        else:
            place = torch.arange(length, device=query.device)
            back = place[:, None] - place  # (L, L): distance from the key to the query
            seen = (back >= 0) & (back < (length if window is None else window))
            if softcap is None and sinks is None:
                part = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=seen, scale=scale)
                part = part[0]
            else:
                part = _masked_attention(q, k, v, seen, scale, softcap, sinks)
        parts.append(part.transpose(0, 1))
    return torch.cat(parts)


def _masked_attention(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention (H, L, D_v) under an (L, L) mask, with scores in float32 or float64."""
    scores = (query @ key.transpose(1, 2)) * scale
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        column = sinks.to(scores.dtype)[:, None, None].expand(-1, scores.shape[1], 1)
        scores = torch.cat([scores, column], dim=-1)
    return scores.softmax(dim=-1)[..., : key.shape[1]].to(value.dtype) @ value


PLAIN = VarlenKernel("donod_varlen_plain", plain_varlen, lambda call: "")


def torch_kernel(varlen_attn: Callable[..., Any], request: Callable[..., Any] | None) -> VarlenKernel:
    """A kernel on ``torch.nn.attention.varlen.varlen_attn``, with the arguments of the installed release.

    Args:
        varlen_attn: the function. Its arguments changed between releases: 2.10 has ``is_causal``, later ones have
            ``window_size`` with (-1, 0) for causal; ``scale`` and ``enable_gqa`` were added in between.
        request: ``AuxRequest``, which requests the log-sum-exp; None if this release does not have it.
    """
    known = frozenset(inspect.signature(varlen_attn).parameters)
    windows, scales, groups = ("window_size" in known, "scale" in known, "enable_gqa" in known)
    sums = "return_aux" in known and request is not None

    def attend(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, asked: _Asked) -> Any:
        options: dict[str, Any] = {}
        if windows:
            options["window_size"] = (-1 if asked.window is None else asked.window - 1, 0)
        else:
            options["is_causal"] = True
        shared = query.shape[1] // key.shape[1]
        if shared > 1 and groups:
            options["enable_gqa"] = True
        elif shared > 1:
            key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
        if scales:
            options["scale"] = asked.scale
        elif not math.isclose(factor := asked.scale * math.sqrt(query.shape[-1]), 1.0, rel_tol=1e-6):
            query = query * factor  # the function itself scales by 1 / √width
        if asked.sums and request is not None:
            options["return_aux"] = request(lse=True)
        return varlen_attn(query, key, value, bounds, bounds, asked.longest, asked.longest, **options)

    def refuse(call: AttentionCall) -> str:
        what = f"variable-length attention of torch {torch.__version__}"
        if call.softcap is not None:
            return f"{what} has no soft-cap"
        if call.window is not None and not windows:
            return f"{what} has no sliding window"
        if call.sinks and not sums:
            return f"{what} gives no log-sum-exp, which sinks need"
        return _flash_limits(call, what)

    return VarlenKernel("donod_varlen", _flash_run(attend, multiple=8), refuse)


def package_kernel(flash_attn_varlen_func: Callable[..., Any]) -> VarlenKernel:
    """A kernel on the flash-attention package (2.3 or later for windows, 2.6 or later for soft-caps)."""
    known = frozenset(inspect.signature(flash_attn_varlen_func).parameters)

    def attend(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, asked: _Asked) -> Any:
        options: dict[str, Any] = {"softmax_scale": asked.scale, "causal": True}
        if asked.window is not None:
            options["window_size"] = (asked.window - 1, 0)
        if asked.softcap is not None:
            options["softcap"] = asked.softcap
        if asked.sums:
            options["return_attn_probs"] = True  # also returns the log-sum-exp; computes no probabilities
        return flash_attn_varlen_func(query, key, value, bounds, bounds, asked.longest, asked.longest, **options)

    def refuse(call: AttentionCall) -> str:
        what = "the installed flash-attention package"
        if call.softcap is not None and "softcap" not in known:
            return f"{what} has no soft-cap; release 2.6 added it"
        if call.window is not None and "window_size" not in known:
            return f"{what} has no sliding window; release 2.3 added it"
        return _flash_limits(call, what)

    return VarlenKernel("donod_varlen_package", _flash_run(attend, multiple=1), refuse)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Arguments of a flash-attention function other than tensors.

    Attributes:
        longest: length of the longest sample.
        scale: multiplies query · key.
        window: number of tokens that a token sees, including itself; None for all.
        softcap: c of c · tanh(score / c), or None.
        sums: whether to return the log-sum-exp as well.
    """

    longest: int
    scale: float
    window: int | None
    softcap: float | None
    sums: bool


def _flash_run(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor, _Asked], Any], *, multiple: int
) -> Callable[..., Tensor]:
    """``run`` of a kernel whose function needs equal widths of query, key and value, and does not support sinks.

    Args:
        attend: returns (T, H, width), and the log-sum-exp if ``sums`` is set.
        multiple: the width must be a multiple of this.
    """

    def run(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bounds: Tensor,
        longest: int,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        value_dim = value.shape[-1]
        width = -(-max(query.shape[-1], value_dim) // multiple) * multiple
        query, key, value = (_widened(x, width) for x in (query, key, value))  # padding with zeros changes no product
        found = attend(query, key, value, bounds, _Asked(longest, scale, window, softcap, sinks is not None))
        if sinks is None:
            return found[..., :value_dim]  # type: ignore[no-any-return]
        return _with_sinks(found[0][..., :value_dim], found[1], sinks)

    return run


def _torch_varlen() -> VarlenKernel | str:
    try:
        module = importlib.import_module("torch.nn.attention.varlen")
        return torch_kernel(module.varlen_attn, getattr(module, "AuxRequest", None))
    except (ImportError, AttributeError):
        return f"torch {torch.__version__} has no variable-length attention; release 2.10 added it"


def _flash_package() -> VarlenKernel | str:
    try:
        return package_kernel(importlib.import_module("flash_attn").flash_attn_varlen_func)
    except ModuleNotFoundError:
        return "the flash-attention package is not installed"
    except Exception as error:  # a wheel built for another torch release fails in many ways
        return f"the flash-attention package cannot be imported: {shortened(error, 200)}"


def _flash_limits(call: AttentionCall, what: str) -> str:
    if call.dtype not in _HALF:
        return f"{what} supports float16 and bfloat16, not {str(call.dtype).removeprefix('torch.')}"
    if max(call.head_dim, call.value_dim) > _WIDEST:
        return f"{what} supports heads of up to {_WIDEST} dimensions, not {max(call.head_dim, call.value_dim)}"
    if call.device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(call.device)
        if capability < (8, 0):
            return f"{what} needs compute capability 8.0, this device has {capability[0]}.{capability[1]}"
    return ""


def _widened(x: Tensor, width: int) -> Tensor:
    """(T, H, D) padded with zeros to (T, H, width)."""
    return functional.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x


def _with_sinks(out: Tensor, lse: Tensor, sinks: Tensor) -> Tensor:
    """Add one sink per head, (H,), to (T, H, D) attention, using its log-sum-exp.

    The log-sum-exp is (H, T) in torch's code, but (T, H) in its documentation; both are accepted.
    """
    if lse.shape == out.shape[:2][::-1]:
        lse = lse.transpose(0, 1)
    elif lse.shape != out.shape[:2]:
        raise RuntimeError(f"log-sum-exp of shape {tuple(lse.shape)} for attention of {tuple(out.shape)}")
    return (out * torch.sigmoid(lse - sinks)[..., None]).to(out.dtype)


def layer_function(kernel: VarlenKernel) -> Callable[..., tuple[Tensor, None]]:
    """The kernel as a function that transformers can call; returns (1, T, H, D_v) and no attention weights."""
    run = kernel.run

    def attend(
        module: torch.nn.Module,
        query: Tensor,  # (1, H, T, D)
        key: Tensor,  # (1, H_kv, T, D)
        value: Tensor,  # (1, H_kv, T, D_v)
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **asked: Any,  # under the names that transformers uses
    ) -> tuple[Tensor, None]:
        bounds, longest = asked.get("cu_seq_lens_q"), asked.get("max_length_q")  # (B + 1,) int32, and an int
        if bounds is None or longest is None:
            raise RuntimeError("attention for packed samples was called without the bounds of the samples")
        out = run(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            bounds,
            longest,
            scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
            window=asked.get("sliding_window") or None,
            softcap=asked.get("softcap") or None,
            sinks=asked.get("s_aux"),  # (H,)
        )
        return out[None], None

    return attend


def register(name: str, function: Callable[..., tuple[Tensor, None]]) -> None:
    """Register a function with transformers, but no mask function: without one transformers builds no mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(name, function)
