"""The generated family of tasks in a recipe: ``family:train`` etc. become files in the study's folder.

A recipe names ``family:train?rows=2000&tasks=160&seed=0&size=tiny`` as its corpus (each part may be left out), and
``family:heldout``, ``family:problems`` and ``family:model`` in place of a file or model. All of them belong to the
same family as the corpus. A benchmark with the problems ``family:problems`` is called ``family``, also if the recipe
calls it ``humaneval`` after the form of its file, as recipes of 0.1.0 did.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from donod_fast.errors import InputError
from donod_fast.evaluation.benchmarks import FAMILY

if TYPE_CHECKING:
    from donod_fast.studies.core.cells import CellStore
    from donod_fast.studies.family import FamilyFiles
    from donod_fast.training import Recipe

PREFIX = "family:"
_PARTS = ("train", "heldout", "problems", "model")
_NUMBERS = ("rows", "tasks", "seed")
_WHERE = "a corpus as family:train?rows=2000&tasks=160&seed=0&size=tiny"


def is_family(recipe: Recipe) -> bool:
    """Whether the recipe names the family anywhere."""
    return any(name.startswith(PREFIX) for name in _names(recipe.as_dict()))


def with_family(recipe: Recipe, out: Path) -> Recipe:
    """Write the family into ``out`` and return the recipe with its files; return other recipes unchanged.

    Raises:
        InputError: an unknown part or option of the family.
        StoreError: the files cannot be written.
    """
    if not is_family(recipe):
        return recipe
    files = _written(_options(recipe), out)
    paths = {"train": files.train, "heldout": files.heldout, "problems": files.problems, "model": files.base_model}

    def replaced(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(PREFIX):
            return str(paths[_part(value)])
        if isinstance(value, dict):
            generated = str(value.get("problems")).startswith(PREFIX)
            named = {"benchmark": FAMILY} if generated and "benchmark" in value else {}
            return {**{key: replaced(item) for key, item in value.items()}, **named}
        return [replaced(item) for item in value] if isinstance(value, list) else value

    from donod_fast.training import recipe_from

    return recipe_from(replaced(recipe.as_dict()))


def rename_former_measures(store: CellStore, measures: Mapping[str, Mapping[str, Any]]) -> None:
    """Rename cached measures of generated tasks that 0.1.0 called ``humaneval``, so that they are not repeated.

    Args:
        store: the study's cells.
        measures: the measures that the study will take: name → everything that determines it.

    Raises:
        StoreError: a cell is damaged or cannot be written.
    """
    names = {_key(how): name for name, how in measures.items() if how.get("benchmark") == FAMILY}
    for cell in list(store.all()) if names else ():
        how = cell.settings.get("how") or {}
        name = names.get(_key({**how, "benchmark": FAMILY}))
        if cell.kind == "measure" and how.get("benchmark") == "humaneval" and name is not None:
            store.rename(cell, {**cell.settings, "measure": name, "how": {**how, "benchmark": FAMILY}})


def _key(how: Mapping[str, Any]) -> str:
    return json.dumps(how, sort_keys=True)


def _written(options: dict[str, Any], out: Path) -> FamilyFiles:
    from donod_fast.studies.family import BASE_MODEL, FamilyFiles, write_family

    name = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:12]
    folder = (out / f"family-{name}").resolve()
    train, heldout, problems = (folder / f"{part}.jsonl" for part in ("train", "heldout", "problems"))
    if options.get("size", "tiny") == "tiny" and all(file.exists() for file in (train, heldout, problems)):
        return FamilyFiles(train, heldout, problems, BASE_MODEL)
    return write_family(folder, **{"seed": 0, **options}, device=_device())


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _options(recipe: Recipe) -> dict[str, Any]:
    corpora = [name for name in recipe.score.data if name.startswith(f"{PREFIX}train")]
    if not corpora:
        raise InputError(f"recipe {recipe.name} names the family, but not in score.data; write there {_WHERE}")
    options: dict[str, Any] = {}
    for key, value in parse_qsl(corpora[0].partition("?")[2], keep_blank_values=True):
        if key in _NUMBERS and value.isdigit():
            options[key] = int(value)
        elif key == "size":
            options[key] = value
        else:
            raise InputError(f"{corpora[0]}: {key}={value} is not an option of the family; write {_WHERE}")
    return options


def _part(name: str) -> str:
    part = name.removeprefix(PREFIX).partition("?")[0]
    if part not in _PARTS:
        raise InputError(f"{name} is not a part of the family; its parts are {', '.join(_PARTS)}")
    return part


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [name for item in value for name in _names(item)] if isinstance(value, (list, tuple)) else []


__all__ = ["PREFIX", "is_family", "rename_former_measures", "with_family"]
