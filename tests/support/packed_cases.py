"""Models and samples for the tests of packing, RoPE and the GPU."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any
from unittest import mock

import tiny_models
import torch
from tiny_models import KINDS, tiny_model
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.models.loading import find_decoder

LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
ALTERNATING = {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
PACKED: dict[str, dict[str, Any]] = {
    **{
        kind: KINDS[kind]
        for kind in ("llama", "qwen2", "qwen2-moe", "granite", "cohere", "phi", "gpt2")
        if kind in KINDS
    },
    "gemma2": {**KINDS["gemma2"], **ALTERNATING, "attn_logit_softcapping": 3.0},
    "mistral-window": {"model_type": "mistral", "sliding_window": 4},
    "mistral-wide-window": {"model_type": "mistral", "sliding_window": 20},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "gemma3": {"model_type": "gemma3_text", "query_pre_attn_scalar": 8, **ALTERNATING},
    "gpt-oss": {"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, **ALTERNATING},
    "phi3": {"model_type": "phi3"},
    "opt": {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt-neox": {"model_type": "gpt_neox"},
    "latent": {"model_type": "deepseek_v3", **LATENT},
    "gptj": {"model_type": "gptj", "n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 4},
}
# What this release of transformers knows.
PACKED = {kind: config for kind, config in PACKED.items() if config["model_type"] in CONFIG_MAPPING_NAMES}


def model_of(config: dict[str, Any], seed: int = 0) -> Any:
    with mock.patch.dict(tiny_models.KINDS, {"this": config}):
        return tiny_model("this", seed)


def make_samples(lengths: Sequence[int], seed: int = 0) -> list[TokenizedSample]:
    """Samples of which so many tokens are run; about half of their targets are scored, the last one always."""
    draw = random.Random(seed)
    samples = []
    for row, length in enumerate(lengths):
        ids = tuple(draw.randrange(6, 100) for _ in range(length + 1))
        scored = (False, *(draw.random() < 0.5 for _ in range(length - 1)), True)
        samples.append(TokenizedSample(row, str(row), Status.SCORED, "", ids, scored, length + 1))
    return samples


LENGTHS = (3, 40, 1, 17, 29, 2, 8)
SAMPLES = make_samples(LENGTHS)


def alone(model: Any, sample: TokenizedSample, decoder: Any = None) -> Tensor:
    """(tokens, d) by the model's own decoder, with nothing of ours."""
    with torch.no_grad():
        decoder = decoder or find_decoder("", model)
        return decoder(input_ids=torch.tensor([sample.input_ids[:-1]]), use_cache=False).last_hidden_state[0]
