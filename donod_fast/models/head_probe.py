"""Tools for the proof of the head: observe a model's own forward pass, and describe how it transforms its logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from donod_fast.errors import ModelError
from donod_fast.models.loading import LoadedModel, quiet
from donod_fast.system.wording import shortened

_WIDE = 4.0
"""Probe values reach this multiple of the requested span, so that a cap at twice the span is still visible."""


@dataclass(frozen=True)
class Observed:
    """Observations during one forward pass of the model itself.

    Attributes:
        logits: (B, T, V′) as the model returns them.
        seen: True if the model called its output layer as a module.
        inputs: (B, T, d) input of that layer, None if it was not seen.
        outputs: (B, T, V) output of that layer before any replacement, None if it was not seen.
        layer: class name of the output layer.
        replaced: True if the model used the replacement for the output of the layer or of the decoder.
    """

    logits: Tensor
    seen: bool
    inputs: Tensor | None
    outputs: Tensor | None
    layer: str
    replaced: bool


def observe(
    loaded: LoadedModel,
    decoder: Any,
    tokens: Tensor,  # (B, T) int64
    *,
    layer_output: Tensor | None = None,  # (B, T, V), replaces the output layer's output
    decoder_output: Tensor | None = None,  # (B, T, d), replaces the decoder's output
) -> Observed:
    """Run the model's own forward pass; observe its output layer, or replace the output of layer or decoder.

    Raises:
        ModelError: the forward pass fails or does not return (B, T, V′) logits.
    """
    layer = loaded.model.get_output_embeddings()
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    replaced = 0

    def at_layer(_module: Any, args: tuple[Any, ...], output: Any) -> Any:
        nonlocal replaced
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            return output
        # A model may call the layer in chunks, so rows are counted over all calls.
        start = sum(part.shape[0] for part in outputs)
        inputs.append(args[0].reshape(-1, args[0].shape[-1]))
        outputs.append(output.reshape(-1, output.shape[-1]))
        if layer_output is None or output.shape[-1] != layer_output.shape[-1]:
            return output
        rows = layer_output.reshape(-1, layer_output.shape[-1])[start : start + outputs[-1].shape[0]]
        replaced += 1
        return rows.to(output.device, output.dtype).reshape(output.shape)

    def at_decoder(_module: Any, _args: tuple[Any, ...], output: Any) -> Any:
        nonlocal replaced
        if decoder_output is None:
            return output
        replaced += 1
        if isinstance(output, tuple):
            return (decoder_output, *output[1:])
        output.last_hidden_state = decoder_output
        return output

    hooks = [layer.register_forward_hook(at_layer), decoder.register_forward_hook(at_decoder)]
    try:
        with quiet(), torch.inference_mode():
            result = loaded.model(input_ids=tokens, use_cache=False)
    except Exception as error:  # the model's own code may raise anything
        raise ModelError(f"{loaded.name}: the model's own forward fails: {shortened(error, 300)}") from error
    finally:
        for hook in hooks:
            hook.remove()
    logits = getattr(result, "logits", None)
    if logits is None and isinstance(result, tuple) and result:
        logits = result[0]
    if not isinstance(logits, Tensor) or logits.shape[:2] != tokens.shape:
        raise ModelError(f"{loaded.name}: the model's own forward does not return (rows, tokens, vocab) logits")
    return Observed(
        logits=logits,
        seen=bool(outputs),
        inputs=_joined(inputs, tokens),
        outputs=_joined(outputs, tokens),
        layer=type(layer).__name__,
        replaced=bool(replaced),
    )


def probe_preactivations(shape: tuple[int, ...], span: float) -> Tensor:
    """Fixed float32 values of both signs with magnitudes log-uniform from ``span / 6000`` to ``4 · span``.

    Small values reveal an added constant, large ones a cap, and all of them a multiplier.
    """
    generator = torch.Generator().manual_seed(0)
    low, high = math.log(span / 6000), math.log(_WIDE * span)
    magnitude = torch.exp(low + (high - low) * torch.rand(shape, generator=generator))
    return magnitude * (1 - 2 * torch.randint(0, 2, shape, generator=generator))


def relative_rms(found: Tensor, expected: Tensor, *, mean_share: float | None = None, pointwise: bool = False) -> float:
    """Rms of ``found − expected`` relative to the rms of ``expected``; NaN if either is not finite.

    With ``mean_share`` the reference is the rms of ``expected`` around each row's mean, which is what a softmax sees,
    plus that share of the whole rms: logits around −100, as in GPT-2, have larger rounding errors in half precision.
    With ``pointwise`` each difference is relative to its own expected value (plus 1/6000 of the largest), so that
    errors of small values count as well.
    """
    found, expected = found.double().cpu(), expected.double().cpu()
    difference = found - expected
    if pointwise:
        return float((difference / (expected.abs() + expected.abs().max() / 6000)).square().mean().sqrt())
    size = expected.square().mean().sqrt()
    if mean_share is not None:
        spread = expected - expected.mean(dim=-1, keepdim=True)
        size = spread.square().mean().sqrt() + mean_share * size
    return float(difference.square().mean().sqrt() / size.clamp_min(1e-300))


def describe_transform(
    values: Tensor,
    logits: Tensor,
    scale: float,
    softcap: float | None,
    limit: float,
    input_scale: float = 1.0,
) -> str:
    """Describe in words how the model transforms its output layer's values differently from the head.

    Args:
        values: (…, V) pre-activations.
        logits: (…, V) the model's logits for them.
        scale: the head's total logit scale.
        softcap: the head's soft-cap.
        limit: relative tolerance of a fit.
        input_scale: the part of the scale that the model applies before the layer.
    """
    x = values.double().cpu().reshape(-1, values.shape[-1])
    y = logits.double().cpu().reshape(-1, logits.shape[-1])
    if not bool(torch.isfinite(y).all()):
        return "the model's logits are not finite"
    capped = "" if softcap is None else f" and we cap them at {softcap:.6g} (final_logit_softcapping or similar)"
    expected = x * (scale / input_scale)
    if softcap is not None:
        expected = softcap * torch.tanh(expected / softcap)
    shift = _column_shift(expected, y, limit)
    if shift is not None:
        return f"the model adds a bias to its logits (rms {shift:.4g}) that is not in its output layer"
    slope, offset, misfit = _fit_line(x, y)
    found = slope * input_scale
    if misfit <= 3 * limit:
        small = offset <= limit * float(y.abs().mean())
        if abs(found - scale) > limit * abs(scale):
            extra = "" if small else f", and adds a bias (rms {offset:.4g})"
            return f"the model multiplies its logits by {found:.6g}{extra}, we by {scale:.6g}{capped}"
        if softcap is not None:
            return f"the model applies no soft-cap to its logits{capped}"
        return f"the model adds a bias to its logits (rms {offset:.4g}) that is not in its output layer"
    cap, slope, misfit = _fit_cap(x, y)
    if misfit <= 3 * limit:
        ours = "we apply no cap" if softcap is None else f"we cap at {softcap:.6g}"
        found = slope * input_scale
        scaled = "" if abs(found - scale) <= 0.02 * abs(scale) else f" and multiplies them by {found:.4g}"
        return f"the model applies a soft-cap of {cap:.6g} to its logits{scaled}, {ours}"
    return "the model applies an unknown transform to its logits (no scale, bias or soft-cap fits it)"


def _column_shift(expected: Tensor, y: Tensor, limit: float) -> float | None:
    """Rms over columns of y − expected if it is the same in every row, else None."""
    rest = y - expected
    # Rounding errors grow with the value, so more exact entries get more weight.
    weight = 1 / (expected.abs() + expected.abs().mean() / 100).square()
    shift = (rest * weight).sum(0) / weight.sum(0)
    left = (rest - shift).abs() / (y.abs() + expected.abs() + shift.abs() + 1e-30)
    if float(left.square().mean().sqrt()) > 2 * limit:
        return None
    size = float(shift.square().mean().sqrt())
    before = (rest.abs() / (y.abs() + expected.abs() + shift.abs() + 1e-30)).square().mean().sqrt()
    return size if float(before) > 2 * float(left.square().mean().sqrt()) else None


def _fit_line(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Fit ``y ≈ slope · x + offset of its column``; returns the slope, the rms of offsets, and the relative misfit."""
    weight = 1 / (x.abs() + x.abs().mean() / 100).square()
    total = weight.sum(0)
    dx, dy = x - (weight * x).sum(0) / total, y - (weight * y).sum(0) / total
    slope = float((weight * dx * dy).sum() / (weight * dx * dx).sum().clamp_min(1e-300))
    offset = (weight * (y - slope * x)).sum(0) / total
    misfit = (y - slope * x - offset).square().mean().sqrt() / y.square().mean().sqrt().clamp_min(1e-300)
    return slope, float(offset.square().mean().sqrt()), float(misfit)


def _fit_cap(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Fit ``y ≈ cap · tanh(slope · x / cap)``; returns the cap, the slope, and the relative misfit."""
    x, y = x.flatten(), y.flatten()
    small = x.abs() <= x.abs().quantile(0.2) if x.numel() < 1 << 24 else x.abs() <= x.abs().mean() / 20
    slope = float((x[small] * y[small]).sum() / (x[small] * x[small]).sum().clamp_min(1e-300))
    top = x.abs() >= x.abs().max() / 2
    reach, height = x[top].abs(), float(y[top].abs().mean())
    cap = math.inf
    for _ in range(4):
        low, high = 1e-9, 1e9
        for _ in range(100):  # the mean of the capped values grows with the cap
            cap = math.sqrt(low * high)
            if float((cap * torch.tanh(abs(slope) * reach / cap)).mean()) < height:
                low = cap
            else:
                high = cap
        straight = y.abs() < 0.5 * cap
        if not bool(straight.any()):
            return cap, slope, math.inf
        unbent = cap * torch.atanh(y[straight] / cap)
        slope = float((x[straight] * unbent).sum() / (x[straight] * x[straight]).sum().clamp_min(1e-300))
    fitted = cap * torch.tanh(slope * x / cap)
    misfit = (y - fitted).square().mean().sqrt() / y.square().mean().sqrt().clamp_min(1e-300)
    return cap, slope, float(misfit)


def _joined(parts: list[Tensor], tokens: Tensor) -> Tensor | None:
    if not parts:
        return None
    rows = torch.cat(parts)
    return rows.reshape(*tokens.shape, -1) if rows.shape[0] == tokens.numel() else rows
