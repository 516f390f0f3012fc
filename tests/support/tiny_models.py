"""Tiny random causal language models of many architectures, and a tokenizer for them. Builders for tests.

``from tiny_models import tiny_model, tiny_tokenizer, save_tiny``: pytest puts this file's folder on the path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

VOCAB = 101
HIDDEN = 32

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ 'system' if m['role'] == 'system' else 'user' }}|>{{ m['content'] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|unk|>")

# Settings that most configs share; initializer_range is large so that the logits are not flat.
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}
_MOE = {"num_experts_per_tok": 2, "output_router_logits": False}

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-tied": {"model_type": "llama", "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "sliding_window": 4},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 4,
        "final_logit_softcapping": 5.0,
        "attn_implementation": "eager",  # before 5.17 transformers takes SDPA, which leaves the soft-cap out
        "tie_word_embeddings": True,
    },
    "cohere": {"model_type": "cohere", "logit_scale": 0.0625, "tie_word_embeddings": True},
    "granite": {"model_type": "granite", "logits_scaling": 8.0, "embedding_multiplier": 2.0},
    "phi": {"model_type": "phi"},
    "gpt2": {"model_type": "gpt2", "tie_word_embeddings": True},
    "olmo2": {"model_type": "olmo2"},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, **_MOE},
    "qwen2-moe": {
        "model_type": "qwen2_moe",
        "num_experts": 4,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
        **_MOE,
    },
    "falcon-h1": {
        "model_type": "falcon_h1",
        "lm_head_multiplier": 0.25,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
    "minicpm3": {
        "model_type": "minicpm3",
        "scale_emb": 2.0,
        "dim_model_base": 16,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        "num_key_value_heads": 4,
    },
}


KINDS = {kind: settings for kind, settings in KINDS.items() if settings["model_type"] in CONFIG_MAPPING_NAMES}
"""Without those that this release of transformers does not know."""


def tiny_model(kind: str, seed: int = 0, **overrides: Any) -> Any:
    """A random model of a kind of :data:`KINDS` (float32, CPU, eval mode), the same for the same arguments.

    ``overrides`` are config attributes. One-dimensional parameters (norms, biases) are random too, so that
    nothing is hidden by a norm of ones or a bias of zeros.
    """
    settings = {**_COMMON, **KINDS[kind], **overrides}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A character-level tokenizer of at most :data:`VOCAB` tokens over printable ASCII.

    Its chat template marks the assistant's turns (with their ``<|end|>``) for generation masks.
    """
    characters = [chr(code) for code in range(32, 127) if chr(code) not in "`"]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *characters])}
    assert len(vocabulary) <= VOCAB
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|unk|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"],
        model_max_length=128,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tiny(kind: str, path: Path, seed: int = 0, **overrides: Any) -> Path:
    """Save :func:`tiny_model` and :func:`tiny_tokenizer` as one folder of safetensors; returns it."""
    tiny_model(kind, seed, **overrides).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path
