"""Locks, marks, refusals and status of the tasks of an array."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from remote_files import s3_server
from score_runs import assert_one_line_error, assert_same_bits, invoke, short_rows, write_lines
from tiny_models import save_tiny

import donod_fast
from donod_fast.engines.array.holding import holding
from donod_fast.errors import DonodError, InputError, StoreError
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.monitoring import folder_status
from donod_fast.scores.problems import add_problem, read_problems
from donod_fast.system import lock_objects
from donod_fast.system.lock_objects import holder_facts
from donod_fast.system.locking import is_locked, locked
from donod_fast.system.storage import open_storage
from donod_fast.system.task_locks import live_tasks, task_lock_name, task_locked

ROWS = 40


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    pytest.importorskip("moto")
    with s3_server():
        yield


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder on a disk, or on an object store."""
    if request.param == "disk":
        return str(tmp_path / "out")
    request.getfixturevalue("s3")
    monkeypatch.setattr(lock_objects, "BEAT_SECONDS", 0.2)
    return f"s3://bucket/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], Path]:
    """(the command without its folder, a folder that one process scored)"""
    folder = tmp_path_factory.mktemp("world")
    data = write_lines(folder / "rows.jsonl", short_rows(ROWS))
    options = ["score", data, "--model", save_tiny("llama", folder / "model"), "--device", "cpu", "--part-rows", 4]
    assert invoke(*options, "--out", folder / "whole").code == 0
    return [*options, "--out"], folder / "whole"


# --- locks


def test_each_task_has_one_process_and_each_folder_one_kind(place: str) -> None:
    with ExitStack() as held:
        for index in (0, 2):
            held.enter_context(task_locked(place, (index, 3)))
        assert is_locked(place)
        assert list(live_tasks(place)) == [(0, 3), (2, 3)]
        same = r"task 2/3 of .* is in use: process \d+ on \S+"
        with pytest.raises(StoreError, match=same), task_locked(place, (2, 3)):
            pass
        with pytest.raises(StoreError, match=r"in use: task 0/3 \(process \d+ on \S+\) and 1 more"), locked(place):
            pass
        with pytest.raises(StoreError, match="an array of 3"), task_locked(place, (1, 4)):
            pass
        assert list(live_tasks(place)) == [(0, 3), (2, 3)]
        with task_locked(place, (1, 3)):
            assert len(live_tasks(place)) == 3
    assert not is_locked(place) and not live_tasks(place)
    with locked(place):
        with pytest.raises(StoreError, match="scores all of it"), task_locked(place, (0, 3)):
            pass
        assert not live_tasks(place)
    with task_locked(place, (1, 4)):
        pass
    assert open_storage(place).names(".*task*") == []


def test_a_lock_of_a_process_that_ended_here_is_free_at_once(s3: None) -> None:
    place = f"s3://bucket/{uuid.uuid4().hex}"
    gone = {"token": "x", **holder_facts(), "process": 2**22 + 1}  # more than a process number can be
    open_storage(place).write(task_lock_name((0, 2)), json.dumps(gone).encode())
    assert not live_tasks(place)
    with task_locked(place, (0, 2)):
        assert list(live_tasks(place)) == [(0, 2)]


def test_a_silent_holder_elsewhere_is_waited_for(s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"s3://bucket/{uuid.uuid4().hex}"
    open_storage(place).write(task_lock_name((0, 2)), b'{"token": "x", "host": "elsewhere", "process": 7}')
    assert list(live_tasks(place)) == [(0, 2)]
    monkeypatch.setattr(lock_objects, "DEAD_SECONDS", 2.0)
    with task_locked(place, (0, 2)):
        assert "elsewhere" not in live_tasks(place)[0, 2]


# --- marks and status


def test_status_tells_each_task_and_what_to_submit(world: tuple[list[object], Path], tmp_path: Path) -> None:
    command, whole = world
    out = tmp_path / "out"
    assert invoke(*command, out, "--shard", "1/4", "-q").code == 0
    with pytest.raises(DonodError, match="no space"), holding(out, ArrayTask(4, 2)):
        raise StoreError("no space left: http://user:secret@host/x")
    mark = out / "task-3-of-4.json"
    with holding(out, ArrayTask(4, 3)):
        began = mark.read_bytes()
        running = folder_status(out).array
        assert running is not None and running.tasks[3].state == "running" and running.to_submit == (0, 2)
    mark.write_bytes(began)  # as a killed process leaves it

    array = folder_status(out).array
    assert array is not None
    assert [task.state for task in array.tasks] == ["missing", "done", "failed", "failed"]
    assert "no space left" in array.tasks[2].why and "secret" not in array.tasks[2].why
    assert "killed" in array.tasks[3].why
    plan = ScoresFolder.open(out).plan
    assert [task.left for task in array.tasks] == [
        () if index == 1 else ArrayTask(4, index).parts(plan) for index in range(4)
    ]
    told = invoke("status", out)
    assert told.code == 0 and "array    4 tasks: 1 done, 2 failed, 1 missing" in told.out
    again = "--array=0,2-3 --export=ALL,DONOD_FAST_TASKS=4\n"
    assert f"submit again: {again}" in told.out
    assert invoke("status", out, "--missing-shards", 4).out == again
    assert json.loads(invoke("status", out, "--json").out)["array"]["tasks"][1]["state"] == "done"

    # Arrays of another size finish the folder, and the marks of the first one vanish.
    for index in range(3):
        assert invoke(*command, out, "--shard", f"{index}/3").code == 0
    assert invoke("status", out, "--missing-shards", 3).out == ""
    state = folder_status(out)
    assert state.finished and state.array is not None and state.array.count == 3
    assert_same_bits(ScoresFolder.open(out).table(), ScoresFolder.open(whole).table())
    assert sorted(path.name for path in out.glob("task-*")) == [f"task-{index}-of-3.json" for index in range(3)]


def test_a_damaged_part_is_scored_again_by_its_task_only(world: tuple[list[object], Path], tmp_path: Path) -> None:
    command, _ = world
    out = tmp_path / "out"
    for index in range(2):
        assert invoke(*command, out, "--shard", f"{index}/2", "-q").code == 0
    found = ScoresFolder.open(out)
    part = ArrayTask(2, 1).parts(found.plan)[0]
    file = out / found.part_name(part)
    good = file.read_bytes()
    file.write_bytes(good[:-20])
    assert invoke(*command, out, "--shard", "0/2", "-q").code == 0
    assert file.read_bytes() == good[:-20]
    done = invoke(*command, out, "--shard", "1/2", "--json")
    assert done.code == 0 and json.loads(done.out)["parts_left"] == 0
    assert file.read_bytes() == good


def test_more_tasks_than_parts_leave_some_without_work(world: tuple[list[object], Path], tmp_path: Path) -> None:
    command, _ = world
    done = invoke(*command, tmp_path / "out", "--shard", "2999/3000")
    assert done.code == 0 and "no parts" in done.out
    array = folder_status(tmp_path / "out").array
    assert array is not None and array.count == 3000
    assert sum(bool(task.left) for task in array.tasks) == ROWS / 4


def test_problems_of_several_writers_are_all_kept(place: str) -> None:
    storage = open_storage(place)
    storage.make()
    writers = [None, *(ArrayTask(5, index) for index in range(5)), ArrayTask(6, 0)]
    for turn in range(2):
        for at, task in enumerate(writers):
            add_problem(storage, at, f"turn {turn}", task)
    found = read_problems(storage)
    assert [(problem.part, problem.text) for problem in found] == [
        (at, f"turn {turn}") for turn in range(2) for at in range(len(writers))
    ]


# --- refusals


REFUSED: dict[str, tuple[list[object], int, str]] = {
    "out of range": (["--shard", "5/4"], 2, "0 to 3"),
    "from one": (["--shard", "4/4"], 2, "numbered from 0"),
    "no number": (["--shard", "a/b"], 2, "as 0/8"),
    "no tasks": (["--shard", "0/0"], 2, "1 to"),
    "overwrite": (["--shard", "0/4", "--overwrite"], 2, "--overwrite"),
    "changed files": (["--shard", "0/4", "--rescore-changed"], 2, "--rescore-changed"),
    "ray": (["--shard", "0/4", "--engine", "ray"], 2, "--engine ray"),
    "twice": (["--shard", "0/4", "--engine", "slurm-array"], 2, "--engine slurm-array"),
    "no array": (["--engine", "slurm-array"], 2, "SLURM_ARRAY_TASK_ID"),
    "warm": (["--shard", "0/4", "--update", "adamw-warm"], 2, "--update adamw-warm"),
    "address": (["--shard", "0/4", "--engine", "slurm-array", "--address", "auto"], 2, "--address"),
    "settings": (["--shard", "0/4", "--lr", "1"], 5, "update.lr"),
    "part rows": (["--shard", "0/4", "--part-rows", 5], 5, "part_rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_array_excludes_is_refused_and_nothing_lost(
    world: tuple[list[object], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, whole = world
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    options, code, told = REFUSED[name]
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert_one_line_error(invoke(*command, whole, *options), code, told)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_standard_input_cannot_be_divided(world: tuple[list[object], Path], tmp_path: Path) -> None:
    command, _ = world
    done = invoke("score", "-", *command[2:], tmp_path / "out", "--shard", "0/2", stdin=b"{}\n")
    assert_one_line_error(done, 2, "standard input", "--shard")


@pytest.mark.parametrize("other", [["score"], ["score", "--overwrite"], ["merge"]])
def test_a_folder_with_live_tasks_is_refused_to_others(
    world: tuple[list[object], Path], tmp_path: Path, other: list[str]
) -> None:
    command, whole = world
    out = tmp_path / "out"
    assert invoke(*command, out, "--shard", "0/2", "-q").code == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    with task_locked(out, (0, 2)):
        if other == ["merge"]:
            done = invoke("merge", whole, whole, "--out", out, "--overwrite")
        else:
            done = invoke(*command, out, *other[1:])
        assert_one_line_error(done, 5, "in use: task 0/2 (process")
        assert_one_line_error(invoke(*command, out, "--shard", "0/2"), 5, "task 0/2 of", "in use: process")
        assert_one_line_error(invoke(*command, out, "--shard", "1/3"), 5, "an array of 2")
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before


# --- from Python, and on an object store


def test_python_scores_the_share_of_a_task(world: tuple[list[object], Path], place: str) -> None:
    command, whole = world
    scorer = donod_fast.Scorer.from_pretrained(str(command[3]), device="cpu")
    for index in (1, 0):
        scores = scorer.score(str(command[1]), out=place, part_rows=4, shard=(index, 2))
        assert scores.status.finished == (index == 0)
    wanted, found = (ScoresFolder.open(folder).table() for folder in (whole, place))
    assert_same_bits(found, wanted)
    for wrong in ((2, 2), (0,), "0/2", (0.5, 2)):
        with pytest.raises(InputError, match="shard"):
            scorer.score(str(command[1]), out=place, shard=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shard is for scores in a folder"):
        scorer.score(str(command[1]), shard=(0, 2))


def test_a_plan_that_a_killed_process_left_out_is_written(world: tuple[list[object], Path], tmp_path: Path) -> None:
    command, whole = world
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    assert invoke(*command, out, "--shard", "0/1", "-q").code == 0
    assert (out / "plan.parquet").read_bytes() == (whole / "plan.parquet").read_bytes()
