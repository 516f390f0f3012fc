"""Flags by which a record leaves its own turns, or all of itself, out of the training.

The names are those of Axolotl (``train``, ``training``, ``train_detail``), ms-swift (``loss``, ``loss_scale``),
torchtune (``masked``), verl (``trainable``, ``loss_mask``) and of OpenAI's and TRL's data (``weight``). A flag says yes
or no. A fraction of a turn's loss, or a part of its tokens, cannot be scored: such a record is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from donod_fast.data.record_columns import Columns
from donod_fast.data.types import SampleError, Status
from donod_fast.system.wording import shown

SWITCHES = ("train", "training", "trainable")
"""Flags that leave out what they stand on where they are false."""

WEIGHTS = ("weight", "loss_weight", "loss_scale", "loss_mask")
"""Weights of the loss, which leave out what they stand on where they are 0."""

MASKED = "masked"
LOSS = "loss"
DETAILS = ("train_detail", "training_detail")
"""Lists of the parts of a turn to train on."""

TOKEN_MASKS = ("loss_mask", "loss_scale", "completion_mask", "assistant_masks", "assistant_mask")
"""Columns that name the tokens to train on."""

_WORDS = {"true": 1.0, "false": 0.0}


def is_trained(item: Mapping[str, Any], place: str) -> bool:
    """Whether a message's own flags leave it to the training. Of two flags that disagree, the one that leaves it out
    counts.

    Args:
        item: the message; a flag that is null counts as absent.
        place: where it stands in the record, for messages.

    Raises:
        SampleError: a flag is neither yes nor no (a fraction, a mask of tokens, another value).
    """
    for key in DETAILS:
        if _plain(item.get(key)) not in (None, [], "", {}):
            raise _refused(f"{place}: {key} trains on parts of a turn, which cannot be scored; remove {key}")
    trained = True
    for key in (*SWITCHES, LOSS, *WEIGHTS, MASKED):
        value = _plain(item.get(key))
        if value is not None and _flag(value, key, place) == (key == MASKED):
            trained = False
    return trained


def excluding_flag(columns: Columns) -> str | None:
    """The first column whose flag leaves the whole record out, with its value, for messages; None if none does.

    Only values that are certainly flags count: true and false (as truth values, words, 0 or 1) in ``train``,
    ``training``, ``trainable`` and ``masked``; true and false in ``loss``; 0 and 1 in the weights. A number in ``loss``
    or a word in ``train`` is data, and the column stays among those that are not read.

    Args:
        columns: the record; columns that were read as text or messages are no flags.

    Raises:
        SampleError: the weight of the record is a fraction, or a column is a mask of tokens.
    """
    found = None
    for key in (*SWITCHES, LOSS, *WEIGHTS, MASKED):
        if key not in columns or columns.was_read(key):
            continue
        value = _plain(columns.peek(key))
        number = _number(value)
        if key in WEIGHTS:
            _refuse_fraction(key, value, number)
        if number not in (0, 1) or (key == LOSS and not _is_truth(value)):
            continue
        columns.read(key)
        if (number == 1) == (key == MASKED):
            found = found or f"{key} is {shown(value, 40)}"
    return found


def refuse_token_masks(columns: Columns) -> None:
    """Refuse a row of tokens that says in a column other than ``labels`` which of them to train on.

    Raises:
        SampleError: names the column.
    """
    for key in TOKEN_MASKS:
        if key in columns and isinstance(_plain(columns.peek(key)), list | tuple):
            raise _refused(f"{key} names the tokens to train on; give labels instead, -100 where it is 0")


def _refuse_fraction(key: str, value: object, number: float | None) -> None:
    if key != "weight" and isinstance(value, list | tuple):
        raise _refused(f"{key} is a mask of tokens, which cannot be scored; remove {key}")
    if number is None or number in (0, 1):
        return
    if key != "weight" or 0 < number < 1:  # a weight of 70 may be anything, and is not read
        raise _refused(f"{key} is {shown(value, 40)}; only 0 and 1 can be scored, so remove {key} or round it")


def _flag(value: object, key: str, place: str) -> bool:
    if isinstance(value, list | tuple):
        raise _refused(f"{place}: {key} is a list; a mask of tokens cannot be scored, so remove {key}")
    number = _number(value)
    if number is None:
        raise _refused(f"{place}: {key} is {shown(value, 40)}, which is neither true nor false")
    if number not in (0, 1):
        raise _refused(f"{place}: {key} is {shown(value, 40)}; only 0 and 1 can be scored, so remove {key} or round it")
    return number == 1


def _number(value: object) -> float | None:
    """A truth value or a number, also as text; None for anything else."""
    if isinstance(value, bool | int | float):
        try:
            return float(value)
        except OverflowError:
            return float("inf")
    if isinstance(value, str):
        text = value.strip().lower()
        try:
            return _WORDS[text] if text in _WORDS else float(text)
        except ValueError:
            return None
    return None


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _WORDS)


def _plain(value: Any) -> Any:
    """A value of an array or a tensor as Python's own; others unchanged."""
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value


def _refused(detail: str) -> SampleError:
    return SampleError(Status.UNKNOWN_FORMAT, detail)


__all__ = ["excluding_flag", "is_trained", "refuse_token_masks"]
