"""Very long texts: only their beginning is tokenised, and the rows are those of the whole text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_chat import MARKED, SENTENCES, THINKING, UNMARKED, record
from tiny_tokenizers import KINDS, shared_tokenizer, tokenizer_of_kind

from donod_fast.data import bounded
from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.tokenizing import Encoded, TextEncoder
from donod_fast.data.types import Status, TokenizedSample

LIMIT = 16
MANY = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))

PIECES = st.one_of(
    st.sampled_from(
        [*SENTENCES, "a", "aaaa", "1", "1234567", " ", "\n", "\t\t", "</s>", "<|im_end|>", "é", "😀", "語", "="]
    ),
    st.text(max_size=12).filter(lambda text: not any("\ud800" <= one <= "\udfff" for one in text)),
)
TEXTS = st.lists(st.tuples(PIECES, st.integers(1, 1500)), min_size=1, max_size=5).map(
    lambda pairs: "".join(piece * count for piece, count in pairs)[:12_000]
)


@contextmanager
def small_bounds() -> Iterator[None]:
    """Texts of more than 1,500 characters are very long, so that the tests are quick."""
    with patch.multiple(bounded, BOUND_CHARACTERS=1500, _FIRST_CHARACTERS=400):
        yield


def encoders(kind: str) -> tuple[TextEncoder, TextEncoder]:
    """A bounded encoder, and one that tokenises everything."""
    with small_bounds():
        return TextEncoder(tokenizer_of_kind(kind), LIMIT), TextEncoder(tokenizer_of_kind(kind))


def encoded(encoder: TextEncoder, text: str) -> Encoded:
    with small_bounds():
        found = encoder.encode([text])[text]
    assert isinstance(found, Encoded)
    return found


@pytest.mark.parametrize("kind", KINDS)
@MANY
@given(text=TEXTS)
def test_the_first_tokens_are_those_of_the_whole_text(kind: str, text: str) -> None:
    some, all_ = (encoded(encoder, text) for encoder in encoders(kind))
    if some.is_cut:
        assert len(text) > 1500 and len(some.ids) > LIMIT
        assert some.ids == all_.ids[: len(some.ids)]
        assert [some.bounds(at) for at in range(LIMIT)] == [all_.bounds(at) for at in range(LIMIT)]
        assert some.begins_with(all_.ids) and not some.begins_with([-1])
    else:
        assert some.ids == all_.ids


@pytest.mark.parametrize(
    ("kind", "text", "cut"),
    [
        ("byte-level", SENTENCES[0] * 500, True),
        ("no words", "ab " * 5000, True),
        ("unigram", SENTENCES[1] * 500, True),
        ("slow", "a b c " * 3000, True),
        ("digits from the right", "7" * 20_000, False),  # every cut moves the groups: no beginning is proved
        ("digits from the right", "7 " * 10_000, True),
    ],
)
def test_a_beginning_is_used_only_if_it_is_proved(kind: str, text: str, cut: bool) -> None:
    assert encoded(encoders(kind)[0], text).is_cut is cut


def masked(kind: str, template: str | None, data: dict[str, Any], **given: Any) -> tuple[TokenizedSample, ...]:
    """The row with bounds, and without."""
    from copy import deepcopy

    tokenizer = tokenizer_of_kind(kind)
    if template is not None:
        tokenizer = deepcopy(tokenizer)
        tokenizer.chat_template = template
    rows = []
    for longest in (1500, 10**9):
        with small_bounds(), patch.object(bounded, "BOUND_CHARACTERS", longest):
            settings_ = MaskSettings(max_length=LIMIT, **given)
            rows.append(Masker(tokenizer, settings_, vocab_size=1 << 17).tokenize(record(data)))
    return tuple(rows)


SHAPES = st.one_of(
    st.tuples(TEXTS, TEXTS).map(lambda two: {"question": two[0], "answer": two[1] or "x"}),
    st.tuples(st.just("Hi"), TEXTS).map(lambda two: {"prompt": two[0], "completion": two[1]}),
    st.tuples(TEXTS, st.just("yes")).map(lambda two: {"prompt": two[0], "completion": two[1]}),
    TEXTS.map(lambda text: {"text": text}),
    st.lists(TEXTS, min_size=2, max_size=6).map(
        lambda texts: {
            "messages": [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
        }
    ),
)


@pytest.mark.parametrize("kind", ["byte-level", "no words", "slow"])
@pytest.mark.parametrize(
    "template", [MARKED, UNMARKED, THINKING, None], ids=["marked", "unmarked", "thinking", "built-in"]
)
@settings(MANY, max_examples=8)
@given(data=SHAPES, train_on=st.sampled_from(["all", "last"]))
def test_rows_are_those_of_the_whole_text(kind: str, template: str | None, data: dict[str, Any], train_on: str) -> None:
    some, all_ = masked(kind, template, data, train_on=train_on)
    is_cut = "at least" in some.detail
    if is_cut and some.status is Status.TOO_LONG:
        # What lies beyond the limit is not read, so that other faults there are not found.
        assert all_.status in (Status.TOO_LONG, Status.PROMPT_NOT_PREFIX)
        return
    if is_cut and all_.status is Status.PROMPT_NOT_PREFIX:
        return  # a fault beyond the limit, in a later turn
    if some.status is Status.SCORED and is_cut:
        assert LIMIT < some.tokens <= all_.tokens and some.detail.endswith(
            f"at least {some.tokens} tokens: the text was tokenised only as far as the length limit needs"
        )
    else:
        assert (some.tokens, some.detail) == (all_.tokens, all_.detail)
    assert (some.status, some.input_ids, some.scored, some.truncated, some.mask) == (
        all_.status, all_.input_ids, all_.scored, all_.truncated, all_.mask
    )  # fmt: skip


@pytest.mark.parametrize("template", [MARKED, UNMARKED])
def test_a_prompt_beyond_the_limit_is_too_long_at_once(template: str) -> None:
    row, _ = masked("byte-level", template, {"question": "lorem ipsum " * 2000, "answer": "yes"})
    assert row.status is Status.TOO_LONG and row.tokens > LIMIT
    assert f"no token to score within the first {LIMIT} of at least {row.tokens} tokens" in row.detail


def test_a_long_answer_before_an_unscored_turn_is_scored() -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    turns = [
        {"role": "assistant", "content": "lorem ipsum " * 2000},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "No.", "weight": 0},
    ]
    some, all_ = masked("byte-level", template, {"messages": turns})
    assert some.status is all_.status
    assert some.scored == all_.scored


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.characters = tokenizer, 0

    def __call__(self, texts: Any, **given: Any) -> Any:
        self.characters += len(texts) if isinstance(texts, str) else sum(map(len, texts))
        return self.tokenizer(texts, **given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize("template", ["alpaca", "chatml"])
@pytest.mark.parametrize(
    "data",
    [
        {"question": "lorem ipsum " * 1_000_000, "answer": "yes"},
        {"question": "Hi", "answer": "lorem ipsum " * 1_000_000},
        {"prompt": "lorem ipsum " * 1_000_000, "completion": "yes"},
        {"text": "lorem ipsum " * 1_000_000},
    ],
    ids=["question", "answer", "prompt", "text"],
)
def test_twelve_megabytes_cost_a_few_ten_thousand_characters(template: str, data: dict[str, Any]) -> None:
    tokenizer = Counting(tokenizer_of_kind("byte-level"))
    row = Masker(tokenizer, MaskSettings(template=template, max_length=64), vocab_size=1000).tokenize(record(data))  # type: ignore[arg-type]
    assert row.status in (Status.TOO_LONG, Status.SCORED) and "at least" in row.detail
    assert tokenizer.characters < 200_000


def test_many_long_rows_are_not_tokenised_in_one_call() -> None:
    tokenizer = Counting(tokenizer_of_kind("byte-level"))
    largest = 0

    class Watching(Counting):
        def __call__(self, texts: Any, **given: Any) -> Any:
            nonlocal largest
            largest = max(largest, len(texts) if isinstance(texts, str) else sum(map(len, texts)))
            return self.tokenizer("x" if isinstance(texts, str) else ["x"] * len(texts), **given)

    masker = Masker(Watching(tokenizer.tokenizer), MaskSettings(), vocab_size=1000)  # type: ignore[arg-type]
    rows = [record({"text": f"{row} " * 150_000}, row) for row in range(20)]
    assert [sample.row for sample in masker.tokenize_many(rows)] == list(range(20))
    assert largest < 3_000_000


@pytest.mark.shared
@pytest.mark.parametrize("name", ["tokenizer_gpt2", "tokenizer_llama2"])
@settings(MANY, max_examples=15)
@given(text=TEXTS)
def test_real_tokenizers_begin_equally(name: str, text: str) -> None:
    tokenizer = shared_tokenizer(name)
    with small_bounds():
        some = TextEncoder(tokenizer, LIMIT).encode([text])[text]
        all_ = TextEncoder(tokenizer).encode([text])[text]
    assert isinstance(some, Encoded) and isinstance(all_, Encoded)
    assert some.ids == (all_.ids[: len(some.ids)] if some.is_cut else all_.ids)
