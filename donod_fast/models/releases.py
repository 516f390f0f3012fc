"""Releases of transformers that would give wrong scores, refused by name before any score is computed.

The supported range is wide, and what a release does not read it ignores in silence. Where the difference can be
measured it is measured (``rope.py``, ``packing.py``, ``last_layer.py``); this module has the rest.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from donod_fast.errors import InputError, ModelError

LOWEST = "4.56.2"
"""The lowest release of transformers, as in pyproject.toml."""

_READS_TEMPLATE_FILES = (4, 47)
_READS_ROPE_PARAMETERS = (5,)
_PROBES = ("Hello, world! 123", " two  spaces\n\tand a tab", "Größe, 東京, 🙂", "")


def release(text: str) -> tuple[int, ...]:
    """The numbers of a version, so that versions compare: ``(4, 56, 2)`` of "4.56.2", ``(5, 0, 0)`` of "5.0.0rc1"."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def installed_transformers() -> str:
    """Version of the installed transformers; the package itself is not imported."""
    return version("transformers")


def refuse_old_transformers() -> None:
    """Refuse a release below :data:`LOWEST`, which pip lets pass with ``--no-deps``.

    Raises:
        InputError: names the release and the reason.
    """
    try:
        found = installed_transformers()
    except PackageNotFoundError:  # its import says so
        return
    if release(found) >= release(LOWEST):
        return
    reason = "with it the scores were not tested"
    if release(found) < _READS_TEMPLATE_FILES:
        reason = "releases before 4.47 ignore a model's chat_template.jinja, so that scores would be wrong"
    raise InputError(
        f"transformers {found} is installed, donod_fast needs {LOWEST} or later: {reason}; "
        f"pip install 'transformers>={LOWEST}'"
    )


def asks_about_own_generation() -> bool:
    """Whether this release asks the terminal, not its caller, whether it may load a folder's own ``generate``."""
    return release(installed_transformers()) < (5,)


def attention_options(config: Any) -> dict[str, str]:
    """Options of ``from_pretrained`` for a config: eager attention where SDPA would leave out a soft-cap."""
    return {} if _softcap(config) is None else {"attn_implementation": "eager"}


def check_release(name: str, config: Any) -> None:
    """Refuse a model of which the installed transformers leaves something out in silence.

    Args:
        name: the model's name for messages.
        config: its config, as read by transformers, with the attention that the model uses.

    Raises:
        ModelError: names the model type, the release and the remedy.
    """
    _refuse_lost_cap(name, config)
    _refuse_unread_rope(name, config)


def check_tokenizer_release(name: str, tokenizer: Any) -> None:
    """Refuse a tokenizer that was written by transformers 5 and that the installed transformers 4 reads otherwise.

    The classes of transformers 4 rebuild parts of a tokenizer from settings that transformers 5 no longer writes.
    So the ids of some texts are compared with those of ``tokenizer.json`` itself.

    Raises:
        ModelError: the ids differ; names the release and the remedy.
    """
    found = installed_transformers()
    settings = getattr(tokenizer, "init_kwargs", None) or {}
    file = settings.get("tokenizer_file")
    if release(found) >= (5,) or "backend" not in settings or not file:
        return
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(file))
    raw.no_truncation()
    raw.no_padding()
    for text in _PROBES:
        for special in (True, False):
            ids = tokenizer(text, add_special_tokens=special)["input_ids"]
            if ids != raw.encode(text, add_special_tokens=special).ids:
                raise ModelError(
                    f"{name}: its tokenizer was written by transformers 5, and transformers {found} reads it as a "
                    f"{type(tokenizer).__name__} with other tokens (of {text!r}); pip install 'transformers>=5', or "
                    "take the tokenizer files of the original release"
                )


def _softcap(config: Any) -> float | None:
    return getattr(_language(config), "attn_logit_softcapping", None)


def _language(config: Any) -> Any:
    getter = getattr(config, "get_text_config", None)
    return getter() if callable(getter) else getattr(config, "text_config", config)


def _refuse_lost_cap(name: str, config: Any) -> None:
    inner = _language(config)
    if _softcap(config) is None or getattr(inner, "_attn_implementation", None) != "sdpa":
        return
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if "softcap" in inspect.signature(sdpa_attention_forward).parameters:
        return
    kind = getattr(inner, "model_type", "unknown")
    raise ModelError(
        f"{name}: model type {kind!r} has a soft-cap of attention (attn_logit_softcapping), which transformers "
        f"{installed_transformers()} leaves out under attn_implementation='sdpa', so that its scores would be wrong; "
        "load the model with attn_implementation='eager'"
    )


def _refuse_unread_rope(name: str, config: Any) -> None:
    """A config.json of transformers 5 keeps what RoPE needs in ``rope_parameters``, which transformers 4 ignores."""
    found = installed_transformers()
    if release(found) >= _READS_ROPE_PARAMETERS:
        return
    for part in {id(one): one for one in (config, _language(config))}.values():
        written = getattr(part, "rope_parameters", None)
        if not isinstance(written, Mapping):
            continue
        read = {"rope_type": "default", **(getattr(part, "rope_scaling", None) or {})}
        read["rope_theta"] = getattr(part, "rope_theta", None)
        read["partial_rotary_factor"] = getattr(part, "partial_rotary_factor", None) or 1.0
        lost = sorted(key for key, value in written.items() if value is not None and read.get(key) != value)
        if lost:
            kind = getattr(part, "model_type", "unknown")
            raise ModelError(
                f"{name}: the config of this model of type {kind!r} was written by transformers 5, and transformers "
                f"{found} does not read its rope_parameters ({', '.join(lost)}), so that its scores would be wrong; "
                "pip install 'transformers>=5', or write rope_theta and rope_scaling into config.json"
            )


__all__ = [
    "LOWEST",
    "asks_about_own_generation",
    "attention_options",
    "check_release",
    "check_tokenizer_release",
    "installed_transformers",
    "refuse_old_transformers",
    "release",
]
