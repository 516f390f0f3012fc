"""Which task of an array this process is, from the environment that Slurm gives it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from donod_fast.errors import InputError
from donod_fast.scores.array_tasks import ArrayTask

TASKS = "DONOD_FAST_TASKS"
"""Variable with the number of tasks of an array of which only some are submitted again."""


def task_of_slurm(environment: Mapping[str, str] = os.environ) -> ArrayTask:
    """The task of an array job (``sbatch --array``), or of a job step with several tasks (``srun --ntasks``).

    In an array job with all numbers from its first to its last (or every second, …), the task's number is its place
    among them. Of an array of which only some numbers are submitted, ``DONOD_FAST_TASKS`` says how many there are, and
    they are numbered from 0. If each task of an array is itself a job step with several tasks, all of them count.

    Raises:
        InputError: this is no such job, or the environment does not tell the number of tasks; names the variable.
    """
    rank, ranks = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_STEP_NUM_TASKS")
    place = (0, 1) if rank is None or ranks is None or ranks < 2 else (rank, ranks)
    number = _number(environment, "SLURM_ARRAY_TASK_ID")
    if number is None:
        if place == (0, 1):
            raise InputError(
                "--engine slurm-array: SLURM_ARRAY_TASK_ID is not set; submit the job with sbatch --array=0-7, start "
                "it with srun --ntasks=8, or give --shard I/N"
            )
        return ArrayTask(place[1], place[0])
    index, count = _place_in_array(environment, number)
    return ArrayTask(count * place[1], index * place[1] + place[0])


def job_name(environment: Mapping[str, str] = os.environ) -> str:
    """How the scheduler names this process: job and task of an array, or pod; "" if that is unknown."""
    job, number = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if job and number:
        return f"Slurm {job}_{number}"
    job = environment.get("SLURM_JOB_ID")
    if job:
        return f"Slurm {job}"
    index = environment.get("JOB_COMPLETION_INDEX")
    return f"index {index}" if index else ""


def _place_in_array(environment: Mapping[str, str], number: int) -> tuple[int, int]:
    told = _number(environment, TASKS)
    if told is not None:
        return number, told
    facts = {}
    for name in ("MIN", "MAX", "COUNT"):
        variable = f"SLURM_ARRAY_TASK_{name}"
        found = _number(environment, variable)
        if found is None:
            raise InputError(f"--engine slurm-array: {variable} is not set; give --shard I/N, or set {TASKS}")
        facts[name] = found
    step = _number(environment, "SLURM_ARRAY_TASK_STEP") or 1
    low, high, count = facts["MIN"], facts["MAX"], facts["COUNT"]
    if (high - low) // step + 1 != count or (number - low) % step:
        raise InputError(
            f"--engine slurm-array: {count} tasks with numbers from {low} to {high} are some of a larger array; say "
            f"how many tasks it has with sbatch --export=ALL,{TASKS}=N (`donod-fast status OUT --missing-shards N` "
            "prints the options)"
        )
    return (number - low) // step, count


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is None or text == "":
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise InputError(f"{name}={text!r} in the environment is not a whole number")
    return int(text)


__all__ = ["TASKS", "job_name", "task_of_slurm"]
