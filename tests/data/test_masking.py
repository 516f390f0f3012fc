"""Which tokens of a conversation are scored, and the status if none can be."""

from __future__ import annotations

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
)

from donod_fast.data.rendering import Renderer
from donod_fast.data.types import (
    Conversation,
    Message,
    Status,
)

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}


def runs(own: str, conversation: Conversation, **given: Any) -> list[str]:
    """Text of each run of scored tokens; the row must have been found fit to be scored."""
    row = tokenize_sample(masker(own, **given), conversation)
    assert row.status is Status.SCORED, row.detail
    return scored_runs(row, tiny_tokenizer())


# --- conversations


@pytest.mark.parametrize(("own", "mask"), [(MARKED, "generation"), (UNMARKED, "prefix")])
def test_only_assistant_turns_and_their_end_markers_are_scored(own: str, mask: str) -> None:
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
def test_wrong_generation_marks_are_replaced_by_the_prompt_method(name: str) -> None:
    row = row_of(chat(*TURNS[1:]), WRONG_MARKS[name])
    assert (row.status, row.mask) == (Status.SCORED, "prefix"), row.detail
    assert scored_runs(row, tiny_tokenizer()) == ["One.<|im_end|>", "Two.<|im_end|>"]


def test_a_mark_that_begins_within_a_token_is_not_trusted() -> None:
    joined = MARKED.replace("{% generation %}", " app{% generation %}").replace("assistant\n", "assistant\n app")
    row = row_of(chat(("user", "Hi"), ("assistant", "les are left")), joined)  # " apples" is one token
    assert row.status is Status.PROMPT_NOT_PREFIX
    assert "Ġapples" in row.detail


def test_thinking_is_scored_only_in_turns_where_the_template_keeps_it() -> None:
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


def test_an_answer_is_distinguished_from_equal_words_in_its_thinking() -> None:
    conversation = chat(("user", "a"), ("assistant", "<think>b or c</think>b"), ("user", "c"), ("assistant", "d"))
    assert runs(THINKING, conversation)[0] == "b<|im_end|>"


@pytest.mark.parametrize("own", [MARKED, UNMARKED, THINKING])
def test_many_turns_are_found_with_a_few_renderings(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    render = Renderer.render
    monkeypatch.setattr(Renderer, "render", lambda *a, **k: rendered.append(1) or render(*a, **k))
    counts = []
    for turns in (40, 80):
        rendered.clear()
        found = runs(own, chat(*[("user", "Who?"), ("assistant", "One.")] * turns))
        assert found[:-1] == ["One.<|im_end|>"] * (turns - 1) and found[-1].endswith("One.<|im_end|>")
        counts.append(len(rendered))
    assert counts[1] == counts[0] < 200


def test_an_earlier_reply_that_was_only_reasoning_has_its_closing() -> None:
    reasoned = Message("assistant", "", own={"role": "assistant", "content": "", "reasoning_content": "Hm."})
    assert runs(UNMARKED, chat(("user", "Hi"), reasoned, *TURNS[1:3])) == ["<|im_end|>", "One.<|im_end|>"]


def test_an_empty_thinking_block_of_the_last_turn_is_scored() -> None:
    assert runs(THINKING, chat(*TURNS[1:])) == ["One.<|im_end|>", "<think>\n\n</think>\n\nTwo.<|im_end|>"]


def test_a_rendered_tool_call_is_scored_and_the_tools_answer_is_not() -> None:
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


def test_the_system_text_stays_in_the_prompt_without_a_system_role() -> None:
    row = row_of(chat(*TURNS), STRICT)
    assert "Be kind.\n\nFirst?" in tiny_tokenizer().decode(row.input_ids)
    assert scored_runs(row, tiny_tokenizer()) == ["One.<|im_end|>", "Two.<|im_end|>"]


def test_the_header_of_a_turn_is_prompt_without_a_generation_prompt() -> None:
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


def test_a_prompt_that_renders_differently_is_found_in_the_full_text() -> None:
    counts = "{{ messages | length }} turns\n" + UNMARKED
    assert runs(counts, chat(*TURNS)) == ["One.<|im_end|>", "Two.<|im_end|>"]


def test_a_turn_whose_beginning_cannot_be_proved_is_refused() -> None:
    reversing = (
        "{{ messages | length }} turns\n{% for m in messages %}{{ m.content | reverse }}{{ m.content }}{% endfor %}"
    )
    row = row_of(chat(*TURNS[1:]), reversing)
    assert row.status is Status.PROMPT_NOT_PREFIX
    assert row.detail.startswith("-, sample: ")
    assert "'1 turns" in row.detail and "'4 turns" in row.detail


JOINED = (
    "{% for m in messages %}{{ 'User: ' if m.role == 'user' else ' HEAD' }}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} HEAD{% endif %}"
)


def test_a_prompt_whose_last_token_joins_the_response_is_refused() -> None:
    row = row_of(chat(("user", "How many"), ("assistant", "les are left")), JOINED.replace("HEAD", "app"))
    assert row.status is Status.PROMPT_NOT_PREFIX
    assert "Ġapples" in row.detail
    assert "white space" in row.detail


def test_white_space_that_is_one_token_with_the_first_word_is_scored() -> None:
    assert runs(JOINED.replace("HEAD", ""), chat(("user", "How many"), ("assistant", "apples"))) == [" apples"]


def test_a_failing_template_gives_its_message_and_the_rows_position() -> None:
    row = masker(STRICT).tokenize(record({"messages": [{"role": "assistant", "content": "Hi"}]}, row=16))
    assert (row.row, row.status, row.tokens, row.input_ids) == (16, Status.TEMPLATE_FAILED, 0, ())
    assert row.detail.startswith("data.jsonl, line 17: ")
    assert "must alternate" in row.detail


def test_a_template_without_the_response_gives_no_scored_row() -> None:
    deaf = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    row = row_of(chat(("user", "Hi"), ("assistant", "Yo")), deaf)
    assert row.status is Status.TEMPLATE_FAILED
    assert "leaves out" in row.detail


def test_a_template_without_the_prompt_gives_all_scored() -> None:
    mute = "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}"
    row = row_of(chat(("user", "Hi"), ("assistant", "Yo, how are you?")), mute)
    assert row.status is Status.ALL_SCORED


def test_a_conversation_without_an_assistant_is_all_masked() -> None:
    assert row_of(chat(("user", "Hi")), MARKED).status is Status.ALL_MASKED


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
    conversation = chat(*head, *(t for user, answer in turns for t in (("user", user), ("assistant", answer))))
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
