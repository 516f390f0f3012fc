"""The family as files: training rows, held-out rows, a problem file in HumanEval's format, the base model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.studies.family.corpus import task_rows, training_rows
from donod_fast.studies.family.sizes import size_named
from donod_fast.studies.family.tasks import Task, generate_tasks
from donod_fast.system.files import atomic_writer, storage_error

DATA = Path(__file__).parent / "data"
BASE_MODEL = DATA / "model"
"""The tiny base model's folder."""

DEFAULT_ROWS = 2000
DEFAULT_TASKS = 160


@dataclass(frozen=True, slots=True)
class FamilyFiles:
    """Paths of the family's files.

    Attributes:
        train: training rows (JSON Lines with prompt and completion, and the corruption for reports).
        heldout: the held-out tasks with their right solutions as rows, to measure a loss on.
        problems: the held-out tasks in HumanEval's format.
        base_model: folder of the base model to score and to train from.
    """

    train: Path
    heldout: Path
    problems: Path
    base_model: Path


def write_family(
    out: Path,
    *,
    seed: int,
    rows: int = DEFAULT_ROWS,
    tasks: int = DEFAULT_TASKS,
    corrupted: Mapping[str, float] | None = None,
    size: str = "tiny",
    device: str = "cpu",
) -> FamilyFiles:
    """Write the family into a folder; the same arguments give the same bytes.

    Args:
        out: the folder; it is created if needed.
        seed: determines training rows and held-out tasks.
        rows: number of training rows.
        tasks: number of held-out tasks.
        corrupted: share of the training rows for each kind of corruption; see ``training_rows``.
        size: the base model: ``"tiny"`` is part of the package; others are trained from scratch on ``device`` and
            cached in ``out/base-SIZE``.

    Raises:
        InputError: a kind of corruption or the size is unknown, or a share is invalid.
        StoreError: a file cannot be written.
    """
    size_named(size)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    base_model = BASE_MODEL if size == "tiny" else _trained_base(out, size, device)
    drawn = generate_tasks(tasks, seed)
    files = FamilyFiles(out / "train.jsonl", out / "heldout.jsonl", out / "problems.jsonl", base_model)
    _write_lines(files.train, training_rows(rows, seed, corrupted))
    _write_lines(files.heldout, task_rows(drawn))
    _write_lines(files.problems, (problem_of(task) for task in drawn))
    return files


def problem_of(task: Task) -> dict[str, str]:
    """The task as a line of HumanEval's problem file."""
    return {
        "task_id": task.task_id,
        "prompt": task.prompt,
        "canonical_solution": task.solution,
        "test": task.test,
        "entry_point": task.entry_point,
    }


def _trained_base(out: Path, size: str, device: str) -> Path:
    from donod_fast.studies.family.pretrain import write_base

    folder = out / f"base-{size}"
    if not (folder / "README").exists():  # written last
        write_base(folder, size, device=device)
    return folder


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with atomic_writer(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
