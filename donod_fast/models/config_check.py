"""Refuse a model's config with absurd values, before anything is allocated by them.

A config is a text that anybody can write. Transformers builds lists as long as the number of layers while it reads one,
and modules as large as it says. Its values are compared with those of real models, and with the size of the weights
beside them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from donod_fast.errors import ModelError
from donod_fast.models.loading_errors import attempt_load
from donod_fast.system.limits import SMALL_FILE_BYTES
from donod_fast.system.wording import shortened, shown

CONFIG = "config.json"

_MOST = {
    r"(num_(hidden_|decoder_|encoder_)?layers|n_layers?|num_blocks)": 10_000,
    r"(num_(key_value_|attention_|query_|kv_)?heads|n_heads?|n_kv_heads)": 100_000,
    r"(num_(local_|routed_)?experts|n_routed_experts)": 100_000,
    r"(hidden_size|n_embd|d_model|dim|head_dim|word_embed_proj_dim)": 1_000_000,
    r"(intermediate_size|ffn_dim|n_inner|d_ff|moe_intermediate_size)": 10_000_000,
    r"vocab_size": 100_000_000,
    r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|sliding_window)": 1_000_000_000,
}
"""Names of sizes, and the largest value that one may have: far above any model."""

_MAY_BE_ZERO = re.compile(r"(num_(local_|routed_)?experts|n_routed_experts|sliding_window)")
_MAPPINGS = ("rope_scaling", "rope_parameters", "quantization_config", "text_config", "auto_map")
_TEXTS = ("model_type", "hidden_act")
_NUMBERS = ("rope_theta", "initializer_range", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
_MOST_DEPTH = 32
_BITS = 8  # a weight takes at least one bit


_FREE_ELEMENTS = 1 << 26
"""Elements that are small enough not to be compared with the weights: a damaged file is named when it is read."""

_NO_SIZES = ("quantization_config", "task_specific_params", "id2label", "label2id")
"""Sections whose numbers are no sizes of the model; a dimension may be −1 there."""


def check_possible(name: str, folder: Path) -> None:
    """Refuse a model's folder whose config or tokenizer files no model can have.

    Args:
        name: the model's name for messages.
        folder: the folder with ``config.json``.

    Raises:
        ModelError: names the file and the key.
    """
    config = read_object(name, folder / CONFIG)
    for section, values in _sections(config, ""):
        _check_section(f"{name}: {CONFIG}: {section}", values)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if weights:
        _compare_with_weights(f"{name}: {CONFIG}", config, weights)


def config_folder(name: str, revision: str | None) -> Path:
    """The folder of the local cache that holds a hub model's config, which is fetched if need be.

    Raises:
        ModelError: it cannot be fetched.
    """
    from transformers.utils import cached_file

    return Path(str(attempt_load(name, "its config", lambda: cached_file(name, CONFIG, revision=revision)))).parent


def read_object(name: str, file: Path) -> dict[str, Any]:
    """The object in a small JSON file.

    Raises:
        ModelError: it cannot be read, is too large, nested too deep, or no JSON object.
    """
    where = f"{name}: {file.name}"
    try:
        with file.open("rb") as stream:
            content = stream.read(SMALL_FILE_BYTES + 1)
        if len(content) > SMALL_FILE_BYTES:
            raise ModelError(f"{where} has more than {SMALL_FILE_BYTES >> 20} MiB; is it the right file?")
        found = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ModelError(f"{where} is nested too deep") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{where} cannot be read: {shortened(error, 200)}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{where} holds no JSON object; take it from the model's own release")
    return found


def _sections(values: Mapping[str, Any], path: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, values
    if depth < _MOST_DEPTH:
        for key, value in values.items():
            if isinstance(value, dict) and key not in _NO_SIZES:
                yield from _sections(value, f"{path}{key}.", depth + 1)


def _check_section(where: str, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value is None:
            continue
        most = next((most for names, most in _MOST.items() if re.fullmatch(names, key)), None)
        if most is not None:
            for one in value if isinstance(value, list) and value else [value]:
                _check_size(f"{where}{key}", key, one, most)
        elif key in _MAPPINGS and not isinstance(value, dict):
            raise ModelError(f"{where}{key} must be an object, got {shown(value, 80)}")
        elif key in _TEXTS and not isinstance(value, str):
            raise ModelError(f"{where}{key} must be a text, got {shown(value, 80)}")
        elif key in _NUMBERS and not isinstance(value, dict):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value < 1e18 or not math.isfinite(value):
                raise ModelError(f"{where}{key} must be a number that is not negative, got {shown(value, 80)}")
    kinds = values.get("architectures")
    if kinds is not None and not (isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)):
        raise ModelError(f"{where}architectures must be a list of texts, got {shown(kinds, 80)}")
    types = values.get("layer_types")
    if types is not None and not isinstance(types, list):
        raise ModelError(f"{where}layer_types must be a list, got {shown(types, 80)}")


def _check_size(where: str, key: str, value: Any, most: int) -> None:
    least = 0 if _MAY_BE_ZERO.fullmatch(key) else 1
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ModelError(
            f"{where} must be a whole number from {least} to {most:,}, got {shown(value, 80)}; take the file from the "
            "model's own release"
        )


def _compare_with_weights(where: str, config: Mapping[str, Any], weights: int) -> None:
    """Refuse sizes that these weights cannot fill: an embedding of every token, and a norm in every layer."""
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    assert isinstance(inner, Mapping)
    width = next((inner[key] for key in ("hidden_size", "n_embd", "d_model") if isinstance(inner.get(key), int)), 1)
    if isinstance(inner.get("word_embed_proj_dim"), int):
        width = min(width, inner["word_embed_proj_dim"])
    for key in ("vocab_size", "num_hidden_layers", "n_layer", "num_layers"):
        count = inner.get(key)
        if isinstance(count, int) and count * width > max(weights * _BITS, _FREE_ELEMENTS):
            raise ModelError(
                f"{where}: {key} is {count:,} at a width of {width:,}, which does not fit weights of {weights:,} "
                "bytes; take both from the same checkpoint"
            )


__all__ = ["check_possible", "config_folder", "read_object"]
