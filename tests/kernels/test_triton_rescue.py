"""Tokens far from their reference are computed again; all others keep every bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from token_cases import HEADS, finished, prepared
from torch import Tensor
from triton_cases import interpreted

from donod_fast.kernels.triton_backend import rescue

pytestmark = interpreted


def test_a_token_that_is_not_far_keeps_every_bit_beside_those_that_are() -> None:
    case, layout, group = prepared(HEADS["plain"], margins=(3.0, 90.0, 4.0))
    tokens, exps = finished(case, HEADS["plain"], layout, group)
    near = case._replace(hidden=case.hidden.clone())
    far = torch.arange(len(near.labels)) % 3 == 1
    near.hidden[far] *= 0.1
    others, other_exps = finished(near, HEADS["plain"], layout, group)
    kept = layout.token_slot[: int(layout.counts.sum())].long()
    kept = kept[~far[layout.slot_row[kept].long()]]
    assert torch.equal(exps[kept], other_exps[kept])
    assert torch.equal(tokens.statistics[:, kept], others.statistics[:, kept])


def test_no_token_is_rescued_for_nan_and_few_programs_look(monkeypatch: pytest.MonkeyPatch) -> None:
    case, layout, group = prepared(HEADS["plain"])
    case.hidden[3:5] = math.nan
    looked: list[tuple[int, ...]] = []
    real = rescue.rescue_kernel

    class Watched:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            looked.append(grid)
            return real[grid]

    monkeypatch.setattr(rescue, "rescue_kernel", Watched())
    flags: list[Tensor] = []
    launch = rescue.launch_rescue
    monkeypatch.setattr(
        rescue, "launch_rescue", lambda *args, **options: (flags.append(args[12]), launch(*args, **options))
    )
    finished(case, HEADS["plain"], layout, group)
    assert [int(x.sum()) for x in flags] == [0]
    assert looked == [(1, 1), (1, 1)]
