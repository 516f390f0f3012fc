"""Options of ``score`` about how it runs: they report their effect and keep scores within the bounds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from score_runs import assert_one_line_error, assert_same_bits, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.kernels.fused import why_not_inductor
from donod_fast.scores.folder import ScoresFolder

ROWS = short_rows(60, seed=3)
compiles = pytest.mark.skipif(why_not_inductor() is not None, reason=f"Inductor cannot compile: {why_not_inductor()}")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The command without its output folder, at a budget that makes several batches of a part.

    SGD, since AdamW's U is nearly a sign: the last digit of a hidden state may turn one of a small head's elements.
    """
    folder = tmp_path_factory.mktemp("throughput")
    data = write_lines(folder / "rows.jsonl", ROWS)
    model = save_tiny("llama", folder / "model")
    return ["score", data, "--model", model, "--update", "sgd", "--token-budget", 256, "--part-rows", 32]


@pytest.fixture(scope="module")
def plain(command: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes as it is."""
    out = tmp_path_factory.mktemp("plain") / "out"
    assert invoke(*command, "--out", out).code == 0
    return out


def assert_close(found: Path, wanted: Path) -> None:
    """DON and NOD agree to 1e-5 of NOD, statuses exactly."""
    a, b = (ScoresFolder.open(folder).table() for folder in (found, wanted))
    assert a["status"].equals(b["status"])
    nod = torch.tensor(b["nod"].to_pylist())
    for name in ("don", "nod"):
        x, y = torch.tensor(a[name].to_pylist()), torch.tensor(b[name].to_pylist())
        assert torch.equal(x.isnan(), y.isnan())
        assert float(((x - y).abs() / nod).nan_to_num(0.0).max()) <= 1e-5


def test_a_profile_and_a_trace_are_written_and_change_no_bit(
    command: list[object], plain: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.json"
    done = invoke(*command, "--out", tmp_path / "out", "--profile", "--trace", trace)
    assert done.code == 0, done.err
    assert re.search(r"^device +trunk +[\d.]+ +[\d.]+%", done.out, re.MULTILINE)
    assert re.search(r"busy [\d.]+%, idle [\d.]+% of", done.out)
    names = {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"trunk", "head", "tokenize", "write"} <= names
    assert_same_bits(ScoresFolder.open(tmp_path / "out").table(), ScoresFolder.open(plain).table())


def test_the_profile_is_in_the_summary_for_scripts(command: list[object], tmp_path: Path) -> None:
    done = invoke(*command, "--out", tmp_path / "out", "--profile", "--json")
    summary = json.loads(done.out)
    (profile,) = summary["profile"]
    assert profile["samples"] == summary["by_status"]["scored"]
    assert 0.0 <= profile["idle"] <= 1.0
    assert 0.0 < profile["packing"] <= 1.0
    assert summary["smaller_token_budget"] is None


def test_packed_scores_equal_padded_ones_and_the_manifest_tells_which(
    command: list[object], plain: Path, tmp_path: Path
) -> None:
    assert invoke(*command, "--out", tmp_path / "out", "--packing", "on").code == 0
    assert ScoresFolder.open(tmp_path / "out").manifest["trunk"]["packed"] is True
    about = ScoresFolder.open(plain).manifest["trunk"]
    assert about["packed"] is False
    assert about["packing_refusal"]
    assert about["token_budget_how"] == "given"
    assert_close(tmp_path / "out", plain)


@compiles
@pytest.mark.nightly
def test_compiled_scores_equal_eager_ones_and_graphs_are_counted(
    command: list[object], plain: Path, tmp_path: Path
) -> None:
    done = invoke(*command, "--out", tmp_path / "out", "--compile", "on")
    assert done.code == 0, done.err
    counted = re.search(r"(\d+) graphs compiled in [\d.]+ s", done.out)
    assert counted is not None
    assert 1 <= int(counted[1]) <= 6
    assert ScoresFolder.open(tmp_path / "out").manifest["trunk"]["compiled"] is True
    assert_close(tmp_path / "out", plain)
    torch._dynamo.reset()


def test_several_devices_write_what_one_writes(command: list[object], plain: Path, tmp_path: Path) -> None:
    done = invoke(*command, "--out", tmp_path / "out", "--devices", "cpu,cpu", "--profile")
    assert done.code == 0, done.err
    assert "60 rows in" in done.out
    assert_close(tmp_path / "out", plain)


def test_the_manifest_records_how_an_automatic_token_budget_was_found(command: list[object], tmp_path: Path) -> None:
    at = command.index("--token-budget")
    assert invoke(*command[:at], *command[at + 2 :], "--out", tmp_path / "out").code == 0
    manifest = ScoresFolder.open(tmp_path / "out").manifest
    assert manifest["token_budget"] == 1024
    assert manifest["trunk"]["token_budget_how"] == "the best size on CPUs"


def test_a_dry_run_tells_of_batches_and_why_they_are_padded(command: list[object], tmp_path: Path) -> None:
    done = invoke(*command, "--out", tmp_path / "out", "--dry-run")
    assert re.search(r"^batches +\d+ of at most 256 slots \(given\), [\d.]+% used; padded: ", done.out, re.MULTILINE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--compile", "yes"], "compile must be one of auto, on, off, got 'yes'"),
        (["--packing", "yes"], "packing"),
        (["--trace", "no-such-folder/trace.json"], "no-such-folder/trace.json: name a file in an existing folder"),
        (["--trace", "."], "name a file in an existing folder"),
        (["--devices", "all"], "CUDA"),
        (["--devices", "cpu,cpu", "--device", "cpu"], "excludes --device"),
        (["--devices", "cpu,cpu", "--trace", "t.json"], "excludes --trace"),
        (["--devices", "cpu,cpu", "--device-map", "auto"], "excludes --device-map"),
        (["--device-map", "somehow"], "device map must be one of"),
        (["--max-memory", "cpu=lots"], "max memory 'cpu=lots'"),
        (["--precision", "float4"], "precision"),
        (["--precision", "float8", "--device", "cpu"], "float8"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    command: list[object], tmp_path: Path, options: list[str], told: str
) -> None:
    if options == ["--devices", "all"] and torch.cuda.is_available():
        pytest.skip("there are CUDA devices here")
    assert_one_line_error(invoke(*command, "--out", tmp_path / "out", *options), 2, told)
    assert not list(tmp_path.glob("out/part-*"))
