"""The output layer: read from the model, then proved to give the model's own logits.

The kernels compute the logits as ``z = softcap · tanh(logit_scale · (W h + bias) / softcap)``. Whether a model does the
same depends on its code, which no config describes completely. :func:`read_head` reads the transform from the config.
:func:`prove_head` runs the model's own forward pass on a tiny batch and compares every piece with ours. So it finds a
difference even if random logits are too flat to show it, and the error message names it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from donod_fast.errors import HeadMismatchError, ModelError
from donod_fast.models.head_probe import Observed, describe_transform, observe, probe_preactivations, relative_rms
from donod_fast.models.loading import LoadedModel, text_config
from donod_fast.models.placement import execution_device, stored_tensor
from donod_fast.models.precision import weight_kind
from donod_fast.models.trunk import Trunk, probe_tokens
from donod_fast.system.wording import plural

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Config attributes that cap the logits: Gemma 2–4 and relatives, RecurrentGemma, xLSTM."""

SCALES = (
    # The same attribute multiplies in one family and divides in another; in CLIP and MPT it is not for logits.
    ("cohere", "logit_scale", 1),
    ("granite", "logits_scaling", -1),
    ("minicpm3", "logits_scaling", -1),
    ("hyperclovax", "logits_scaling", 1),
    ("falcon_h1", "lm_head_multiplier", 1),
    ("muse_", "output_multiplier", 1),
)
"""``(prefix of model_type, config attribute, exponent)``: exponent 1 multiplies the logits, -1 divides them."""

TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Upper limit of every error of a :class:`HeadProof`, by the dtype of W: about five times the rounding error of a few
operations in that dtype. The limit for float64 is wider, because models cast logits to float32. Float32 products in
TF32 have the limit of bfloat16."""


@dataclass(frozen=True)
class Head:
    """An output layer ``z = softcap · tanh(logit_scale · (W h + bias) / softcap)``.

    Attributes:
        weight: W (V, d), the model's own parameter, detached. It is not a copy, so it follows changes of the model. If
            the parameter is off-loaded, it is a permanent copy on the device on which the layer runs.
        bias: (V,) or None. It is not part of W: norms and updates exclude it.
        logit_scale: multiplies the logits.
        softcap: bound of the logits, or None.
        tied: True if the input embedding is the same tensor. Only W's use in the output layer counts then, not the
            gradient that reaches W through the embedding.
    """

    weight: Tensor
    bias: Tensor | None
    logit_scale: float
    softcap: float | None
    tied: bool

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of (…, d) hidden states, float32 (float64 if W is float64); for small inputs."""
        return self.transform(self.preactivations(hidden))

    def preactivations(self, hidden: Tensor) -> Tensor:
        """``W h + bias``, (…, V) from (…, d), in float32 or float64, without a float32 copy of the whole W."""
        wide = torch.float64 if self.weight.dtype == torch.float64 else torch.float32
        rows = hidden.to(self.weight.device, wide)
        parts = [rows @ part.to(wide).T for part in torch.split(self.weight, 8192)]
        out = torch.cat(parts, dim=-1)
        return out if self.bias is None else out + self.bias.to(wide)

    def transform(self, preactivations: Tensor) -> Tensor:
        """Apply scale and soft-cap, elementwise."""
        scaled = preactivations * self.logit_scale
        return scaled if self.softcap is None else self.softcap * torch.tanh(scaled / self.softcap)


@dataclass(frozen=True)
class HeadProof:
    """Measurements of the proof; each error is a relative rms and at most ``tolerance``.

    Attributes:
        hidden_error: error of the layer's input against the trunk's hidden states, None if the layer was not seen.
        linear_error: error of the layer's output against W h + bias, None if the layer was not seen.
        transform_error: error of the model's logits against ours on pre-activations from ±0.01 to some hundred nats
            that replaced the layer's output. If they could not replace it, scaled hidden states replaced the decoder's
            output; None if those had no effect either.
        logits_error: error of the model's logits against ours on a tiny batch, end to end.
        tolerance: the limit, from :data:`TOLERANCES`.
        seen: True if the model calls its output layer as a module, so that every piece could be compared.
        vocab_size: V.
    """

    hidden_error: float | None
    linear_error: float | None
    transform_error: float | None
    logits_error: float
    tolerance: float
    seen: bool
    vocab_size: int


def read_head(model: Any) -> Head:
    """Read the output layer of a causal language model and, from its config, the transform of the logits.

    Raises:
        ModelError: the model has no output layer, or its weight cannot be used: absent, empty (ZeRO-3), sharded,
            on the meta device, quantised, or not a matrix.
    """
    name = type(model).__name__
    try:
        layer = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        layer = None
    weight = getattr(layer, "weight", None)
    if layer is None or not isinstance(weight, Tensor):
        raise ModelError(
            f"{name}: the model has no output layer with a weight (get_output_embeddings()); DONOD needs one"
        )
    if hasattr(weight, "full_tensor"):
        raise ModelError(f"{name}: the output layer is sharded over devices; load the model whole on one device")
    if execution_device(layer, weight).type == "meta":
        raise ModelError(f"{name}: the output layer is on the meta device (no weights); load its weights")
    if not weight.numel():
        raise ModelError(
            f"{name}: the output layer is empty, shape {tuple(weight.shape)} (ZeRO-3 partitions it); "
            "load the model whole, without DeepSpeed"
        )
    kind = weight_kind(weight)
    if kind is not None or weight.dtype not in TOLERANCES:
        raise ModelError(
            f"{name}: the output layer is quantised ({kind or weight.dtype}); load it with its output layer in "
            "bfloat16, float16 or float32 (for example llm_int8_skip_modules=['lm_head'])"
        )
    if weight.dim() != 2:
        raise ModelError(f"{name}: the output layer's weight has shape {tuple(weight.shape)}, not (vocab, dim)")
    bias = getattr(layer, "bias", None)
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ModelError(f"{name}: the output layer's bias has shape {tuple(bias.shape)}, not (vocab,)")
    embedding = getattr(model.get_input_embeddings(), "weight", None)
    scale, softcap = _read_transform(name, model.config)
    return Head(
        weight=_present(model, layer, "weight", weight),
        bias=None if bias is None else _present(model, layer, "bias", bias),
        logit_scale=scale,
        softcap=softcap,
        tied=_are_tied(model, weight, embedding),
    )


def _present(model: Any, layer: Any, leaf: str, tensor: Tensor) -> Tensor:
    """The layer's tensor; if it is off-loaded, its stored values on the layer's device."""
    if tensor.device.type != "meta":
        return tensor.detach()
    path = next(path for path, module in model.named_modules() if module is layer)
    return stored_tensor(model, f"{path}.{leaf}", tensor).detach().to(execution_device(layer, tensor))


def _are_tied(model: Any, weight: Tensor, embedding: Any) -> bool:
    if not isinstance(embedding, Tensor) or embedding.shape != weight.shape:
        return False
    if "meta" in (weight.device.type, embedding.device.type):  # off-loaded tensors have no address to compare
        return bool(getattr(text_config(model.config), "tie_word_embeddings", False))
    return embedding.data_ptr() == weight.data_ptr()


def prove_head(loaded: LoadedModel, trunk: Trunk, head: Head) -> HeadProof:
    """Prove that trunk and head together give the model's own logits; this costs two forward passes of 24 tokens.

    Raises:
        HeadMismatchError: they do not; the message names the difference.
        ModelError: the tokenizer's vocabulary is larger than the head's, or the model does not return logits.
    """
    name, (vocabulary, dim) = loaded.name, head.weight.shape
    words = getattr(loaded.tokenizer, "vocab_size", None)
    if isinstance(words, int) and words > vocabulary:
        raise ModelError(
            f"{name}: its tokenizer has {plural(words, 'token')}, its output layer {vocabulary}; they do not match"
        )
    if dim != trunk.dim:
        raise _mismatch(loaded, f"its output layer takes vectors of {dim}, its decoder gives {trunk.dim}")
    tokens = probe_tokens(loaded, rows=2, length=12)
    limit = _tolerance(head)
    hidden = trunk(tokens)
    ours = head.logits(hidden)
    own = observe(loaded, trunk.decoder, tokens)

    hidden_error = linear_error = None
    input_scale = 1.0
    if own.seen:
        input_scale, hidden_error, linear_error = _prove_layer(loaded, head, hidden, own, limit)
    if own.logits.shape[-1] != vocabulary:
        raise _mismatch(
            loaded,
            f"the model gives {own.logits.shape[-1]} logits where its output layer has {plural(vocabulary, 'row')} "
            f"(it {'cuts' if own.logits.shape[-1] < vocabulary else 'pads'} the vocabulary)",
        )
    if own.logits.shape != ours.shape:
        raise _mismatch(loaded, f"the model's logits have shape {tuple(own.logits.shape)}, not {tuple(ours.shape)}")

    transform_error = _prove_transform(loaded, trunk, head, hidden, own.seen, input_scale, limit)
    logits_error = relative_rms(own.logits, ours, mean_share=_mean_share(limit))
    if not logits_error <= limit:
        what = describe_transform(head.preactivations(hidden), own.logits, head.logit_scale, head.softcap, limit)
        raise _mismatch(loaded, f"{what} (its logits differ from ours by {logits_error:.1e})")
    return HeadProof(hidden_error, linear_error, transform_error, logits_error, limit, own.seen, vocabulary)


def _prove_layer(
    loaded: LoadedModel, head: Head, hidden: Tensor, own: Observed, limit: float
) -> tuple[float, float, float]:
    """Compare the layer's input and output. A constant factor on the input (as in MiniCPM) is allowed and returned."""
    assert own.inputs is not None and own.outputs is not None
    if own.inputs.shape != hidden.shape:
        raise _mismatch(
            loaded,
            "the model feeds its output layer something other than the decoder's output: "
            f"shape {tuple(own.inputs.shape)} instead of {tuple(hidden.shape)}",
        )
    h, fed = hidden.double().cpu(), own.inputs.double().cpu()
    if not bool(h.any()):
        raise ModelError(
            f"{loaded.name}: its hidden states are all zero; check that the checkpoint is complete and trained"
        )
    scale = float((h * fed).sum() / (h * h).sum().clamp_min(1e-300))
    if abs(scale - 1) <= limit:
        scale = 1.0
    hidden_error = relative_rms(fed, scale * h)
    if not hidden_error <= limit:
        raise _mismatch(
            loaded,
            "the model feeds its output layer something other than the decoder's output "
            f"(they differ by {relative_rms(fed, h):.1e}), so there is another layer or norm between them",
        )
    expected = head.preactivations(own.inputs)
    if own.outputs.shape != expected.shape:
        raise _mismatch(
            loaded,
            f"its output layer is not a plain linear layer: it gives {own.outputs.shape[-1]} values per token, "
            f"its weight has {plural(expected.shape[-1], 'row')}",
        )
    linear_error = relative_rms(own.outputs, expected, mean_share=_mean_share(limit))
    if not linear_error <= limit:
        rest = own.outputs.double().cpu() - expected.double().cpu()
        shift = rest.mean(dim=(0, 1))
        constant = relative_rms(rest, shift.expand_as(rest)) < 0.1
        what = "adds a bias that is not its bias parameter" if constant else "is not a plain linear layer W h + bias"
        raise _mismatch(
            loaded,
            f"its output layer ({own.layer}) {what} (quantised, or an adapter? merge it; {linear_error:.1e})",
        )
    if scale != 1.0 and head.bias is not None:
        raise _mismatch(loaded, f"the model multiplies its output layer's input by {scale:.6g}, and there is a bias")
    return scale, hidden_error, linear_error


def _prove_transform(
    loaded: LoadedModel,
    trunk: Trunk,
    head: Head,
    hidden: Tensor,
    seen: bool,
    input_scale: float,
    limit: float,
) -> float | None:
    """Compare the transform of the output layer's values over a range wide enough to show every difference."""
    tokens = probe_tokens(loaded, rows=2, length=12)
    after = head.logit_scale / input_scale  # scale applied after the layer
    if seen:
        shape = (*hidden.shape[:2], head.weight.shape[0])
        span = min(60.0 / abs(after), torch.finfo(head.weight.dtype).max / 8)
        values = probe_preactivations(shape, span).to(head.weight.dtype)
        own = observe(loaded, trunk.decoder, tokens, layer_output=values)
    else:
        # One factor per token, from 1/16 up to the one that raises the largest value to 240 nats.
        top = float(head.preactivations(hidden).abs().max().clamp_min(1e-6)) * abs(head.logit_scale)
        low, high = math.log2(1 / 16), math.log2(max(1.0, 240.0 / top))
        factors = torch.logspace(low, high, tokens.numel(), base=2.0).reshape(*tokens.shape, 1)
        lifted = (hidden.float() * factors.to(hidden.device)).to(hidden.dtype)
        values = head.preactivations(lifted)
        own = observe(loaded, trunk.decoder, tokens, decoder_output=lifted)
        if not own.replaced:
            return None
    expected = _transform(values, after, head.softcap)
    error = relative_rms(own.logits, expected, pointwise=seen)
    if not error <= limit:
        what = describe_transform(values, own.logits, head.logit_scale, head.softcap, limit, input_scale)
        raise _mismatch(loaded, f"{what} (wide-range probe: {error:.1e}, limit {limit:.0e})")
    return error


def _transform(values: Tensor, scale: float, softcap: float | None) -> Tensor:
    scaled = values.double().cpu() * scale
    return scaled if softcap is None else softcap * torch.tanh(scaled / softcap)


def _read_transform(name: str, config: Any) -> tuple[float, float | None]:
    inner = text_config(config)
    kind = str(getattr(inner, "model_type", "") or "")
    scale = 1.0
    for start, attribute, exponent in SCALES:
        value = getattr(inner, attribute, None)
        if kind.startswith(start) and value is not None:
            scale *= float(value) ** exponent if value else 0.0
    if not (math.isfinite(scale) and scale):
        raise ModelError(f"{name}: its config scales the logits by {scale}; correct config.json")
    softcap = next((value for key in SOFTCAPS if (value := getattr(inner, key, None))), None)
    return scale, None if softcap is None else float(softcap)


def _tolerance(head: Head) -> float:
    weight = head.weight
    if weight.dtype == torch.float32 and weight.is_cuda and torch.get_float32_matmul_precision() != "highest":
        return TOLERANCES[torch.bfloat16]
    return TOLERANCES[weight.dtype]


def _mean_share(limit: float) -> float:
    """Weight of a row's mean relative to its spread in :func:`relative_rms`: half precision rounds the mean too."""
    return 0.2 if limit > 1e-3 else 0.0


def _mismatch(loaded: LoadedModel, what: str) -> HeadMismatchError:
    kind = getattr(text_config(loaded.model.config), "model_type", "unknown")
    return HeadMismatchError(
        f"{loaded.name}: {what}. Scores from our output layer would be wrong, so the model is refused; "
        f"use a plain checkpoint, or report model_type {kind!r} so that its transform can be added to head.py"
    )
