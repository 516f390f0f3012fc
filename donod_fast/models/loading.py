"""Load a model and its tokenizer, or refuse them: nothing is silently guessed, replaced or initialised at random.

:func:`load_model` reads a local folder or a hub id, :func:`wrap_model` takes loaded objects. Both return a
:class:`LoadedModel`; the rest of the package sees only that.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from donod_fast.errors import InputError, ModelError
from donod_fast.models.config_check import check_possible, config_folder
from donod_fast.models.fingerprint import BackgroundFingerprint, hub_fingerprint, memory_fingerprint
from donod_fast.models.folder_guard import check_config, local_folder
from donod_fast.models.loading_errors import attempt_load
from donod_fast.models.placement import DeviceMap, MaxMemory, execution_device, is_offloaded, place, refuse_unplaced
from donod_fast.models.precision import quantisation, refuse_precision, silence_torchao, to_float8
from donod_fast.models.releases import (
    attention_options,
    check_release,
    check_tokenizer_release,
    refuse_old_transformers,
)
from donod_fast.models.settings import ModelSettings, ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

refuse_old_transformers()  # at import: whatever uses a model or a tokenizer would go wrong later, some of it in silence

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_OTHER_HEADS = (
    "SequenceClassification",
    "TokenClassification",
    "QuestionAnswering",
    "MaskedLM",
    "RewardModel",
)
_NO_LIMIT = 10**9  # tokenizers without a limit report 1e30


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in eval mode, with its tokenizer.

    Attributes:
        model: the model with its output layer (a transformers ``PreTrainedModel`` or a wrapper of one).
        tokenizer: its tokenizer.
        name: the folder or hub id as the user gave it, or the name of the object in memory.
        revision: the commit hash on the hub, None if there is none.
        fingerprint: tells one model from another; see :mod:`donod_fast.models.fingerprint`.
        dtype: the dtype of the weights (of the input embedding if they differ).
        device: the device for token ids.
        max_length: the longest sequence that model and tokenizer allow, None if neither has a limit.
        precision: precision of the trunk's weights: the dtype's name, or the quantisation and its release.
        quantised: True if the weights have less than 16 bits.
        offloaded: True if some weights are on their device only while they are used. Then one thread at a time runs.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    name: str
    revision: str | None
    fingerprint: str
    dtype: torch.dtype
    device: torch.device
    max_length: int | None
    precision: str
    quantised: bool
    offloaded: bool


def load_model(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    precision: str = "auto",
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    offload_folder: str | Path | None = None,
) -> LoadedModel:
    """Load a causal language model and its tokenizer from a local folder or the Hugging Face Hub.

    Only ``safetensors`` weights are read, every weight must be in the checkpoint, and the model's own Python
    code runs only with ``trust_remote_code``. The model is in eval mode and its parameters need no gradient.
    A quantised checkpoint stays quantised.

    Args:
        name_or_path: a folder with ``config.json``, or a hub id. An existing folder takes precedence.
        revision: branch, tag or commit on the hub. Config, tokenizer and weights come from the same commit.
        dtype: ``"auto"`` is the checkpoint's own dtype on an accelerator, and float32 on the CPU, where half
            precision is slow and makes a sample's numbers depend on its batch (a quantised checkpoint's own
            there too); or ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: None is CUDA if available, else the CPU. Other devices must be named.
        trust_remote_code: run Python code that comes with the model.
        precision: ``"auto"``, or ``"float8"`` for the linear layers of the trunk (bfloat16 elsewhere).
        device_map: distribute the model over devices and memories as accelerate does; see
            :func:`donod_fast.models.placement.place`, also for ``max_memory`` and ``offload_folder``.
        max_memory: memory of each device that a device map may use.
        offload_folder: folder for weights that are off-loaded to disk.

    Raises:
        InputError: a dtype, device, device map or precision that does not exist or is not available.
        ModelError: the model cannot be loaded or is not a causal language model; gives the remedy.
    """
    placement = place(device, device_map, max_memory, offload_folder)
    refuse_precision(precision, dtype, placement.device)
    wanted = _wanted_dtype("bfloat16" if precision == "float8" else dtype, placement.device)
    name = str(name_or_path)
    folder = local_folder(name, trust_remote_code=trust_remote_code)
    if folder is not None and revision is not None:
        raise InputError(f"revision={revision!r} is for models of the hub; {name} is a local folder")
    source = name if folder is None else str(folder)
    hashing = None if folder is None else BackgroundFingerprint(folder)

    silence_torchao()
    from transformers import AutoModelForCausalLM
    from transformers.utils import is_accelerate_available

    with quiet():
        config, tokenizer, commit = _config_and_tokenizer(name, folder, revision, trust_remote_code)
        options: dict[str, Any] = {"revision": commit or revision, "trust_remote_code": trust_remote_code}
        comes_quantised = getattr(config, "quantization_config", None) is not None
        if comes_quantised and precision != "auto":
            raise InputError(f"{name} is already quantised; precision={precision!r} is for models that are not")
        if comes_quantised and dtype == "auto":
            wanted = "auto"  # the dtype that its quantised weights represent
        options |= attention_options(config)
        # It warns about a cast in every layer of every batch; `check` measures how much the numbers differ.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        has_accelerate = is_accelerate_available()
        if not has_accelerate and (device_map is not None or comes_quantised):
            what = "a quantised model" if device_map is None else "a device map"
            raise ModelError(f"{name}: {what} needs accelerate: pip install 'donod-fast[accelerate]'")
        # With accelerate the weights are read directly to the device, without it via the memory of the CPU.
        direct = has_accelerate and (placement.device.type != "cpu" or device_map is not None or comes_quantised)
        model, report = attempt_load(
            name,
            "its weights",
            lambda: AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=wanted,
                use_safetensors=True,
                output_loading_info=True,
                **(placement.options() if direct else {}),
                **options,
            ),
        )
        _refuse_incomplete(name, report)
        if not direct:
            model = attempt_load(name, f"it onto {placement.device}", lambda: model.to(placement.device))
    refuse_unplaced(name, model)
    model.requires_grad_(False)
    fingerprint = hub_fingerprint(name, commit or revision or "main") if hashing is None else hashing.result()
    loaded = _loaded(model, tokenizer, name, commit, fingerprint)
    if precision == "float8":
        made = to_float8(name, find_decoder(name, model), model.get_output_embeddings())
        loaded = replace(loaded, precision=made, quantised=True)
    return loaded


def load_settings(source: ModelSource) -> LoadedModel:
    """Load the model of settings. Raises ModelError, InputError: see :func:`load_model`."""
    spread: dict[str, Any] = {}
    if isinstance(source, ModelSettings):
        spread = {
            "precision": source.precision,
            "device_map": source.device_map,
            "max_memory": source.max_memory,
            "offload_folder": source.offload_folder,
        }
    return load_model(
        source.model,
        revision=source.revision,
        dtype=source.dtype,
        device=source.device,
        trust_remote_code=source.trust_remote_code,
        **spread,
    )


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """The tokenizer of a model whose weights are not loaded.

    Attributes:
        tokenizer: the tokenizer.
        name: the folder or hub id as the user gave it.
        max_length: the longest sequence that model and tokenizer allow, None if neither has a limit.
        vocab_size: size of the model's vocabulary, in ids, by its config.
        revision: commit on the hub; None for a local folder.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    name: str
    max_length: int | None
    vocab_size: int
    revision: str | None = None


def load_tokenizer(source: ModelSource) -> LoadedTokenizer:
    """Load the tokenizer of a model, and what its config says about it; the folder needs no weights.

    Raises:
        InputError: a revision is given for a local folder.
        ModelError: config or tokenizer cannot be loaded, or it is not a causal language model.
    """
    name = source.model
    folder = local_folder(name, needs_weights=False, trust_remote_code=source.trust_remote_code)
    if folder is not None and source.revision is not None:
        raise InputError(f"revision={source.revision!r} is for models of the hub; {name} is a local folder")
    with quiet():
        config, tokenizer, commit = _config_and_tokenizer(name, folder, source.revision, source.trust_remote_code)
    vocab_size = getattr(text_config(config), "vocab_size", None) or len(tokenizer)
    return LoadedTokenizer(tokenizer, name, length_limit(config, tokenizer), int(vocab_size), commit)


def _config_and_tokenizer(
    name: str, folder: Path | None, revision: str | None, trust_remote_code: bool
) -> tuple[Any, Any, str | None]:
    """Config and tokenizer from the same commit, and that commit; None for a local folder."""
    from transformers import AutoConfig, AutoTokenizer

    source = name if folder is None else str(folder)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    check_possible(name, folder or config_folder(name, revision))
    config = attempt_load(name, "its config", lambda: AutoConfig.from_pretrained(source, **options))
    if folder is None:
        check_config(name, attention_of(config), trust_remote_code=trust_remote_code)
    _refuse_other_kinds(name, config)
    commit = None if folder is not None else _hub_commit(name, revision, config)
    options["revision"] = commit or revision
    tokenizer = attempt_load(name, "its tokenizer", lambda: AutoTokenizer.from_pretrained(source, **options))
    if not len(tokenizer):
        raise ModelError(f"{name}: the model has no tokenizer files; add tokenizer.json")
    check_tokenizer_release(name, tokenizer)
    return config, tokenizer, commit


def wrap_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """Wrap a loaded model and tokenizer. The model is put into eval mode.

    Nothing else about the model changes: dtype, devices, quantisation and ``requires_grad`` stay as they are.

    Raises:
        ModelError: the model is not a causal language model of transformers, or there is no tokenizer.
    """
    config = getattr(model, "config", None)
    if config is None or not callable(getattr(model, "get_output_embeddings", None)):
        raise ModelError(
            f"a {type(model).__name__} has no config or no get_output_embeddings(); "
            "pass a transformers causal language model, for example from AutoModelForCausalLM"
        )
    name = str(getattr(config, "_name_or_path", "") or type(model).__name__)
    if tokenizer is None or not callable(tokenizer):
        raise ModelError(f"{name}: the model needs a tokenizer; got {type(tokenizer).__name__}")
    _refuse_other_kinds(name, config)
    revision = getattr(config, "_commit_hash", None)
    return _loaded(model, tokenizer, name, revision, memory_fingerprint(model))


def _loaded(model: Any, tokenizer: Any, name: str, revision: str | None, fingerprint: str) -> LoadedModel:
    check_release(name, model.config)
    model.eval()
    embedding = model.get_input_embeddings()
    first = getattr(embedding, "weight", None)
    if first is None:
        first = next(iter(model.parameters()), None)
    if first is None:
        raise ModelError(f"{name}: the model has no parameters; load its weights first")
    quantised = quantisation(model)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        revision=revision,
        fingerprint=fingerprint,
        dtype=first.dtype,
        device=execution_device(embedding, first),
        max_length=length_limit(model.config, tokenizer),
        precision=quantised or str(first.dtype).removeprefix("torch."),
        quantised=quantised is not None,
        offloaded=is_offloaded(model),
    )


def find_decoder(name: str, model: Any) -> Any:
    """The module that returns the final (normed) hidden states: the model without its output layer.

    Raises:
        ModelError: the model has no such module.
    """
    getter = getattr(model, "get_decoder", None)
    decoder = getter() if callable(getter) else None
    if decoder is None or decoder is model:
        decoder = getattr(model, "base_model", None)
    if decoder is None or decoder is model or not callable(decoder):
        raise ModelError(
            f"{name}: a {type(model).__name__} has no decoder without an output layer "
            "(get_decoder() or base_model); load it with AutoModelForCausalLM"
        )
    return decoder


def text_config(config: Any) -> Any:
    """The part of a model's config that describes its language model (usually the config itself)."""
    getter = getattr(config, "get_text_config", None)
    return getter() if callable(getter) else getattr(config, "text_config", config)


def _wanted_dtype(dtype: str, device: torch.device) -> str | torch.dtype:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not known; use 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[dtype]


def attention_of(config: Any) -> dict[str, str]:
    """The attention functions that a config asks for, by the config's part; to be checked like the file."""
    parts = {"": config, **{name: getattr(config, name, None) for name in getattr(config, "sub_configs", None) or ()}}
    kinds = ("_attn_implementation", "_experts_implementation")
    return {f"{part}{kind}": getattr(one, kind, None) or "" for part, one in parts.items() for kind in kinds}


def _refuse_other_kinds(name: str, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name} is an encoder-decoder model; DONOD scores decoder-only language models")
    kinds = list(getattr(config, "architectures", None) or ())
    if kinds and all(kind.endswith(_OTHER_HEADS) for kind in kinds):
        raise ModelError(f"{name} is a {kinds[0]}, not a causal language model; give the language model itself")


def _refuse_incomplete(name: str, report: dict[str, Any]) -> None:
    """Transformers initialises missing weights at random and continues; scores from those mean nothing."""
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise ModelError(
            f"{name}: the checkpoint lacks {', '.join(missing[:4])}{more}, which would be random; "
            "use a complete checkpoint of a causal language model"
        )
    wrong = [str(key) for key in (report.get("mismatched_keys") or ())] + list(report.get("error_msgs") or ())
    if wrong:
        raise ModelError(f"{name}: weights do not fit the config: {'; '.join(wrong[:3])}")


def _hub_commit(name: str, revision: str | None, config: Any) -> str | None:
    """The commit of a model from the hub: recorded in the config, or else in the cache's folder names."""
    recorded = getattr(config, "_commit_hash", None)
    if recorded:
        return str(recorded)
    from transformers.utils import cached_file

    path = attempt_load(name, "its config", lambda: cached_file(name, "config.json", revision=revision))
    found = re.search(r"snapshots/([0-9a-f]{40})/", Path(str(path)).as_posix())
    return found[1] if found else None


def length_limit(config: Any, tokenizer: Any) -> int | None:
    """Largest number of tokens that model and tokenizer accept; None if neither has a limit."""
    inner = text_config(config)
    limits = [getattr(inner, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits.append(getattr(tokenizer, "model_max_length", None))
    return min((int(n) for n in limits if isinstance(n, int | float) and 0 < n < _NO_LIMIT), default=None)


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off transformers' progress bars and warnings; the important ones are raised as errors here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
