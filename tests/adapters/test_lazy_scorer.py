"""A host's rows are scored as the command line scores them, in any batches and in any process."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from host_cases import MODEL, assert_same_scores, reference, rows, write_rows

from donod_fast.adapters.columns import COLUMNS, DETAIL, STATUS
from donod_fast.adapters.extras import host_module
from donod_fast.adapters.lazy_scorer import LazyScorer
from donod_fast.adapters.options import option_names, scorer_spec
from donod_fast.errors import InputError, ModelError

ROWS = rows(24, unscorable=(3, 17))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference")
    return reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("size", [1, 7, 24])
def test_batches_of_any_size_have_the_scores_of_the_command(wanted, size: int) -> None:
    lazy = LazyScorer(scorer_spec(str(MODEL)))
    found = [row for first in range(0, 24, size) for row in lazy.columns(ROWS[first : first + size], first=first)]
    assert_same_scores(found, wanted)
    assert all(set(row) == set(COLUMNS) for row in found)
    assert "response" in found[3][DETAIL] or found[3][STATUS] == "empty_response"


def test_columns_survive_ten_decimals_of_json(wanted) -> None:
    found = LazyScorer(scorer_spec(str(MODEL))).columns(ROWS)
    rounded = [
        {name: round(value, 10) if isinstance(value, float) else value for name, value in row.items()} for row in found
    ]
    assert_same_scores(json.loads(json.dumps(rounded)), wanted)


def test_a_pickle_holds_the_settings_and_no_model(wanted) -> None:
    lazy = LazyScorer(scorer_spec(str(MODEL)))
    lazy.scorer()
    sent = pickle.dumps(lazy)
    assert len(sent) < 4096
    assert_same_scores(pickle.loads(sent).columns(ROWS), wanted)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_process_loads_its_own_scorer(wanted, method: str) -> None:
    lazy = LazyScorer(scorer_spec(str(MODEL)))
    lazy.scorer()  # a fork must not use its parent's
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert_same_scores(pool.submit(lazy.columns, ROWS).result(timeout=300), wanted)


def test_a_wrong_option_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="unknown option 'learning_rate'"):
        scorer_spec(str(MODEL), {"learning_rate": 1e-5})
    with pytest.raises(InputError, match="lr"):
        scorer_spec(str(MODEL), {"lr": -1.0})
    with pytest.raises(InputError, match="adamw-warm"):
        scorer_spec(str(MODEL), {"update": "adamw-warm"})
    with pytest.raises(InputError, match="model must be"):
        scorer_spec("")
    assert {"lr", "template", "signals", "columns"} <= set(option_names())


@pytest.mark.parametrize("given", [{"lr": True}, {"lr": "fast"}, {"token_budget": 1.5}, {"trust_remote_code": "false"},
                                   {"reference": 5}, {"carry": 5}, {"columns": 5}])  # fmt: skip
def test_values_of_wrong_types_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        scorer_spec(str(MODEL), given)


def test_values_as_yaml_reads_them_are_taken() -> None:
    spec = scorer_spec(str(MODEL), {"lr": "1e-5", "max_length": "64", "columns": {"prompt": "q", "response": "a"}})
    wanted = scorer_spec(str(MODEL), {"lr": 1e-5, "max_length": 64, "columns": "prompt=q,response=a"})
    assert spec == wanted


def test_a_wrong_model_path_raises_and_gives_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        LazyScorer(scorer_spec(str(tmp_path / "nothing"))).columns(ROWS)


def test_a_missing_host_names_its_extra() -> None:
    with pytest.raises(InputError, match=r"donod-fast\[no-host\]"):
        host_module("no_such_host_package", "no-host")


def test_names_may_be_a_list_or_separated_by_commas() -> None:
    names = ("length", "perplexity")
    specs = [scorer_spec(str(MODEL), {"signals": given, "carry": "id"}) for given in (list(names), ",".join(names))]
    assert all([one.name for one in spec.signals] == list(names) and spec.carry == ("id",) for spec in specs)
