"""The array's job file on a real Slurm of this machine: a killed task is marked and submitted again."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from repository import ROOT
from score_runs import assert_same_bits, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.errors import StoreError
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.monitoring import FolderStatus, folder_status
from donod_fast.scores.task_marks import read_marks
from donod_fast.system.storage import open_storage

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "sinfo")
TASKS = 4
PATIENCE = 600.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def eventually(what: str, is_true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    until = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < until, what
        time.sleep(0.2)


def said(*command: object) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Munge and Slurm with one node, this machine, in a folder of their own."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if lacking:
        pytest.skip(f"needs Slurm and Munge (Debian: slurm-wlm, munge); missing: {', '.join(lacking)}")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs as root only")
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname()
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=free_ports(2)))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    names = {"key-file": key, **{f"{name}-file": folder / f"munge.{name}" for name in ("log", "pid", "seed")}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", f"{ROOT / '.venv/bin'}:{os.environ['PATH']}:/usr/sbin")
        try:
            said("munged", "--force", f"--socket={folder / 'munge.socket'}",
                 *(f"--{name}={path}" for name, path in names.items()))  # fmt: skip
            said("slurmctld")
            said("slurmd", "-N", host)
            eventually("the node is idle", lambda: said("sinfo", "-h", "-o", "%t") == "idle")
        except AssertionError as error:
            pytest.skip(f"Slurm does not start here: {error}")
        yield
        for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / name).read_text()), 15)


def submitted(*options: object) -> str:
    """The number of a job of the array's job file."""
    job = ["--cpus-per-task=1", "--mem=0", "--parsable", *options, ROOT / "examples/slurm/array.sbatch"]
    return said("sbatch", *job).partition(";")[0]


def ended(job: str) -> bool:
    """Whether no task of a job is pending or running."""
    done = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True, check=False)
    return not done.stdout.strip()


def status(out: Path) -> FolderStatus | None:
    """The state of a folder; None while there is none."""
    try:
        return folder_status(out)
    except StoreError:
        return None


def test_a_killed_task_of_a_real_array_is_marked_and_run_again(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = write_lines(tmp_path / "rows.jsonl", short_rows(1600)), save_tiny("llama", tmp_path / "model")
    assert invoke("score", data, "--model", model, "--out", tmp_path / "whole", "-q").code == 0
    out = tmp_path / "out"
    for name, value in {"MODEL": model, "DATA": data, "OUT": out, **ONE_THREAD}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)

    # The job file has no --part-rows: the first process of the folder chooses; so a killed task has some parts done.
    assert invoke("score", data, "--model", model, "--out", out, "--part-rows", 8, "--shard", f"0/{TASKS}").code == 0
    job = submitted(f"--array=0-{TASKS - 1}")

    def has_begun(index: int) -> bool:
        found = status(out)
        if found is None or found.array is None:
            return False
        task = found.array.tasks[index]
        return task.state == "running" and 0 < len(task.left) < task.parts

    eventually("task 2 has committed a part", lambda: has_begun(2))
    os.kill(read_marks(open_storage(out))[ArrayTask(TASKS, 2)].process, signal.SIGKILL)
    eventually("task 3 has committed a part", lambda: has_begun(3))
    said("scancel", f"{job}_3")
    eventually("the array has ended", lambda: ended(job))
    found = folder_status(out)
    assert found.array is not None
    states = [task.state for task in found.array.tasks]
    assert states == ["done", "done", "failed", "failed"], found.array
    assert "killed" in found.array.tasks[2].why and found.array.tasks[2].job == f"Slurm {job}_2"
    assert "SIGTERM" in found.array.tasks[3].why and found.array.tasks[3].job == f"Slurm {job}_3"

    told = invoke("status", out, "--missing-shards", TASKS).out
    print(invoke("status", out).out)
    assert told == f"--array=2-3 --export=ALL,DONOD_FAST_TASKS={TASKS}\n"
    second = submitted(*shlex.split(told))
    chained = said("sbatch", "--parsable", f"--dependency=afterok:{second}", "--mem=0", "--wrap=touch chained")
    eventually("the second array has ended", lambda: ended(second) and ended(chained))
    assert (tmp_path / "chained").exists()
    assert folder_status(out).finished
    print(invoke("status", out).out)

    wanted = ScoresFolder.open(tmp_path / "whole").table()
    assert_same_bits(ScoresFolder.open(out).table().drop_columns("detail"), wanted.drop_columns("detail"))


def test_the_tasks_of_a_job_step_divide_the_corpus(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = write_lines(tmp_path / "rows.jsonl", short_rows(60)), save_tiny("llama", tmp_path / "model")
    out = tmp_path / "out"
    command = ["donod-fast", "score", data, "--model", model, "--out", out, "--part-rows", 8]
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    said("srun", "--ntasks=2", "--mem=0", *command, "--engine", "slurm-array", "--quiet")
    found = folder_status(out)
    assert found.finished and found.array is not None
    assert [task.state for task in found.array.tasks] == ["done", "done"]
