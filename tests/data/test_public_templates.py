"""The public cases of templates that were masked wrongly: what is scored, with and without the trained tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_chat import scored_runs, tokenizer_with

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Record, Status, TokenizedSample

SHARED = Path(__file__).parents[2].parent / "shared"
CASES, MODEL = SHARED / "cases", SHARED / "models" / "tiny-instruct"

LOOP = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TRAILER = LOOP + "{% if add_generation_prompt %}<|assistant|>{% else %}<|pad|>{% endif %}"
MARKED_TRAILER = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "<|assistant|>{% else %}{% generation %}<|pad|>{% endgeneration %}{% endif %}"
)
REASONING = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
    "{% endif %}{{ m.content }}<|end|>{% endfor %}" + PROMPT
)
NAMED = (
    "{% for m in messages %}{% if m.role == 'tool' %}<|user|>{{ m.name + ' said ' + m.content }}<|end|>{% else %}"
    "<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} "
    "{{ c.function.arguments | tojson }}{% endfor %}<|end|>{% endif %}{% endfor %}" + PROMPT
)
WITH_ID = (
    "{% for m in messages %}{% if m.role == 'tool' %}<|user|>RESULT {{ m.tool_call_id }} {{ m.content }}<|end|>"
    "{% else %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}{% if not c.id %}"
    "{{ raise_exception('a call needs an id') }}{% endif %}CALL {{ c.id }} {{ c.function.name }} "
    "{{ c.function.arguments | tojson }}{% endfor %}<|end|>{% endif %}{% endfor %}" + PROMPT
)
LAST_USER = (
    "{% for m in messages %}{% if m.role == 'system' %}{% elif m.role == 'user' %}<|user|>{% if loop.last and "
    "messages[0].role == 'system' %}{{ messages[0].content }} {% endif %}{{ m.content }}<|end|>{% else %}"
    "<|assistant|>{{ m.content }}<|end|>{% endif %}{% endfor %}" + PROMPT
)
CUTTING = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}<|end|>{% endfor %}" + PROMPT
READS_FIRST = "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}" + LOOP + PROMPT

ONE = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is four."}]
TWO = [*ONE, {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "It is six."}]
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "get", "arguments": {"city": "Oslo"}}}
TOOLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefgh1", "name": "get", "content": "3 degrees"},
    {"role": "assistant", "content": "It is 3."},
]
THOUGHT = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}


def row_of(template: str, messages: list[dict[str, Any]]) -> TokenizedSample:
    tokenizer = tokenizer_with(template)
    record = Record(0, "a.jsonl", "line 1", {"messages": messages})
    return Masker(tokenizer, MaskSettings(), vocab_size=len(tokenizer)).tokenize(record)


@pytest.mark.parametrize(
    ("template", "messages", "turns"),
    [
        (TRAILER, ONE, ["It is four.<|end|>"]),
        (TRAILER, TWO, ["It is four.<|end|>", "It is six.<|end|>"]),
        (LOOP + "<|assistant|>", TWO, ["It is four.<|end|>", "It is six.<|end|>"]),
        (MARKED_TRAILER, TWO, ["It is four.<|end|>", "It is six.<|end|>"]),
        (LOOP + PROMPT.replace("{% endif", "<think>{% endif"), ONE, ["It is four.<|end|>"]),
        (
            READS_FIRST,
            [{"role": "assistant", "content": "Hello."}, *ONE],
            ["Hello.<|end|>", "It is four.<|end|>"],
        ),
        (NAMED, TOOLS, ['CALL get {"city": "Oslo"}<|end|>', "It is 3.<|end|>"]),
        (WITH_ID, TOOLS, ['CALL abcdefgh1 get {"city": "Oslo"}<|end|>', "It is 3.<|end|>"]),
        (
            REASONING,
            [ONE[0], {"role": "assistant", "reasoning_content": "Two and two.", "content": "Four."}],
            ["<think>Two and two.</think>Four.<|end|>"],
        ),
    ],
)  # fmt: skip
def test_a_turn_and_its_closing_are_scored(template: str, messages: list[dict[str, Any]], turns: list[str]) -> None:
    row, tokenizer = row_of(template, messages), tokenizer_with(template)
    assert row.status is Status.SCORED, row.detail
    assert scored_runs(row, tokenizer) == turns
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert list(row.input_ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row.recasts == () and row.detail == ""


def test_a_system_text_that_only_a_last_question_shows_is_moved() -> None:
    row = row_of(LAST_USER, [{"role": "system", "content": "Be brief."}, *ONE])
    assert (row.status, row.recasts) == (Status.SCORED, ("system message moved into the user's message",))
    assert row.detail == "recast: system message moved into the user's message"
    assert "Be brief." in tokenizer_with(LAST_USER).decode(row.input_ids)


def test_a_reply_whose_reasoning_is_cut_has_its_own_status() -> None:
    row = row_of(CUTTING, [ONE[0], THOUGHT])
    assert row.status is Status.REASONING_DROPPED
    assert row.detail.startswith("a.jsonl, line 1: ") and "reasoning of the last reply" in row.detail
    earlier = row_of(CUTTING, [ONE[0], THOUGHT, *ONE])
    assert scored_runs(earlier, tokenizer_with(CUTTING)) == ["\n\nFour.<|end|>", "It is four.<|end|>"]


def test_a_template_that_refuses_reasoning_gives_the_same_status() -> None:
    refusing = "{% for m in messages %}{% if m.reasoning_content %}{{ raise_exception('no reasoning') }}{% endif %}"
    messages = [ONE[0], {"role": "assistant", "reasoning_content": "Two.", "content": "Four."}]
    assert row_of(refusing + "{% endfor %}" + LOOP + PROMPT, messages).status is Status.REASONING_DROPPED


def test_a_row_without_scored_reasoning_is_not_refused_for_it() -> None:
    row = row_of(CUTTING, [*ONE, ONE[0], {**THOUGHT, "weight": 0}])
    assert row.status is Status.SCORED, row.detail
    assert scored_runs(row, tokenizer_with(CUTTING)) == ["It is four.<|end|>"]


@pytest.mark.shared
@pytest.mark.skipif(not (CASES.is_dir() and MODEL.is_dir()), reason=f"no cases or no model at {SHARED}")
@pytest.mark.parametrize(
    ("template", "data", "values"),
    [
        ("turn_end/trailer", "turn_end/one_turn", [(15, 5)]),
        ("turn_end/trailer", "turn_end/two_turns", [(28, 10)]),
        ("turn_end/header_always", "turn_end/one_turn", [(15, 5)]),
        ("turn_end/header_always", "turn_end/two_turns", [(28, 10)]),
        ("turn_end/marked_trailer", "turn_end/one_turn", [(15, 5)]),
        ("turn_end/marked_trailer", "turn_end/two_turns", [(28, 10)]),
        ("message_keys/reasoning", "message_keys/reasoning", [(28, 19), (14, 5), (32, 23)]),
        ("message_keys/tool_name", "message_keys/tools", [(46, 25)]),
        ("message_keys/call_id", "message_keys/tools", [(58, 31)]),
        ("think_prompt/opens", "think_prompt/one_turn", [(14, 5)]),
        ("first_assistant/first", "first_assistant/greeting", [(20, 12)]),
        ("system_last_user/last", "system_last_user/one", [(18, 4)]),
    ],
)
def test_the_public_cases_have_the_right_numbers_of_tokens(
    template: str, data: str, values: list[tuple[int, int]]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    masker = Masker(tokenizer, MaskSettings(template=str(CASES / f"{template}.jinja")), vocab_size=len(tokenizer))
    rows = masker.tokenize_many(list(open_corpus([str(CASES / f"{data}.jsonl")]).records()))
    assert [(row.tokens, row.scored_tokens) for row in rows] == values
    if template == "system_last_user/last":
        return
    lines = (CASES / f"{data}.jsonl").read_text(encoding="utf-8").splitlines()
    source = (CASES / f"{template}.jinja").read_text(encoding="utf-8")
    for row, line in zip(rows, lines, strict=True):
        text = tokenizer.apply_chat_template(json.loads(line)["messages"], chat_template=source, tokenize=False)
        assert list(row.input_ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
