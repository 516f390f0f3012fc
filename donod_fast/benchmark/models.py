"""Models with random weights, and a minimal tokenizer for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from donod_fast.models.loading import LoadedModel, quiet, wrap_model
from donod_fast.models.precision import silence_torchao
from donod_fast.models.shapes import ModelShape


def random_model(shape: ModelShape, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> LoadedModel:
    """A model of a shape in eval mode, without gradients, its weights drawn on the device.

    Embeddings have standard deviation 1 and each layer adds little to them, as in a trained model: with equal
    weights in all layers, the rounding of 32 layers in bfloat16 adds up to an error that the trunk's checks refuse.
    """
    silence_torchao()
    from transformers import AutoModelForCausalLM

    config = shape.config()
    drawn_on = [device] if device.type == "cuda" else []
    with quiet(), torch.random.fork_rng(devices=drawn_on), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.requires_grad_(False)
        model.get_input_embeddings().weight.normal_()
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_((2 * shape.layers) ** -0.5)
    return replace(wrap_model(model, stand_in_tokenizer()), name=f"{shape.name}, random weights")


def stand_in_tokenizer() -> Any:
    """A tokenizer of 128 tokens: a scorer requires one, but rows of token ids do not use it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ("<pad>", "<s>", "</s>", "<unk>")
    vocabulary = {token: i for i, token in enumerate([*special, *(f"word{i}" for i in range(124))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
