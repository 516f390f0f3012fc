"""What a manifest says about chat template and mask, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.templates import BUILTIN_TEMPLATES

_MASKS = {"generation": "the template's generation marks", "prefix": "the tokens of the prompt"}
_TURNS = {"all": "all assistant turns", "last": "the last assistant turn"}


def masks_text(manifest: Mapping[str, Any]) -> str:
    """The chat template and the mask of a run: what conversations are written with, and which tokens are scored."""
    masks = manifest["masks"]
    name = masks["template"]
    kind = (
        "the tokenizer's own"
        if name == "tokenizer"
        else name + (" (built in)" if name in BUILTIN_TEMPLATES else " (file)")
    )
    if masks.get("like") in PROFILES:
        last = f", {_TURNS['last']}" if masks["train_on"] == "last" else ""
        return f"chat template: {kind}; mask: {PROFILES[masks['like']].mask}{last}"
    turns = _TURNS.get(masks["train_on"], masks["train_on"])
    mask = _MASKS.get(manifest.get("mask", ""))  # folders of earlier releases do not record it
    return f"chat template: {kind}; mask: {turns}" + ("" if mask is None else f", found by {mask}")


def tokens_text(manifest: Mapping[str, Any]) -> list[str]:
    """For files of tokens a line on the label masks and the metadata that were used; else none."""
    entries = [entry for entry in manifest["input"].get("inputs") or () if entry.get("tokens") is not None]
    if not entries:
        return []
    masks = [entry["mask"]["name"] for entry in entries if entry.get("mask") is not None]
    documents = [entry["metadata"]["name"] for entry in entries if entry.get("metadata") is not None]
    ends = {entry["tokens"].get("document_end") for entry in entries if entry.get("metadata") is None}
    told = [f"label masks of {_of(masks, len(entries))}", f"documents by metadata of {_of(documents, len(entries))}"]
    if ends:
        told.append("by the token " + " and ".join(map(str, sorted(ends))) + f" of {len(entries) - len(documents)}")
    return [f"files of tokens: {', '.join(told)}"]


def _of(names: list[str], count: int) -> str:
    if not names:
        return f"0 of {count}"
    last = PurePosixPath(names[0]).name
    return f"{len(names)} of {count} ({last}{', …' if len(names) > 1 else ''})"


__all__ = ["masks_text", "tokens_text"]
