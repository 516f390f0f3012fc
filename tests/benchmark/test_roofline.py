"""The predicted times of the kernels follow from the recorded counts of their machine code."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
MODULES = ("shapes", "machine_counts", "kernel_times", "roofline")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """Modules of bench/, by name."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)


def recorded() -> list[dict[str, str]]:
    with (BENCH / "results" / "compiled.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_counts_are_those_of_the_table(bench: dict[str, ModuleType]) -> None:
    counts = bench["machine_counts"].counts
    rows = [row for row in recorded() if row["architecture"] == "sm_90"]
    assert {row["kernel"] for row in rows} >= {"logits", "direct", "gram", "pack", "token_statistics", "label_logits"}
    for row in rows:
        found = counts(row["kernel"], row["variant"], row["tile"], dtype=row["dtype"])
        loops = [int(loop) for loop in row["loops"].split("+") if loop]
        assert found.loop == max(loops, default=0)
        for name in ("warps", "programs", "setup", "epilogue", "epilogue_special", "epilogue_float64"):
            assert getattr(found, name) == int(row[name])
        assert found.epilogue_shared == int(row["epilogue_shared"])


def test_a_missing_row_or_another_tile_says_what_to_run(
    bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, counts = bench["machine_counts"].MissingCountError, bench["machine_counts"].counts
    with pytest.raises(missing, match=r"no counts of direct \(short: none, bf16\) on sm_90.*make compiled"):
        counts("direct", "short: none")
    with pytest.raises(missing, match=r"not 1 x 2 x 3.*make compiled"):
        counts("direct", "short: adamw", "1 x 2 x 3")
    without = tmp_path / "compiled.csv"
    write(without, [row for row in recorded() if row["kernel"] != "pack"])
    monkeypatch.setattr(bench["machine_counts"], "TABLE", without)
    with pytest.raises(missing, match="make compiled"):
        bench["roofline"].table(lengths=(150,))


def test_predictions_follow_the_table(
    bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the instructions of an epilogue cost time: no count is written by hand."""
    before = bench["roofline"].table(lengths=(150,))
    rows = recorded()
    for row in rows:
        if row["kernel"] in ("direct", "logits"):
            row["epilogue"] = str(2 * int(row["epilogue"]))
    write(tmp_path / "compiled.csv", rows)
    monkeypatch.setattr(bench["machine_counts"], "TABLE", tmp_path / "compiled.csv")
    after = bench["roofline"].table(lengths=(150,))
    for old, new in zip(before, after, strict=True):
        assert float(new["logits"]) > float(old["logits"])
        if old["update"] == "adamw":
            assert float(new["direct"]) > float(old["direct"])
        assert old["pack"] == new["pack"]


def test_a_launch_takes_as_long_as_its_scarcest_resource(bench: dict[str, ModuleType]) -> None:
    times, Counts = bench["kernel_times"], bench["machine_counts"].Counts
    # One clock is one second; two multiprocessors issue four warp instructions a clock each.
    device = times.Device(products=2.0, memory=1e9, multiprocessors=2, clock=1.0, cache=1e9, launch=0.0, latency=5.0)
    plain = {"loop_special": 0, "loop_float64": 0, "epilogue_special": 0, "epilogue_float64": 0, "epilogue_shared": 0}
    one = Counts(**{**plain, "warps": 4, "programs": 1, "setup": 10, "loop": 20, "epilogue": 30})
    assert times.launch_time(device, one, 0) == 0.0
    assert times.launch_time(device, one, 2, iterations=3) == 10 + 60 + 30  # a warp instruction a clock and scheduler
    assert times.launch_time(device, one, 3, iterations=3) == 200  # the third program waits for a multiprocessor
    assert times.launch_time(device, one, 2, iterations=3, waits=2) == 110
    assert times.launch_time(device, one, 2, iterations=3, epilogues=2) == 130
    # Products of both programs: 2 · 80 operations at 2 a second; they cover the loop's instructions.
    assert times.launch_time(device, one, 2, iterations=3, products=80.0) == 80 + 40
    two = Counts(**{**plain, "warps": 4, "programs": 2, "setup": 10, "loop": 20, "epilogue": 30})
    # Two programs on a multiprocessor overlap products and epilogues, but share the schedulers.
    assert times.launch_time(device, two, 4, iterations=3, products=160.0) == 200
    assert times.launch_time(device, two, 4, iterations=3, products=320.0) == 320
    special = Counts(**{**plain, "warps": 4, "programs": 1, "setup": 0, "loop": 0, "epilogue": 10,
                        "epilogue_special": 10})  # fmt: skip
    assert times.launch_time(device, special, 2) == 10 * 4 * 32 / 16
    float64 = Counts(**{**plain, "warps": 4, "programs": 1, "setup": 0, "loop": 1, "epilogue": 1, "loop_float64": 1})
    assert times.launch_time(device, float64, 2, iterations=8) == 8 * 4 * 32 / 64 + 1
    shared = Counts(**{**plain, "warps": 4, "programs": 1, "setup": 0, "loop": 0, "epilogue": 1,
                       "epilogue_shared": 64})  # fmt: skip
    assert times.launch_time(device, shared, 2) == 4 * 32 * 64 / 128
    assert times.launch_time(device, shared, 2, moved=1e12) == 1000.0


def test_the_recorded_predictions_are_current(bench: dict[str, ModuleType]) -> None:
    with (BENCH / "results" / "roofline.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found == bench["roofline"].table(), "record the predictions again: make compiled"
