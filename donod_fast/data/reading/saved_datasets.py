"""Datasets of the library ``datasets``: folders of ``save_to_disk``, and data sets of the hub by their id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from donod_fast.data.reading.tables import DatasetRows
from donod_fast.errors import CorpusError
from donod_fast.system.places import LocalPlace, Place

SAVED = "saved"
HUB = "hub"


def is_saved_dataset(folder: Place) -> bool:
    """Whether a folder is one that ``datasets.save_to_disk`` wrote; it must be on this machine."""
    return isinstance(folder, LocalPlace) and any(
        (folder.path / marker).is_file() for marker in ("state.json", "dataset_dict.json")
    )


def open_saved_dataset(name: str, folder: Place, split: str) -> DatasetRows:
    """Open a folder that ``datasets.save_to_disk`` wrote.

    Raises:
        CorpusError: it is damaged, or lacks the split.
    """
    import datasets  # slow to import, and few inputs need it

    try:
        dataset: Any = datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets lets errors of pyarrow and json through
        raise CorpusError(f"{name}: the saved dataset cannot be read: {error}; save it again") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise CorpusError(f"{name}: no split {split!r}; it has {', '.join(map(str, dataset))}")
        dataset = dataset[split]
    path = folder.path.absolute() if isinstance(folder, LocalPlace) else folder
    return DatasetRows(name, dataset, {"kind": SAVED, "path": str(path), "split": split})


def open_hub_dataset(hub_id: str, split: str, revision: str | None) -> DatasetRows:
    """Open a dataset of the Hugging Face hub (downloaded, or from the local cache).

    Raises:
        CorpusError: it does not exist, or ``datasets`` cannot load it.
    """
    import datasets

    try:
        dataset: Any = datasets.load_dataset(hub_id, split=split, revision=revision)
    except Exception as error:  # network, missing split, missing configuration, builder errors
        reason = str(error).split("\n")[0]
        raise CorpusError(
            f"{hub_id}: there is no such file, and as a hub dataset (split {split!r}) it cannot be loaded: "
            f"{reason}; check the name, or save it with datasets' save_to_disk and name that folder"
        ) from error
    return DatasetRows(hub_id, dataset, {"kind": HUB, "id": hub_id, "split": split, "revision": revision})


def restored_saved(entry: Mapping[str, Any]) -> DatasetRows:
    """The folder of an entry, opened again. Raises CorpusError: it is missing or has changed."""
    folder = LocalPlace(Path(entry["path"]))
    if not is_saved_dataset(folder):
        raise CorpusError(f"{folder}: the saved dataset is missing; restore it")
    return _same_dataset(entry, open_saved_dataset(entry["name"], folder, entry["split"]))


def restored_hub(entry: Mapping[str, Any]) -> DatasetRows:
    """The dataset of an entry, opened again. Raises CorpusError: it is missing or has changed."""
    return _same_dataset(entry, open_hub_dataset(entry["id"], entry["split"], entry["revision"]))


def _same_dataset(entry: Mapping[str, Any], source: DatasetRows) -> DatasetRows:
    if source.digest != entry["digest"]:
        raise changed_input(entry.get("path") or entry["id"], f"{source.digest}, {entry['digest']} before")
    return source


def changed_input(path: object, what: str) -> CorpusError:
    """The error for an input that is not the one that was scored."""
    return CorpusError(f"{path}: the input has changed since it was scored ({what}); restore it, or score again")


__all__ = [
    "HUB",
    "SAVED",
    "changed_input",
    "is_saved_dataset",
    "open_hub_dataset",
    "open_saved_dataset",
    "restored_hub",
    "restored_saved",
]
