"""From a batch of tokens to the final hidden states: the model without its output layer.

Padded batches have one row per sample, padded on the right, and no attention mask. Under causal attention no real token
can see the padding behind it, and without a mask attention can use its fastest causal kernel. Packed batches
concatenate the samples in a single row, and attention receives the bounds of the samples. The trunk does not assume
that a model supports either form: it measures this when it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import DonodError, InputError, ModelError
from donod_fast.models.attention_switch import switch_of
from donod_fast.models.batching import Batch, collate
from donod_fast.models.last_layer import NarrowLastLayer
from donod_fast.models.loading import LoadedModel, find_decoder, quiet, text_config
from donod_fast.models.packing import choose_packing
from donod_fast.models.placement import one_at_a_time
from donod_fast.models.rope import rope_switch, wrong_frequencies
from donod_fast.system.wording import shortened

PADDING_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Tolerated change of hidden states by trailing tokens: the median over tokens of the error relative to the token's
norm. Other shapes use other kernels, which round differently: in bfloat16 by a hundredth after many layers, and by more
for a token that a mixture of experts then routes elsewhere. The median ignores such tokens, while attention that sees
the padding changes every token."""

QUANTISED_TOLERANCE = 1e-1
"""Minimum tolerance for a quantised trunk. If activations are rounded to 8 bits, a difference in the 24th bit sometimes
changes the rounded value, and later layers amplify it. The int8 layers of bitsandbytes look for outliers over the whole
batch. Both effects measured 0.01–0.02."""


_SYNTHETIC_LENGTH = 256


class Trunk:
    """The decoder of a causal language model, called so that it computes only hidden states.

    Attributes:
        decoder: the module that returns the final (normed) hidden states.
        dim: their width d.
        pad_id: the padding token. Any token works; the tokenizer's own is used if it has one.
        run: the decoder or a compiled form of it, called with keyword arguments only.
        padding_error: measured change by trailing tokens (see :data:`PADDING_TOLERANCE`).
        rope: how the longest sample of a batch affects the others, None if it does not (nearly always). Pass it to
            :func:`~donod_fast.models.batching.make_batches` and ``collate``.
        packs: whether packed batches are supported.
        packing_refusal: the reason if they are not, else "".

    Args:
        loaded: the model.
        packing: ``"auto"`` packs on CUDA if the checks in ``packing.py`` pass for the model, ``"on"`` packs on any
            device if they pass and refuses the model otherwise, ``"off"`` never packs.
    """

    def __init__(self, loaded: LoadedModel, *, packing: str = "auto") -> None:
        """Find the decoder and check that padding on the right changes nothing.

        Raises:
            InputError: ``packing`` has an unknown value.
            ModelError: the model has no decoder, its attention is not causal, its outputs are not finite, its RoPE
                frequencies do not change as its config says, or ``packing`` is ``"on"`` but it cannot be packed.
        """
        self._name = loaded.name
        self._device = loaded.device
        if getattr(text_config(loaded.model.config), "is_causal", True) is False:
            raise ModelError(f"{loaded.name}: its config says is_causal=False; DONOD needs causal attention")
        self.decoder = find_decoder(loaded.name, loaded.model)
        self.run: Callable[..., Any] = one_at_a_time(self.decoder) if loaded.offloaded else self.decoder
        self._quantised = loaded.quantised
        self.pad_id = _pad_id(loaded)
        self.rope = rope_switch(loaded.model.config)
        if self.rope is not None and (reason := wrong_frequencies(self.decoder, self.rope)):
            raise ModelError(f"{loaded.name}: {reason}")
        self._switch = switch_of(self.decoder)
        tokens = probe_tokens(loaded, rows=2, length=12)
        try:
            with quiet():  # transformers warns about padding without a mask; the check shows that none is needed
                self.dim = int(self(tokens).shape[-1])
                self.padding_error = self._prove_padding(tokens)
                decided = choose_packing(
                    packing,
                    loaded,
                    self.decoder,
                    probe_tokens(loaded, rows=1, length=32)[0].tolist(),
                    self.tolerance(loaded.dtype),
                    self._states,
                )
        except DonodError:
            raise
        except Exception as error:  # the model's own code may raise anything
            reason = shortened(error, 300)
            raise ModelError(f"{loaded.name}: its decoder cannot run on {self._device}: {reason}") from error
        self._attention = decided.attention
        self.packs = bool(decided.attention)
        self.packing_refusal = decided.refusal
        self._narrow = self._proved_narrow(tokens)

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Hidden states of a batch padded on the right.

        Args:
            input_ids: (B, T) integer token ids. The ids at padded positions have no influence.

        Returns:
            (B, T, d) final hidden states, the output layer's input, in the model's dtype and on the device of
            its last layer. They are an inference tensor, so no gradient can flow through them.

        Raises:
            InputError: the ids are not a non-empty (B, T) integer tensor.
            ModelError: the decoder does not return (B, T, d) hidden states.
        """
        if input_ids.dim() != 2 or not input_ids.numel() or input_ids.is_floating_point():
            raise InputError(
                f"input_ids must be a (rows, tokens) integer tensor; got {tuple(input_ids.shape)} {input_ids.dtype}"
            )
        return self._hidden(input_ids, "", input_ids.shape[1])

    def states(self, batch: Batch) -> Tensor:
        """Hidden states of a padded or packed batch.

        Args:
            batch: batch on the host or on the model's device; it may be packed only if ``packs`` is true.

        Returns:
            (slots, d), to be indexed by ``batch.predictors``; dtype and device as in :meth:`__call__`.

        Raises:
            InputError: the batch is packed but the model does not support it; see ``packing_refusal``.
            ModelError: as in :meth:`__call__`.
        """
        return self._states(self._served(batch), self._attention)

    def scored_states(self, batch: Batch) -> Tensor:
        """Hidden states at ``batch.predictors`` only, (scored, d); otherwise like :meth:`states`."""
        if self._narrow is None:
            hidden = self.states(batch)
            return hidden[batch.predictors.to(hidden.device, non_blocking=True)]
        rows = batch.predictors.to(self._device, non_blocking=True)
        with self._narrow.installed():
            return self._states(self._served(batch), self._attention, scored_rows=rows)

    def calling(self, run: Callable[..., Any]) -> Trunk:
        """A trunk of the same model that calls ``run`` instead of the decoder, with keyword arguments only."""
        other = copy(self)
        other.run = run
        return other

    def _served(self, batch: Batch) -> Batch:
        if batch.sample_bounds is not None and not self.packs:
            raise InputError(
                f"{self._name}: the batch is packed, but this model does not support packing: {self.packing_refusal}"
            )
        return batch

    def _states(self, batch: Batch, attention: str, **more: Tensor) -> Tensor:
        """(slots, d); ``attention`` is the name of the registered function for packed samples."""
        bounds, positions = batch.sample_bounds, batch.position_ids
        if bounds is None or positions is None:
            return self._hidden(batch.input_ids, "", batch.longest, **more).flatten(0, 1)
        # All four bounds: a layer would compute a missing one on the device and wait for it.
        bounds = bounds.to(self._device, non_blocking=True)
        packed = {
            "position_ids": positions.to(self._device, non_blocking=True),
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": batch.longest,
            "max_length_k": batch.longest,
        }
        return self._hidden(batch.input_ids, attention, batch.longest, **packed, **more)[0]

    def _hidden(self, input_ids: Tensor, attention: str, longest: int, **more: Any) -> Tensor:
        """(B, T, d) from (B, T) ids of sequences of at most ``longest`` tokens; (1, scored, d) with ``scored_rows``."""
        kind, before = 0, None
        if self.rope is not None:
            kind = self.rope.kind(longest)
            if self.rope.by_length and longest >= self.rope.limit:
                before = self._forget_lengths
        with torch.inference_mode():
            input_ids = input_ids.to(self._device, non_blocking=True)
            with self._switch.using(attention, kind, before):
                output = self.run(input_ids=input_ids, use_cache=False, **more)
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None and isinstance(output, tuple) and output:
            hidden = output[0]
        scored = more.get("scored_rows")
        rows = input_ids.shape if scored is None else (1, len(scored))
        if not isinstance(hidden, Tensor) or hidden.shape[:-1] != rows:
            raise ModelError(f"{self._name}: its decoder does not return (rows, tokens, dim) hidden states")
        return hidden

    def _proved_narrow(self, tokens: Tensor) -> NarrowLastLayer | None:
        """The last layer for scored rows only, or None if its results differ from those of the whole layer."""
        narrow = NarrowLastLayer.of(self.decoder)
        if narrow is None:
            return None
        rows = torch.arange(1, tokens.numel(), 3, device=self._device)
        try:
            with narrow.installed(), quiet():
                found = self._hidden(tokens, "", tokens.shape[1], scored_rows=rows)[0]
        except Exception:  # the layer has another signature: run it on all rows
            return None
        whole = self(tokens).flatten(0, 1)[rows]
        return narrow if token_error(found, whole) <= self.tolerance(whole.dtype) else None

    def _forget_lengths(self) -> None:
        """Run a short sequence, which resets dynamic RoPE: it keeps the frequencies of the longest sequence so far."""
        self.decoder(input_ids=torch.tensor([[self.pad_id]], device=self._device), use_cache=False)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Tolerated change of hidden states of this dtype by other tokens of the batch."""
        return max(PADDING_TOLERANCE.get(dtype, 5e-2), QUANTISED_TOLERANCE if self._quantised else 0.0)

    def _prove_padding(self, tokens: Tensor) -> float:
        """Compare a short batch with the same batch followed by padding, and followed by other tokens."""
        alone = self(tokens)
        if not bool(torch.isfinite(alone).all()):
            raise ModelError(
                f"{self._name}: its hidden states are not finite in {alone.dtype}; load it with another "
                "dtype (float16 overflows in many models that were trained in bfloat16)"
            )
        length = tokens.shape[1]
        padded = self(torch.cat([tokens, torch.full_like(tokens[:, :5], self.pad_id)], dim=1))[:, :length]
        followed = self(torch.cat([tokens, tokens[:, :5].flip(0)], dim=1))[:, :length]
        error = max(token_error(padded, alone), token_error(followed, padded))
        limit = self.tolerance(alone.dtype)
        if not error <= limit:
            raise ModelError(
                f"{self._name}: tokens at the end change the hidden states of those before them "
                f"(by {error:.1e}, limit {limit:.0e}); its attention is not causal; "
                "DONOD needs a decoder-only language model"
            )
        return error


def probe_tokens(loaded: LoadedModel, *, rows: int, length: int) -> Tensor:
    """Fixed token ids, (rows, length) int64, spread over the vocabulary without special tokens."""
    vocabulary = _vocabulary(loaded)
    special = {int(i) for i in getattr(loaded.tokenizer, "all_special_ids", None) or ()}
    # A prime stride that does not divide the vocabulary size visits every token.
    stride = next(prime for prime in (7919, 7907, 7901) if vocabulary % prime)
    ids = [i for i in (((k + 1) * stride) % vocabulary for k in range(8 * rows * length)) if i not in special]
    ids = (ids or [0]) * (rows * length)
    return torch.tensor(ids[: rows * length], dtype=torch.int64, device=loaded.device).reshape(rows, length)


def synthetic_batch(loaded: LoadedModel, tokens: int, *, packed: bool) -> Batch:
    """A batch of ``tokens`` slots (a power of two) in samples of typical length; every slot is used and scored."""
    longest = min(_SYNTHETIC_LENGTH, tokens, (loaded.max_length or tokens + 1) - 1)
    length = 1 << max(0, longest.bit_length() - 1)
    # One token more than the model processes: the last one is only a label.
    ids = probe_tokens(loaded, rows=max(1, tokens // length), length=length + 1).tolist()
    scored = (False, *[True] * length)
    samples = [TokenizedSample(i, "", Status.SCORED, "", tuple(row), scored) for i, row in enumerate(ids)]
    return collate(samples, range(len(samples)), packed=packed)


def _vocabulary(loaded: LoadedModel) -> int:
    """Number of token ids that the model accepts."""
    table = getattr(loaded.model.get_input_embeddings(), "weight", None)
    sizes = [len(loaded.tokenizer)]
    if isinstance(table, Tensor) and table.dim() == 2:
        sizes.append(int(table.shape[0]))
    declared = getattr(text_config(loaded.model.config), "vocab_size", None)
    sizes += [declared] if isinstance(declared, int) and declared > 0 else []
    return min(sizes)


def _pad_id(loaded: LoadedModel) -> int:
    ids = (getattr(loaded.tokenizer, key, None) for key in ("pad_token_id", "eos_token_id"))
    vocabulary = _vocabulary(loaded)
    return next((i for i in ids if isinstance(i, int) and 0 <= i < vocabulary), 0)


def token_error(a: Tensor, b: Tensor) -> float:
    """Median over tokens of |a − b| / |b|. Inputs (B, T, d) of any float dtype."""
    a, b = a.float(), b.float()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-30)).median())
