"""Frozen constants give each row the closeness that it has in the whole corpus, in any batch, unit and process."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked_folders import columns_of, drawn, folder_of

import donod_fast
from donod_fast.adapters.columns import DON, NOD
from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.kernels.topsis import NORMALISATIONS
from donod_fast.selection.columns_of import PER_LR
from donod_fast.selection.frozen_constants import TopsisConstants, load_constants, topsis_constants
from donod_fast.selection.keeping import keep as keep_rows
from donod_fast.selection.out_of_core.ranked import rank_parts
from donod_fast.selection.ranking import ScoreColumns, rank

SETTINGS = {
    "model": {"name": "m", "fingerprint": "f", "weight_norm": 12.5},
    "update": {"update": "adamw", "lr": 2e-5, "storage_dtype": None},
    "masks": {"template": "t"},
    "head": {"bias": False},
}

VALUES = st.one_of(
    st.none(),
    st.floats(-1e3, 1e3, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, 1e-300, -1e300, 5e-324]),
)
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=40).filter(
    lambda rows: any(None not in row for row in rows)
)
CUTS = st.lists(st.integers(0, 40), max_size=6)


def columns(rows: list[tuple[float | None, float | None]]) -> tuple[Any, Any]:
    don, nod = (np.array([np.nan if row[at] is None else row[at] for row in rows], np.float64) for at in (0, 1))
    return don, nod


@settings(max_examples=60, deadline=None)
@given(ROWS, CUTS, st.sampled_from(NORMALISATIONS), st.sampled_from([(0.5, 0.5), (1, 3), (0, 1), (0.3, 0.7)]))
def test_any_split_into_batches_has_the_closeness_of_the_whole_bit_for_bit(rows, cuts, normalise, weights) -> None:
    don, nod = columns(rows)
    whole = donod_fast.topsis(
        torch.from_numpy(don), torch.from_numpy(nod), weights=weights, normalise=normalise, backend="torch"
    ).numpy()
    constants = topsis_constants({"don": don, "nod": nod}, weights=weights, normalise=normalise)
    constants = pickle.loads(pickle.dumps(constants))
    places = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    pieces = [constants.apply(don[a:b], nod[a:b]) for a, b in itertools.pairwise(places)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole, strict=True)
    assert constants.outside(don, nod) == 0


@settings(max_examples=60, deadline=None)
@given(ROWS, st.one_of(st.floats(0.01, 1.0), st.integers(1, 45)))
def test_a_cut_keeps_the_best_share_of_the_corpus_and_its_ties(rows, share: float | int) -> None:
    don, nod = columns(rows)
    constants = topsis_constants({"don": don, "nod": nod}, keep=(share,))
    values = constants.apply(don, nod)
    kept = set(np.flatnonzero(values >= constants.cut(share)).tolist())
    table = ScoreColumns(torch.arange(len(rows)), *(torch.from_numpy(one) for one in (don, nod, don)))
    best = keep_rows(rank(table), keep=share).tolist()
    assert len(best) == constants.cuts[0].wanted
    assert kept >= set(best)
    assert {values[at] for at in kept - set(best)} <= {values[best[-1]]}  # ties of the last row alone
    assert len(kept) == constants.cuts[0].rows


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_of_a_folder_they_come_from_the_footers_and_rank_as_its_parts(tmp_path: Path, normalise: str) -> None:
    folder = folder_of(tmp_path / "scores", drawn(3_000), [700, 1, 2_299])
    constants = topsis_constants(str(tmp_path / "scores"), normalise=normalise, keep=(0.3, 100))
    table = columns_of(folder)
    found = constants.apply(table.don, table.nod)
    with rank_parts(folder, normalise=normalise) as big:
        wanted = big._database.columns("SELECT row, value FROM merit ORDER BY row")
    assert found[wanted["row"]].numpy().tobytes() == wanted["value"].tobytes()
    whole = donod_fast.topsis(table.don, table.nod, normalise=normalise)
    torch.testing.assert_close(found, whole, rtol=1e-13, atol=0, equal_nan=True)
    for share in (0.3, 100):
        best = set(keep_rows(rank(table, normalise=normalise), keep=share).tolist())
        assert set((found >= constants.cut(share)).nonzero()[:, 0].tolist()) == best
    assert constants.settings is not None
    assert constants.rows == 3_000 and constants.scored == int((~whole.isnan()).sum())


@settings(max_examples=60, deadline=None)
@given(ROWS, st.floats(1e-7, 1.0))
def test_values_by_the_learning_rate_have_the_same_closeness_and_cut(rows, lr: float) -> None:
    # Six decimals: values that differ by their last bits alone may become equal when they are divided.
    don, nod = columns(
        [tuple(None if one is None else round(max(min(one, 1e3), -1e3), 6) for one in row) for row in rows]
    )
    made = topsis_constants({"don": don, "nod": nod}, keep=(0.5,), settings={**SETTINGS, "update": {"lr": lr}})
    host = topsis_constants({DON: don / lr, NOD: nod / lr}, keep=(0.5,), settings={**SETTINGS, "update": {"lr": lr}})
    wanted = made.apply(don, nod)
    for found in (made.apply(don / lr, nod / lr, per_lr=True), host.apply(don / lr, nod / lr),
                  host.apply(don, nod, per_lr=False)):  # fmt: skip
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_kinds_of_columns_have_one_result() -> None:
    found = drawn(200)
    don, nod = found["don"], found["nod"]
    made = topsis_constants({"don": don, "nod": nod})
    wanted = made.apply(don, nod)
    frame = pd.DataFrame({"don": don, "nod": nod})
    nulls = (
        [None if np.isnan(one) else float(one) for one in don],
        [None if np.isnan(one) else float(one) for one in nod],
    )
    table = pa.table({"don": pa.array(nulls[0], pa.float64()), "nod": pa.array(nulls[1], pa.float64())})
    tables = [frame, table, {"don": nulls[0], "nod": nulls[1]}, table.to_pylist(), frame.convert_dtypes()]
    for rows in tables:
        assert topsis_constants(rows) == made
    pairs = [
        nulls,
        (frame["don"], frame["nod"]),
        (table["don"], table["nod"]),
        (table["don"].combine_chunks(), table["nod"].combine_chunks()),
        (frame["don"].convert_dtypes(), frame["nod"].convert_dtypes()),
        (don.astype(object), nod.astype(object)),
    ]
    for first, second in pairs:
        assert made.apply(first, second).tobytes() == wanted.tobytes()
    tensor = made.apply(torch.from_numpy(don), torch.from_numpy(nod))
    assert tensor.dtype == torch.float64 and tensor.numpy().tobytes() == wanted.tobytes()
    assert made.apply([], []).shape == (0,)
    assert made.apply(torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.int32)).shape == (3,)


def test_values_beyond_the_corpus_count_as_its_extremes() -> None:
    made = topsis_constants({"don": [0.0, 1.0, 0.5], "nod": [1.0, 3.0, 2.0]})
    don, nod = [9.0, -9.0, 0.5, np.nan], [0.1, 99.0, 2.0, 99.0]
    at_extremes = made.apply([1.0, 0.0, 0.5, np.nan], [1.0, 3.0, 2.0, 99.0])
    assert made.apply(don, nod).tobytes() == at_extremes.tobytes()
    assert at_extremes[:2].tolist() == [1.0, 0.0]
    assert made.outside(don, nod) == 2


def test_values_in_another_unit_are_refused() -> None:
    don, nod = np.array([1e-6, -1e-6, 5e-7]), np.array([1e-5, 3e-5, 2e-5])
    made = topsis_constants({"don": don, "nod": nod}, settings=SETTINGS)
    with pytest.raises(InputError, match="per_lr=True"):
        made.apply(don / 2e-5, nod / 2e-5)
    with pytest.raises(InputError, match="per_lr=True"):  # also if one of them is beyond the corpus's extremes
        made.apply([*(don / 2e-5), 0.0], [*(nod / 2e-5), 2.0])
    host = topsis_constants({DON: don / 2e-5, NOD: nod / 2e-5}, settings=SETTINGS)
    assert host.per_lr
    with pytest.raises(InputError, match="per_lr=False"):
        host.apply(don, nod)
    with pytest.raises(InputError, match="do not say at which learning rate"):
        topsis_constants({DON: don, NOD: nod}).apply(don, nod, per_lr=False)


def test_a_saved_file_gives_the_same_constants(tmp_path: Path) -> None:
    found = drawn(300)
    made = topsis_constants(found, keep=(0.3, 1, 1.0), settings=SETTINGS, normalise="sum", weights=(1, 2))
    file = tmp_path / "new" / "constants.json"
    made.save(file)
    assert load_constants(file) == made
    assert load_constants(file).apply(found["don"], found["nod"]).tobytes() == (
        made.apply(found["don"], found["nod"]).tobytes()
    )
    assert (made.cut(1), made.cut(1.0)) == (load_constants(str(file)).cut(1), 0.0)
    url = f"memory://constants-{tmp_path.name}/constants.json"
    made.save(url)
    assert load_constants(url) == made


def _change(content: dict[str, Any], *keys: str, to: Any) -> dict[str, Any]:
    from donod_fast.system.checked_json import with_checksum

    at: Any = content
    for key in keys[:-1]:
        at = at[key]
    if to is KeyError:
        del at[keys[-1]]
    else:
        at[keys[-1]] = to
    return with_checksum(content)


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (("don", "low"), 1e9, "don"),
        (("don", "low"), None, "don.low"),
        (("nod", "squares"), "1", "nod.squares"),
        (("rows",), 0, "rows"),
        (("weights",), [0.0, 0.0], "weights"),
        (("weights",), [1.0], "weights"),
        (("normalise",), "norm", "normalise"),
        (("cuts",), KeyError, "cuts"),
        (("more",), 1, "more"),
        (("format",), "x", "no file of TOPSIS"),
        (("version",), 2, "version 1"),
        (("settings",), [1], "settings"),
    ],
)
def test_a_damaged_file_is_refused_by_entry(tmp_path: Path, keys, to, message: str) -> None:
    file = tmp_path / "constants.json"
    topsis_constants(drawn(20), settings=SETTINGS).save(file)
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(_change(content, *keys, to=to)), encoding="utf-8")
    with pytest.raises(StoreError, match=message):
        load_constants(file)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_flipped_byte_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("flip") / "constants.json"
    made = topsis_constants({"don": [0.5, 0.25], "nod": [1.0, 2.0]}, settings=SETTINGS)
    made.save(file)
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 6))
    file.write_bytes(bytes(content))
    with contextlib.suppress(StoreError):
        assert load_constants(file) == made  # white space


def test_a_missing_file_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is missing; write it with topsis_constants"):
        load_constants(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("model", "fingerprint", "g"), ("update", "lr", 1e-5), ("masks", "template", "u"), ("head", "bias", True)],
)
def test_a_scorer_with_other_settings_is_refused_by_name(section: str, key: str, value: Any) -> None:
    made = topsis_constants(drawn(20), settings=SETTINGS)
    made.refuse_other({**SETTINGS, "signals": [], "carry": ["id"], "mask": "x"})
    with pytest.raises(SettingsMismatchError, match=rf"{section}\.{key}.* in the constants"):
        made.refuse_other({**SETTINGS, section: {**SETTINGS[section], key: value}})
    with pytest.raises(InputError, match="do not say how"):
        replace(made, settings=None).refuse_other(SETTINGS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"don": [1.0], "loss": [1.0]}, "need the columns don and nod"),
        ({"don": [1.0], "nod": [1.0, 2.0]}, "same length"),
        ({"don": [None, 1.0], "nod": [1.0, None]}, "none of the 2 rows"),
        ({"don": [], "nod": []}, "none of the 0 rows"),
        ({"don": [np.inf], "nod": [1.0]}, "don is infinite at row 0"),
        ({"don": ["1.0"], "nod": [1.0]}, "don must hold numbers"),
        ({"don": [True], "nod": [1.0]}, "don must hold numbers"),
        ({"don": [[1.0]], "nod": [1.0]}, "don must hold numbers"),
        ({"don": np.ones((2, 2)), "nod": np.ones(2)}, "shape"),
        ({"don": np.ones(2, bool), "nod": np.ones(2)}, "must hold numbers"),
        ([{DON: 1.0, NOD: 1.0}, {DON: 1.0}], "row 1 needs"),
        ([1, 2], "must be mappings"),
        (7, "must be a scores folder"),
    ],
)
def test_rows_without_usable_scores_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        topsis_constants(rows)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    rows = {"don": [1.0, 2.0], "nod": [1.0, 2.0]}
    for arguments in ({"weights": (0, 0)}, {"normalise": "norm"}, {"keep": (0,)}, {"keep": (1.5,)}, {"keep": ("1",)}):
        with pytest.raises(InputError):
            topsis_constants(rows, **arguments)
    made = topsis_constants(rows, keep=0.5)
    with pytest.raises(InputError, match=r"no cut for keep=0\.3; known are 0\.5"):
        made.cut(0.3)
    with pytest.raises(InputError, match="same length"):
        made.apply([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="infinite"):
        made.apply([np.inf], [1.0])
    with pytest.raises(InputError, match="settings are for rows"):
        topsis_constants(folder_of(tmp_path / "scores", drawn(10), [10]), settings=SETTINGS)
    with pytest.raises(InputError, match="no section 'model'"):
        topsis_constants(rows, settings={"lr": 1})
    with pytest.raises(StoreError):
        topsis_constants(tmp_path / "nothing")


def test_the_columns_of_hosts_are_those_that_are_read() -> None:
    assert PER_LR == (DON, NOD)
    assert isinstance(donod_fast.topsis_constants([{DON: 1.0, NOD: 2.0}, {DON: None, NOD: None}]), TopsisConstants)


def test_what_is_no_column_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"don must have the shape \(n,\)"):
        topsis_constants({"don": [1.0], "nod": [2.0]}).apply(1e-5, 0.01)
    with pytest.raises(InputError, match="row 1 needs don and nod"):
        topsis_constants([{"don": 1.0, "nod": 1.0}, {"status": "too_long"}])
