"""A check of a host's model before its weights are loaded, and what tells its scores from those of another."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from donod_fast._version import __version__
from donod_fast.models.settings import ModelSettings

_DECISIVE = ("torch", "transformers")


def model_identity(model: ModelSettings) -> str:
    """A text that differs whenever scores of the same rows may differ: the bytes of the model, and the releases.

    Hosts keep results under a hash of an operator's settings. The name of a folder is not enough: other weights may
    have been written to it.

    Raises:
        ModelError: there is no such model, or its config or tokenizer cannot be loaded.
        InputError: a revision is given for a local folder.
    """
    from donod_fast.models.fingerprint import folder_fingerprint, hub_fingerprint

    folder, revision = check_model(model)
    made_by = [f"donod-fast {__version__}", *(f"{name} {_version(name)}" for name in _DECISIVE)]
    if folder is None:
        source = hub_fingerprint(model.model, revision or model.revision or "main")
    else:
        source = folder_fingerprint(folder)
    return "; ".join([source, *made_by])


def model_mark(model: str) -> str:
    """What tells the bytes of a model's folder from others; empty for a hub id. Nothing is loaded.

    A host that finds earlier results by the settings of its steps sees the same path when the model in it has changed.

    Raises:
        ModelError: a file cannot be read.
    """
    from donod_fast.models.fingerprint import folder_fingerprint

    folder = Path(model)
    return folder_fingerprint(folder) if folder.is_dir() else ""


def check_model(model: ModelSettings) -> tuple[Path | None, str | None]:
    """Load config and tokenizer of a model, and see that a folder has weights.

    Returns:
        Its folder, or None for a hub id; and its commit on the hub.

    Raises:
        ModelError, InputError: as :func:`model_identity`.
    """
    from donod_fast.models.folder_guard import local_folder
    from donod_fast.models.loading import load_tokenizer

    folder = local_folder(model.model, trust_remote_code=model.trust_remote_code)
    return folder, load_tokenizer(model).revision


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


__all__ = ["check_model", "model_identity", "model_mark"]
