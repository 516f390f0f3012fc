"""Decide whether samples of a model can be packed into one row, when the trunk is built, and verify it.

A model is packed only if all of these conditions hold. Otherwise it is padded and the reason is kept:

1. its config names no other way to mix tokens than full and sliding attention;
2. every layer calls the attention function that we registered, with the bounds of the samples, and passes on
   everything that its config requires (a probe records the calls);
3. a kernel of the device supports those calls, and agrees with the plain formula on random tensors;
4. packed samples have the same hidden states as padded ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.models.batching import Batch, collate
from donod_fast.models.loading import LoadedModel, text_config
from donod_fast.models.varlen_attention import (
    PLAIN,
    AttentionCall,
    VarlenKernel,
    kernels_for,
    layer_function,
    plain_varlen,
    register,
)
from donod_fast.system.wording import shortened

PACKING = ("auto", "on", "off")
States = Callable[[Batch, str], Tensor]
"""(batch, attention) → (slots, d) hidden states, flat. ``attention`` names the registered function that layers call
on a packed batch. A padded batch always uses the model's own function."""

_LENGTHS = (12, 1, 7, 5)
_LONGEST_WINDOW = 128
"""Sliding windows up to this size are probed with a sample that exceeds them."""
_PROBE = "donod_varlen_probe"
_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention", "attention"})
_HARMLESS = frozenset({"position_ids", "cache_position", "cu_seq_lens_k"})
"""Tensors that layers pass to attention but that have no effect there."""


@dataclass(frozen=True)
class Packing:
    """Decision about packing.

    Attributes:
        attention: registered attention function for packed batches; empty if samples are padded.
        refusal: reason for padding; empty if samples are packed.
    """

    attention: str
    refusal: str


def choose_packing(
    packing: str,
    loaded: LoadedModel,
    decoder: nn.Module,
    tokens: Sequence[int],
    limit: float,
    states: States,
) -> Packing:
    """Decide and verify.

    Args:
        packing: ``"auto"`` packs on CUDA if all conditions hold, ``"on"`` requires packing, ``"off"`` pads.
        loaded: the model.
        decoder: the part of the model that runs.
        tokens: ordinary token ids for the probe; repeated if they are too few.
        limit: tolerated error of hidden states, see :class:`Packing`.
        states: function that runs the decoder.

    Raises:
        InputError: the value of ``packing`` is unknown.
        ModelError: ``"on"`` was requested but a condition does not hold.
    """
    if packing not in PACKING:
        raise InputError(f"packing={packing!r} is not known; use {', '.join(map(repr, PACKING))}")
    if packing == "off":
        return Packing("", "packing='off' was requested")
    if packing == "auto" and loaded.device.type != "cuda":
        return Packing("", f"on the {loaded.device.type.upper()} padded batches of like lengths are as fast")
    try:
        found = _prove(loaded, decoder, tokens, limit, states)
    except Exception as error:  # the model's own code may raise anything
        found = Packing("", _failure(error))
    if packing == "on" and found.refusal:
        raise ModelError(f"{loaded.name}: samples of this model cannot be packed: {found.refusal}; use packing='auto'")
    return found


def _prove(loaded: LoadedModel, decoder: nn.Module, tokens: Sequence[int], limit: float, states: States) -> Packing:
    config = text_config(loaded.model.config)
    refusal = config_refusal(decoder, config)
    if refusal:
        return Packing("", refusal)
    register(_PROBE, _recording)
    samples = _probe_samples(_LENGTHS, tokens)
    with recorded_calls() as calls:
        try:
            states(collate(samples, range(len(samples)), packed=True), _PROBE)
        except Exception as error:
            # A missing call of attention, or one without bounds, explains more than the error that it caused.
            if calls and all(call.bounded for call in calls):
                return Packing("", _failure(error))
            return Packing("", f"{calls_refusal(calls, decoder, config)} ({_text(error)})")
    refusal = calls_refusal(calls, decoder, config)
    if refusal:
        return Packing("", refusal)
    kernel = choose_kernel(loaded.device, calls)
    if isinstance(kernel, str):
        return Packing("", kernel)
    register(kernel.name, layer_function(kernel))
    windows = [call.window for call in calls if call.window is not None and call.window <= _LONGEST_WINDOW]
    lengths = [*_LENGTHS, *(window + 5 for window in sorted(set(windows)) if window >= max(_LENGTHS))]
    samples = _probe_samples([n for n in lengths if n < (loaded.max_length or n + 1)], tokens)
    every = range(len(samples))
    packed, padded = collate(samples, every, packed=True), collate(samples, every)
    alone = states(padded, "").reshape(*padded.input_ids.shape, -1)
    distance = _states_error(states(packed, kernel.name), alone, packed, min(windows) if windows else None)
    if not distance <= limit:
        refusal = f"packed samples differ from the same alone (by {distance:.1e}, limit {limit:.0e})"
        return Packing("", refusal)
    return Packing(kernel.name, "")


def _failure(error: Exception) -> str:
    return f"its packed forward fails: {_text(error)}"


def _text(error: Exception) -> str:
    return shortened(error, 300) or type(error).__name__


def config_refusal(decoder: nn.Module, config: Any) -> str:
    """Reason against packing in the config and the modules of a model; empty if there is none."""
    kinds = [str(kind) for kind in (getattr(config, "layer_types", None) or ())]
    others = sorted(set(kinds) - _ATTENTION_LAYERS)
    if others:
        return f"it has layers of type {', '.join(others)}, which are not kept within samples"
    if not kinds and getattr(config, "attention_chunk_size", None):
        return "its attention works in chunks of the row"
    if getattr(config, "attn_temperature_tuning", False):
        return "its attention is scaled by the position in the row"
    if any(isinstance(module, nn.Conv1d) for module in decoder.modules()):
        return "it has convolutions over tokens, which do not stop at a sample's end"
    return ""


def calls_refusal(calls: Sequence[AttentionCall], decoder: nn.Module, config: Any) -> str:
    """Reason against packing in the recorded calls of attention; empty if there is none."""
    layers = getattr(config, "num_hidden_layers", None)
    if not calls:
        return "its attention does not go through transformers' attention interface"
    if not all(call.bounded for call in calls):
        return "it does not pass the bounds of samples on to attention"
    if isinstance(layers, int) and len(calls) < layers:
        return f"only {len(calls)} of its {layers} layers go through transformers' attention interface"
    others = sorted({name for call in calls for name in call.others})
    if others:
        return f"its attention takes more than positions: {', '.join(others)}"
    if not all(call.causal for call in calls):
        return "its attention is not causal in every layer"
    if getattr(config, "attn_logit_softcapping", None) and any(call.softcap is None for call in calls):
        return "its config has a soft-cap of attention that its layers do not hand over"
    if any("sink" in name for name, _ in decoder.named_parameters()) and not any(call.sinks for call in calls):
        return "it has attention sinks that its layers do not hand over"
    kinds = list(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    window = window if isinstance(window, int) and window > 0 else None
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    for i, call in enumerate(calls):
        place = i if call.layer is None else call.layer
        narrow = kinds[place] == "sliding_attention" if place < len(kinds) else window is not None
        if narrow != (call.window is not None) or (narrow and window is not None and call.window != window):
            found = "no sliding window" if call.window is None else f"a sliding window of {call.window}"
            return f"layer {place} has {found}, its config says {(window or 'one') if narrow else 'none'}"
    return ""


def choose_kernel(device: torch.device, calls: Sequence[AttentionCall]) -> VarlenKernel | str:
    """First kernel that supports all calls and agrees with the plain formula, or the reason why there is none."""
    kernels, reasons = kernels_for(device)
    distinct = list({replace(call, layer=None): None for call in calls})
    for kernel in kernels:
        reason = next((why for call in distinct if (why := kernel.refuse(call))), "")
        if not reason and kernel is not PLAIN:
            try:
                reason = next((why for call in distinct if (why := kernel_mismatch(kernel, call))), "")
            except Exception as error:  # a kernel that was not built for this device
                reason = f"{kernel.name} fails on this device: {_text(error)}"
        if not reason:
            return kernel
        reasons.append(reason)
    return "; ".join(reasons)


def kernel_mismatch(kernel: VarlenKernel, call: AttentionCall) -> str:
    """Difference of a kernel from the plain formula on random samples with the call's features; empty if none."""
    lengths = (9, 1, 6, 70)
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, dim: int) -> Tensor:
        values = torch.randn((sum(lengths), heads, dim), generator=generator)
        return values.to(call.device, call.dtype)

    query, key = draw(call.heads, call.head_dim), draw(call.key_heads, call.head_dim)
    value = draw(call.key_heads, call.value_dim)
    sinks = torch.randn(call.heads, generator=generator).to(call.device, call.dtype) if call.sinks else None
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=call.device)
    options: dict[str, Any] = {
        "scale": call.head_dim**-0.5,
        "window": None if call.window is None else min(call.window, 5),
        "softcap": call.softcap,
    }
    found = kernel.run(query, key, value, bounds, max(lengths), sinks=sinks, **options)
    truth = plain_varlen(query.float(), key.float(), value.float(), bounds, max(lengths), sinks=sinks, **options)
    error = float((found.float() - truth).norm(dim=-1).div(truth.norm(dim=-1)).max())
    limit = 4 * torch.finfo(call.dtype).eps  # per head and token: the result and the weights are rounded once
    if error <= limit:
        return ""
    return f"{kernel.name} differs from plain attention on this device (by {error:.1e}, limit {limit:.0e})"


def _states_error(found: Tensor, alone: Tensor, batch: Batch, window: int | None) -> float:
    """Largest median of |found − alone| / |alone|, over samples and over the tokens beyond a window.

    Args:
        found: (slots, d) hidden states of the packed batch.
        alone: (samples, longest, d) hidden states of the padded batch.
        batch: the packed batch.
        window: the smallest sliding window of a layer.
    """
    assert batch.sample_bounds is not None
    errors: list[Tensor] = []
    bounds = batch.sample_bounds.tolist()
    for row, (start, end) in enumerate(pairwise(bounds)):
        difference = (found[start:end] - alone[row, : end - start]).float().norm(dim=-1)
        errors.append(difference / alone[row, : end - start].float().norm(dim=-1).clamp_min(1e-30))
    tails = [error[window:] for error in errors if window is not None and len(error) > window]
    # A single token proves little: a rounding may make a mixture of experts route it elsewhere.
    groups = [errors[0], torch.cat(errors[1:3]), *errors[3:], *([torch.cat(tails)] if tails else [])]
    return max(float(group.median()) for group in groups)


def _probe_samples(lengths: Sequence[int], tokens: Sequence[int]) -> list[TokenizedSample]:
    """Samples with so many tokens to run; the token after the last one is its target."""
    samples = []
    start = 0
    for length in lengths:
        ids = tuple(tokens[(start + i) % len(tokens)] for i in range(length + 1))
        scored = (*(False for _ in range(length)), True)
        samples.append(TokenizedSample(0, "", Status.SCORED, "", ids, scored, length + 1))
        start += length
    return samples


_CALLS: ContextVar[list[AttentionCall] | None] = ContextVar("attention calls", default=None)


@contextmanager
def recorded_calls() -> Iterator[list[AttentionCall]]:
    """List in which this thread records the attention calls of the probe."""
    calls: list[AttentionCall] = []
    token = _CALLS.set(calls)
    try:
        yield calls
    finally:
        _CALLS.reset(token)


def _recording(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Record the call of a layer, and compute plain attention."""
    calls = _CALLS.get()
    tensors = {name for name, option in options.items() if isinstance(option, Tensor)}
    others = tensors - _HARMLESS - {"s_aux", "cu_seq_lens_q"}
    causal = options.get("is_causal")
    layer = getattr(module, "layer_idx", None)
    if calls is not None:
        calls.append(
            AttentionCall(
                layer=layer if isinstance(layer, int) else None,
                device=query.device,
                dtype=query.dtype,
                heads=query.shape[1],
                key_heads=key.shape[1],
                head_dim=query.shape[-1],
                value_dim=value.shape[-1],
                window=options.get("sliding_window") or None,
                softcap=options.get("softcap") or None,
                sinks=options.get("s_aux") is not None,
                causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
                bounded="cu_seq_lens_q" in options and "max_length_q" in options,
                others=tuple(sorted(others | ({"attention_mask"} if attention_mask is not None else set()))),
            )
        )
    return _PLAIN_LAYER(module, query, key, value, attention_mask, **options)


_PLAIN_LAYER = layer_function(PLAIN)
