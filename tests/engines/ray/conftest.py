"""A cluster of two nodes on this machine; without Ray these tests are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HELPERS = str(Path(__file__).parents[2] / "support")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before anything imports Ray
pytest.importorskip("ray", reason="the engine past one machine: pip install 'donod-fast[ray]'")


@pytest.fixture(autouse=True, scope="session")
def workers_find_helpers() -> Iterator[None]:
    """What is started here gets this environment: the specs of the tests can be imported, and one thread is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", HELPERS)
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        # Ray runs workers at the lowest priority but one. Beside a full load they would hardly get on.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_worker_register_timeout_seconds", "600")
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import save_tiny

    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def scorer(model: Path) -> Any:
    from score_runs import tiny_scorer

    return tiny_scorer(model)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    from cluster_specs import NURSERY, start_nursery
    from nodes import TwoNodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NURSERY, start_nursery())
        nodes = TwoNodes()
    yield nodes
    nodes.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> Any:
    cluster.complete()
    return cluster


@pytest.fixture
def data(tmp_path: Path) -> Path:
    from nodes import ROWS
    from score_runs import short_rows, write_lines

    return write_lines(tmp_path / "rows.jsonl", short_rows(ROWS))
