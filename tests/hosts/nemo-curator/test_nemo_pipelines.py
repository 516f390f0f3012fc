"""NeMo Curator's own program with the configuration files of the guide, on a Ray cluster of this machine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_cases import MODEL, ROOT_OF_EXAMPLES, assert_same_scores, reference, rows, run, write_rows

pytest.importorskip("nemo_curator", reason="NeMo Curator is not installed")

from donod_fast import topsis, topsis_constants
from donod_fast.adapters.columns import TOPSIS
from donod_fast.adapters.nemo import ROW, SOURCE

EXAMPLE = ROOT_OF_EXAMPLES / "nemo-curator"
ROWS = rows(24, unscorable=(3, 17))
FILES = 3

pytestmark = pytest.mark.timeout(900)

KILLED = """
import os, signal
from donod_fast.adapters.nemo import DonodScoreStage

class KilledOnce(DonodScoreStage):
    def process(self, task):
        found = super().process(task)
        try:
            os.close(os.open(os.environ["KILLED_ONCE"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return found
        os.kill(os.getpid(), signal.SIGKILL)
"""


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a program that uses a cluster of its own, as RayClient would start it.

    RayClient's own address is that of the host name, which is a loopback address on many machines.
    """
    folder = tmp_path_factory.mktemp("modules")
    (folder / "killed_once.py").write_text(KILLED, encoding="utf-8")
    port = _port()
    environment = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_MAX_LIMIT_FROM_API_SERVER": "40000",  # as RayClient sets it, for Xenna
        "RAY_MAX_LIMIT_FROM_DATA_SOURCE": "40000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "KILLED_ONCE": str(folder / "killed"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(folder),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    short = Path("/tmp") / f"donod-ray-{os.getpid()}"  # the path of a socket has a limit
    words = ["ray", "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(port)]
    words += ["--num-cpus", "6", "--temp-dir", str(short), "--dashboard-port", str(_port())]
    words += ["--ray-client-server-port", str(_port()), "--object-store-memory", "200000000"]
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(
            words, env={**os.environ, **environment}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        while "Ray runtime started" not in (folder / "ray.log").read_text(errors="replace"):
            assert head.poll() is None, (folder / "ray.log").read_text(errors="replace")
            time.sleep(0.2)
        yield environment
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(60)
        finally:
            _end_session(head.pid)


def _end_session(session: int) -> None:
    """Kill what is left of a session that this module has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                os.kill(int(folder.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for at in range(FILES):
        write_rows(folder / f"part{at}.jsonl", ROWS[at * 8 : (at + 1) * 8])
    return folder


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference")
    return reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")


def _curate(cluster: dict[str, str], cwd: Path, name: str, **overrides: object) -> subprocess.CompletedProcess[str]:
    words = [f"{key}={value}" for key, value in overrides.items()]
    return run(
        sys.executable, "-m", "nemo_curator.config.run", "--config-path", EXAMPLE, "--config-name", name,
        "hydra.run.dir=.", "hydra.output_subdir=null", *words, cwd=cwd, **cluster,
    )  # fmt: skip


def _written(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files, in the order of the input."""
    found = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted(found, key=lambda row: (row[SOURCE], row[ROW]))


def _closeness(wanted: list[dict[str, Any]]) -> list[float]:
    import torch

    don, nod = (torch.tensor([row[name] for row in wanted], dtype=torch.float64) for name in ("don", "nod"))
    return topsis(don, nod).tolist()


def _assert_whole(found: list[dict[str, Any]], wanted: list[dict[str, Any]], data: Path) -> None:
    assert [row["id"] for row in found] == [row["id"] for row in ROWS]
    assert [(row[SOURCE], row[ROW]) for row in found] == [
        (str(data / f"part{at // 8}.jsonl"), at % 8) for at in range(len(ROWS))
    ]
    assert_same_scores(found, wanted)


@pytest.mark.parametrize("backend", ["backend=ray_data", "backend=xenna +execution_mode=batch"])
def test_the_files_of_the_guide_give_the_scores_and_the_subset(cluster, data, wanted, tmp_path, backend: str) -> None:
    settings = dict(word.split("=") for word in backend.split())
    common = {"input": data, "model": MODEL, **settings}
    done = _curate(cluster, tmp_path, "pipeline.yaml", output=tmp_path / "all", keep="null", **common)
    assert done.returncode == 0, done.stderr[-3000:]
    found = _written(tmp_path / "all")
    _assert_whole(found, wanted, data)
    closeness = _closeness(wanted)
    for row, value in zip(found, closeness, strict=True):
        assert row[TOPSIS] == pytest.approx(value, abs=1e-4) if value == value else row[TOPSIS] is None


def test_the_pipeline_as_it_stands_keeps_the_best_rows(cluster, data, wanted, tmp_path) -> None:
    done = _curate(cluster, tmp_path, "pipeline.yaml", input=data, output=tmp_path / "subset", model=MODEL)
    assert done.returncode == 0, done.stderr[-3000:]
    scored = [(value, row["id"]) for value, row in zip(_closeness(wanted), ROWS, strict=True) if value == value]
    best = sorted(scored, reverse=True)[: round(0.3 * len(scored))]
    assert {row["id"] for row in _written(tmp_path / "subset")} == {name for _, name in best}


def test_two_passes_with_frozen_constants_keep_the_same_rows(cluster, data, wanted, tmp_path) -> None:
    streaming = {"backend": "xenna", "+execution_mode": "streaming"}
    done = _curate(cluster, tmp_path, "score.yaml", input=data, output=tmp_path / "scored", model=MODEL, **streaming)
    assert done.returncode == 0, done.stderr[-3000:]
    found = _written(tmp_path / "scored")
    _assert_whole(found, wanted, data)
    topsis_constants(found, keep=(0.3,)).save(tmp_path / "constants.json")
    done = _curate(
        cluster, tmp_path, "rank.yaml", input=tmp_path / "scored", output=tmp_path / "subset",
        constants=tmp_path / "constants.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    scored = [(value, row["id"]) for value, row in zip(_closeness(wanted), ROWS, strict=True) if value == value]
    best = sorted(scored, reverse=True)[: round(0.3 * len(scored))]
    assert {row["id"] for row in _written(tmp_path / "subset")} == {name for _, name in best}


def test_a_killed_worker_loses_no_row(cluster, data, wanted, tmp_path) -> None:
    text = (EXAMPLE / "score.yaml").read_text().replace(
        "donod_fast.adapters.nemo.DonodScoreStage", "killed_once.KilledOnce"
    )  # fmt: skip
    (tmp_path / "score.yaml").write_text(text)
    done = run(
        sys.executable, "-m", "nemo_curator.config.run", "--config-path", tmp_path, "--config-name", "score.yaml",
        "hydra.run.dir=.", f"input={data}", f"output={tmp_path / 'scored'}", f"model={MODEL}",
        cwd=tmp_path, **cluster,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(cluster["KILLED_ONCE"]).exists()
    _assert_whole(_written(tmp_path / "scored"), wanted, data)


@pytest.mark.parametrize("fault", ["model", "column"])
def test_a_run_that_cannot_score_fails_with_our_message(cluster, data, tmp_path, fault: str) -> None:
    if fault == "model":
        common, said = {"input": data, "model": tmp_path / "nothing"}, str(tmp_path / "nothing")
    else:
        write_rows(tmp_path / "rows.jsonl", [{"instruction": row["instruction"]} for row in ROWS])
        common, said = {"input": tmp_path / "rows.jsonl", "model": MODEL}, "no row of this batch can be read"
    done = _curate(cluster, tmp_path, "pipeline.yaml", output=tmp_path / "out", **common)
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert not list((tmp_path / "out").glob("*.jsonl"))
