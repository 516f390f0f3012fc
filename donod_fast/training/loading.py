"""Load the model to train by the same rules as the scoring model; in 4 bits for QLoRA."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from donod_fast.errors import InputError, ModelError
from donod_fast.models.fingerprint import folder_fingerprint
from donod_fast.models.folder_guard import check_config, local_folder
from donod_fast.models.loading import LoadedModel, load_model, quiet, wrap_model
from donod_fast.models.loading_errors import attempt_load
from donod_fast.models.releases import attention_options, check_release, check_tokenizer_release
from donod_fast.training.recipe import TrainSettings


def training_device() -> torch.device:
    """The device of this process; each launched process has its own accelerator."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("cpu")


def training_dtype(settings: TrainSettings, device: torch.device) -> str:
    """The dtype of the weights: ``auto`` is bfloat16 on an accelerator (float32 under autocast), else float32."""
    if settings.dtype != "auto":
        return settings.dtype
    return "float32" if device.type == "cpu" or settings.mixed_precision else "bfloat16"


def model_identity(settings: TrainSettings) -> str:
    """Identify the model without loading it: a folder's fingerprint, or hub id and revision.

    Raises:
        ModelError: it is neither.
    """
    folder = local_folder(settings.model, trust_remote_code=settings.trust_remote_code)
    return f"hub:{settings.model}@{settings.revision or 'main'}" if folder is None else folder_fingerprint(folder)


def load_for_training(settings: TrainSettings) -> LoadedModel:
    """Load the model and its tokenizer onto this process's device.

    Raises:
        InputError: QLoRA without CUDA or bitsandbytes.
        ModelError: it cannot be loaded; names the remedy.
    """
    device = training_device()
    if settings.method == "qlora":
        loaded = _load_4bit(settings, device)
    else:
        loaded = load_model(
            settings.model,
            revision=settings.revision,
            dtype=training_dtype(settings, device),
            device=device,
            trust_remote_code=settings.trust_remote_code,
        )
        if loaded.quantised:
            raise ModelError(f"{settings.model} comes quantised ({loaded.precision}); train it with method: qlora")
    if settings.attention is not None:
        check_config(
            "train.attention",
            {"attn_implementation": settings.attention},
            "the recipe",
            trust_remote_code=settings.trust_remote_code,
        )
        try:
            loaded.model.set_attn_implementation(settings.attention)
        except (ValueError, ImportError) as error:
            raise InputError(f"train.attention {settings.attention!r} is not available here: {error}") from error
        check_release(settings.model, loaded.model.config)
    return loaded


def merged_from_adapter(settings: TrainSettings, adapter: Path) -> Any:
    """Load the base model again and merge a trained adapter into it, since a 4-bit or sharded base cannot be merged."""
    from peft import PeftModel

    device = training_device()

    loaded = load_model(
        settings.model,
        revision=settings.revision,
        dtype="bfloat16" if settings.method == "qlora" else training_dtype(settings, device),
        device=device,
        trust_remote_code=settings.trust_remote_code,
    )
    return PeftModel.from_pretrained(loaded.model, str(adapter)).merge_and_unload()


def _load_4bit(settings: TrainSettings, device: torch.device) -> LoadedModel:
    if device.type != "cuda":
        raise InputError("method qlora needs a CUDA device; use method: lora here")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise InputError("method qlora needs bitsandbytes: pip install 'donod-fast[qlora]'") from error
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    source = str(local_folder(settings.model, trust_remote_code=settings.trust_remote_code) or settings.model)
    options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    with quiet():
        tokenizer = attempt_load(
            settings.model, "its tokenizer", lambda: AutoTokenizer.from_pretrained(source, **options)
        )
        check_tokenizer_release(settings.model, tokenizer)
        config = attempt_load(settings.model, "its config", lambda: AutoConfig.from_pretrained(source, **options))
        model = attempt_load(
            settings.model,
            "its weights",
            lambda: AutoModelForCausalLM.from_pretrained(
                source,
                use_safetensors=True,
                dtype=torch.bfloat16,
                device_map={"": device},
                quantization_config=BitsAndBytesConfig(
                    load_in_4bit=True,
                    bnb_4bit_quant_type="nf4",
                    bnb_4bit_use_double_quant=True,
                    bnb_4bit_compute_dtype=torch.bfloat16,
                ),
                **options,
                **attention_options(config),
            ),
        )
    model.requires_grad_(False)
    return wrap_model(model, tokenizer)


__all__ = ["load_for_training", "merged_from_adapter", "model_identity", "training_device", "training_dtype"]
