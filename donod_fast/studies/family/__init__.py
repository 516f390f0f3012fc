"""A generated family of programming tasks with hidden tests, and a small model that can learn them."""

from donod_fast.studies.family.corpus import DEFAULT_CORRUPTIONS, base_texts, task_rows, training_rows
from donod_fast.studies.family.corruptions import CLEAN, KINDS
from donod_fast.studies.family.files import BASE_MODEL, FamilyFiles, problem_of, write_family
from donod_fast.studies.family.tasks import Task, generate_tasks, is_held_out

__all__ = [
    "BASE_MODEL",
    "CLEAN",
    "DEFAULT_CORRUPTIONS",
    "KINDS",
    "FamilyFiles",
    "Task",
    "base_texts",
    "generate_tasks",
    "is_held_out",
    "problem_of",
    "task_rows",
    "training_rows",
    "write_family",
]
