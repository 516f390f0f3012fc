"""datatrove's local and Slurm executors give each row the scores of the command, and select its best rows."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from guide_files import guide_file
from host_cases import MODEL, assert_same_scores, reference, rows, run, write_rows

pytest.importorskip("datatrove", reason="datatrove is not installed: make test-hosts")
pytest.importorskip("orjson", reason="datatrove's readers need orjson: make test-hosts")

from donod_fast import topsis
from donod_fast.adapters.columns import DON, STATUS, TOPSIS

ROWS = rows(30, unscorable=(4, 21))
FILES = (11, 1, 10, 8)
"""Rows of each file: one for each task of the guide."""


hosts_only = pytest.mark.skipif("DONOD_FAST_HOSTS" not in os.environ, reason="make test-hosts runs it")
"""Tests of many processes, too slow for the ordinary suite."""


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference")
    return reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")


def workplace(folder: Path, counts: tuple[int, ...] = FILES) -> Path:
    """A folder as the guide has it: ``data`` in several files, and ``demo-data/model``."""
    (folder / "data").mkdir()
    (folder / "demo-data").mkdir()
    (folder / "demo-data" / "model").symlink_to(MODEL)
    begin = 0
    for at, count in enumerate(counts):
        write_rows(folder / "data" / f"{at:03d}.jsonl", ROWS[begin : begin + count])
        begin += count
    assert begin == len(ROWS)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files, in the order of their names."""
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def assert_selected(folder: Path, wanted: list[dict[str, Any]]) -> None:
    """The scored rows are those of the command, and the kept ones its best 30 %."""
    import torch

    scored = lines(folder / "out" / "scored")
    assert [{name: value for name, value in row.items() if not name.startswith("donod_")} for row in scored] == ROWS
    assert_same_scores(scored, wanted)
    don, nod = (torch.tensor([row[name] for row in wanted], dtype=torch.float64) for name in ("don", "nod"))
    closeness = topsis(don, nod)
    best = set(closeness.nan_to_num(-1).argsort(descending=True)[: round(0.3 * 28)].tolist())
    kept = lines(folder / "out" / "kept")
    assert [row["id"] for row in kept] == [ROWS[at]["id"] for at in sorted(best)]
    for row, at in zip(kept, sorted(best), strict=True):
        assert abs(row[TOPSIS] - float(closeness[at])) < 1e-3  # DON cancels: its last digits weigh most


def test_the_guide_scores_and_selects_with_several_processes(tmp_path: Path, wanted) -> None:
    folder = workplace(tmp_path)
    (folder / "select_rows.py").write_text(guide_file("datatrove", "select_rows.py"))
    done = run(sys.executable, "select_rows.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert_selected(folder, wanted)
    before = {file: file.stat().st_mtime_ns for file in (folder / "out").rglob("*.jsonl")}
    again = run(sys.executable, "select_rows.py", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in (folder / "out").rglob("*.jsonl")} == before


@hosts_only
def test_a_wrong_model_path_fails_the_run(tmp_path: Path) -> None:
    folder = workplace(tmp_path)
    text = guide_file("datatrove", "select_rows.py").replace("demo-data/model", "demo-data/nothing")
    (folder / "select_rows.py").write_text(text.replace("workers=2", "workers=1"))
    done = run(sys.executable, "select_rows.py", cwd=folder)
    assert done.returncode != 0
    assert "ModelError" in done.stderr and "demo-data/nothing" in done.stderr
    assert not lines(folder / "out" / "kept")


SBATCH = """#!{python}
import os, re, subprocess, sys
from pathlib import Path

here = Path(__file__).parent
script = Path(sys.argv[-1]).read_text()
if "merge_stats" in script:
    print("Submitted batch job 99"); sys.exit(0)
wanted = re.findall(r"--dependency=afterok:(\\d+)", " ".join(sys.argv))
job = len(list(here.glob("job-*"))) + 1
if any((here / f"job-{{one}}").read_text() != "ok" for one in wanted):
    (here / f"job-{{job}}").write_text("dependency never satisfied")
    print(f"Submitted batch job {{job}}"); sys.exit(0)
first, last = map(int, re.search(r"--array=(\\d+)-(\\d+)", script).groups())
codes = []
for task in range(first, last + 1):
    with open(here / f"log-{{job}}-{{task}}", "w") as log:
        codes.append(subprocess.run(
            ["bash", sys.argv[-1]], stdout=log, stderr=log,
            env={{**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "RUN_OFFSET": "0", "SLURM_NODELIST": "here",
                 "SLURM_JOB_ID": str(job)}},
        ).returncode)
(here / f"job-{{job}}").write_text("failed" if any(codes) else "ok")
print(f"Submitted batch job {{job}}")
"""

LAUNCH = "datatrove.tools.launch_pickled_pipeline"


def cluster(folder: Path) -> str:
    """Programs that stand in for Slurm's: each task of an array is a process on this machine. Returns their folder."""
    folder.mkdir()
    programs = {
        "sbatch": SBATCH.format(python=sys.executable),
        "srun": '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\nexec "$@"\n',
        "scontrol": "#!/bin/bash\necho here\n",
        "launch_pickled_pipeline": f'#!/bin/bash\nexec {sys.executable} -m {LAUNCH} "$@"\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    return str(folder)


KILLED = """
class KilledOnce:
    def __init__(self, flag):
        self.flag = flag

    def __call__(self, data, rank=0, world_size=1):
        import os, signal

        for at, document in enumerate(data):
            if rank == 1 and at == 3 and not os.path.exists(self.flag):
                open(self.flag, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            yield document

score.pipeline.insert(2, KilledOnce(os.path.abspath("killed")))
"""


@hosts_only
def test_the_job_scripts_of_slurm_survive_a_killed_task(tmp_path: Path, wanted) -> None:
    folder = workplace(tmp_path, (16, 14))
    text = guide_file("datatrove", "slurm_rows.py")
    head, main = text.split('if __name__ == "__main__":')
    (folder / "slurm_rows.py").write_text(f'import os\n{head}\n{KILLED}\nif __name__ == "__main__":{main}')
    programs = cluster(tmp_path / "slurm")
    path = os.pathsep.join([programs, os.environ["PATH"]])
    done = run(sys.executable, "slurm_rows.py", cwd=folder, PATH=path)
    assert done.returncode == 0, done.stderr  # the jobs were submitted
    jobs = {file.name: file.read_text() for file in (tmp_path / "slurm").glob("job-?")}
    assert jobs == {"job-1": "failed", "job-2": "dependency never satisfied"}, _logs(tmp_path)
    assert not (folder / "out" / "kept").exists()
    again = run(sys.executable, "slurm_rows.py", cwd=folder, PATH=path)
    assert again.returncode == 0, again.stderr
    jobs = {file.name: file.read_text() for file in (tmp_path / "slurm").glob("job-?")}
    assert (jobs["job-3"], jobs["job-4"]) == ("ok", "ok"), _logs(tmp_path)
    assert not (tmp_path / "slurm" / "log-3-1").exists()  # the finished task is not run again
    assert_selected(folder, wanted)


def _logs(folder: Path) -> str:
    return "\n".join(file.read_text()[-2000:] for file in sorted((folder / "slurm").glob("log-*")))


def test_an_absent_column_and_documents_without_scores_are_named(tmp_path: Path) -> None:
    from datatrove.data import Document

    from donod_fast.adapters.datatrove import DonodRank, DonodScore, write_record
    from donod_fast.adapters.rank_files import RankFiles
    from donod_fast.errors import InputError, SettingsMismatchError, StoreError

    scores = tmp_path / "scores"
    step = DonodScore(str(MODEL), scores=scores, columns="prompt=question,response=answer", batch_size=2)
    documents = [Document(text="x", id=str(at), metadata={"record": row}) for at, row in enumerate(ROWS[:3])]
    found = list(step.run(iter(documents), 0, 2))
    assert [one.id for one in found] == ["0", "1", "2"]
    assert {one.metadata[STATUS] for one in found} == {"unknown_format"}
    assert "question" in found[0].metadata["donod_detail"]

    with pytest.raises(StoreError, match=r"lacks 1 file of 2 tasks, the first is rank-00001\.parquet"):
        list(DonodRank(scores).run(iter(found)))
    list(step.run(iter(()), 1, 2))  # a task without documents
    with pytest.raises(InputError, match="none of the 3 rows"):
        list(DonodRank(scores).run(iter(found)))

    good = DonodScore(str(MODEL), scores=scores)
    list(good.run(iter(documents), 1, 2))
    with pytest.raises(SettingsMismatchError, match=r"masks\.columns"):
        RankFiles(str(scores)).read()
    list(good.run(iter(documents), 0, 2))
    ranked = list(DonodRank(scores).run(iter(documents)))
    assert all(0 <= one.metadata[TOPSIS] <= 1 for one in ranked)
    with pytest.raises(InputError, match=f"document 9 has no {DON}"):
        list(DonodRank(scores).run(iter([Document(text="x", id="9", metadata={"record": {}})])))
    with pytest.raises(InputError, match="read it with adapter=read_record"):
        write_record(None, Document(text="x", id="9"))
    with pytest.raises(StoreError, match="runs with 1 and 2 tasks"):
        list(good.run(iter(documents), 0, 1))
        RankFiles(str(scores)).read()
    (scores / "rank-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="is damaged"):
        RankFiles(str(scores)).read()
    with pytest.raises(InputError, match="run the pipeline with DonodScore first"):
        list(DonodRank(tmp_path / "nothing").run(iter(())))
    with pytest.raises(InputError, match="one of the two"):
        DonodRank()
