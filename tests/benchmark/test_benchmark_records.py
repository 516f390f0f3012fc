"""Plain Python of the benchmarks: lengths, tables that refuse other columns, recorded rows, the GPU steps."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
NAMES = {path.stem for path in BENCH.glob("*.py")}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Modules of bench/ by name, with results in a folder of their own; nothing of it stays imported."""
    before = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    monkeypatch.syspath_prepend(str(BENCH))

    def load(name: str) -> ModuleType:
        module = importlib.import_module(name)
        if hasattr(module, "RESULTS"):
            monkeypatch.setattr(module, "RESULTS", tmp_path)
        return module

    load("record")
    yield load
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def case(bench: Any, tokens: int = 8192) -> dict[str, Any]:
    shapes = bench("shapes")
    columns: dict[str, Any] = bench("head_rows").case_columns(
        shapes.SHAPES["gemma-2-2b"], shapes.LENGTHS["code"], tokens, "bfloat16"
    )
    return columns


def test_lengths_add_up_to_the_tokens_and_follow_their_profile(bench: Any) -> None:
    shapes = bench("shapes")
    for lengths in shapes.LENGTHS.values():
        for tokens in (1, 1000, 8192, 32768):
            found = shapes.sample_lengths(lengths, tokens)
            assert sum(found) == tokens
            assert all(lengths.low <= length <= lengths.high for length in found[:-1])
    found = shapes.sample_lengths(shapes.LENGTHS["gsm8k"], 1_000_000)
    assert sum(found) / len(found) == pytest.approx(130.6, rel=0.02)  # the mean of the data that was fitted
    assert set(shapes.sample_lengths(shapes.LENGTHS["1000"], 8192)) == {1000, 192}


def test_a_table_keeps_its_columns(bench: Any, tmp_path: Path) -> None:
    record = bench("record")
    record.write_rows("table", [{"row": "a", "ms": 1.5}])
    before = (tmp_path / "table.csv").read_text()
    with pytest.raises(record.HeaderError, match=r"table\.csv has different columns.*'seconds'.*'ms'"):
        record.write_rows("table", [{"row": "b", "seconds": 2}])
    assert (tmp_path / "table.csv").read_text() == before
    record.write_rows("table", [{"row": "b", "ms": ""}])
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["a", "b"]


def test_a_row_counts_for_its_own_device_only(bench: Any) -> None:
    record = bench("record")
    assert not record.is_recorded("table", row="a")
    record.write_rows("table", [{"row": "a", "softcap": 30.0}])
    assert record.is_recorded("table", row="a", softcap=30.0)
    assert not record.is_recorded("table", row="a", softcap=20.0)
    assert not record.is_recorded("table", device="NVIDIA H200", row="a")
    if not record.device_name().startswith("NVIDIA"):
        assert not record.is_recorded("table", device=record.ANY_ACCELERATOR, row="a")


def test_a_peer_may_be_recorded_without_a_time_but_not_ours(bench: Any) -> None:
    head, record = bench("head_rows"), bench("record")
    about = case(bench)
    assert head.missing_rows(about, record.device_name()) == list(head.ROWS)
    record.write_rows("head_phase", [{"row": name, **about, "median_ms": ""} for name in head.ROWS])
    assert head.missing_rows(about, record.device_name()) == [head.FLOOR, "ours sgd", "ours adamw"]
    record.write_rows("head_phase", [{"row": name, **about, "median_ms": 1.0} for name in head.ROWS[:3]])
    assert head.missing_rows(about, record.device_name()) == []
    assert head.missing_rows(case(bench, tokens=32768), record.device_name()) == list(head.ROWS)


def test_the_gpu_steps_cover_every_shape_token_count_and_profile(bench: Any) -> None:
    shapes, gpu = bench("shapes"), bench("gpu")
    found = gpu.steps("NVIDIA H200")
    assert all(step.seconds < gpu.LIMIT for step in found)
    head = [step.name for step in found if step.name.startswith("head phase")]
    large = [shape for shape in shapes.SHAPES.values() if not shape.small]
    assert len(set(head)) == len(large) * 2 * len(shapes.LENGTHS) == 24
    assert any("tests/kernels/test_exactness.py" in step.command for step in found)


def test_the_gpu_steps_run_the_throughput_table_until_it_is_recorded(bench: Any) -> None:
    gpu, record = bench("gpu"), bench("record")

    def missing(device: str) -> dict[str, str]:
        found = [step for step in gpu.steps(device) if step.name.startswith("throughput")]
        assert all("donod_fast.benchmark" in step.command for step in found)
        return {step.name.removeprefix("throughput: "): step.missing for step in found}

    device = record.device_name()
    shapes = ("llama-2-7b", "llama-3.1-8b", "qwen2.5-7b")
    assert set(missing(device)) == {f"{shape}, {lengths}" for shape in shapes for lengths in ("gsm8k", "code")}
    about = {"shape": "qwen2.5-7b", "lengths": "code", "dtype": "bfloat16"}
    names = ("matrix products", "paper's loop", "padded loop, loss only", "trunk alone", "ours: file to folder")
    more = ("ours, compiled: file to folder", "ours, float8")
    record.write_rows("throughput", [{"row": name, **about, "median_ms": ""} for name in (*names, *more)])
    # The floor, the loop and ours need a time; that a peer or a variant cannot run may be all there is to say.
    assert missing(device)["qwen2.5-7b, code"] == "4 rows"
    record.write_rows("throughput", [{"row": name, **about, "median_ms": 5.0} for name in names])
    assert missing(device)["qwen2.5-7b, code"] == ""
    assert missing(device)["qwen2.5-7b, gsm8k"] == "7 rows"
    assert missing("NVIDIA H200")["qwen2.5-7b, code"] == "7 rows"


def test_a_step_ends_at_its_limit_and_says_how_it_failed(bench: Any) -> None:
    gpu = bench("gpu")
    for code, limit, outcome in (
        ("pass", 60, ""),
        ("raise SystemExit(3)", 60, "exit status 3"),
        ("import time; time.sleep(60)", 1, "stopped after 1 s"),
    ):
        assert gpu.run_step(gpu.Step("step", ("-c", code), 1.0, "rows"), {}, limit) == outcome


def test_a_test_file_names_the_packages_that_it_lacks(bench: Any) -> None:
    source = "import head_cases, torch, no_such_package.inner\nfrom donod_fast.kernels import topsis\n"
    assert bench("gpu").missing_imports(source) == ["no_such_package"]
