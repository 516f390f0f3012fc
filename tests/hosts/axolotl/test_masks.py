"""``--like axolotl`` gives the rows of Axolotl's own prompt strategy, on every chat template that it ships."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mask_hosts import CALL, CONVERSATIONS, Row, as_row, pin_date, row_like, said, tokenizer_for
from tiny_chat import MARKED, STRICT, THINKING, UNMARKED, WITH_TOOLS
from tiny_tokenizers import tokenizer_of_kind

pytest.importorskip("axolotl", reason="Axolotl is not installed: `make test-hosts` builds its environment")

from axolotl.prompt_strategies.chat_template import load
from axolotl.utils.chat_templates.base import _CHAT_TEMPLATES
from axolotl.utils.dict import DictDefault

TEMPLATES: Mapping[str, str] = {
    **_CHAT_TEMPLATES,
    "ours: marked": MARKED,
    "ours: bare": UNMARKED,
    "ours: thinking": THINKING,
    "ours: strict": STRICT,
    "ours: tools": WITH_TOOLS,
}


def strategy_row(tokenizer: Any, record: Mapping[str, Any], **options: Any) -> Row | str:
    """Ids and labels of Axolotl's strategy with its defaults; the reason where it fails."""
    config = DictDefault({"sequence_len": 4096, "train_on_inputs": False, "chat_template": "tokenizer_default"})
    data = {"type": "chat_template", "chat_template": "tokenizer_default", **options}
    try:
        strategy = load(copy.deepcopy(tokenizer), config, ds_cfg=data)
        row = strategy.tokenize_prompt(copy.deepcopy(dict(record)))
    except Exception as error:  # of the template, or of the strategy
        return f"{type(error).__name__}: {error}"
    return as_row(row["input_ids"], row["labels"])


def assert_alike(tokenizer: Any, record: Mapping[str, Any], **options: Any) -> str:
    """Equal rows, or a row that is refused; says which."""
    ours, theirs = row_like(tokenizer, record, "axolotl", max_length=4096), strategy_row(tokenizer, record, **options)
    if isinstance(ours, str):
        return "refused" if not isinstance(theirs, str) else "both refuse"
    assert ours == theirs
    return "equal"


@cache
def outcomes(name: str) -> dict[str, str]:
    """How each kind of conversation compares by one template."""
    tokenizer = tokenizer_for(TEMPLATES[name])
    with pytest.MonkeyPatch.context() as patch:
        pin_date(patch)
        return {kind: assert_alike(tokenizer, {"messages": turns}) for kind, turns in CONVERSATIONS.items()}


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_like_axolotl_gives_the_rows_of_its_strategy(name: str) -> None:
    found = outcomes(name)
    assert found["one pair"] == found["two pairs"] == "equal", found


@pytest.mark.parametrize("kind", ["byte-level", "no words", "unigram"])
def test_tokenizers_of_all_kinds_give_equal_rows(kind: str) -> None:
    for template in (MARKED, UNMARKED, STRICT):
        tokenizer = tokenizer_for(template, tokenizer_of_kind(kind))
        counts = Counter(assert_alike(tokenizer, {"messages": turns}) for turns in CONVERSATIONS.values())
        assert counts["equal"] >= 4


def test_arguments_and_tools_as_json_text_are_read() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": "Paris"})}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    for one in (call, CALL):
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [one]}]
        template = WITH_TOOLS.replace("for m in", "for message in").replace("m['", "message['")
        assert assert_alike(tokenizer_for(template), {"messages": turns, "tools": [tool]}) == "equal"


def test_flags_of_the_record_are_those_that_the_dataset_names() -> None:
    turns = said("One?", "1", "Two?", "2")
    turns[1]["train"] = False
    tokenizer = tokenizer_for(UNMARKED)
    assert assert_alike(tokenizer, {"messages": turns}, message_field_training="train") == "equal"


def test_keys_that_axolotl_leaves_out_are_refused() -> None:
    """Its analysis of a template knows the messages by the name of one variable."""
    record = {"messages": CONVERSATIONS["call"]}
    named = {
        name: WITH_TOOLS.replace("for m in", f"for {name} in").replace("m['", f"{name}['") for name in ("m", "message")
    }
    assert assert_alike(tokenizer_for(named["message"]), record) == "equal"
    assert "may leave out tool_calls" in str(row_like(tokenizer_for(named["m"]), record, "axolotl"))


def test_the_record_of_what_was_compared_is_current() -> None:
    """``compared.csv`` has a line for each template: kinds of conversations that are equal, and refused."""
    lines = ["template,equal,refused by ours,refused by both"]
    for name in sorted(TEMPLATES):
        counts = Counter(outcomes(name).values())
        lines.append(f"{name},{counts['equal']},{counts['refused']},{counts['both refuse']}")
    file = Path(__file__).with_name("compared.csv")
    assert file.read_text(encoding="utf-8").splitlines() == lines, "\n".join(lines)
