"""What the stages share: the host's classes, the columns of a row's identity, and new batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from donod_fast.adapters.extras import host_module

_EXTRA = "nemo-curator"
DocumentBatch: Any = host_module("nemo_curator.tasks", _EXTRA).DocumentBatch
_Stage: Any = host_module("nemo_curator.stages.base", _EXTRA).ProcessingStage[DocumentBatch, DocumentBatch]
Resources: Any = host_module("nemo_curator.stages.resources", _EXTRA).Resources

SOURCE = "donod_source"
"""The file that a row was read from; the first one if Curator reads several files as one batch."""
ROW = "donod_row"
"""Position of a row in its batch as it reached the score stage, from 0."""


class DonodStage(_Stage):  # type: ignore[misc]
    """What the stages share: name, resources, and new batches that keep the host's own fields."""

    _is_abstract_root = True

    def __init__(self, name: str, resources: Any) -> None:
        self.name = name
        if resources is not None:
            self.resources = Resources(**resources) if isinstance(resources, Mapping) else resources

    def inputs(self) -> tuple[list[str], list[str]]:
        """Any batch of documents: which columns a row needs depends on its format."""
        return ["data"], []

    def _made(self, task: Any, data: Any) -> Any:
        return DocumentBatch(
            dataset_name=task.dataset_name, data=data, _metadata=task._metadata, _stage_perf=task._stage_perf
        )


def source_of(task: Any) -> str:
    """Where the rows of a batch were read, for messages and identities."""
    files = task._metadata.get("source_files") or ()
    return str(files[0] if files else task.task_id or task.dataset_name)


__all__ = ["ROW", "SOURCE", "DonodStage", "source_of"]
