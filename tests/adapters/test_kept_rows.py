"""The rows that a host keeps of its table are those that ``donod-fast select`` keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.adapters.columns import DON, LOSS, NOD, SCORED_TOKENS, STATUS
from donod_fast.adapters.kept_rows import kept_rows
from donod_fast.errors import InputError
from donod_fast.selection.keeping import keep as keep_best
from donod_fast.selection.ranking import ScoreColumns, rank

LR = 2e-5
METHODS = ("topsis", "don", "nod", "weighted", "pareto", "nodon", "loss", "loss@high", "random", "scored_tokens@low")
NUMBERS = st.floats(-100, 100, allow_nan=False)
TABLES = st.lists(
    st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(1, 50))), min_size=1, max_size=30
)


def host_row(row: tuple[float, float, float, int] | None, absent: float | None = None) -> dict[str, object]:
    if row is None:
        return {STATUS: "too_long", DON: absent, NOD: absent, LOSS: absent, SCORED_TOKENS: 0}
    return {STATUS: "scored", DON: row[0] / LR, NOD: row[1] / LR, LOSS: row[2], SCORED_TOKENS: row[3]}


@given(
    table=TABLES,
    absent=st.sampled_from([None, math.nan]),
    method=st.sampled_from(METHODS),
    share=st.floats(0.01, 1),
    normalise=st.sampled_from(["vector", "range"]),
)
@settings(deadline=None, max_examples=150)
def test_a_table_is_ranked_as_a_scores_folder(table, absent, method: str, share: float, normalise: str) -> None:
    scored = [row for row in table if row is not None]
    rows = [host_row(row, absent) for row in table]
    if not scored:
        with pytest.raises(InputError, match="nothing to select from"):
            kept_rows(rows, share, method=method, normalise=normalise)
        return
    columns = [[math.nan if row is None else float(row[at]) for row in table] for at in range(4)]
    # the order in which rows with equal values come may hang on the last digit, which the division changes
    don, nod = ([value / LR for value in one] for one in columns[:2])
    tensors = [torch.tensor(one, dtype=torch.float64) for one in (don, nod, *columns[2:])]
    tokens = torch.tensor([0.0 if row is None else float(row[3]) for row in table], dtype=torch.float64)
    whole = ScoreColumns(torch.arange(len(table)), *tensors[:3], {"scored_tokens": tokens})
    ranking = rank(whole, method, normalise=normalise)
    wanted = sorted(keep_best(ranking, keep=share).tolist())
    found = kept_rows(rows, share, method=method, normalise=normalise)
    assert list(found.rows) == wanted
    value = dict(zip(ranking.order.tolist(), ranking.value.tolist(), strict=True))
    assert list(found.value) == [value[row] for row in wanted]
    assert found.ranked == len(ranking.order)


@pytest.mark.parametrize(("keep", "count"), [(0.5, 2), ("50%", 2), (3, 3), ("3", 3), (1, 1), (1.0, 4)])
def test_a_share_is_a_fraction_or_a_count(keep, count: int) -> None:
    rows = [host_row((float(at), 1.0, 0.5, 3)) for at in range(4)]
    assert kept_rows(rows, keep, method="don").rows == tuple(range(4 - count, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": 1.5}, "above one|must be in"),
        ({"keep": 0}, "at least 1"),
        ({"method": "best"}, "unknown method 'best'"),
        ({"method": "ifd"}, "ifd_ppl"),
        ({"weights": (1.0,)}, "weights are two numbers"),
        ({"normalise": "none"}, "normalise must be one of"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(change: dict[str, object], message: str) -> None:
    rows = [host_row((1.0, 1.0, 0.5, 3)), host_row((2.0, 1.0, 0.5, 3))]
    with pytest.raises(InputError, match=message):
        kept_rows(rows, **{"keep": 0.5, **change})  # type: ignore[arg-type]


def test_rows_that_were_not_scored_before_are_refused() -> None:
    with pytest.raises(InputError, match="row 1 has no column donod_status; score the rows first"):
        kept_rows([host_row((1.0, 1.0, 0.5, 3)), {"output": "x"}], 0.5)
