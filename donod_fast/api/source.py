"""Where scores come from: their folder (on a disk, in an object store, in memory), and the records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from donod_fast.data.reading import Corpus
from donod_fast.errors import CorpusError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.held import held
from donod_fast.system.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from donod_fast.selection.subset import Records


class FolderOfRows(ScoresFolder):
    """A scores folder of rows that were given from Python, with these rows if they are here.

    Args:
        folder: the scores.
        given: the rows; None if they are not here.
    """

    def __init__(self, folder: ScoresFolder, given: Corpus | None) -> None:
        super().__init__(folder.storage, folder.manifest)
        self.given = given

    def corpus(self) -> Corpus:
        """The rows. Raises CorpusError: they are not here."""
        if self.given is None:
            raise CorpusError(
                f"{self.name} has scores of rows that were given from Python, and a scores folder does not keep the "
                f"rows themselves; give the same rows again: load_scores({self.name!r}, data=rows)"
            )
        return self.given

    def reopened(self) -> Corpus:
        """The rows, each of which is compared with the one that was scored. Raises CorpusError: they are not here."""
        return held(self.corpus(), self)


class Source:
    """A scores folder and its records.

    Args:
        folder: the scores.
        given: the records, where they were given from Python; else they are read from the inputs of the folder.
    """

    has_settings = True
    """Whether it is known how the rows were scored."""

    def __init__(self, folder: ScoresFolder, given: Corpus | None = None) -> None:
        self.folder = FolderOfRows(folder, given) if is_from_python(folder) else folder

    @property
    def in_memory(self) -> bool:
        """Whether the folder is gone with this process."""
        return isinstance(self.folder.storage, MemoryStorage)

    @property
    def place(self) -> str:
        """The folder's path or URL, or ``in memory``."""
        return "in memory" if self.in_memory else self.folder.name

    @property
    def given(self) -> Corpus | None:
        """The records that were given from Python; None if they are in files, or not here."""
        return self.folder.given if isinstance(self.folder, FolderOfRows) else None

    def records(self) -> Records:
        """The records, each of which is compared with the one that was scored when it is read.

        Raises:
            CorpusError: an input is gone or has changed; or the records were given from Python and are not in a folder.
        """
        return self.folder.reopened()

    def carrying(self, columns: Iterable[str]) -> ScoresFolder:
        """A folder that carries these columns of the records, where that needs no model; else the folder."""
        return self.folder


def is_from_python(folder: ScoresFolder) -> bool:
    """Whether some rows of a folder were given from Python."""
    return any(entry.get("kind") == "rows" for entry in folder.manifest["input"].get("inputs") or ())


__all__ = ["FolderOfRows", "Source", "is_from_python"]
