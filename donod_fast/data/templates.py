"""Chat templates: the built-in ones, and the lookup of a template by name.

A template is a Jinja text that renders messages as the text a model reads. The built-in ones put
``{% generation %}`` marks around the assistant's text, begin with the tokenizer's BOS token if
it has one, and end each assistant turn with its EOS token (``chatml`` with ``<|im_end|>``).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from donod_fast.errors import InputError, ModelError, suggest
from donod_fast.system.files import read_regular

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_warned: set[str] = set()

FALLBACK = "alpaca"
"""The built-in template that ``"auto"`` uses if the tokenizer has none."""

_OF_THE_TOKENIZER = ("auto", "tokenizer")
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")

_BOS = "{{ bos_token or '' }}"
_EOS = "{{ eos_token or '' }}"

_ALPACA = (
    _BOS
    + """\
{% if not messages or messages[0]['role'] != 'system' %}
{{ 'Below is an instruction that describes a task. \
Write a response that appropriately completes the request.\\n\\n' }}
{%- endif %}
{% for m in messages %}
{% if m['role'] == 'system' %}
{{- m['content'] + '\\n\\n' }}
{%- elif m['role'] == 'user' %}
{{- '### Instruction:\\n' + m['content'] + '\\n\\n' }}
{%- elif m['role'] == 'assistant' %}
{{- '### Response:\\n' }}{% generation %}{{ m['content'] }}"""
    + _EOS
    + """{% endgeneration %}
{% if not loop.last or add_generation_prompt %}{{ '\\n\\n' }}{% endif %}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"""
)

_CHATML = (
    _BOS
    + """\
{% for m in messages %}
{{- '<|im_start|>' + m['role'] + '\\n' }}
{%- if m['role'] == 'assistant' -%}
{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
)

# A system text is kept in ``box`` for the user turn whose brackets it shares; before an assistant turn
# (or the end) it gets its own brackets, so that it is never lost.
_LLAMA2 = (
    "{% if not messages %}"
    + _BOS
    + """{% endif %}
{% set box = namespace(system='') %}
{% for m in messages %}
{% if m['role'] == 'system' %}
{% set box.system = box.system + '<<SYS>>\\n' + m['content'] + '\\n<</SYS>>\\n\\n' %}
{% elif m['role'] == 'user' %}
"""
    + _BOS
    + """{{ '[INST] ' + box.system + m['content'].strip() + ' [/INST]' }}
{%- set box.system = '' %}
{% elif m['role'] == 'assistant' %}
{% if box.system %}"""
    + _BOS
    + """{{ '[INST] ' + box.system + '[/INST]' }}{% set box.system = '' %}
{% elif loop.first %}"""
    + _BOS
    + """{% endif %}
{% generation %}{{ ' ' + m['content'].strip() + ' ' }}"""
    + _EOS
    + """{% endgeneration %}
{% endif %}
{% endfor %}
{% if box.system %}"""
    + _BOS
    + """{{ '[INST] ' + box.system + '[/INST]' }}{% endif %}"""
)

_VICUNA = (
    _BOS
    + """\
{% if not messages or messages[0]['role'] != 'system' %}
{{- 'A chat between a curious user and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the user\\'s questions. ' }}
{%- endif %}
{% for m in messages %}
{% if m['role'] == 'system' %}
{{- m['content'] + ' ' }}
{%- elif m['role'] == 'user' %}
{{- 'USER: ' + m['content'] + ' ' }}
{%- elif m['role'] == 'assistant' %}
{{- 'ASSISTANT:' }}{% generation %}{{ ' ' + m['content'] }}"""
    + _EOS
    + """{% endgeneration %}
{% if not eos_token and (not loop.last or add_generation_prompt) %}{{ ' ' }}{% endif %}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""
)

_PLAIN = (
    _BOS
    + """\
{% for m in messages %}
{% if m['role'] == 'system' %}
{{- 'System: ' + m['content'] + '\\n\\n' }}
{%- elif m['role'] == 'user' %}
{{- 'User: ' + m['content'] + '\\n\\n' }}
{%- elif m['role'] == 'assistant' %}
{{- 'Assistant:' }}{% generation %}{{ ' ' + m['content'] }}"""
    + _EOS
    + """{% endgeneration %}
{% if not loop.last or add_generation_prompt %}{{ '\\n\\n' }}{% endif %}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""
)

BUILTIN_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {"alpaca": _ALPACA, "chatml": _CHATML, "llama2": _LLAMA2, "vicuna": _VICUNA, "plain": _PLAIN}
)
"""The built-in templates by name."""


@dataclass(frozen=True, slots=True)
class ResolvedTemplate:
    """The template that a name refers to.

    Attributes:
        name: ``"tokenizer"``, the name of a built-in template, or the path of a file.
        source_text: the Jinja text.
        sha256: hex digest of the text (UTF-8), for the manifest.
    """

    name: str
    source_text: str
    sha256: str

    @property
    def has_marks(self) -> bool:
        """Whether it marks what the assistant writes (``{% generation %}``)."""
        return _MARK.search(self.source_text) is not None


def replaced(template: ResolvedTemplate, text: str) -> ResolvedTemplate:
    """Another text under the name of a template."""
    return _resolved(template.name, text)


def resolve_template(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> ResolvedTemplate:
    """Find the template that ``name`` refers to.

    Args:
        tokenizer: a transformers tokenizer; ``"auto"`` and ``"tokenizer"`` use its own template.
        name: ``"auto"`` (the tokenizer's own, else :data:`FALLBACK` with one logged warning),
            ``"tokenizer"``, a name in :data:`BUILTIN_TEMPLATES`, or the path of a ``.jinja`` file.

    Raises:
        InputError: the name is none of these, or the file cannot be read.
        ModelError: ``name`` is ``"tokenizer"`` and the tokenizer has no template (or has several and
            none of them is called ``"default"``).
    """
    if name in _OF_THE_TOKENIZER:
        own = _own_template(tokenizer)
        if own is not None:
            return _resolved("tokenizer", own)
        if name == "tokenizer":
            raise ModelError(
                "the tokenizer has no chat template; choose a built-in one "
                f"({', '.join(BUILTIN_TEMPLATES)}) or give the path of a .jinja file"
            )
        _warn_once(str(getattr(tokenizer, "name_or_path", "")))
        name = FALLBACK
    return _named(name)


def check_template(name: str) -> None:
    """Refuse a template that does not exist, before a tokenizer is loaded.

    Args:
        name: as in :func:`resolve_template`.

    Raises:
        InputError: the name is unknown, or the file cannot be read.
    """
    if name not in _OF_THE_TOKENIZER:
        _named(name)


def _named(name: str) -> ResolvedTemplate:
    """A built-in template, or one from a file."""
    if name in BUILTIN_TEMPLATES:
        return _resolved(name, BUILTIN_TEMPLATES[name])
    path = Path(name)
    if path.suffix in (".jinja", ".jinja2", ".j2"):
        try:
            text = read_regular(path).decode("utf-8")
            return _resolved(name, text.replace("\r\n", "\n").replace("\r", "\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the chat template {name!r} cannot be read: {error}") from error
    known = (*_OF_THE_TOKENIZER, *BUILTIN_TEMPLATES)
    raise InputError(
        f"unknown chat template {name!r}; known are {', '.join(known)}, or the path of a .jinja file"
        f"{suggest(name, known)}"
    )


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ModelError(f"the tokenizer's chat template cannot be used: {error}") from error


def _resolved(name: str, text: str) -> ResolvedTemplate:
    return ResolvedTemplate(name, text, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def _warn_once(tokenizer_name: str) -> None:
    if tokenizer_name in _warned:
        return
    _warned.add(tokenizer_name)
    _log.warning(
        "the tokenizer %s has no chat template: conversations are written in the built-in %r template; "
        "name another one if the model was trained with it",
        tokenizer_name or "(unnamed)",
        FALLBACK,
    )
