"""Rows of tokens in which a trainer has packed several samples are no samples."""

from __future__ import annotations

import pytest
from tiny_models import tiny_tokenizer

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record, Status


@pytest.mark.parametrize("more", [{"seq_lengths": [3, 3]}, {"position_ids": [0, 1, 2, 0, 1, 2]}])
def test_packed_rows_get_a_status(more: dict[str, list[int]]) -> None:
    masker = Masker(tiny_tokenizer(), MaskSettings(format="tokenized"), vocab_size=100)
    ids = list(range(5, 11))
    whole = {"input_ids": ids, "labels": ids}
    packed = masker.tokenize(Record(0, "rows", "row 0", {**whole, **more}))
    assert packed.status is Status.INVALID_TOKENS and next(iter(more)) in packed.detail
    alone = {"seq_lengths": [6], "position_ids": list(range(6))}
    assert masker.tokenize(Record(0, "rows", "row 0", {**whole, **alone})).status is Status.SCORED
