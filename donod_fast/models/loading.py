"""A model and its tokenizer, loaded or refused: nothing is guessed, replaced or newly initialised in silence.

:func:`load_model` reads a local folder or a hub id, :func:`wrap_model` takes objects that are loaded already.
Both give a :class:`LoadedModel`, which is all that the rooms downstream know of a model.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from donod_fast.errors import InputError, ModelError
from donod_fast.models.fingerprint import folder_fingerprint, hub_fingerprint, memory_fingerprint
from donod_fast.models.placement import DeviceMap, MaxMemory, execution_device, is_offloaded, place
from donod_fast.models.precision import quantisation, refuse_precision, silence_torchao, to_float8

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_T = TypeVar("_T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_UNSAFE_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
_OTHER_HEADS = (
    "SequenceClassification",
    "TokenClassification",
    "QuestionAnswering",
    "MaskedLM",
    "RewardModel",
)
_NO_LIMIT = 10**9  # tokenizers without a limit of their own say 1e30


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in eval mode, with its tokenizer.

    Attributes:
        model: the model with its output layer (a transformers ``PreTrainedModel`` or a wrapper of one).
        tokenizer: its tokenizer.
        name: the folder or hub id as the user gave it, or the name that the object in memory bears.
        revision: the commit hash on the hub, None where there is none.
        fingerprint: tells one model from another; see :mod:`donod_fast.models.fingerprint`.
        dtype: the dtype of the weights (of the input embedding, where they differ).
        device: where token ids have to be.
        max_length: the longest sequence that model and tokenizer allow, None where neither says.
        precision: of the trunk's weights: the dtype's name, or how they are quantised and by which release.
        quantised: True where that is less than 16 bits.
        offloaded: True where some weights come to a device only while they are used. One thread at a time then.
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
    """Load a causal language model and its tokenizer from a local folder or the Hugging Face hub.

    Only ``safetensors`` weights are read, every weight must be in the checkpoint, and the model's own Python
    code runs only with ``trust_remote_code``. The model is in eval mode and its parameters need no gradient.
    A checkpoint that is quantised stays so.

    Args:
        name_or_path: a folder with ``config.json``, or a hub id. A folder that exists goes first.
        revision: branch, tag or commit on the hub. Config, tokenizer and weights come from the same commit.
        dtype: ``"auto"`` is the checkpoint's own dtype on an accelerator, and float32 on the CPU, where half
            precision is slow and makes a sample's numbers depend on its batch (a quantised checkpoint's own
            there too); or ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: None is CUDA where there is one, else the CPU. Other devices have to be asked for.
        trust_remote_code: run Python code that comes with the model.
        precision: ``"auto"``, or ``"float8"`` for the linear layers of the trunk (bfloat16 elsewhere).
        device_map: spread the model over devices and memories as accelerate does; see
            :func:`donod_fast.models.placement.place`, also for ``max_memory`` and ``offload_folder``.
        max_memory: how much of each device a device map may use.
        offload_folder: where weights go that have to be written to disk.

    Raises:
        InputError: a dtype, device, device map or precision that does not exist (here).
        ModelError: the model cannot be loaded, or is no causal language model; names the remedy.
    """
    placement = place(device, device_map, max_memory, offload_folder)
    refuse_precision(precision, dtype, placement.device)
    wanted = _wanted_dtype("bfloat16" if precision == "float8" else dtype, placement.device)
    name = str(name_or_path)
    folder = local_folder(name)
    if folder is not None and revision is not None:
        raise InputError(f"revision={revision!r} is for models of the hub; {name} is a local folder")
    source = name if folder is None else str(folder)

    silence_torchao()
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import is_accelerate_available

    with quiet():
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = attempt_load(name, "its config", lambda: AutoConfig.from_pretrained(source, **options))
        _refuse_other_kinds(name, config)
        commit = None if folder is not None else _hub_commit(name, revision, config)
        options["revision"] = commit or revision
        tokenizer = attempt_load(name, "its tokenizer", lambda: AutoTokenizer.from_pretrained(source, **options))
        if not len(tokenizer):
            raise ModelError(f"{name}: there are no tokenizer files beside the model; add tokenizer.json to it")
        comes_quantised = getattr(config, "quantization_config", None) is not None
        if comes_quantised and precision != "auto":
            raise InputError(f"{name} comes quantised; precision={precision!r} is for models that do not")
        if comes_quantised and dtype == "auto":
            wanted = "auto"  # the dtype that its quantised weights stand for
        if getattr(text_config(config), "attn_logit_softcapping", None) is not None:
            options["attn_implementation"] = "eager"  # some releases run such models under one that drops the cap
        # It warns of a cast in every layer of every batch; how far its numbers differ is what `check` measures.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        has_accelerate = is_accelerate_available()
        if not has_accelerate and (device_map is not None or comes_quantised):
            what = "a quantised model" if device_map is None else "a device map"
            raise ModelError(f"{name}: {what} needs accelerate: pip install 'donod-fast[accelerate]'")
        # With accelerate the weights go straight to the device; without it through the CPU's memory.
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
    model.requires_grad_(False)
    if folder is not None:
        fingerprint = folder_fingerprint(folder)
    else:
        fingerprint = hub_fingerprint(name, commit or revision or "main")
    loaded = _loaded(model, tokenizer, name, commit, fingerprint)
    if precision == "float8":
        made = to_float8(name, find_decoder(name, model), model.get_output_embeddings())
        loaded = replace(loaded, precision=made, quantised=True)
    return loaded


def wrap_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """Take a model and a tokenizer that are loaded already. The model is put into eval mode.

    Nothing else about the model is changed: dtype, devices, quantisation and ``requires_grad`` stay the caller's.

    Raises:
        ModelError: the model is no causal language model of transformers' kind, or there is no tokenizer.
    """
    config = getattr(model, "config", None)
    if config is None or not callable(getattr(model, "get_output_embeddings", None)):
        raise ModelError(
            f"a {type(model).__name__} has no config or no get_output_embeddings(); "
            "pass a transformers causal language model, for example from AutoModelForCausalLM"
        )
    name = str(getattr(config, "_name_or_path", "") or type(model).__name__)
    if tokenizer is None or not callable(tokenizer):
        raise ModelError(f"{name}: a tokenizer is needed beside the model; got {type(tokenizer).__name__}")
    _refuse_other_kinds(name, config)
    revision = getattr(config, "_commit_hash", None)
    return _loaded(model, tokenizer, name, revision, memory_fingerprint(model))


def _loaded(model: Any, tokenizer: Any, name: str, revision: str | None, fingerprint: str) -> LoadedModel:
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
    """The module that gives the final (normed) hidden states: the model without its output layer.

    Raises:
        ModelError: the model has none.
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
    """The part of a model's config that describes its language model (the config itself, mostly)."""
    getter = getattr(config, "get_text_config", None)
    return getter() if callable(getter) else getattr(config, "text_config", config)


def _wanted_dtype(dtype: str, device: torch.device) -> str | torch.dtype:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not known; use 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[dtype]


def local_folder(name: str) -> Path | None:
    """Return the folder that a model's name stands for, or None for a hub id.

    Raises:
        ModelError: it is neither, or the folder lacks a config or safetensors weights.
    """
    folder = Path(name).expanduser()
    if not name or folder.is_file():
        raise ModelError(f"{name!r} is no model: give the folder that holds config.json, or a hub id")
    if not folder.is_dir():
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) or name.startswith(".") or name.endswith("/"):
            raise ModelError(f"{name}: there is no such folder, and it is no hub id (those read 'owner/name')")
        return None
    files = sorted(file.name for file in folder.iterdir())
    if "adapter_config.json" in files:
        raise ModelError(
            f"{name} holds an adapter (adapter_config.json), not a whole model; "
            "merge it first (peft: model.merge_and_unload().save_pretrained(...))"
        )
    if "config.json" not in files:
        raise ModelError(f"{name}: there is no config.json in this folder; is it the right one?")
    if not any(file.endswith(".safetensors") for file in files):
        unsafe = [file for file in files if file.endswith(_UNSAFE_WEIGHTS)]
        if unsafe:
            raise ModelError(
                f"{name}: the weights are in {unsafe[0]}, and only safetensors are read (others can run "
                "code when opened); if you trust it, load it with transformers and save_pretrained() it again"
            )
        raise ModelError(f"{name}: there are no *.safetensors weights in this folder; complete the download")
    return folder.resolve()


def attempt_load(name: str, what: str, load: Callable[[], _T]) -> _T:
    """Run one step of loading a model.

    Args:
        name: the model's folder or hub id, for the message.
        what: what the step loads, for the message.
        load: the step.

    Raises:
        ModelError: the step raised any error; the message says what to do.
    """
    try:
        return load()
    except Exception as error:  # transformers, the hub client and custom code raise nearly everything
        raise ModelError(f"{name}: cannot load {what}: {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return "the device's memory is too small; use a smaller dtype or another device"
    if "safetensor" in type(error).__name__.lower():
        return f"a safetensors file is damaged or cut short; download it again ({text[:200]})"
    for hints, reason in _REASONS:
        if any(hint in text.lower() for hint in hints):
            return f"{reason} ({text[:250]})"
    return f"{type(error).__name__}: {text[:400]}"


_REASONS = (
    (
        ("trust_remote_code", "custom code"),
        "it needs Python code of its own; read it, then set trust_remote_code=True",
    ),
    (
        ("unrecognized configuration class",),
        "transformers knows no causal language model (decoder-only) of this type",
    ),
    (
        ("does not recognize this architecture", "unrecognized model"),
        "this transformers release does not know its type; upgrade transformers",
    ),
    (
        ("gated repo", "401 client error", "403 client error"),
        "access is restricted; accept its terms on the hub and log in with 'hf auth login'",
    ),
    (
        ("not a valid model identifier", "repository not found", "404 client"),
        "there is no such folder, nor such a model on the hub (if it is private: 'hf auth login')",
    ),
    (("invalid revision", "not a valid git identifier"), "there is no such revision on the hub"),
    (
        ("couldn't connect", "offline", "cached files", "connection error"),
        "the hub cannot be reached and it is not in the local cache; download it first or give a folder",
    ),
    (("deserializing header",), "a safetensors file is damaged or cut short; download it again"),
    (
        ("use_safetensors", "with `safetensors`"),
        "only safetensors weights are read; convert it with save_pretrained()",
    ),
    (("mismatch",), "config.json does not describe these weights; take both from the same checkpoint"),
    (
        ("instantiate the backend tokenizer",),
        "tokenizer files or a package (sentencepiece) are missing; add tokenizer.json",
    ),
)
"""What transformers and the hub client say (in lower case), and what to tell the user."""


def _refuse_other_kinds(name: str, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name} is an encoder-decoder model; DONOD scores decoder-only language models")
    kinds = list(getattr(config, "architectures", None) or ())
    if kinds and all(kind.endswith(_OTHER_HEADS) for kind in kinds):
        raise ModelError(f"{name} is a {kinds[0]}, not a causal language model; give the language model itself")


def _refuse_incomplete(name: str, report: dict[str, Any]) -> None:
    """Transformers initialises absent weights at random and goes on; scores from those mean nothing."""
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise ModelError(
            f"{name}: the checkpoint lacks {', '.join(missing[:4])}{more}, which would be random; "
            "give a complete causal language model checkpoint"
        )
    wrong = [str(key) for key in (report.get("mismatched_keys") or ())] + list(report.get("error_msgs") or ())
    if wrong:
        raise ModelError(f"{name}: weights do not fit the config: {'; '.join(wrong[:3])}")


def _hub_commit(name: str, revision: str | None, config: Any) -> str | None:
    """The commit that a hub id was loaded from: recorded in the config, else in the cache's folder names."""
    recorded = getattr(config, "_commit_hash", None)
    if recorded:
        return str(recorded)
    from transformers.utils import cached_file

    path = attempt_load(name, "its config", lambda: cached_file(name, "config.json", revision=revision))
    found = re.search(r"snapshots/([0-9a-f]{40})/", Path(str(path)).as_posix())
    return found[1] if found else None


def length_limit(config: Any, tokenizer: Any) -> int | None:
    """Most tokens that model and tokenizer say they take; None where neither says."""
    inner = text_config(config)
    limits = [getattr(inner, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits.append(getattr(tokenizer, "model_max_length", None))
    return min((int(n) for n in limits if isinstance(n, int | float) and 0 < n < _NO_LIMIT), default=None)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and warnings: what matters of them is raised as an error here."""
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
