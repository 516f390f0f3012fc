"""Which tokens of a row are scored, and the status of a row in which none can be."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_chat import (
    MARKED,
    STRICT,
    THINKING,
    UNMARKED,
    WITH_TOOLS,
    chat,
    masker,
    scored_runs,
    tiny_tokenizer,
    tokenizer_with,
)

from donod_fast.errors import InputError
from donod_fast.masking import Masker, MaskSettings
from donod_fast.samples import (
    Conversation,
    Message,
    PlainText,
    PromptCompletion,
    Record,
    Sample,
    Status,
    TokenizedSample,
    TokenRow,
)

SHARED = Path(__file__).parents[2].parent / "shared"

TURNS = (
    ("system", "Be kind."),
    ("user", "First?"),
    ("assistant", "One."),
    ("user", "Then?"),
    ("assistant", "Two."),
)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}


def runs(own: str, conversation: Conversation, **given: Any) -> list[str]:
    """Text of each run of scored tokens; the row must have been found fit to be scored."""
    row = masker(own, **given).tokenize_sample(conversation)
    assert row.status is Status.SCORED, row.detail
    return scored_runs(row, tiny_tokenizer())


def row_of(sample: Sample, own: str | None = None, /, **given: Any) -> TokenizedSample:
    return masker(own, **given).tokenize_sample(sample)


def record(data: dict[str, Any], row: int = 0) -> Record:
    return Record(row=row, file="data.jsonl", place=f"line {row + 1}", data=data)


# --- conversations


@pytest.mark.parametrize(("own", "mask"), [(MARKED, "generation"), (UNMARKED, "prefix")])
def test_every_assistant_turn_is_scored_with_its_end_marker_and_nothing_else(own: str, mask: str) -> None:
    row = row_of(chat(*TURNS), own)
    assert (row.status, row.mask) == (Status.SCORED, mask)
    assert scored_runs(row, tiny_tokenizer()) == ["One.<|im_end|>", "Two.<|im_end|>"]
    assert row.tokens == len(row.input_ids) == len(row.scored)
    assert not row.truncated


@pytest.mark.parametrize("own", [MARKED, UNMARKED])
def test_only_the_last_turn_is_scored_where_that_is_asked(own: str) -> None:
    assert runs(own, chat(*TURNS), train_on="last") == ["Two.<|im_end|>"]


@pytest.mark.parametrize("own", [MARKED, UNMARKED])
def test_a_turn_that_the_record_excludes_is_not_scored(own: str) -> None:
    turns = (*TURNS[:2], Message("assistant", "One.", scored=False), *TURNS[3:])
    assert runs(own, chat(*turns)) == ["Two.<|im_end|>"]
    unscored = row_of(chat(*TURNS[:4], Message("assistant", "Two.", scored=False)), own, train_on="last")
    assert unscored.status is Status.ALL_MASKED


def test_both_ways_of_masking_give_the_same_tokens_and_flags() -> None:
    marked, unmarked = (row_of(chat(*TURNS), own) for own in (MARKED, UNMARKED))
    assert (marked.input_ids, marked.scored) == (unmarked.input_ids, unmarked.scored)


BODY = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WRONG_MARKS = {
    "all zero: the marks hold nothing": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% endgeneration %}{% endif %}"
        + BODY + "{% endfor %}" + PROMPT
    ),
    "all zero: the marked branch is never reached": (
        "{% for m in messages %}{% if m.role == 'model' %}{% generation %}x{% endgeneration %}{% endif %}"
        + BODY + "{% endfor %}" + PROMPT
    ),
    "all ones: one mark around everything": (
        "{% generation %}{% for m in messages %}" + BODY + "{% endfor %}{% endgeneration %}" + PROMPT
    ),
    "all ones: a mark around each turn": (
        "{% for m in messages %}{% generation %}" + BODY + "{% endgeneration %}{% endfor %}" + PROMPT
    ),
    "shifted: the user's turns are marked": (
        "{% for m in messages %}{% if m.role == 'user' %}{% generation %}" + BODY + "{% endgeneration %}"
        "{% else %}" + BODY + "{% endif %}{% endfor %}" + PROMPT
    ),
    "shifted: the marks begin one turn too early": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% else %}{% generation %}" + BODY
        + "{% if not loop.last and messages[loop.index].role == 'assistant' %}"
        + BODY.replace("m[", "messages[loop.index][")
        + "{% endif %}{% endgeneration %}{% endif %}{% endfor %}" + PROMPT
    ),
    "too short: the last words are left out": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        "{% generation %}{{ m.content[:2] }}{% endgeneration %}{{ m.content[2:] }}<|im_end|>\n"
        "{% else %}" + BODY + "{% endif %}{% endfor %}" + PROMPT
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_MARKS)
def test_wrong_marks_are_seen_through_and_the_prompt_method_takes_over(name: str) -> None:
    row = row_of(chat(*TURNS[1:]), WRONG_MARKS[name])
    assert (row.status, row.mask) == (Status.SCORED, "prefix"), row.detail
    assert scored_runs(row, tiny_tokenizer()) == ["One.<|im_end|>", "Two.<|im_end|>"]


def test_a_mark_that_begins_within_a_token_is_not_trusted() -> None:
    own = MARKED.replace(
        "{% generation %}{{ m['content'] }}", "{{ m['content'][:2] }}{% generation %}{{ m['content'][2:] }}"
    )
    own = own.replace("{% if m['role']", "{% set whole = m['content'] %}{% if m['role']")
    row = row_of(chat(("user", "Hi"), ("assistant", "apples")), own)
    assert row.mask == "prefix"
    assert scored_runs(row, tiny_tokenizer()) == ["apples<|im_end|>"]


def test_thinking_that_is_dropped_from_earlier_turns_is_scored_only_where_it_stands() -> None:
    conversation = chat(
        ("user", "First?"),
        ("assistant", "<think>\nOne or two?\n</think>\n\nOne."),
        ("user", "Then?"),
        ("assistant", "<think>\nTwo, then.\n</think>\n\nTwo."),
    )
    assert runs(THINKING, conversation) == [
        "One.<|im_end|>",
        "<think>\nTwo, then.\n</think>\n\nTwo.<|im_end|>",
    ]


def test_an_answer_is_told_from_the_same_words_in_the_thinking_before_it() -> None:
    conversation = chat(
        ("user", "a"), ("assistant", "<think>b or c</think>b"), ("user", "c"), ("assistant", "d")
    )
    assert runs(THINKING, conversation)[0] == "b<|im_end|>"


def test_the_empty_thinking_block_that_a_template_gives_the_last_turn_is_scored_with_it() -> None:
    assert runs(THINKING, chat(*TURNS[1:])) == ["One.<|im_end|>", "<think>\n\n</think>\n\nTwo.<|im_end|>"]


def test_a_call_is_scored_in_the_templates_own_writing_and_the_tools_answer_is_not() -> None:
    turns = (("user", "Hi"), Message("assistant", "", (CALL,)), ("tool", "sunny"), ("assistant", "Sun."))
    body = '{"name": "weather", "arguments": {"city": "Paris"}}'
    assert runs(WITH_TOOLS, chat(*turns)) == [body + "<|im_end|>", "Sun.<|im_end|>"]
    assert runs(THINKING, chat(*turns))[0] == f"<call>{body}</call><|im_end|>"
    assert runs(UNMARKED, chat(*turns)) == [body + "<|im_end|>", "Sun.<|im_end|>"]


def test_tools_are_in_the_prompt_and_not_scored() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": {}}}
    for own in (WITH_TOOLS, UNMARKED, MARKED, STRICT):
        row = row_of(chat(("user", "Hi"), ("assistant", "Yo"), tools=(tool,)), own)
        assert "Weather" in tiny_tokenizer().decode(row.input_ids)
        assert scored_runs(row, tiny_tokenizer()) == ["Yo<|im_end|>"]


def test_a_template_without_system_role_keeps_the_system_text_in_the_prompt() -> None:
    row = row_of(chat(*TURNS), STRICT)
    assert "Be kind.\n\nFirst?" in tiny_tokenizer().decode(row.input_ids)
    assert scored_runs(row, tiny_tokenizer()) == ["One.<|im_end|>", "Two.<|im_end|>"]


def test_the_header_of_a_turn_is_prompt_even_where_the_template_has_no_generation_prompt() -> None:
    without = UNMARKED.split("{% if add_generation_prompt")[0]
    assert runs(without, chat(("user", "Hi"), ("assistant", "Yo"))) == ["Yo<|im_end|>"]


def test_white_space_after_the_end_marker_is_not_scored() -> None:
    inside = MARKED.replace("<|im_end|>{% endgeneration %}", "<|im_end|>\n \n{% endgeneration %}")
    for own in (inside, UNMARKED.replace("<|im_end|>\n", "<|im_end|>\n\n\n")):
        assert runs(own, chat(*TURNS)) == ["One.<|im_end|>", "Two.<|im_end|>"]


@pytest.mark.parametrize("name", ["alpaca", "chatml", "llama2", "vicuna", "plain"])
def test_each_built_in_template_scores_the_turns_and_their_end(name: str) -> None:
    row = row_of(chat(*TURNS), template=name)
    end = "<|im_end|>" if name == "chatml" else "</s>"
    assert row.mask == "generation"
    assert [run.replace(" ", "") for run in scored_runs(row, tiny_tokenizer())] == [
        "One." + end,
        "Two." + end,
    ]


def test_a_prompt_that_the_template_writes_otherwise_in_the_whole_is_refused_with_a_remedy() -> None:
    counts = "{{ messages | length }} turns\n" + UNMARKED
    row = row_of(chat(*TURNS), counts)
    assert row.status is Status.PROMPT_NOT_PREFIX
    assert row.detail.startswith("-, sample: ")
    assert "'2 turns" in row.detail
    assert "'5 turns" in row.detail
    assert "last turn only" in row.detail


def test_a_prompt_whose_last_token_joins_the_response_is_refused_with_both_spellings() -> None:
    joined = (
        "{% for m in messages %}{{ 'User: ' if m.role == 'user' else ' ' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} {% endif %}"
    )
    row = row_of(chat(("user", "How many"), ("assistant", "apples")), joined)
    assert row.status is Status.PROMPT_NOT_PREFIX
    assert "Ġ" in row.detail
    assert "white space" in row.detail


def test_a_template_that_fails_gives_its_own_message_and_the_place_of_the_row() -> None:
    row = masker(STRICT).tokenize(record({"messages": [{"role": "assistant", "content": "Hi"}]}, row=16))
    assert (row.row, row.status, row.tokens, row.input_ids) == (16, Status.TEMPLATE_FAILED, 0, ())
    assert row.detail.startswith("data.jsonl, line 17: ")
    assert "must alternate" in row.detail


def test_a_template_that_leaves_the_response_out_is_no_row_to_score() -> None:
    deaf = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    row = row_of(chat(("user", "Hi"), ("assistant", "Yo")), deaf)
    assert row.status is Status.TEMPLATE_FAILED
    assert "leaves out" in row.detail


def test_a_template_that_writes_no_prompt_does_not_pass_as_all_scored() -> None:
    mute = "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}"
    row = row_of(chat(("user", "Hi"), ("assistant", "Yo, how are you?")), mute)
    assert row.status is Status.ALL_SCORED


def test_a_conversation_without_an_assistant_is_all_masked() -> None:
    assert row_of(chat(("user", "Hi")), MARKED).status is Status.ALL_MASKED


# --- text, prompt and completion, ids


def test_a_prompt_and_its_completion_are_scored_from_the_completion_to_the_end_token() -> None:
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


def test_plain_text_is_scored_but_for_its_first_token() -> None:
    row = row_of(PlainText("How many apples are left?"))
    assert (row.status, row.mask) == (Status.SCORED, "text")
    assert row.scored == (False,) + (True,) * (row.tokens - 1)
    assert row.input_ids[-1] == tiny_tokenizer().eos_token_id


def test_the_tokenizers_own_front_token_stands_before_text_once_and_none_after_the_prompt() -> None:
    own = with_front_token()
    bos, eos = own.bos_token_id, own.eos_token_id
    for sample in (
        PromptCompletion("How many", " apples"),
        PlainText("How many apples"),
        PlainText("<s>How many"),
    ):
        ids = masker(tokenizer=own).tokenize_sample(sample).input_ids
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
def test_ids_that_cannot_be_right_are_refused(
    ids: tuple[int, ...], labels: tuple[int, ...], words: str
) -> None:
    row = row_of(TokenRow(ids, labels))
    assert row.status is Status.INVALID_TOKENS
    assert words in row.detail


def test_a_text_with_ids_past_the_models_output_layer_is_refused() -> None:
    tokenizer = tokenizer_with(MARKED)
    small = Masker(tokenizer, MaskSettings(), vocab_size=300)
    row = small.tokenize_sample(chat(("user", "Hi"), ("assistant", "How many apples")))
    assert row.status is Status.INVALID_TOKENS
    assert row.tokens > 0


@pytest.mark.parametrize("sample", [TokenRow((5, 6), (-100, -100)), TokenRow((5,), (5,)), TokenRow((), ())])
def test_a_row_without_a_target_is_all_masked_and_never_scored_zero(sample: TokenRow) -> None:
    assert row_of(sample).status is Status.ALL_MASKED


# --- the length limit


def test_a_response_cut_by_the_limit_is_flagged_and_the_rest_of_it_scored() -> None:
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


def test_a_row_past_the_tokenizers_own_limit_is_kept_whole_without_a_warning(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        row = row_of(PlainText("How many apples are left? " * 50))
    assert row.tokens > tiny_tokenizer().model_max_length == 64
    assert "longer than" not in caplog.text + "".join(capfd.readouterr())


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
    from donod_fast.encoding import TextEncoder

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


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda text: text.strip() and "<|im" not in text and "think>" not in text
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    turns=st.lists(st.tuples(words, words), min_size=1, max_size=4),
    system=st.none() | words,
    own=st.sampled_from([MARKED, UNMARKED, STRICT, THINKING]),
)
def test_scored_tokens_hold_every_assistant_content_and_no_more(
    turns: list[tuple[str, str]], system: str | None, own: str
) -> None:
    head = [] if system is None else [("system", system)]
    conversation = chat(
        *head, *(t for user, answer in turns for t in (("user", user), ("assistant", answer)))
    )
    row = row_of(conversation, own)
    if row.status is Status.PROMPT_NOT_PREFIX:  # an answer that begins with white space can join its prompt
        assert any(answer[0].isspace() for _, answer in turns)
        return
    assert row.status is Status.SCORED, row.detail
    found = scored_runs(row, tiny_tokenizer())
    assert len(found) == len(turns)
    for text, (_, answer) in zip(found, turns, strict=True):
        bare = text.removeprefix("<think>\n\n</think>\n\n")
        assert bare.strip().removesuffix("<|im_end|>").strip() == answer.strip()


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
    rows=st.lists(
        st.dictionaries(columns, json_values | st.lists(message, max_size=4), max_size=4), max_size=4
    ),
    own=st.sampled_from([MARKED, STRICT, THINKING, WITH_TOOLS]),
)
def test_whatever_a_record_holds_it_becomes_one_row(rows: list[dict[str, Any]], own: str) -> None:
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


# --- real tokenizers


@pytest.fixture(scope="module")
def tiny_instruct() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SHARED / "models" / "tiny-instruct")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared here")
def test_on_real_rows_the_prompt_method_gives_the_mask_of_the_models_own_marks(
    tiny_instruct: Any, tmp_path: Path
) -> None:
    unmarked = tmp_path / "unmarked.jinja"
    text = tiny_instruct.chat_template.replace("{% generation %}", "{% if true %}")
    unmarked.write_text(text.replace("{% endgeneration %}", "{% endif %}"), encoding="utf-8")
    lines = (SHARED / "data/gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    records = [record(json.loads(line), at) for at, line in enumerate(lines)]
    marked = Masker(tiny_instruct, MaskSettings(), vocab_size=4096).tokenize_many(records)
    found = Masker(tiny_instruct, MaskSettings(template=str(unmarked)), vocab_size=4096).tokenize_many(
        records
    )
    assert {row.mask for row in marked} == {"generation"}
    assert {row.mask for row in found} == {"prefix"}
    assert [(r.input_ids, r.scored) for r in marked] == [(r.input_ids, r.scored) for r in found]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared here")
def test_on_real_rows_the_mask_is_that_of_transformers(tiny_instruct: Any) -> None:
    lines = (SHARED / "data/gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    for line in lines:
        data = json.loads(line)
        row = Masker(tiny_instruct, MaskSettings(), vocab_size=4096).tokenize(record(data))
        theirs = tiny_instruct.apply_chat_template(
            [{"role": "user", "content": data["question"]}, {"role": "assistant", "content": data["answer"]}],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert list(row.input_ids) == theirs["input_ids"]
        assert [int(flag) for flag in row.scored] == theirs["assistant_masks"]


@pytest.fixture(scope="module")
def llama2() -> Any:
    """The Llama 2 vocabulary through transformers' slow SentencePiece tokenizer: no offsets."""
    pytest.importorskip("sentencepiece")
    slow = pytest.importorskip("transformers.tokenization_utils_sentencepiece")
    path = SHARED / "tokenizers/tokenizer_llama2/tokenizer.model"
    return slow.SentencePieceBackend(
        vocab_file=str(path), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared here")
@pytest.mark.parametrize("name", ["llama2", "alpaca", "vicuna", "plain"])
def test_a_slow_tokenizer_without_offsets_is_masked_through_its_prompts(llama2: Any, name: str) -> None:
    assert not llama2.is_fast
    row = masker(tokenizer=llama2, template=name).tokenize_sample(chat(*TURNS))
    assert (row.status, row.mask) == (Status.SCORED, "prefix"), row.detail
    assert row.input_ids[0] == llama2.bos_token_id
    assert [run.replace(" ", "") for run in scored_runs(row, llama2)] == ["One.</s>", "Two.</s>"]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared here")
def test_a_space_that_sentencepiece_joins_to_the_response_is_refused(llama2: Any) -> None:
    joined = masker(tokenizer=llama2).tokenize_sample(PromptCompletion("Question: ", "apples"))
    assert joined.status is Status.PROMPT_NOT_PREFIX
    assert "▁" in joined.detail
    apart = masker(tokenizer=llama2).tokenize_sample(PromptCompletion("Question:", " apples"))
    assert scored_runs(apart, llama2)[0].strip() == "apples</s>"


@pytest.fixture(scope="module")
def llama2_fast() -> Any:
    """The same vocabulary as a fast tokenizer with BOS; the merges follow from the pieces' order."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers import LlamaTokenizer

    path = SHARED / "tokenizers/tokenizer_llama2/tokenizer.model"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocab = {pieces.id_to_piece(at): at for at in range(pieces.get_piece_size())}
    splits = [(at, piece[:cut], piece[cut:]) for piece, at in vocab.items() for cut in range(1, len(piece))]
    merges = sorted(
        (split for split in splits if split[1] in vocab and split[2] in vocab), key=lambda m: m[0]
    )
    return LlamaTokenizer(
        vocab=vocab,
        merges=[(left, right) for _, left, right in merges],
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        add_bos_token=True,
    )


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared here")
def test_sentencepiece_with_offsets_gets_bos_once_and_the_marked_mask(llama2_fast: Any) -> None:
    for name in ("llama2", "alpaca", "vicuna", "plain"):
        row = masker(tokenizer=llama2_fast, template=name).tokenize_sample(chat(*TURNS[1:3]))
        assert (row.status, row.mask) == (Status.SCORED, "generation"), row.detail
        assert (row.input_ids[0], row.input_ids.count(1)) == (llama2_fast.bos_token_id, 1)
        assert scored_runs(row, llama2_fast)[0].replace(" ", "") == "One.</s>"
    text = masker(tokenizer=llama2_fast).tokenize_sample(PromptCompletion("Question:", " apples"))
    assert llama2_fast.convert_ids_to_tokens(text.input_ids)[:3] == ["<s>", "▁Question", ":"]
    assert scored_runs(text, llama2_fast) == ["apples</s>"]
