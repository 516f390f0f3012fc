"""Stock-like templates of model families: the turns that are scored are those that the family's page describes."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from family_cases import CALL, CALLS, CONVERSATIONS, FAMILIES, Family, family_tokenizer, needs
from tiny_chat import scored_runs

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record, Status

# The date that stands in for today's in templates that write it.
PINNED = '"2024-07-26"'


@cache
def masker_of(name: str, markers: str) -> Masker:
    tokenizer = family_tokenizer(name, markers == "special")
    return Masker(tokenizer, MaskSettings(template="tokenizer"), vocab_size=len(tokenizer))


def expected_turns(family: Family, data: dict[str, Any]) -> list[tuple[str, ...] | None]:
    """The texts of each assistant turn that are right; None for reasoning that is lost."""
    lost = needs(data) - family.says
    recast = bool(lost & {CALL, CALLS})
    messages = data["messages"]
    return [
        family.turn(message, at + 1 == len(messages), recast=recast)
        for at, message in enumerate(messages)
        if message["role"] == "assistant"
    ]


def template_ids(family: Family, data: dict[str, Any], tokenizer: Any) -> list[int]:
    """What transformers makes of the record's own messages."""
    template = family.template.replace('strftime_now("%Y-%m-%d")', PINNED)
    text = tokenizer.apply_chat_template(
        data["messages"], tools=data.get("tools"), chat_template=template, tokenize=False
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("markers", ["special", "plain"])
@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_familys_turns_and_closings_are_scored(family: Family, kind: str, markers: str) -> None:
    data, tokenizer = CONVERSATIONS[kind], family_tokenizer(family.name, markers == "special")
    row = masker_of(family.name, markers).tokenize(Record(row=0, file="-", place="case", data=data))
    if family.is_strict and kind == "a greeting first":
        assert row.status is Status.TEMPLATE_FAILED
        return
    turns = expected_turns(family, data)
    if turns[-1] is None:
        assert row.status is Status.REASONING_DROPPED, row.detail
        return
    assert row.status is Status.SCORED, row.detail
    found = [text.strip() for text in scored_runs(row, tokenizer)]
    if row.scored[1] and tokenizer.decode(row.input_ids).startswith(str((turns[0] or ("",))[0])):
        found[0] = tokenizer.decode(row.input_ids[:1]) + found[0]  # no position predicts the text's first token
    assert len(found) == len(turns), found
    assert all(text in (turn or ()) for text, turn in zip(found, turns, strict=True)), (found, turns)
    if not needs(data) - family.says:
        assert list(row.input_ids) == template_ids(family, data, tokenizer)


EXPRESSED = [
    pytest.param(family, kind, id=f"{family.name}-{kind}")
    for family in FAMILIES
    for kind, data in CONVERSATIONS.items()
    if not needs(data) - family.says and not (family.is_strict and kind == "a greeting first")
]


@pytest.mark.parametrize(("family", "kind"), EXPRESSED)
def test_the_familys_template_writes_the_turns_that_are_expected(family: Family, kind: str) -> None:
    data, tokenizer = CONVERSATIONS[kind], family_tokenizer(family.name, True)
    place, text = 0, tokenizer.decode(template_ids(family, data, tokenizer))
    for turn in expected_turns(family, data):
        if turn is not None:  # reasoning that is lost
            place = min(text.find(one, place) % (len(text) + 1) for one in turn) + len(turn[0])
            assert place < len(text) + 1, (turn, text)
