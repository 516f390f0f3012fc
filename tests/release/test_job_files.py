"""Workflows, images and job files: all checks that need no external service."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_lines import parse
from repository import ROOT, documents, pyproject, text

from donod_fast.scores.array_tasks import ArrayTask

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
DOCKERFILES = sorted((ROOT / "docker").iterdir())
SCRIPTS = [ROOT / ".ci/run", *sorted((ROOT / "examples").rglob("*.sbatch")), *sorted((ROOT / "examples").rglob("*.sh"))]
YAML = sorted(
    path
    for folder in (".github", "examples")
    for pattern in ("*.yml", "*.yaml")
    for path in (ROOT / folder).rglob(pattern)
)
RUN = {"MODEL": "/models/m", "DATA": "corpus of mine.jsonl", "OUT": "/data/scores"}


def steps(workflow: Path) -> list[dict[str, Any]]:
    """All steps of a workflow."""
    (document,) = documents(str(workflow.relative_to(ROOT)))
    return [step for job in document["jobs"].values() for step in job["steps"]]


def relative(path: Path) -> str:
    """Name of a case."""
    return str(path.relative_to(ROOT))


def stub(folder: Path, name: str, script: str) -> None:
    """Put a command of that name into ``folder``."""
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment in which ``donod-fast`` only records its arguments, and ``srun`` runs its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    stub(folder, "donod-fast", 'printf "%s\\0" "$@" >>"$RECORD" && printf "\\n" >>"$RECORD"')
    stub(folder, "srun", 'exec "$@"')
    return {**os.environ, **RUN, "PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(tmp_path / "record")}


def recorded(environment: dict[str, str]) -> list[list[str]]:
    """Arguments of every ``donod-fast`` that was started."""
    lines = Path(environment["RECORD"]).read_text(encoding="utf-8").splitlines()
    return [line.rstrip("\0").split("\0") for line in lines]


@pytest.mark.parametrize("path", YAML, ids=relative)
def test_yaml_parses(path: Path) -> None:
    for document in documents(relative(path)):
        assert isinstance(document, dict) and document


@pytest.mark.parametrize("path", WORKFLOWS, ids=relative)
def test_workflows_call_make_targets_that_exist(path: Path) -> None:
    targets = set(re.findall(r"^([\w/-]+):", text("Makefile"), re.MULTILINE))
    called = {target for step in steps(path) for target in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))}
    assert called and called <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=relative)
def test_actions_are_pinned_to_a_major_version(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert all(re.search(r"@(v\d+|release/v\d+)$", name) for name in used), used


def test_only_the_publishing_job_gets_an_identity() -> None:
    (document,) = documents(".github/workflows/release.yml")
    assert document["permissions"] == {"contents": "read"}
    given = {name: job["permissions"] for name, job in document["jobs"].items() if "permissions" in job}
    assert given == {"publish": {"id-token": "write"}}
    assert set(document["jobs"]["publish"]["needs"]) == {"build", "test"}


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_scripts_parse(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_slurm_job_scores_then_selects(environment: dict[str, str]) -> None:
    subprocess.run(["bash", str(ROOT / "examples/slurm/score.sbatch")], env=environment, check=True)
    score, select = (parse(arguments) for arguments in recorded(environment))
    assert (score["command"], select["command"]) == ("score", "select")
    assert list(score["data"]) == [RUN["DATA"]]
    assert (score["model"], score["out"], score["devices"]) == (RUN["MODEL"], RUN["OUT"], "all")
    assert (str(select["scores"]), str(select["keep"])) == (RUN["OUT"], "0.3")


def test_the_slurm_job_requeues_itself_before_its_time_limit(tmp_path: Path, environment: dict[str, str]) -> None:
    bin_folder = tmp_path / "bin"
    os.mkfifo(tmp_path / "started")
    stub(bin_folder, "srun", f"echo $$ >{tmp_path}/step; echo >{tmp_path}/started; exec sleep 600")
    stub(bin_folder, "scontrol", f'echo "$@" >{tmp_path}/requeued; kill $(cat {tmp_path}/step)')
    script = ROOT / "examples/slurm/score.sbatch"
    job = subprocess.Popen(["bash", str(script)], env={**environment, "SLURM_JOB_ID": "7"}, start_new_session=True)
    try:
        (tmp_path / "started").read_text(encoding="utf-8")  # returns once srun runs
        job.send_signal(signal.SIGUSR1)
        assert job.wait() != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "requeued").read_text(encoding="utf-8") == "requeue 7\n"
    assert "#SBATCH --signal=B:USR1@120\n" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["MODEL", "DATA", "OUT"])
@pytest.mark.parametrize(
    "script", ["slurm/score.sbatch", "slurm/array.sbatch", "ray/score.sh", "ssh/array.sh", "hf-jobs/array.sh"]
)
def test_a_job_without_its_variables_stops_at_once(script: str, name: str, environment: dict[str, str]) -> None:
    environment |= {"HOSTS": "a b", "IMAGE": "image"}
    del environment[name]
    done = subprocess.run(
        ["bash", str(ROOT / "examples" / script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and name in done.stderr
    assert not Path(environment["RECORD"]).exists()


def test_the_ray_script_scores_on_the_running_cluster(environment: dict[str, str]) -> None:
    subprocess.run(["bash", str(ROOT / "examples/ray/score.sh")], env=environment, check=True)
    score, status = (parse(arguments) for arguments in recorded(environment))
    assert (score["command"], status["command"]) == ("score", "status")
    assert (score["engine"], score["address"], score["ray_workers"]) == ("ray", "auto", 8)


def test_the_kubernetes_job_keeps_its_scores_in_the_volume() -> None:
    (job,) = documents("examples/kubernetes/score.yaml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    score = parse(container["args"])
    assert score["command"] == "score"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert score["out"].startswith(mounts["data"] + "/")
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}


def test_the_ray_job_asks_for_no_more_workers_than_it_has() -> None:
    (job,) = documents("examples/ray/rayjob.yaml")
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    score = parse(arguments)
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert (program, score["command"], score["engine"]) == ("donod-fast", "score", "ray")
    assert score["ray_workers"] == workers["replicas"]
    assert score["gpus_per_worker"] == float(limits["nvidia.com/gpu"])
    assert score["cpus_per_worker"] <= float(limits["cpu"])


def test_each_task_of_the_slurm_array_scores_its_share(environment: dict[str, str]) -> None:
    script = str(ROOT / "examples/slurm/array.sbatch")
    subprocess.run(["bash", script], env=environment, check=True)
    subprocess.run(["bash", script], env={**environment, "DEVICES": "all"}, check=True)
    one, more = (parse(arguments) for arguments in recorded(environment))
    assert (one["command"], one["engine"], one["devices"]) == ("score", "slurm-array", None)
    assert (more["engine"], more["devices"]) == ("slurm-array", "all")
    assert (list(one["data"]), one["model"], one["out"]) == ([RUN["DATA"]], RUN["MODEL"], RUN["OUT"])


def test_the_indexed_job_has_a_pod_for_each_task() -> None:
    (job,) = documents("examples/kubernetes/array.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    score = parse(container["args"])
    assert job["spec"]["completionMode"] == "Indexed"
    assert score["shard"] == f"$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}"
    assert "JOB_COMPLETION_INDEX" in {variable["name"] for variable in container["env"]}
    assert ArrayTask.parse(score["shard"].replace("$(JOB_COMPLETION_INDEX)", "7")).count == 8


def test_the_other_arrays_start_each_task_once(tmp_path: Path, environment: dict[str, str]) -> None:
    stub(tmp_path / "bin", "ssh", 'while [ "$1" != -- ] && [[ $1 == -* ]]; do shift 2; done; shift; eval "$*"')
    stub(tmp_path / "bin", "hf", 'while [ "$1" != donod-fast ]; do shift; done; exec "$@"')
    ssh = {**environment, "HOSTS": "a b c"}
    subprocess.run(["bash", str(ROOT / "examples/ssh/array.sh")], env=ssh, check=True)
    hf = {**environment, "N": "3", "IMAGE": "image"}
    subprocess.run(["bash", str(ROOT / "examples/hf-jobs/array.sh")], env=hf, check=True)
    tasks = [parse(arguments) for arguments in recorded(environment)]
    wanted = ["0/3", "1/3", "2/3"]
    assert sorted(task["shard"] for task in tasks[:3]) == wanted and [task["shard"] for task in tasks[3:]] == wanted
    assert all(list(task["data"]) == [RUN["DATA"]] and task["out"] == RUN["OUT"] for task in tasks)


def test_a_wrong_option_in_a_job_file_would_be_noticed() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        parse(["score", "data.jsonl", "--model", "m", "--out", "o", "--no-such-option"])


@pytest.mark.parametrize("path", DOCKERFILES, ids=relative)
def test_an_image_copies_files_that_exist_and_are_sent(path: Path) -> None:
    instructions = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    sent = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = [source for line in instructions if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert {"pyproject.toml", "setup.py", "donod_fast", "kernels", "recipes"} <= set(copied) <= sent
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("path", DOCKERFILES, ids=relative)
def test_an_image_installs_extras_that_exist(path: Path) -> None:
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    known = set(pyproject()["project"]["optional-dependencies"])
    named = set(extras.split(",")) | set(
        re.findall(r"EXTRAS=([\w,-]+)", text("examples/ray/rayjob.yaml"))[0].split(",")
    )
    assert named <= known
