"""Options of a scoring run that all engines share, and how a run reports while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from donod_fast.data.shards import PART_ROWS
from donod_fast.engines.isolation import STALL_TIMEOUT
from donod_fast.errors import InputError
from donod_fast.scores.array_tasks import ArrayTask

OnProblem = Callable[[int | None, str], None]
"""Called with the number of a part (None for a problem of no single part) and a description of the problem."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a corpus is scored into a folder. No score depends on these options.

    Attributes:
        part_rows: rows of a part.
        overwrite: drop the scores that the folder holds.
        rescore_changed: if input files have changed since they were scored, drop the scores of these files only.
        workers: processes that read and tokenise ahead of each device, 0 for a thread; None to choose by device, rows
            and cores. A worker of a Ray cluster chooses by its CPUs instead.
        stall_timeout: seconds without progress after which a process that scores is considered hung, killed and
            replaced. While it loads the model, it has at least half an hour. A run on a Ray cluster ends after twice
            that time without any working worker.
        record: the options of the run by name, in JSON types, for the manifest; empty to record none.
        token_losses: record the loss of each scored token beside the scores. A folder that was begun with it keeps it;
            one that was begun without gets the losses of its parts added.
        task: score only the parts of this task of an array; None to score all.

    Raises:
        InputError: names the option with a wrong value.
    """

    part_rows: int = PART_ROWS
    overwrite: bool = False
    rescore_changed: bool = False
    workers: int | None = None
    stall_timeout: float = STALL_TIMEOUT
    record: Mapping[str, Any] = field(default_factory=dict)
    token_losses: bool = False
    task: ArrayTask | None = None

    def __post_init__(self) -> None:
        if self.part_rows < 1:
            raise InputError(f"part_rows must be at least 1, got {self.part_rows}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers must be at least 0, got {self.workers}")
        if not self.stall_timeout > 0:
            raise InputError(f"stall_timeout must be more than 0 seconds, got {self.stall_timeout:g}")
        if self.task is not None and self.overwrite:
            raise InputError(
                "--overwrite would drop what other tasks of the array have scored, and excludes --shard: name another "
                "--out folder, or remove the old one before the array is submitted"
            )
        if self.task is not None and self.rescore_changed:
            raise InputError(
                "--rescore-changed changes the parts of the folder under the other tasks, and excludes --shard: give "
                "the command once without --shard (it may be interrupted once it scores), then submit the array"
            )


__all__ = ["STALL_TIMEOUT", "OnProblem", "RunOptions"]
