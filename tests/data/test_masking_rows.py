"""Text, token ids, the length limit and settings; no row is lost, and none depends on its batch."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_chat import (
    MARKED,
    STRICT,
    THINKING,
    TURNS,
    UNMARKED,
    WITH_TOOLS,
    chat,
    masker,
    record,
    row_of,
    scored_runs,
    tiny_tokenizer,
    tokenize_sample,
    tokenizer_with,
)

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import (
    PlainText,
    PromptCompletion,
    Record,
    Status,
    TokenRow,
)
from donod_fast.errors import InputError

# --- text, prompt and completion, ids


def test_only_the_completion_and_its_end_token_are_scored() -> None:
    row = row_of(PromptCompletion("How many apples", " are left"))
    assert (row.status, row.mask) == (Status.SCORED, "prefix")
    assert scored_runs(row, tiny_tokenizer()) == [" are left</s>"]


def test_an_end_token_that_the_text_brings_is_not_doubled() -> None:
    for sample in (PromptCompletion("How many", " apples</s>"), PlainText("How many apples</s>")):
        assert tiny_tokenizer().decode(row_of(sample).input_ids) == "How many apples</s>"


def test_with_an_empty_prompt_everything_after_the_first_token_is_scored() -> None:
    row = row_of(PromptCompletion("", "How many apples"))
    assert row.status is Status.SCORED
    assert row.scored == (False,) + (True,) * (row.tokens - 1)


def test_a_prompt_that_ends_in_a_space_is_refused_with_the_remedy() -> None:
    row = row_of(PromptCompletion("How many ", "apples"))
    assert row.status is Status.PROMPT_NOT_PREFIX
    assert "white space" in row.detail


def test_plain_text_is_scored_except_for_its_first_token() -> None:
    row = row_of(PlainText("How many apples are left?"))
    assert (row.status, row.mask) == (Status.SCORED, "text")
    assert row.scored == (False,) + (True,) * (row.tokens - 1)
    assert row.input_ids[-1] == tiny_tokenizer().eos_token_id


def test_bos_is_added_once_before_text_and_never_after_the_prompt() -> None:
    own = with_front_token()
    bos, eos = own.bos_token_id, own.eos_token_id
    for sample in (
        PromptCompletion("How many", " apples"),
        PlainText("How many apples"),
        PlainText("<s>How many"),
    ):
        ids = tokenize_sample(masker(tokenizer=own), sample).input_ids
        assert (ids[0], ids.count(bos), ids[-1], ids.count(eos)) == (bos, 1, eos, 1)


def with_front_token() -> Any:
    """The tiny tokenizer, putting BOS before and EOS after a text, as some do."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    own = deepcopy(tiny_tokenizer())
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", own.bos_token_id), ("</s>", own.eos_token_id)]
    )
    return own


def test_ids_with_labels_are_scored_where_the_label_is_not_ignored() -> None:
    row = row_of(TokenRow((5, 6, 7, 8), (-100, -100, 7, 8)))
    assert (row.status, row.mask, row.input_ids) == (Status.SCORED, "labels", (5, 6, 7, 8))
    assert row.scored == (False, False, True, True)


@pytest.mark.parametrize(
    ("ids", "labels", "words"),
    [
        ((5, 10_000), (5, 10_000), "10000"),
        ((5, -1), (5, -1), "-1"),
        ((5, 6, 7), (6, 7, -100), "not shifted"),
        ((5, 6), (5,), "2 input_ids"),
    ],
)
def test_ids_that_cannot_be_right_are_refused(ids: tuple[int, ...], labels: tuple[int, ...], words: str) -> None:
    row = row_of(TokenRow(ids, labels))
    assert row.status is Status.INVALID_TOKENS
    assert words in row.detail


def test_a_text_with_ids_past_the_models_output_layer_is_refused() -> None:
    tokenizer = tokenizer_with(MARKED)
    small = Masker(tokenizer, MaskSettings(), vocab_size=300)
    row = tokenize_sample(small, chat(("user", "Hi"), ("assistant", "How many apples")))
    assert row.status is Status.INVALID_TOKENS
    assert row.tokens > 0


@pytest.mark.parametrize("sample", [TokenRow((5, 6), (-100, -100)), TokenRow((5,), (5,)), TokenRow((), ())])
def test_a_row_without_a_target_is_all_masked(sample: TokenRow) -> None:
    assert row_of(sample).status is Status.ALL_MASKED


# --- the length limit


def test_a_truncated_response_is_flagged_and_its_rest_is_scored() -> None:
    whole = row_of(chat(*TURNS), MARKED)
    limit = whole.tokens - 4
    row = row_of(chat(*TURNS), MARKED, max_length=limit)
    assert (row.status, row.truncated, row.tokens) == (Status.SCORED, True, whole.tokens)
    assert (row.input_ids, row.scored) == (whole.input_ids[:limit], whole.scored[:limit])


def test_a_response_cut_away_is_too_long_and_keeps_its_full_length() -> None:
    whole = row_of(chat(*TURNS), MARKED)
    row = row_of(chat(*TURNS), MARKED, max_length=whole.scored.index(True))
    assert (row.status, row.tokens, row.input_ids) == (Status.TOO_LONG, whole.tokens, ())
    assert row_of(chat(*TURNS), MARKED, max_length=whole.scored.index(True) + 1).status is Status.SCORED


def test_a_row_as_long_as_the_limit_is_not_truncated() -> None:
    whole = row_of(chat(*TURNS), MARKED)
    assert row_of(chat(*TURNS), MARKED, max_length=whole.tokens) == whole


def test_a_row_beyond_the_tokenizers_limit_is_kept_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = tiny_tokenizer()
    own.deprecation_warnings = {}  # where transformers notes that it has warned
    logger = logging.getLogger("transformers")  # which does not propagate
    logger.addHandler(caplog.handler)
    try:
        row = row_of(PlainText("How many apples are left? " * 50))
    finally:
        logger.removeHandler(caplog.handler)
    assert row.tokens > own.model_max_length == 64
    assert "longer than" not in caplog.text


# --- nothing escapes, nothing depends on the batch


def test_a_lone_surrogate_is_a_failed_row_and_spoils_no_other() -> None:
    rows = [
        {"text": "How many"},
        {"text": "bad \ud800 text"},
        {"prompt": "a \udfff", "completion": "b"},
        {"text": "apples"},
    ]
    found = masker().tokenize_many([record(data, at) for at, data in enumerate(rows)])
    failed = Status.TOKENIZER_FAILED
    assert [row.status for row in found] == [Status.SCORED, failed, failed, Status.SCORED]
    assert "surrogate" in found[1].detail
    found[1].detail.encode()


def test_an_exhausted_memory_is_not_taken_for_a_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from donod_fast.data.tokenizing import TextEncoder

    def exhausted(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(TextEncoder, "_call", exhausted)
    with pytest.raises(MemoryError):
        row_of(PlainText("How many"))


ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "\ud800"}]},
    {"instruction": "List three colours.", "output": "Red, green, blue."},
    {"prompt": "How many ", "completion": "apples"},
    {"prompt": "How many", "completion": " apples"},
    {"text": "How many apples are left?"},
    {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]},
    {"input_ids": [5, 60_000]},
    {"nothing": "known"},
    {},
]


@pytest.mark.parametrize("own", [MARKED, UNMARKED, None])
@pytest.mark.parametrize("max_length", [None, 12])
def test_many_at_once_are_the_same_as_one_by_one(own: str | None, max_length: int | None) -> None:
    records = [record(data, at) for at, data in enumerate(ROWS * 30)]  # more than one batch of the tokenizer
    records.append(Record(len(records), "data.jsonl", "line 999", None, b"{", "broken JSON"))
    one = masker(own, max_length=max_length)
    many = one.tokenize_many(records)
    assert many[: len(ROWS)] == [one.tokenize(r) for r in records[: len(ROWS)]]
    for at, row in enumerate(many[:-1]):
        first = many[at % len(ROWS)]
        assert (row.row, row.status, row.input_ids, row.scored) == (
            at,
            first.status,
            first.input_ids,
            first.scored,
        )
    assert many[-1].status is Status.NOT_PARSABLE
    assert one.tokenize_many([]) == []


def test_format_id_and_place_come_with_every_row() -> None:
    good, bad = masker(MARKED).tokenize_many(
        [record({"id": "a7", "text": "Hi there"}), record({"id": "b8", "x": 1}, 1)]
    )
    assert (good.id, good.format, good.status) == ("a7", "text", Status.SCORED)
    assert (bad.id, bad.row, bad.status) == ("b8", 1, Status.UNKNOWN_FORMAT)
    assert bad.detail.count("data.jsonl, line 2: ") == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
columns = st.sampled_from(
    [
        "messages",
        "conversations",
        "instruction",
        "output",
        "prompt",
        "completion",
        "text",
        "input_ids",
        "labels",
        "tools",
    ]
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]) | json_values, "content": json_values},
    optional={"tool_calls": json_values, "weight": json_values},
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.dictionaries(columns, json_values | st.lists(message, max_size=4), max_size=4), max_size=4),
    own=st.sampled_from([MARKED, STRICT, THINKING, WITH_TOOLS]),
)
def test_every_record_becomes_one_row(rows: list[dict[str, Any]], own: str) -> None:
    records = [record(data, at) for at, data in enumerate(rows)]
    found = masker(own).tokenize_many(records)
    assert [row.row for row in found] == list(range(len(rows)))
    for row in found:
        if row.status is Status.SCORED:
            assert row.scored_tokens > 0
            assert not row.scored[0]
        else:
            assert row.detail.startswith("data.jsonl, line ")


# --- settings


@pytest.mark.parametrize("wrong", [{"train_on": "first"}, {"max_length": 1}, {"max_length": 0}])
def test_a_setting_without_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        masker(**wrong)


def test_the_manifest_gets_what_decides_the_mask() -> None:
    described = masker(MARKED, train_on="last", max_length=99).describe()
    assert (described["template"], described["train_on"], described["max_length"]) == (
        "tokenizer",
        "last",
        99,
    )
    assert len(described["template_sha256"]) == 64
    assert json.loads(json.dumps(described)) == described
