"""Find a model's folder, and refuse one that leads outside itself, or that needs code which nobody allowed.

transformers and sentence-transformers ask before they run a model's Python files, but not in all places: an attention
function may be a repository of kernels on the hub, and an index may name any file of the machine. Here the files that
name other files or code are read before the libraries read them.

A link to a file is followed, as in the cache of the hub: what it leads to is part of the model's fingerprint.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from donod_fast.errors import ModelError
from donod_fast.models.packaged import model_path
from donod_fast.models.releases import asks_about_own_generation
from donod_fast.system.wording import shortened

ADAPTER = "adapter_config.json"
MODULES = "modules.json"

_MODULE_LISTS = (MODULES, "router_config.json", "config.json")
_OWN_MODULES = "sentence_transformers."
_OWN_ACTIVATIONS = "torch.nn."
_OWN_GENERATION = "custom_generate/generate.py"
_UNSAFE_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
_TRUST = "review it, then allow it with --trust-remote-code (trust_remote_code=True)"
_COPY = "use a folder that holds the whole model"


def local_folder(name: str, *, needs_weights: bool = True, trust_remote_code: bool = False) -> Path | None:
    """Return the folder that a model's name refers to, or None for a hub id.

    Raises:
        ModelError: it is neither, or the folder lacks a config or (if they are needed) safetensors weights, or one of
            its files leads outside it or needs code; see :func:`check_model_folder`.
    """
    folder = model_path(name)
    if not name or folder.is_file():
        raise ModelError(f"{name!r} is not a model: give the folder that holds config.json, or a hub id")
    if not folder.is_dir():
        if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) or name.startswith(".") or name.endswith("/"):
            raise ModelError(f"{name}: there is no such folder, and this is not a hub id (owner/name)")
        return None
    files = sorted(file.name for file in folder.iterdir())
    if "adapter_config.json" in files:
        raise ModelError(
            f"{name} holds an adapter (adapter_config.json), not a whole model; "
            "merge it first (peft: model.merge_and_unload().save_pretrained(...))"
        )
    if "config.json" not in files:
        raise ModelError(f"{name}: there is no config.json in this folder; check the path")
    if needs_weights and not any(file.endswith(".safetensors") for file in files):
        unsafe = [file for file in files if file.endswith(_UNSAFE_WEIGHTS)]
        if unsafe:
            raise ModelError(
                f"{name}: the weights are in {unsafe[0]}, but only safetensors files are read (other files can "
                "run code when opened); if you trust it, load it with transformers and save it with save_pretrained()"
            )
        raise ModelError(f"{name}: there are no *.safetensors weights in this folder; complete the download")
    check_model_folder(name, folder, trust_remote_code=trust_remote_code)
    return folder.resolve()


def check_model_folder(name: str, folder: Path, *, trust_remote_code: bool = False) -> None:
    """Check the files of a model's folder that name other files or code.

    Args:
        name: the model as the user gave it, for messages.
        folder: its folder, or a folder of a sentence-transformers model with its modules.
        trust_remote_code: whether code of the model may run.

    Raises:
        ModelError: a file leads outside the folder, names code without ``trust_remote_code``, or cannot be read; or
            something in the folder is neither a file nor a folder.
    """
    _refuse_special(name, folder)
    modules = _read(name, folder / MODULES)
    folders = [folder, *(folder / path for path in _module_paths(name, modules))]
    for one in dict.fromkeys(folders):
        _refuse_special(name, one)
        for file in sorted([*one.glob("*config*.json"), *one.glob("*.index.json")]):
            content = _read(name, file)
            if file.name.endswith(".index.json"):
                _check_index(name, file, content)
            elif file.name == ADAPTER and one / "config.json" != file and _leads_away(content):
                raise ModelError(f"{name}: {file.name} takes its base model from elsewhere; merge the adapter first")
            else:
                _check_paths(name, file, content)
                check_config(name, content, file.name, trust_remote_code=trust_remote_code)
        if not trust_remote_code:
            _check_modules(name, one)
            _check_own_generation(name, one)


def _refuse_special(name: str, folder: Path) -> None:
    """Refuse pipes, sockets and devices: opening one may never return."""
    try:
        files = sorted(folder.iterdir())
    except OSError:  # the loader reports that it is absent
        return
    for file in files:
        with suppress(OSError):  # a link that leads nowhere
            mode = file.stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise ModelError(f"{name}: {file.name} is a pipe, a socket or a device, not a file; {_COPY}")


def check_config(name: str, config: Any, where: str = "config.json", *, trust_remote_code: bool = False) -> None:
    """Check the content of a model's config, of a folder or of the hub.

    Raises:
        ModelError: it names code that is not part of the libraries, without ``trust_remote_code``.
    """
    if trust_remote_code:
        return
    for key, value in _entries(config):
        texts = [value] if isinstance(value, str) else list(value.values()) if isinstance(value, Mapping) else []
        for text in texts:
            if not isinstance(text, str):
                continue
            if "implementation" in key and "/" in text:
                raise ModelError(f"{name}: {where} names code on the hub, {key}: {text!r}; {_TRUST}")
            if key == "activation_function" and "." in text and not text.startswith(_OWN_ACTIVATIONS):
                raise ModelError(f"{name}: {where} names code, {key}: {text!r}; {_TRUST}")


def _entries(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > 50:
        return
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield str(key), one
            yield from _entries(one, depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _entries(one, depth + 1)


def _check_modules(name: str, folder: Path) -> None:
    for file in _MODULE_LISTS:
        content = _read(name, folder / file)
        types = [one.get("type") for one in content if isinstance(one, Mapping)] if isinstance(content, list) else []
        if isinstance(content, Mapping) and isinstance(content.get("types"), Mapping):
            types = list(content["types"].values())
        for kind in types:
            if not isinstance(kind, str) or not kind.startswith(_OWN_MODULES):
                raise ModelError(f"{name}: {file} names a module of its own code, {kind!r}; {_TRUST}")


def _check_own_generation(name: str, folder: Path) -> None:
    """Refuse a generation function in the folder: transformers 4 asks the terminal, not us, before it loads it."""
    if asks_about_own_generation() and (folder / _OWN_GENERATION).exists():
        raise ModelError(f"{name}: {_OWN_GENERATION} is code of its own, which this transformers would load; {_TRUST}")


def _module_paths(name: str, modules: Any) -> list[str]:
    if modules is None:
        return []
    if not isinstance(modules, list) or not all(isinstance(one, Mapping) for one in modules):
        raise ModelError(f"{name}: {MODULES} is not a list of modules; download it again")
    paths = [one.get("path", "") for one in modules]
    for path in paths:
        if path != "":
            _refuse_outside(name, MODULES, path)
    return paths


def _check_index(name: str, file: Path, content: Any) -> None:
    listed = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(listed, Mapping):
        raise ModelError(f"{name}: {file.name} has no weight_map; download it again")
    for shard in {_text(one): one for one in listed.values()}.values():
        _refuse_outside(name, file.name, shard)


def _check_paths(name: str, file: Path, content: Any) -> None:
    """Files that a config may name: transformers reads some of them wherever they are."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if key == "transformers_weights" or (key.endswith("_file") and isinstance(value, str) and _exists(value)):
            _refuse_outside(name, file.name, value)
        elif key == "fast_tokenizer_files" and isinstance(value, list):
            for one in value:
                _refuse_outside(name, file.name, one)
        elif key in ("quantization_config", "compression_config"):
            for inner, one in _entries(value):
                if isinstance(one, str) and (one.startswith(("/", "~", "..")) or "://" in one):
                    raise ModelError(f"{name}: {file.name} leads outside the folder, {inner}: {one!r}; {_COPY}")


def _exists(path: str) -> bool:
    try:
        return Path(path).is_absolute() and Path(path).exists()
    except (OSError, ValueError):
        return False


def _refuse_outside(name: str, file: str, path: Any) -> None:
    text = _text(path)
    if (
        not isinstance(path, str)
        or not text
        or PurePosixPath(text).is_absolute()
        or PureWindowsPath(text).drive
        or "\\" in text
        or "\0" in text
    ):
        outside = True
    else:
        outside = ".." in PurePosixPath(text).parts
    if outside:
        raise ModelError(f"{name}: {file} leads outside the folder, to {text!r}; {_COPY}")


def _leads_away(adapter: Any) -> bool:
    return isinstance(adapter, Mapping) and bool(adapter.get("base_model_name_or_path"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)[:80]


def _read(name: str, file: Path) -> Any:
    """The content of a JSON file; None if it is absent."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = shortened(str(error).split("\n", 1)[0], 150)
        raise ModelError(f"{name}: {file.name} cannot be read ({reason}); download it again") from error


__all__ = ["ADAPTER", "check_config", "check_model_folder", "local_folder"]
