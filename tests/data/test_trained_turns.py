"""Flags on messages and records leave out what a trainer would leave out; what cannot be scored is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_chat import MARKED, masker, record, scored_runs, tokenizer_with

from donod_fast.data.formats import Reading, read_record
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.trained_turns import is_trained
from donod_fast.data.types import Conversation, SampleError, Status

YES: tuple[Any, ...] = (True, 1, 1.0, "true", "True", "1", None)
NO: tuple[Any, ...] = (False, 0, 0.0, "false", " FALSE", "0", "0.0")
FLAGS = ("train", "training", "trainable", "loss", "loss_mask", "weight", "loss_weight", "loss_scale")
PAIR = {"instruction": "Add", "output": "3"}


def chat(**flags: Any) -> dict[str, Any]:
    """Two questions and answers; the flags stand on the first answer."""
    first = {"role": "assistant", "content": "bad one", **flags}
    second = {"role": "assistant", "content": "good two"}
    return {"messages": [{"role": "user", "content": "a"}, first, {"role": "user", "content": "b"}, second]}


def read(data: dict[str, Any]) -> Reading:
    return read_record(record(data), ReadRules())


def refusal(data: dict[str, Any]) -> tuple[Status, str]:
    sample = read(data).sample
    assert isinstance(sample, SampleError)
    return sample.status, sample.detail


@pytest.mark.parametrize("key", [*FLAGS, "masked"])
def test_a_flag_on_a_message_takes_the_turn_out(key: str) -> None:
    for out, values in ((key != "masked", NO), (key == "masked", YES[:-1])):
        for value in values:
            found = read(chat(**{key: value}))
            assert isinstance(found.sample, Conversation)
            assert [turn.scored for turn in found.sample.messages] == [True, not out, True, True], (key, value)
            assert found.excluded == out
    assert read(chat(**{key: None})).excluded == 0


def test_only_the_turns_that_are_trained_on_are_scored() -> None:
    """The five spellings of the case that was found, each with the tokens of the second answer only."""
    flags: tuple[dict[str, Any], ...] = ({"weight": 0}, {"train": False}, {"loss": False}, {"masked": True})
    rows = [chat(**flag) for flag in (*flags, {"trainable": False})]
    found = masker(MARKED).tokenize_many([record(row) for row in rows])
    for row in found:
        assert scored_runs(row, tokenizer_with(MARKED)) == ["good two<|im_end|>"]
        assert row.excluded == 1


@pytest.mark.parametrize("key", [*FLAGS, "masked"])
def test_a_fraction_a_token_mask_or_another_value_is_refused(key: str) -> None:
    for value in (0.5, 2, -1, "0.5", float("nan"), [1, 0], "maybe", {"a": 1}):
        status, detail = refusal(chat(**{key: value}))
        assert status == Status.UNKNOWN_FORMAT and f"messages[1]: {key}" in detail, value


def test_a_list_of_the_parts_to_train_on_is_refused_by_name() -> None:
    for key in ("train_detail", "training_detail"):
        parts = [{"begin_offset": 0, "end_offset": 3, "train": False}]
        assert f"{key} trains on parts of a turn" in refusal(chat(**{key: parts}))[1]
        assert read(chat(**{key: []})).excluded == 0


def test_flags_on_other_roles_mean_nothing() -> None:
    turns = [{"role": "user", "content": "a", "weight": 0.5, "train": False}, {"role": "assistant", "content": "b"}]
    assert read({"messages": turns}).excluded == 0


def test_of_two_flags_that_disagree_the_one_that_leaves_out_counts() -> None:
    assert not is_trained({"train": True, "weight": 0}, "here")
    assert not is_trained({"loss": True, "masked": True}, "here")
    assert is_trained({"loss": True, "masked": False, "weight": 1, "loss_mask": 1}, "here")


def test_a_conversation_whose_turns_are_all_left_out_is_masked() -> None:
    row = chat(train=False)
    row["messages"][3]["loss"] = 0
    assert refusal(row)[0] == Status.ALL_MASKED and read(row).excluded == 2


@pytest.mark.parametrize("key", ["train", "training", "trainable", "weight", "loss_weight", "loss_mask", "loss_scale"])
def test_a_flag_of_a_whole_record_leaves_it_out(key: str) -> None:
    for value in NO:
        status, detail = refusal({**PAIR, key: value})
        assert status == Status.ALL_MASKED and f"the record leaves itself out: {key} is {value!r}" in detail
        assert read({**PAIR, key: value}).excluded == 1
        assert read({**chat(), key: value}).excluded == 2
        assert read({**chat(train=False), key: value}).excluded == 2
    for value in YES:
        assert read({**PAIR, key: value}).unused == ()


def test_masked_and_a_true_or_false_loss_are_flags_of_a_record_too() -> None:
    assert refusal({**PAIR, "masked": True})[0] == refusal({**PAIR, "loss": False})[0] == Status.ALL_MASKED
    assert refusal({"text": "x", "loss": "false"})[0] == Status.ALL_MASKED
    assert read({**PAIR, "masked": 0, "loss": True}).unused == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("loss", 0.0), ("loss", 0), ("loss", 1.73), ("train", "split_a"), ("train", 7), ("masked", "a [MASK]")),
        *(("weight", 70), ("weight", -2.5), ("weight", "heavy"), ("weight", ""), ("trainable", ["a"])),
    ],
)
def test_a_column_that_is_no_flag_is_data_and_is_listed(key: str, value: object) -> None:
    assert read({**PAIR, key: value}).unused == (key,)


@pytest.mark.parametrize(
    ("key", "value"),
    [("weight", 0.5), ("weight", "0.25"), ("loss_weight", 2), ("loss_scale", 0.3), ("loss_mask", [0, 1])],
)
def test_a_records_fraction_or_token_mask_is_refused(key: str, value: object) -> None:
    status, detail = refusal({**PAIR, key: value})
    assert status == Status.UNKNOWN_FORMAT and key in detail and "remove" in detail


def test_tokens_with_a_mask_other_than_labels_are_refused() -> None:
    for key in ("loss_mask", "completion_mask", "assistant_masks"):
        assert f"{key} names the tokens to train on; give labels" in refusal({"input_ids": [1, 2], key: [0, 1]})[1]
    assert read({"input_ids": [1, 2], "labels": [-100, 2], "completion_mask": [0, 1]}).unused == ("completion_mask",)


def test_a_column_that_is_read_as_text_is_no_flag() -> None:
    from donod_fast.data.column_map import ColumnMap

    rules = ReadRules(columns=ColumnMap(prompt="train", response="weight"))
    assert isinstance(read_record(record({"train": "0", "weight": "0"}), rules).sample, Conversation)


def test_flags_of_arrays_and_numpys_truth_values_count() -> None:
    import numpy as np

    assert not is_trained({"train": np.bool_(False)}, "here") and is_trained({"weight": np.float32(1)}, "here")
    assert is_trained({"train_detail": np.array([])}, "here")
    with pytest.raises(SampleError, match="loss_mask is a list"):
        is_trained({"loss_mask": np.array([0, 1])}, "here")
    assert refusal({**PAIR, "train": np.bool_(False)})[0] == Status.ALL_MASKED
    assert isinstance(read({"prompt": "a", "response": "b", "context": np.array([1, 2])}).sample, SampleError)
