"""The environments of ``make test-matrix``: the same in CI and in the table, whose counts are those of the reports."""

from __future__ import annotations

import csv
import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest
from repository import ROOT, documents, pyproject

from donod_fast.models.releases import LOWEST, release


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    spec = importlib.util.spec_from_file_location("matrix_run", Path(__file__).with_name("run.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ci_runs_every_environment(matrix: ModuleType) -> None:
    (workflow,) = documents(".github/workflows/ci.yml")
    assert workflow["jobs"]["releases"]["strategy"]["matrix"]["name"] == list(matrix.ENVIRONMENTS)


def test_the_versions_are_exact_and_span_the_supported_range(matrix: ModuleType) -> None:
    found: dict[str, set[tuple[int, ...]]] = {"torch": set(), "transformers": set()}
    for pins in matrix.ENVIRONMENTS.values():
        for package in found:
            (version,) = (pin.removeprefix(f"{package}==") for pin in pins if pin.startswith(f"{package}=="))
            found[package].add(release(version))
    assert release(LOWEST)[:1] == min(found["transformers"])[:1] and min(found["transformers"]) >= release(LOWEST)
    (torch,) = (one for one in pyproject()["project"]["dependencies"] if one.startswith("torch>="))
    assert min(found["torch"])[:2] == release(torch)


def test_every_file_of_the_subset_exists(matrix: ModuleType) -> None:
    assert [file for file in matrix.SUBSET if not (ROOT / file).is_file()] == []


def test_the_table_has_every_environment_without_a_failure(matrix: ModuleType) -> None:
    with matrix.TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(matrix.ENVIRONMENTS)
    for row in rows:
        pins = matrix.ENVIRONMENTS[row["name"]]
        assert f"transformers=={row['transformers']}" in pins and f"torch=={row['torch'].partition('+')[0]}" in pins
        assert int(row["failed"]) == 0 and int(row["passed"]) >= 400


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_the_report(seed: int, matrix: ModuleType, tmp_path: Path) -> None:
    draw = random.Random(seed)
    numbers = [[draw.randrange(1, 9) for _ in range(4)] for _ in range(draw.randrange(1, 4))]  # passed, f, e, skipped
    suites = "".join(
        f'<testsuite tests="{sum(one)}" failures="{one[1]}" errors="{one[2]}" skipped="{one[3]}"/>' for one in numbers
    )
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites>{suites}</testsuites>", encoding="utf-8")
    passed, failures, errors, skipped = map(sum, zip(*numbers, strict=True))
    assert matrix.counts_of(report) == {"passed": passed, "failed": failures + errors, "skipped": skipped}


def test_a_run_without_tests_or_without_a_report_has_failed(matrix: ModuleType, tmp_path: Path) -> None:
    assert matrix.counts_of(tmp_path / "absent.xml")["failed"] == 1
    (tmp_path / "empty.xml").write_text('<testsuites><testsuite tests="0"/></testsuites>', encoding="utf-8")
    assert matrix.counts_of(tmp_path / "empty.xml")["failed"] == 1


def test_a_result_replaces_its_row_only(matrix: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "TABLE", tmp_path / "matrix.csv")
    names = list(matrix.ENVIRONMENTS)
    for turn, name in enumerate([names[2], names[0], names[2]]):
        matrix.record({**dict.fromkeys(matrix.COLUMNS, "x"), "name": name, "passed": str(turn)})
    with (tmp_path / "matrix.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["name"], row["passed"]) for row in csv.DictReader(file)] == [(names[0], "1"), (names[2], "2")]
