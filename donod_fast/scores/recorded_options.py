"""The options of the run that made a scores folder, with paths that are valid here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from donod_fast.data.settings import STDIN
from donod_fast.scores.manifest import OPTIONS, TOKEN_LOSSES, WORKING_FOLDER

_FILES = ("data", "reference", "model", "template", "dataset_info")
"""Options that may name local files."""


def recorded_options(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The options that a manifest records; automatic settings are replaced by the values that the run used.

    Returns:
        The options by name, None if the manifest records none (release 0.1.0 wrote it, or ``donod-fast merge``).
    """
    recorded = manifest.get(OPTIONS)
    if not isinstance(recorded, dict):
        return None
    model = manifest.get("model")
    settled = {
        "part_rows": manifest.get("part_rows"),
        "token_budget": manifest.get("token_budget"),
        "revision": model.get("revision") if isinstance(model, dict) else None,
        TOKEN_LOSSES: manifest.get(TOKEN_LOSSES),
    }
    recorded = _located(recorded)
    return {**recorded, **{key: value for key, value in settled.items() if recorded.get(key) is None}}


def _located(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded options without their working folder; in another folder, its local files get absolute paths."""
    import glob

    from donod_fast.data.templates import BUILTIN_TEMPLATES
    from donod_fast.system.storage import is_url

    options = {name: value for name, value in recorded.items() if name != WORKING_FOLDER}
    folder = recorded.get(WORKING_FOLDER)
    if not isinstance(folder, str) or folder == str(Path.cwd()):
        return options

    def located(value: Any) -> Any:
        if isinstance(value, list):
            return [located(one) for one in value]
        if not isinstance(value, str) or value in (STDIN, *BUILTIN_TEMPLATES) or is_url(value):
            return value
        path = Path(folder, value)
        return str(path) if path.exists() or glob.glob(str(path), recursive=True) else value  # noqa: PTH207

    return {name: located(value) if name in _FILES else value for name, value in options.items()}


__all__ = ["recorded_options"]
