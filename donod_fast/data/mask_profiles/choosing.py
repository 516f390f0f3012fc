"""Make the mask profile that a setting names, and the template that it renders with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from donod_fast.data.mask_profiles import axolotl, llama_factory, trl
from donod_fast.data.mask_profiles.base import MaskProfile
from donod_fast.data.rendering import Renderer
from donod_fast.data.templates import ResolvedTemplate
from donod_fast.data.tokenizing import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def profile_template(
    like: str | None, tokenizer: PreTrainedTokenizerBase, template: ResolvedTemplate
) -> ResolvedTemplate:
    """The template that a trainer renders with instead of this one.

    Raises:
        InputError, ModelError: see :func:`donod_fast.data.mask_profiles.trl.training_template`.
    """
    return trl.training_template(tokenizer, template) if like == trl.ASSISTANT else template


def make_profile(like: str, renderer: Renderer, encoder: TextEncoder, limit: int | None, *, last: bool) -> MaskProfile:
    """The mask profile of this name.

    Args:
        like: one of ``PROFILES``.
        renderer: writes the template of :func:`profile_template`.
        encoder: the tokenizer.
        limit: tokens of a row, None for no limit.
        last: score the last reply alone.

    Raises:
        InputError: the tokenizer is of a kind that the profile does not cover.
    """
    if like == axolotl.NAME:
        return axolotl.AxolotlMasks(renderer, encoder)
    if like == llama_factory.NAME:
        return llama_factory.LlamaFactoryMasks(renderer, encoder, limit, last=last)
    return trl.TrlMasks(like, renderer, encoder)


__all__ = ["make_profile", "profile_template"]
