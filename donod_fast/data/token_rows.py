"""Read records that are tokens already: ``input_ids`` with optional ``labels`` and ``attention_mask``."""

from __future__ import annotations

from collections.abc import Callable

from donod_fast.data.conversations import as_list, kind_of, shown
from donod_fast.data.record_columns import Columns
from donod_fast.data.trained_turns import refuse_token_masks
from donod_fast.data.types import IGNORE_INDEX, SampleError, Status, TokenRow


def read_tokens(columns: Columns) -> TokenRow:
    """The tokens of a record without the padding at both ends.

    Raises:
        SampleError: they are no tokens, or a column other than ``labels`` says which of them count.
    """
    ids = _integers(columns, "input_ids")
    if "labels" in columns:
        labels = _integers(columns, "labels")
    else:
        refuse_token_masks(columns)
        labels = ids
    attended = _integers(columns, "attention_mask") if "attention_mask" in columns else [1] * len(ids)
    for name, values in (("labels", labels), ("attention_mask", attended)):
        if len(values) != len(ids):
            problem = f"{name} has {len(values)} values where input_ids has {len(ids)}"
            raise SampleError(Status.INVALID_TOKENS, problem)
    _all_valid("input_ids", ids, lambda value: value >= 0)
    _all_valid("labels", labels, lambda value: value >= 0 or value == IGNORE_INDEX)
    _all_valid("attention_mask", attended, lambda value: value in (0, 1))
    if 1 not in attended:
        raise SampleError(Status.EMPTY_RESPONSE, "every token of input_ids is masked out by attention_mask")
    _refuse_pack(columns, attended)
    begin = attended.index(1)
    end = len(attended) - attended[::-1].index(1)
    if 0 in attended[begin:end]:
        hole = attended.index(0, begin)
        raise SampleError(Status.INVALID_TOKENS, f"attention_mask is 0 in the middle, at {hole}")
    return TokenRow(tuple(ids[begin:end]), tuple(labels[begin:end]))


def _refuse_pack(columns: Columns, attended: list[int]) -> None:
    """Refuse a row in which a trainer has packed several samples: positions or numbers of samples tell them apart."""
    if "seq_lengths" in columns and len(as_list(columns["seq_lengths"]) or ()) > 1:
        raise SampleError(
            Status.INVALID_TOKENS,
            "seq_lengths: several samples are packed in this row; score the dataset before it is packed",
        )
    if "position_ids" not in columns:
        return
    positions = _integers(columns, "position_ids")
    if len(positions) != len(attended):
        problem = f"position_ids has {len(positions)} values where input_ids has {len(attended)}"
        raise SampleError(Status.INVALID_TOKENS, problem)
    at = [position for position, attends in zip(positions, attended, strict=True) if attends]
    again = next((number for number, position in enumerate(at) if number and position != at[number - 1] + 1), None)
    if again is not None:
        raise SampleError(
            Status.INVALID_TOKENS,
            f"position_ids go from {at[again - 1]} to {at[again]} at {again}: several samples are packed in this row; "
            "score the dataset before it is packed",
        )


def _integers(columns: Columns, name: str) -> list[int]:
    values = as_list(columns[name])
    if values is None:
        raise SampleError(Status.UNKNOWN_FORMAT, f"{name} is {kind_of(columns[name])}, not a list")
    position = next((position for position, value in enumerate(values) if type(value) is not int), None)
    if position is not None:
        problem = f"{name} holds {kind_of(values[position])} at {position}, not an integer"
        raise SampleError(Status.UNKNOWN_FORMAT, problem)
    return values


def _all_valid(name: str, values: list[int], valid: Callable[[int], bool]) -> None:
    invalid = {value for value in set(values) if not valid(value)}  # far fewer than there are tokens
    if invalid:
        position = next(position for position, value in enumerate(values) if value in invalid)
        raise SampleError(Status.INVALID_TOKENS, f"{name} holds {shown(values[position])} at {position}")


__all__ = ["read_tokens"]
