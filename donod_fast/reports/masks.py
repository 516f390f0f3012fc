"""The tokens of a finished run for a page, from what is on this machine; no server is asked, and no code is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from donod_fast.errors import DonodError
from donod_fast.scores.recorded_options import recorded_options
from donod_fast.system.escaping import one_line
from donod_fast.system.silence import offline

if TYPE_CHECKING:
    from donod_fast.data.masking import Masker
    from donod_fast.scores.folder import ScoresFolder


def masker_of(folder: ScoresFolder) -> tuple[Masker | None, str]:
    """The masker that made the scores, or None and the reason: its tokenizer is not here, or is another one now."""
    manifest = folder.manifest
    options = recorded_options(manifest) or {}
    needed = ("template", "train_on", "max_length", "vocab_size")
    masks: Mapping[str, Any] = manifest.get("masks") or {}
    if any(key not in masks for key in needed):
        return None, "the scores do not record how rows are masked"
    name = options.get("model") or manifest["model"].get("name")
    if not name:
        return None, "the scores do not record the model's name"
    if options.get("trust_remote_code"):
        return None, "the tokenizer needs code of its own (--trust-remote-code), which a report does not run"
    from donod_fast.scoring.recorded_masks import recorded_masker

    try:
        with offline():
            return recorded_masker(folder, options), ""
    except DonodError as error:
        return None, f"the tokenizer of the run cannot be used here: {one_line(str(error))}"


__all__ = ["masker_of"]
