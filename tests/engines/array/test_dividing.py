"""Which parts belong to which task of an array, and how a task learns its number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from donod_fast.data.shards import ShardPlan
from donod_fast.engines.array.environment import TASKS, job_name, task_of_slurm
from donod_fast.errors import InputError
from donod_fast.scores.array_status import ranges
from donod_fast.scores.array_tasks import MOST_TASKS, ArrayTask, owners


@st.composite
def plans(draw: st.DrawFn) -> ShardPlan:
    """Plans of parts of other sizes, some in runs, with known bytes or without."""
    sizes = draw(st.lists(st.integers(1, 1000), max_size=60))
    has_bytes = draw(st.booleans())
    lines, run = [], -1
    offset = start = 0
    for number, rows in enumerate(sizes):
        is_in_run = draw(st.booleans())
        run = (run if run >= 0 and draw(st.booleans()) else number) if is_in_run else -1
        length = draw(st.integers(1, 5000)) if has_bytes else 0
        where = (offset, offset + length, 1) if has_bytes else (-1, -1, 0)
        lines.append((number, run, 0, start, rows, 0, *where))
        offset, start = offset + length, start + rows
    return ShardPlan(np.array(lines, np.int64).reshape(-1, 9))


@given(plans(), st.integers(1, 70))
def test_tasks_divide_the_plan_evenly_and_keep_runs_whole(plan: ShardPlan, count: int) -> None:
    tasks = [ArrayTask(count, index) for index in range(count)]
    shares = [task.parts(plan) for task in tasks]
    assert sorted(part for share in shares for part in share) == list(range(len(plan)))
    assert all(list(share) == sorted(share) for share in shares)
    assert [task.parts(plan) for task in tasks] == shares  # no task depends on when it is asked

    units = plan.tasks(range(len(plan)), 1)
    for unit in units:
        assert len({index for index, share in enumerate(shares) if set(unit) & set(share)}) == 1
    sizes = plan.sizes()
    loads = [int(sizes[list(share)].sum()) for share in shares]
    largest = max((int(sizes[list(unit)].sum()) for unit in units), default=0)
    assert max(loads) - min(loads) <= largest


def test_work_is_counted_in_bytes_where_all_are_known() -> None:
    plan = ShardPlan.uniform(40, 10)
    assert plan.sizes().tolist() == [10, 10, 10, 10]
    lines = [(part, -1, 0, 10 * part, 10, 0, *where) for part, where in
             enumerate([(0, 70, 1), (70, 100, 11), (100, 130, 21), (130, 140, 31)])]  # fmt: skip
    plan = ShardPlan(np.array(lines, np.int64))
    assert plan.sizes().tolist() == [70, 30, 30, 10]
    assert owners(plan, 2).tolist() == [0, 1, 1, 1]


def test_equal_parts_are_dealt_out_in_turn_to_thousands_of_tasks() -> None:
    plan = ShardPlan.uniform(100_000, 10)
    found = owners(plan, 3000)
    assert found.tolist() == [part % 3000 for part in range(10_000)]


@given(st.integers(-3, 12), st.integers(-3, 12))
def test_a_task_is_accepted_if_and_only_if_it_exists(index: int, count: int) -> None:
    text = f"{index}/{count}"
    if 0 <= index < count:
        assert ArrayTask.parse(text) == ArrayTask(count, index)
        assert str(ArrayTask.parse(f" {index} / {count} ")) == text
        return
    with pytest.raises(InputError, match="--shard") as refused:
        ArrayTask.parse(text)
    assert text in str(refused.value)


@pytest.mark.parametrize("text", ["", "a/b", "1", "1/", "/2", "1/2/3", "0.5/2", "1 of 2", f"0/{MOST_TASKS + 1}", "²/3"])
def test_what_is_no_task_is_refused_with_the_form_to_write(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard.*0/8"):
        ArrayTask.parse(text)


def slurm(numbers: list[int], number: int, step: int = 1) -> dict[str, str]:
    """What Slurm 22.05 sets in a task of an array."""
    about = {"ID": number, "MIN": min(numbers), "MAX": max(numbers), "COUNT": len(numbers), "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in about.items()}


@given(st.integers(0, 50), st.integers(1, 30), st.integers(1, 4))
def test_the_tasks_of_an_array_job_are_all_there_once(first: int, count: int, step: int) -> None:
    numbers = list(range(first, first + step * count, step))
    found = [task_of_slurm(slurm(numbers, number, step)) for number in numbers]
    assert found == [ArrayTask(count, index) for index in range(count)]


@given(st.sets(st.integers(0, 20), min_size=2, max_size=8))
def test_some_tasks_of_an_array_need_to_know_its_size(numbers: set[int]) -> None:
    chosen = sorted(numbers)
    for number in chosen:
        environment = slurm(chosen, number)
        assert task_of_slurm({**environment, TASKS: "21"}) == ArrayTask(21, number)
        if chosen[-1] - chosen[0] + 1 == len(chosen):  # all between the first and the last: an array of its own
            assert task_of_slurm(environment) == ArrayTask(len(chosen), chosen.index(number))
        else:
            with pytest.raises(InputError, match=TASKS):
                task_of_slurm(environment)


def test_job_steps_with_several_tasks_count_each_of_them() -> None:
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    assert task_of_slurm(step) == ArrayTask(2, 1)
    found = {
        task_of_slurm({**slurm([4, 5, 6], number), **step, "SLURM_PROCID": str(rank)})
        for number in (4, 5, 6)
        for rank in (0, 1)
    }
    assert found == {ArrayTask(6, index) for index in range(6)}
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}  # not started by srun: one process
    assert task_of_slurm({**slurm([4, 5, 6], 5), **batch_script}) == ArrayTask(3, 1)


@pytest.mark.parametrize("environment", [{}, {"SLURM_ARRAY_TASK_ID": "3"}, {"SLURM_ARRAY_TASK_ID": "x"},
                                         {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}])  # fmt: skip
def test_an_environment_without_an_array_is_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match="SLURM_ARRAY_TASK"):
        task_of_slurm(environment)


def test_a_job_is_named_as_its_scheduler_names_it() -> None:
    assert job_name({"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "15"}) == "Slurm 12_3"
    assert job_name({"SLURM_JOB_ID": "15"}) == "Slurm 15"
    assert job_name({"JOB_COMPLETION_INDEX": "4"}) == "index 4"
    assert job_name({}) == ""


@given(st.sets(st.integers(0, 40), max_size=20))
def test_ranges_name_each_number_once(numbers: set[int]) -> None:
    found = []
    for piece in filter(None, ranges(numbers).split(",")):
        first, _, last = piece.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(numbers)
