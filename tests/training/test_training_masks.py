"""The trainer sees the same tokens and targets as scoring."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import VOCAB, tiny_model, tiny_tokenizer
from training_cases import prepared, settings

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import IGNORE_INDEX, Record, Status
from donod_fast.training.samples import Collator, StepOrder, TrainingRows
from donod_fast.training.trainer import train_model

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "One."},
    {"role": "user", "content": "Then?"},
    {"role": "assistant", "content": "Two, and more."},
]
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "messages": ([{"messages": TURNS}, {"messages": TURNS[:3]}], {}),
    "messages, last turn": ([{"messages": TURNS}, {"messages": TURNS[:3]}], {"train_on": "last"}),
    "alpaca": ([{"instruction": "Add.", "input": "1 2", "output": "3"}, {"instruction": "Go", "output": "on"}], {}),
    "question_answer": ([{"question": "1 + 1?", "answer": "2"}, {"question": "Why?", "answer": "Because."}], {}),
    "prompt_completion": (
        [{"prompt": "def f(x):\n", "completion": "    return x"}, {"prompt": "a", "completion": "b"}],
        {},
    ),
    "text": ([{"text": "some plain text"}, {"text": "more"}], {}),
    "tokenized": ([{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}, {"input_ids": [9, 8, 7]}], {}),
    "built-in template": ([{"question": "1 + 1?", "answer": "2"}], {"template": "llama2"}),
    "truncated": ([{"question": "1?", "answer": "2 " * 30}, {"messages": TURNS}], {"max_length": 20}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_model_is_fed_the_tokens_and_targets_that_scoring_sees(case: str) -> None:
    records, masks = CASES[case]
    tokenizer, model = tiny_tokenizer(), tiny_model("llama")
    masker = Masker(tokenizer, MaskSettings(**masks), vocab_size=VOCAB)
    scored = masker.tokenize_many([Record(at, "f", f"line {at}", data) for at, data in enumerate(records)])
    assert all(sample.status is Status.SCORED for sample in scored)
    assert case != "truncated" or all(sample.truncated for sample in scored)
    fed: list[tuple[tuple[int, ...], tuple[bool, ...]]] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not module.training:
            return  # the proof of the loss at the start
        for ids, attended, labels in zip(kwargs["input_ids"], kwargs["attention_mask"], kwargs["labels"], strict=True):
            length = int(attended.sum())
            assert attended[:length].all() and (labels[length:] == IGNORE_INDEX).all()  # padded right, unscored
            given = labels[:length] != IGNORE_INDEX
            assert torch.equal(labels[:length][given], ids[:length][given])
            fed.append((tuple(ids[:length].tolist()), tuple(given.tolist())))

    model.register_forward_pre_hook(look, with_kwargs=True)
    stats = train_model(model, tokenizer, scored, settings(micro_batch=2, global_batch=2))
    assert sorted(fed) == sorted((sample.input_ids, sample.scored) for sample in scored)
    assert stats.tokens == sum(len(sample.input_ids) for sample in scored)
    assert stats.scored_tokens == sum(sample.scored_tokens for sample in scored)


def test_rows_that_cannot_be_trained_on_are_counted_by_status() -> None:
    rows = prepared([{"question": "1?", "answer": "2"}, {"a": 1}, {"question": "1?", "answer": " "}, {"b": 2}])
    assert len(rows) == 1 and rows.rows.tolist() == [0]
    assert rows.skipped == {"unknown_format": 2, "empty_response": 1}
    assert "data.jsonl, line 2" in rows.first_skipped


def of_lengths(*lengths: int) -> TrainingRows:
    return prepared([{"input_ids": [7] * length} for length in lengths])


def test_each_epoch_has_every_row_once_in_a_new_seeded_order() -> None:
    rows = of_lengths(*range(2, 25))
    order = StepOrder(rows, seed=3, global_batch=4, share=4)
    first, second = list(order), list(order)
    for epoch in (first, second):
        assert len(epoch) == len(order) == 24 and sorted(epoch) == list(range(24))  # 23 rows and one of padding
    assert first != second
    again = StepOrder(rows, seed=3, global_batch=4, share=4, epoch=1)
    assert list(again) == second
    assert list(StepOrder(rows, seed=4, global_batch=4, share=4)) != first


def test_the_rows_of_a_step_do_not_depend_on_the_number_of_processes() -> None:
    rows = of_lengths(*range(2, 25))
    one, four = (StepOrder(rows, seed=0, global_batch=8, share=share) for share in (1, 4))
    assert one.steps(2) == four.steps(2)
    assert [len(step) for step in one.steps(0)] == [8, 8, 7]


def test_padding_rows_have_neither_labels_nor_length_in_the_counts() -> None:
    rows = of_lengths(3, 5, 2)
    batch = Collator(rows, pad_id=0)([{"row": 1}, {"row": 3}])
    assert batch["labels"].tolist() == [[-100, 7, 7, 7, 7], [-100] * 5]
    assert batch["attention_mask"].sum(1).tolist() == [5, 1]
    assert StepOrder(rows, 0, 2, 2).tokens(rows, steps=4) == (6, 20, 14)  # two epochs of two steps


def test_tokens_are_counted_for_a_training_that_ends_within_an_epoch() -> None:
    rows = of_lengths(*range(2, 13))
    order = StepOrder(rows, seed=1, global_batch=4, share=4)
    steps = [*order.steps(0), *order.steps(1)][:4]
    lengths = rows.lengths
    expected = sum(int(lengths[at]) for step in steps for at in step)
    assert order.tokens(rows, steps=4)[:2] == (11 + 4, expected)
