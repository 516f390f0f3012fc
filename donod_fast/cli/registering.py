"""``--dataset-info`` of ``donod-fast select``: the subset with its entry in LLaMA-Factory's ``dataset_info.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.data.types import Record
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.selection.subset import Subset


@dataclass
class Registration:
    """Where a subset is registered, if it is.

    Attributes:
        file: the ``dataset_info.json``; None for none.
        name: the name of the data set.
        said: what to tell the user afterwards.
        entry: the entry, once it is made.
    """

    file: Path | None = None
    name: str = ""
    said: list[str] = field(default_factory=list)
    entry: dict[str, Any] | None = None

    @staticmethod
    def of(dataset_info: Path | None, dataset: str | None, out: Path | None, *, overwrite: bool) -> Registration:
        """Check the options before any work is done.

        Args:
            dataset_info: the file, or its folder.
            dataset: the name; None for that of ``out``.
            out: the subset; None for standard output.
            overwrite: replace an entry of this name.

        Raises:
            InputError, StoreError: the subset cannot be registered so; says why.
        """
        if dataset_info is None:
            if dataset is not None:
                raise InputError("--dataset names an entry of --dataset-info: give that file too")
            return Registration()
        from donod_fast.data.dataset_entry import refuse_file
        from donod_fast.data.dataset_registry import refuse_name, registry_file

        if out is None:
            raise InputError("--dataset-info needs a file for its entry: give --out FILE instead of -")
        refuse_file(out)
        file, name = registry_file(dataset_info), out.stem if dataset is None else dataset
        refuse_name(file, name, overwrite=overwrite)
        return Registration(file, name)

    def subset_file(
        self, folder: ScoresFolder, corpus: Corpus, rows: Any, out: Path, order: Any, *, overwrite: bool
    ) -> Subset:
        """Write the subset, and its entry if it is registered; neither is there if the entry cannot be made.

        Raises:
            InputError: LLaMA-Factory would not read the rows as they were scored; names the first such row.
            CorpusError, StoreError: as ``selection.subset.subset_file``.
        """
        from donod_fast.selection.subset import refuse_input, subset_file

        if self.file is None:
            return subset_file(corpus, rows, out, order=order, overwrite=overwrite)
        from donod_fast.data.dataset_entry import entry_of
        from donod_fast.data.dataset_registry import register
        from donod_fast.data.read_rules import ReadRules
        from donod_fast.data.record_files import refuse_existing
        from donod_fast.system.files import storage_error
        from donod_fast.system.scratch import scratch_folder

        refuse_input(corpus, out)
        try:
            with scratch_folder(out.absolute().parent, ".donod-fast-select-") as place:
                file = place / out.name
                written = subset_file(corpus, rows, file, order=order)
                rules = ReadRules.from_json(folder.manifest["masks"])
                entry = entry_of(file, _records(file), _records(file), rules)
                refuse_existing(out, overwrite)
                file.replace(out.resolve() if out.is_symlink() else out)
        except OSError as error:
            raise storage_error(out, error) from error
        register(self.file, self.name, out, entry.content, overwrite=overwrite)
        self.entry = entry.content
        columns = json.dumps(entry.content["columns"], ensure_ascii=False)
        self.said = [
            f"data set {self.name} in {self.file}: {entry.content['formatting']}, columns {columns}",
            *(f"note: {note}" for note in entry.notes),
        ]
        return written

    def as_json(self) -> dict[str, Any]:
        """The data set for the summary."""
        return {} if self.file is None else {"dataset_info": str(self.file), "dataset": self.name, "entry": self.entry}


def _records(file: Path) -> Iterator[Record]:
    from donod_fast.data.reading import open_corpus

    yield from open_corpus([str(file)]).records()


__all__ = ["Registration"]
