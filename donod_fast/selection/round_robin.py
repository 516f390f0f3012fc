"""Round-robin over reference sets: the sets take turns, and each picks its best row that is left.

``rds-round-robin`` takes the columns ``rds:SET`` of all sets, in their order in the scores. The columns of any other
criterion that compares with sets can take turns, too: ``less_head-round-robin``, ``bm25-round-robin``. The sets' values
need not be on one scale. In the program of arXiv 2503.01807 a set whose best row is taken already loses its turn; here
it picks its next best.

The figure of merit is minus the round, from 1; the sets' rows of one round are tied in it, and the set that comes first
is first. Every row is picked once, so the order needs the columns of all rows in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def take_turns(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Let sets take turns.

    Args:
        columns: for each set (n,) float64, high values first, NaN if a row has none; ties go to the earlier position.

    Returns:
        (m,) int64 positions in the order of picking, of the rows with a value in any column, and (m,) float64 minus the
        rounds.
    """
    orders = [
        [at for at in column.argsort(descending=True, stable=True).tolist() if is_number[at]]
        for column, is_number in ((one.nan_to_num(-torch.inf), (~one.isnan()).tolist()) for one in columns)
    ]
    taken = bytearray(len(columns[0]))
    picked: list[int] = []
    rounds: list[float] = []
    waiting = [iter(order) for order in orders]
    turn = 0
    while waiting:
        turn += 1
        left = []
        for row_of_set in waiting:
            at = next((at for at in row_of_set if not taken[at]), None)
            if at is not None:
                taken[at] = 1
                picked.append(at)
                rounds.append(-float(turn))
                left.append(row_of_set)
        waiting = left
    return torch.tensor(picked, dtype=torch.int64), torch.tensor(rounds, dtype=torch.float64)


__all__ = ["take_turns"]
