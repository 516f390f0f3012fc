"""The masker of a finished run: tokenizer, template and settings as its manifest records them, and compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.read_rules import ReadRules
from donod_fast.errors import SettingsMismatchError
from donod_fast.models.loading import load_tokenizer
from donod_fast.models.settings import ModelSource
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import tokenizer_digest
from donod_fast.system.options import options_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_READ = ("format", "columns", "dataset_info", "dataset", "mapping")
"""Settings that the manifest holds resolved: the files that named them may have changed since."""


def recorded_masker(folder: ScoresFolder, options: Mapping[str, Any]) -> Masker:
    """A masker that gives the rows of a folder the tokens and labels that were scored.

    Only the tokenizer is loaded, not the weights.

    Args:
        folder: the scores.
        options: the options of its run by name, with paths that are valid here; empty if it records none.

    Raises:
        ModelError: the tokenizer cannot be loaded.
        SettingsMismatchError: tokenizer, template or settings are not those of the run; names each difference.
    """
    recorded: Mapping[str, Any] = folder.manifest["masks"]
    model: Mapping[str, Any] = folder.manifest["model"]
    rules = ReadRules.from_json(recorded)
    source = ModelSource(
        str(options.get("model") or model["name"]),
        revision=options.get("revision") or model.get("revision"),
        trust_remote_code=bool(options.get("trust_remote_code", False)),
    )
    named = {one.name for one in options_of(MaskSettings) if one.name not in _READ}
    given = {name: value for name, value in options.items() if name in named and value is not None}
    settings = replace(
        MaskSettings(**{"template": recorded["template"], "train_on": recorded["train_on"], **given}),
        format=rules.format if rules.columns is None else "auto",
        mapping=rules.columns,
        preference=rules.preference,
        text_only=rules.text_only,
        max_length=recorded["max_length"],
        like=recorded.get("like"),
    )
    tokenizer = load_tokenizer(source).tokenizer
    masker = Masker(tokenizer, settings, vocab_size=int(recorded["vocab_size"]))
    unlike = mask_differences(folder, masker, tokenizer)
    if unlike:
        raise SettingsMismatchError(
            f"{folder.name} was scored with other tokens than {source.model} gives now:\n  "
            + "\n  ".join(unlike)
            + "\nRestore the model's files, or score again into another folder."
        )
    return masker


def mask_differences(folder: ScoresFolder, masker: Masker, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A line for each setting of tokens and masks in which a masker differs from the run of a folder."""
    recorded: Mapping[str, Any] = folder.manifest["masks"]
    found = {**masker.describe(), "tokenizer_sha256": tokenizer_digest(tokenizer)}
    return [
        f"masks.{name}: {recorded.get(name)!r} when it was scored, {found.get(name)!r} now"
        for name in sorted((found.keys() & recorded.keys()) | {"like"})
        if found.get(name) != recorded.get(name)
    ]


__all__ = ["mask_differences", "recorded_masker"]
