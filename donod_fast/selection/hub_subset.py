"""Chosen rows → one file of a data set on the hub: written here as any subset, then sent in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.reading.source import Source
from donod_fast.data.targets import refuse_hub_target
from donod_fast.errors import StoreError
from donod_fast.selection.subset import Records, Subset, subset_file
from donod_fast.system.files import storage_error
from donod_fast.system.hub_uploads import HubFile, Upload
from donod_fast.system.hub_urls import data_set_parts
from donod_fast.system.scratch import scratch_folder
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from torch import Tensor

    from donod_fast.selection.out_of_core.row_set import RowSet

_SCRATCH = ".donod-fast-hub-"


@dataclass(frozen=True, slots=True)
class HubSubset:
    """A subset that may be written to the hub; see :class:`~donod_fast.system.hub_uploads.Upload`."""

    upload: Upload

    @staticmethod
    def begin(
        url: str, sources: Sequence[Source], inputs: Iterable[Mapping[str, Any]], *, overwrite: bool
    ) -> HubSubset:
        """Check everything that can be checked before any work is done.

        Args:
            url: ``hf://datasets/ORG/NAME[@BRANCH]/PATH``.
            sources: the inputs of the corpus.
            inputs: their entries in the manifest.
            overwrite: whether a file on the hub may be replaced (never one of the corpus's own).

        Raises:
            InputError: the URL names no file that can be written, or one that cannot hold the records.
            StoreError: it is an input, exists already, or the hub refuses or does not answer.
            CorpusError: an input cannot be read, or has changed.
        """
        file = HubFile.of(url)
        refuse_hub_target(file.url(), file.name, sources)
        for entry in inputs:
            own = data_set_parts(str(entry.get("url") or ""))
            if own is not None and (own[0], own[2]) == (file.repository, file.path):
                raise StoreError(f"{file.url()} is one of the inputs of the corpus; write to another name")
        return HubSubset(Upload.begin(file, overwrite=overwrite))

    def write(
        self,
        corpus: Records,
        rows: Sequence[int] | Tensor | RowSet,
        order: Any = "input",
        *,
        temp_dir: Path | None = None,
        progress: bool = False,
    ) -> tuple[Subset, str]:
        """Write the records of some rows, and return what was written and the commit that holds it.

        Args:
            corpus, rows, order: as in ``selection.subset.subset_file``.
            temp_dir: an existing folder for the file until it is sent; None for that of the system.
            progress: whether bars may be drawn while it is sent.

        Raises:
            InputError, CorpusError: as ``selection.subset.subset_file``.
            StoreError: a disk or the hub refuses; another writer was faster. Says whether the file was written.
        """
        parent = Path(tempfile.gettempdir()) if temp_dir is None else temp_dir
        try:
            with scratch_folder(parent, _SCRATCH) as place:
                local = place / self.upload.file.name
                written = subset_file(corpus, rows, local, order=order)
                message = f"Add {plural(written.rows, 'row')} that donod-fast chose"
                return written, self.upload.commit(local, message, progress=progress)
        except OSError as error:
            raise storage_error(parent, error) from error


__all__ = ["HubSubset"]
