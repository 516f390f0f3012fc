"""Shapes of known models, and small models of the same kinds for a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only model without its weights.

    Attributes:
        name: name on the command line.
        kind: ``model_type`` of transformers.
        vocab, dim: rows and columns of the output layer W, which is not tied to the embedding.
        layers, inner: decoder layers, and the width of their feed-forward part.
        heads, key_value_heads: attention heads; each has dim / heads components.
        positions: longest sequence.
        rope_theta: base of the rotary embedding. Llama-3.1's further scaling is omitted; it costs no time.
        small: whether the shape is meant for a CPU; the others are for an accelerator.
    """

    name: str
    kind: str
    vocab: int
    dim: int
    layers: int
    inner: int
    heads: int
    key_value_heads: int
    positions: int
    rope_theta: float = 10000.0
    small: bool = False

    def config(self) -> Any:
        """Config for transformers; weights are initialised with a standard deviation of 1/√dim."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.kind,
            vocab_size=self.vocab,
            hidden_size=self.dim,
            num_hidden_layers=self.layers,
            intermediate_size=self.inner,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=self.positions,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            initializer_range=self.dim**-0.5,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )


SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape("llama-2-7b", "llama", 32000, 4096, 32, 11008, 32, 32, 4096),
        ModelShape("llama-3.1-8b", "llama", 128256, 4096, 32, 14336, 32, 8, 131072, 500000.0),
        ModelShape("qwen2.5-7b", "qwen2", 152064, 3584, 28, 18944, 28, 4, 131072, 1000000.0),
        ModelShape("tiny", "llama", 4096, 256, 5, 704, 4, 2, 1024, small=True),
        ModelShape("small", "llama", 32000, 256, 5, 704, 4, 2, 1024, small=True),
    )
}
