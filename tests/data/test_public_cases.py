"""The public cases of dropped columns and ignored flags, with a trained tokenizer and the values that are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Status, TokenizedSample

SHARED = Path(__file__).parents[2].parent / "shared"
CASES, MODEL = SHARED / "cases", SHARED / "models" / "tiny-instruct"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (CASES.is_dir() and MODEL.is_dir()), reason=f"no cases or no model at {SHARED}"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


def rows(tokenizer: Any, name: str, **settings: Any) -> list[TokenizedSample]:
    masker = Masker(tokenizer, MaskSettings(**settings), vocab_size=len(tokenizer))
    return masker.tokenize_many(list(open_corpus([str(CASES / name)]).records()))


def test_context_and_input_give_the_same_tokens(tokenizer: Any) -> None:
    context, input, nothing = rows(tokenizer, "context/dolly.jsonl")
    assert context.input_ids == input.input_ids and context.tokens == 47 and nothing.tokens == 23
    assert context.unused == ("category",)


def test_system_context_and_answers_of_questions_are_used_or_listed(tokenizer: Any) -> None:
    found = rows(tokenizer, "context/sql.jsonl")
    assert {row.status for row in found} == {Status.SCORED}
    tokens = [row.tokens for row in found]
    for more, less in ((0, 1), (3, 4), (5, 6)):
        assert tokens[more] > tokens[less] and found[more].scored_tokens == found[less].scored_tokens
    assert [row.unused for row in found] == [(), (), ("solution",), (), (), (), (), ()]
    assert tokens[7] == tokens[3]


def test_every_column_of_question_and_response_is_used_or_listed(tokenizer: Any) -> None:
    found = rows(tokenizer, "context/query_response.jsonl", preference="chosen")
    assert len({row.input_ids for row in found[:3]}) == 3
    assert found[3].input_ids == found[0].input_ids
    assert found[6].tokens > found[5].tokens
    listed = {7: ("rejected",), 8: ("answer", "generations"), 9: ("response",), 10: ("text",)}
    assert [row.unused for row in found] == [listed.get(at, ()) for at in range(11)]
    refused = rows(tokenizer, "context/query_response.jsonl")[7]
    assert refused.status == Status.UNKNOWN_FORMAT and "--preference" in refused.detail


def test_functions_stand_in_the_prompt_as_tools_do(tokenizer: Any) -> None:
    functions, nothing, tools = rows(tokenizer, "context/functions.jsonl")
    assert functions.input_ids == tools.input_ids and functions.tokens > nothing.tokens


def test_a_turn_that_is_left_out_is_not_scored(tokenizer: Any) -> None:
    found = rows(tokenizer, "turn_excluded/keys.jsonl")
    assert [(row.scored_tokens, row.excluded, row.unused) for row in found] == [(4, 1, ("id",))] * 5
