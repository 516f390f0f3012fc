"""From a batch of tokens to the final hidden states: the model without its output layer.

Rows are padded on the right and no attention mask is passed. Under causal attention a padded position comes
after every real one, so that none of the real ones can see it, and attention can use its fastest causal
kernel. That this holds for a given model is not assumed: it is measured when the trunk is built.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from donod_fast.errors import InputError, ModelError
from donod_fast.models import LoadedModel, quiet, text_config

PADDING_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far trailing tokens may move the hidden states of those before them: the median over tokens of the
error relative to the token's norm. Other shapes take other kernels and round otherwise (in bfloat16 by a
hundredth after many layers, and a token that a mixture of experts routes elsewhere by more: hence the
median); attention that sees the padding moves every token."""


class Trunk:
    """The decoder of a causal language model, called so that nothing but hidden states is computed.

    Attributes:
        decoder: the module that gives the final (normed) hidden states.
        dim: their width d.
        pad_id: the token to pad with. Any would do; it is the tokenizer's where that has one.
        padding_error: what trailing tokens were measured to change (see :data:`PADDING_TOLERANCE`).
    """

    def __init__(self, loaded: LoadedModel) -> None:
        """Find the decoder and prove that padding on the right changes nothing.

        Raises:
            ModelError: there is no decoder, its attention is not causal, or its outputs are not finite.
        """
        self._name = loaded.name
        self._device = loaded.device
        if getattr(text_config(loaded.model.config), "is_causal", True) is False:
            raise ModelError(f"{loaded.name}: its config says is_causal=False; DONOD needs causal attention")
        self.decoder = _find_decoder(loaded)
        self.pad_id = _pad_id(loaded)
        tokens = probe_tokens(loaded, rows=2, length=12)
        try:
            with quiet():  # transformers asks for a mask when it sees padding; the proof is why none is needed
                self.dim = int(self(tokens).shape[-1])
                self.padding_error = self._prove_padding(tokens)
        except ModelError:
            raise
        except Exception as error:  # the model's own code may raise anything
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{loaded.name}: its decoder cannot run on {self._device}: {reason}") from error

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Hidden states of a batch padded on the right.

        Args:
            input_ids: (B, T) integer token ids. What stands at padded positions has no influence.

        Returns:
            (B, T, d) final hidden states, the output layer's input, in the model's dtype and on the device of
            its last layer. An inference tensor: no gradient can flow through it.

        Raises:
            InputError: the ids are no non-empty (B, T) integer tensor.
            ModelError: the decoder gives no (B, T, d) hidden states.
        """
        if input_ids.dim() != 2 or not input_ids.numel() or input_ids.is_floating_point():
            raise InputError(
                f"input_ids has to be a (rows, tokens) integer tensor; got {tuple(input_ids.shape)} {input_ids.dtype}"
            )
        with torch.inference_mode():
            output = self.decoder(input_ids=input_ids.to(self._device), use_cache=False)
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None and isinstance(output, tuple) and output:
            hidden = output[0]
        if not isinstance(hidden, Tensor) or hidden.shape[:-1] != input_ids.shape:
            raise ModelError(f"{self._name}: its decoder gives no (rows, tokens, dim) hidden states")
        return hidden

    def _prove_padding(self, tokens: Tensor) -> float:
        """Compare a short batch alone with the same followed by padding, and by other tokens."""
        alone = self(tokens)
        if not bool(torch.isfinite(alone).all()):
            raise ModelError(
                f"{self._name}: its hidden states are not finite in {alone.dtype}; load it with another "
                "dtype (float16 overflows in many models that were trained in bfloat16)"
            )
        length = tokens.shape[1]
        padded = self(torch.cat([tokens, torch.full_like(tokens[:, :5], self.pad_id)], dim=1))[:, :length]
        followed = self(torch.cat([tokens, tokens[:, :5].flip(0)], dim=1))[:, :length]
        error = max(_token_error(padded, alone), _token_error(followed, padded))
        limit = PADDING_TOLERANCE.get(alone.dtype, 5e-2)
        if not error <= limit:
            raise ModelError(
                f"{self._name}: tokens at the end change the hidden states of those before them "
                f"(by {error:.1e}, limit {limit:.0e}); its attention is not causal, "
                "DONOD needs a decoder-only language model"
            )
        return error


def probe_tokens(loaded: LoadedModel, *, rows: int, length: int) -> Tensor:
    """Fixed token ids (rows, length) int64, spread over the vocabulary, without the special ones."""
    vocabulary = _vocabulary(loaded)
    special = {int(i) for i in getattr(loaded.tokenizer, "all_special_ids", None) or ()}
    # A prime stride that does not divide the vocabulary visits all of it.
    stride = next(prime for prime in (7919, 7907, 7901) if vocabulary % prime)
    ids = [i for i in (((k + 1) * stride) % vocabulary for k in range(8 * rows * length)) if i not in special]
    ids = (ids or [0]) * (rows * length)
    return torch.tensor(ids[: rows * length], dtype=torch.int64, device=loaded.device).reshape(rows, length)


def _vocabulary(loaded: LoadedModel) -> int:
    """Ids below this number are safe to feed."""
    table = getattr(loaded.model.get_input_embeddings(), "weight", None)
    sizes = [len(loaded.tokenizer)]
    if isinstance(table, Tensor) and table.dim() == 2:
        sizes.append(int(table.shape[0]))
    declared = getattr(text_config(loaded.model.config), "vocab_size", None)
    sizes += [declared] if isinstance(declared, int) and declared > 0 else []
    return min(sizes)


def _find_decoder(loaded: LoadedModel) -> Any:
    model = loaded.model
    getter = getattr(model, "get_decoder", None)
    decoder = getter() if callable(getter) else None
    if decoder is None or decoder is model:
        decoder = getattr(model, "base_model", None)
    if decoder is None or decoder is model or not callable(decoder):
        raise ModelError(
            f"{loaded.name}: a {type(model).__name__} has no decoder without an output layer "
            "(get_decoder() or base_model); load it with AutoModelForCausalLM"
        )
    return decoder


def _pad_id(loaded: LoadedModel) -> int:
    ids = (getattr(loaded.tokenizer, key, None) for key in ("pad_token_id", "eos_token_id"))
    vocabulary = _vocabulary(loaded)
    return next((i for i in ids if isinstance(i, int) and 0 <= i < vocabulary), 0)


def _token_error(a: Tensor, b: Tensor) -> float:
    """Median over tokens of |a − b| / |b|. Inputs (B, T, d) of any float dtype."""
    a, b = a.float(), b.float()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-30)).median())
