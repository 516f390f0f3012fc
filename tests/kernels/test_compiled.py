"""Shipped tile shapes compile for every architecture, spill nothing and stay within their budgets of instructions.

Compilation runs in a separate process, because in this one the kernels are decorated for the interpreter. The suite
compiles a share of what large models use (``--share``: one variant a kernel and architecture, and those with a budget);
with ``DONOD_FAST_NIGHTLY=1`` it compiles the whole table.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from donod_fast.kernels.triton_backend.configs import ARCHITECTURES, FLOAT8

RECORDED = Path(__file__).parents[2] / "bench" / "results" / "compiled.csv"
COLUMNS = ("architecture", "kernel", "variant", "dtype", "tile", "warps", "stages")
MATRIX = ("logits", "direct", "states", "gram")
# Instructions that multiply matrices of 16-bit elements.
KINDS = {"sm_80": "HMMA", "sm_89": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "MFMA"}
FLOAT8_KINDS = {"sm_89": "QMMA", "sm_90": "QGMMA", "sm_100": "UTCQMMA", "gfx942": "MFMA"}
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def compile_table(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-m", "donod_fast.kernels.triton_backend.compiled", *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )


def key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in COLUMNS)


def check(rows: list[Row]) -> None:
    """Every row is recorded as it is and can be shipped."""
    recorded = {key(row): row for row in read(RECORDED)}
    for row in rows:
        assert int(row["shared_bytes"]) <= int(row["shared_limit"])
        assert int(row["spilled"]) == 0
        assert int(row["registers"]) > 0 and int(row["programs"]) > 0 and int(row["instructions"]) > 0
        assert key(row) in recorded, "record the table again: make compiled"
        if recorded[key(row)]["triton"] == version("triton"):
            assert row == recorded[key(row)], "record the table again: make compiled"


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Rows of a share of what large models use."""
    table = tmp_path_factory.mktemp("compiled") / "compiled.csv"
    done = compile_table("--share", "--csv", str(table))
    assert done.returncode == 0, done.stdout + done.stderr
    return read(table)


def chosen(rows: list[Row], kernel: str, variant: str, architecture: str = "sm_90") -> Row:
    (found,) = (
        row
        for row in rows
        if (row["kernel"], row["variant"], row["architecture"], row["dtype"]) == (kernel, variant, architecture, "bf16")
    )
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_large_models_use_compiles_everywhere_without_spilling(core: list[Row]) -> None:
    assert {row["architecture"] for row in core} == set(ARCHITECTURES) >= set(KINDS)
    everything = {row["kernel"] for row in read(RECORDED)}
    assert everything >= {*MATRIX, "token_statistics", "sample_sums", "label_logits", "rescue", "pack"}
    for architecture in ARCHITECTURES:
        wanted = {kernel for kernel in everything if architecture in FLOAT8 or not kernel.startswith("float8")}
        assert {row["kernel"] for row in core if row["architecture"] == architecture} == wanted
    check(core)


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_every_shipped_config_compiles_everywhere_without_spilling(tmp_path: Path) -> None:
    table = tmp_path / "compiled.csv"
    done = compile_table("--csv", str(table))
    assert done.returncode == 0, done.stderr
    rows = read(table)
    check(rows)
    assert {key(row) for row in rows} == {key(row) for row in read(RECORDED)}, "record the table again: make compiled"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_products_run_on_tensor_cores_and_their_operands_load_16_bytes(core: list[Row]) -> None:
    for row in core:
        if row["kernel"] not in MATRIX:
            continue
        place = f"{row['architecture']} {row['kernel']} ({row['variant']})"
        kinds = [word for word in row["matrix"].split() if not word.isdigit()]
        assert kinds == [KINDS[row["architecture"]]], place
        # Operands are copied to shared memory: by TMA or 16 bytes a thread. Single labels and numbers are loaded, too.
        copies = row["asynchronous"].split()[::2]
        if row["architecture"] == "gfx942":
            assert any(kind.endswith(".128") for kind in copies) or "16:" in row["loads"], place
        elif "rows" not in row["variant"]:
            assert copies and set(copies) <= {"LDGSTS.128", "UTMALDG"}, place


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_float8_products_run_on_tensor_cores_where_there_are_any(core: list[Row]) -> None:
    assert set(FLOAT8) == set(FLOAT8_KINDS)
    rows = [row for row in core if row["kernel"] == "float8"]
    assert {row["architecture"] for row in rows} == set(FLOAT8)
    for row in rows:
        place = f"{row['architecture']} ({row['variant']})"
        kinds = [word for word in row["matrix"].split() if not word.isdigit()]
        assert kinds == [FLOAT8_KINDS[row["architecture"]]], place
        if row["architecture"] != "gfx942":
            assert set(row["asynchronous"].split()[::2]) == {"LDGSTS.128"}, place


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("kernel", "variant", "most", "elements"),
    [
        ("direct", "short: adamw", 1450, 128),  # a tile of 128 × 128 on four warps
        ("logits", "plain", 1850, 128),  # 128 × 256 on eight warps
        ("logits", "soft-cap", 1950, 64),  # 128 × 128 on eight warps
    ],
)
def test_a_kernel_keeps_its_budget(core: list[Row], kernel: str, variant: str, most: int, elements: int) -> None:
    """Instructions of the whole kernel on sm_90, for so many elements of the tile in each thread."""
    row = chosen(core, kernel, variant)
    tile = [int(size) for size in row["tile"].split(" x ")]
    assert tile[0] * tile[1] == elements * 32 * int(row["warps"])
    assert 0 < int(row["epilogue"]) < int(row["instructions"]) <= most


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_programs_of_the_direct_kernel_share_a_multiprocessor(core: list[Row]) -> None:
    """So that the epilogue of one overlaps with the products of the other."""
    for update in ("adamw", "sign", "sgd"):
        assert int(chosen(core, "direct", f"short: {update}")["programs"]) >= 2


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_parts_of_real_kernels(core: list[Row]) -> None:
    """The splitter's counts follow from the source: a MUFU per element, and loops without an epilogue's work."""
    for architecture in ("sm_80", "sm_90"):  # gfx942 lists twice as many; why is not known yet
        row = chosen(core, "direct", "short: adamw", architecture)
        tile = [int(size) for size in row["tile"].split(" x ")]
        elements = tile[0] * tile[1] // (32 * int(row["warps"]))
        assert int(row["epilogue_special"]) == elements  # one reciprocal
        assert row["loops_special"] == "0"
        assert int(row["loops"]) < int(row["epilogue"]) / 4
        assert "4:" in row["stores"]
        row = chosen(core, "logits", "plain", architecture)
        tile = [int(size) for size in row["tile"].split(" x ")]
        elements = tile[0] * tile[1] // (32 * int(row["warps"]))
        assert int(row["epilogue_special"]) == elements  # one exponential
        assert row["loops_special"] == "0"
        assert "16:" in row["stores"]  # E
        assert "+" in chosen(core, "gram", "", architecture)["loops"]  # tiles on the diagonal, and others
    rows = {row["kernel"]: row for row in core if row["architecture"] == "sm_90"}
    assert rows["pack"]["loops"] == "" and int(rows["pack"]["setup"]) == int(rows["pack"]["instructions"])


def test_what_cannot_be_shipped_is_reported() -> None:
    """The check can fail: a tile that needs more shared memory than there is, and a kernel that does not compile."""
    script = (
        "from dataclasses import replace\n"
        "from donod_fast.kernels.triton_backend import compiled, configs\n"
        "row = configs._TABLE['sm_89']\n"
        "configs._TABLE['sm_89'] = replace(row, plain=replace(row.plain, dim=64, stages=6))\n"
        "first = next(v for v in compiled.variants('sm_89') if v.kernel == 'logits')\n"
        "broken = replace(first, constants=first.constants[:-1])\n"
        "large, failed = compiled.compile_all([first, broken], workers=1)\n"
        "print(large.problem)\n"
        "print(failed)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", script], capture_output=True, text=True, env=environment
    )
    assert "shared memory" in done.stdout, done.stderr
    assert "sm_89 logits (plain, bf16): does not compile: " in done.stdout, done.stderr


def test_an_unknown_choice_of_variants_is_refused() -> None:
    done = compile_table("--kernel", "direct", "--variant", "no such variant")
    assert done.returncode == 2 and "no variant" in done.stderr
