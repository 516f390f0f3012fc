"""Count the parameters of a model without its weights: it is built on the meta device from its config."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from donod_fast.errors import InputError
from donod_fast.models.folder_guard import check_model_folder
from donod_fast.models.loading import quiet, text_config
from donod_fast.models.packaged import model_path
from donod_fast.models.precision import silence_torchao
from donod_fast.models.shapes import SHAPES
from donod_fast.system.wording import shortened
from donod_fast.training.recipe import TrainSettings

# Hub ids of models whose shapes are listed here, so that plans for them need no connection to the hub.
_KNOWN = {"llama-2-7b-hf": "llama-2-7b", "llama-2-7b-chat-hf": "llama-2-7b", "llama-3.1-8b-instruct": "llama-3.1-8b",
          "meta-llama-3.1-8b": "llama-3.1-8b", "meta-llama-3.1-8b-instruct": "llama-3.1-8b",
          "qwen2.5-7b-instruct": "qwen2.5-7b"}  # fmt: skip


@dataclass(frozen=True)
class ModelSize:
    """A model's shape, counted.

    Attributes:
        parameters: all, a tied output layer once.
        by_module: the same by part: embedding, attention, feed_forward, norms, output, other.
        embedding: of the input embedding that is only looked up in (0 where it is the output layer too).
        adapters: parameters of low-rank adapters, by the recipe's rank and targets; 0 without.
        quantisable: parameters of the linear layers that QLoRA keeps in 4 bits.
        layers, dim, inner, vocab, heads_dim, key_value_dim: of the decoder; widths of all heads together.
    """

    parameters: int
    by_module: dict[str, int]
    embedding: int
    adapters: int
    quantisable: int
    layers: int
    dim: int
    inner: int
    vocab: int
    heads_dim: int
    key_value_dim: int


def model_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """A model's config: a folder's own, that of a shape known here by its name or hub id, else the hub's.

    Raises:
        InputError: no config is found.
    """
    silence_torchao()
    from transformers import AutoConfig

    folder = model_path(name)
    short = name.rpartition("/")[2].lower()
    if not folder.is_dir() and (known := _KNOWN.get(short, short)) in SHAPES:
        return SHAPES[known].config()
    if folder.is_dir():
        check_model_folder(name, folder, trust_remote_code=trust_remote_code)
    try:
        with quiet():
            return AutoConfig.from_pretrained(
                str(folder) if folder.is_dir() else name, revision=revision, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # the hub client raises many kinds of errors
        raise InputError(
            f"{name}: its config cannot be read ({shortened(error, 150)}); give a folder with a "
            f"config.json, or a model whose shape is known: {', '.join(SHAPES)}"
        ) from error


def model_size(config: Any, settings: TrainSettings | None = None) -> ModelSize:
    """Count a model's parameters on the meta device; adapters by the settings, where they ask for some."""
    silence_torchao()
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), quiet():
        model = AutoModelForCausalLM.from_config(config)
    text = text_config(config)
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = output.weight is embedding.weight
    heads = int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    linear = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not output
    }
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        by_module=dict(_by_module(model)),
        embedding=0 if tied else embedding.weight.numel(),
        adapters=_adapters(linear, settings),
        quantisable=sum(module.weight.numel() for module in linear.values()),
        layers=int(text.num_hidden_layers),
        dim=int(text.hidden_size),
        inner=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        vocab=int(output.weight.shape[0]),
        heads_dim=heads * head_dim,
        key_value_dim=int(getattr(text, "num_key_value_heads", None) or heads) * head_dim,
    )


def _by_module(model: nn.Module) -> Counter[str]:
    output = model.get_output_embeddings().weight  # type: ignore[operator]
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    found = Counter(dict.fromkeys(("embedding", "attention", "feed_forward", "norms", "output", "other"), 0))
    for name, parameter in model.named_parameters():
        if parameter is embedding:
            part = "embedding"
        elif parameter is output:
            part = "output"
        elif "norm" in name or ".ln_" in name:
            part = "norms"
        elif "attn" in name or "attention" in name:
            part = "attention"
        elif "mlp" in name or "feed_forward" in name or "expert" in name:
            part = "feed_forward"
        else:
            part = "other"
        found[part] += parameter.numel()
    return found


def _adapters(linear: dict[str, nn.Linear], settings: TrainSettings | None) -> int:
    if settings is None or settings.method == "full":
        return 0
    targets = settings.lora.targets
    chosen = [
        module
        for name, module in linear.items()
        if targets == "all-linear" or any(name == target or name.endswith(f".{target}") for target in targets)
    ]
    return sum(settings.lora.rank * (module.in_features + module.out_features) for module in chosen)


__all__ = ["ModelSize", "model_config", "model_size"]
