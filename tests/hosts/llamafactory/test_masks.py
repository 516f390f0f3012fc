"""``--like llama-factory`` gives the rows of LLaMA-Factory's own processor, on every template that it ships.

The chat template is the one that LLaMA-Factory makes of its template, so that both render alike, except for what it
adds besides: thinking tags of reasoning templates, and the end tokens of templates with ``efficient_eos``.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mask_hosts import PLAIN, Row, as_row, row_like, tokenizer_for
from tiny_chat import THINKING
from tiny_tokenizers import tokenizer_of_kind

pytest.importorskip("llamafactory", reason="LLaMA-Factory is not installed: `make test-hosts` builds its environment")

from llamafactory.data.mm_plugin import get_mm_plugin
from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
from llamafactory.data.template import TEMPLATES, ReasoningTemplate

KINDS = {name: turns for name, turns in PLAIN.items() if name != "white space"}


def prepared(name: str, base: Any = None) -> tuple[Any, Any] | None:
    """A tokenizer and LLaMA-Factory's template for it; None if it cannot be written as a chat template."""
    template, tokenizer = copy.deepcopy(TEMPLATES[name]), copy.deepcopy(base or tokenizer_of_kind("byte-level"))
    template.mm_plugin = get_mm_plugin("base")
    template.fix_special_tokens(tokenizer)
    end = tokenizer.eos_token
    try:
        chat_template = template._get_jinja_template(tokenizer)
    except ValueError:
        return None
    tokenizer = tokenizer_for(chat_template, tokenizer)
    tokenizer.eos_token = end
    return tokenizer, template


def processor_row(
    tokenizer: Any, template: Any, turns: Sequence[dict[str, Any]], *, limit: int = 2048, last: bool = False
) -> Row:
    """Ids and labels of LLaMA-Factory's processor."""
    options = SimpleNamespace(cutoff_len=limit, mask_history=last, train_on_prompt=False)
    processor = SupervisedDatasetProcessor(template=template, tokenizer=tokenizer, processor=None, data_args=options)
    system = turns[0]["content"] if turns[0]["role"] == "system" else ""
    pairs = [dict(turn) for turn in turns if turn["role"] != "system"]
    return as_row(*processor._encode_data_example(pairs[:-1], pairs[-1:], system, "", [], [], []))


@cache
def renders_alike(name: str, kind: str) -> bool:
    """Whether the chat template writes a kind of conversation as LLaMA-Factory does, seen with lossless tokens."""
    found = prepared(name)
    assert found is not None
    tokenizer, template = found
    rendered = tokenizer.apply_chat_template(list(KINDS[kind]), tokenize=False)
    return bool(tokenizer.decode(processor_row(tokenizer, template, KINDS[kind])[0]) == rendered)


def compared(name: str, kind: str, base: Any = None, **options: Any) -> str:
    """Equal rows, a row that is refused, or a template that renders another text; says which."""
    found = prepared(name, base)
    if found is None:
        return "no chat template"
    if not renders_alike(name, kind):
        assert found[1].efficient_eos or isinstance(found[1], ReasoningTemplate)
        return "another text"
    return outcome(*found, KINDS[kind], **options)


def outcome(tokenizer: Any, template: Any, turns: Sequence[dict[str, Any]], **options: Any) -> str:
    """Equal rows, or a row that is refused; says which."""
    theirs = processor_row(tokenizer, template, turns, **options)
    settings = {"max_length": options.get("limit", 2048), "train_on": "last" if options.get("last") else "all"}
    ours = row_like(tokenizer, {"messages": list(turns)}, "llama-factory", **settings)
    if isinstance(ours, str):
        assert not ours.startswith("too_long") or not any(label >= 0 for label in theirs[1])
        return "refused"
    assert ours == theirs
    return "equal"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("byte-level", {"last": True}),
        ("byte-level", {"limit": 12}),
        ("byte-level", {"limit": 30, "last": True}),
        ("no words", {}),
        ("unigram", {}),
        ("slow", {}),
    ],
    ids=str,
)
def test_like_llama_factory_gives_the_rows_of_its_processor(kind: str, options: dict[str, Any]) -> None:
    base = tokenizer_of_kind(kind)
    counts = Counter(compared(name, turns, base, **options) for name in sorted(TEMPLATES) for turns in KINDS)
    assert counts["equal"] >= (300 if "limit" in options else 400), counts


def test_an_empty_block_of_thinking_is_trained_on_in_a_single_pair() -> None:
    """Stock templates of reasoning models write it as LLaMA-Factory's reasoning templates do."""
    tokenizer = tokenizer_for(THINKING)
    template = copy.deepcopy(TEMPLATES["qwen3"])
    template.default_system = ""
    template.fix_special_tokens(tokenizer)
    assert outcome(tokenizer, template, PLAIN["one pair"]) == "equal"
    assert outcome(tokenizer, template, PLAIN["two pairs"]) == "refused"


def test_the_record_of_what_was_compared_is_current() -> None:
    """``compared.csv`` has a line for each template: kinds of conversations by outcome."""
    lines = ["template,equal,refused by ours,another text"]
    for name in sorted(TEMPLATES):
        counts = Counter(compared(name, kind) for kind in KINDS)
        lines.append(f"{name},{counts['equal']},{counts['refused']},{counts['another text']}")
    file = Path(__file__).with_name("compared.csv")
    assert file.read_text(encoding="utf-8").splitlines() == lines, "\n".join(lines)
