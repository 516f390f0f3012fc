"""Reading recipes: YAML files, the packaged ones by name, and ``--set`` overrides."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import donod_fast
from donod_fast.errors import InputError
from donod_fast.training.recipe import Recipe, Section

try:
    import yaml
    from pydantic import BaseModel, ValidationError
except ImportError as error:
    raise InputError("recipes need PyYAML and pydantic: pip install 'donod-fast[train]'") from error

_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".zst")
_PACKAGE = "package:"  # what comes with donod_fast, wherever it is installed
_PATHS = (
    "train.model",
    "train.parameter_mask",
    "score.model",
    "score.data",
    "score.references",
    "eval.problems",
    "heldout",
    "train.template",
    "score.template",
)


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(file.stem for file in _packaged_folder().glob("*.yaml"))


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by the name of a packaged one, or from a YAML file.

    Args:
        name_or_path: a file that exists goes first, then a name of :func:`recipe_names`.
        overrides: ``section.key=value`` strings, see :func:`apply_overrides`.

    Raises:
        InputError: no such recipe, no valid YAML, an unknown key, or a value of a wrong type; names file, key
            and remedy.
    """
    file = _find(name_or_path)
    values = _read(file)
    _resolve_paths(values, file.parent)
    return recipe_from(values, overrides, where=str(file))


def recipe_from(values: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe") -> Recipe:
    """Check plain values (as YAML gives them) as a recipe, with overrides put in; ``where`` begins a message.

    Raises:
        InputError: an unknown key, or a value of a wrong type.
    """
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    named = set()
    for override in overrides:
        key, value = _parsed(override)
        _put(plain, key, value)
        named.add(key)
    try:
        # As JSON, since there lists are tuples, and strict, so that "yes" is no number and 1 is no flag.
        return Recipe.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        raise InputError("\n".join(_explained(where, item, plain, named) for item in error.errors())) from error


def apply_overrides(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with some values replaced.

    Args:
        recipe: it is not changed.
        overrides: strings as ``train.learning_rate=1e-4``; the value is YAML, so ``study.seeds=[0, 1]`` and
            ``train.max_steps=null`` are lists and nulls. Items of lists are named by number: ``eval.0.limit=20``.

    Raises:
        InputError: an override without ``=``, an unknown key, or a value of a wrong type.
    """
    return recipe_from(recipe.as_dict(), overrides, where="--set")


def _packaged_folder() -> Path:
    try:
        return Path(next(iter(import_module("donod_fast.recipes").__path__)))
    except ImportError:  # a checkout that is not installed, or was installed before it had recipes
        return Path(donod_fast.__file__).parent.parent / "recipes"


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    names = recipe_names()
    if str(name_or_path) in names:
        return _packaged_folder() / f"{name_or_path}.yaml"
    raise InputError(
        f"{name_or_path}: there is no such recipe file, and the packaged ones are {', '.join(names)}; "
        "give one of these names or the path of a .yaml file"
    )


class _Loader(yaml.SafeLoader):
    """YAML with numbers as people write them (2e-5), and without keys that are given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for at, key in enumerate(keys) if key in keys[:at]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe {file} cannot be read: {error}") from error
    except (yaml.YAMLError, TypeError) as error:
        raise InputError(f"the recipe {file} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"the recipe {file} holds no sections; it begins with name: and train:")
    return values


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    for name in _PATHS:
        section, _, key = name.rpartition(".")
        holders = values.get(section, {}) if section else values
        for holder in holders if isinstance(holders, list) else [holders]:
            if not isinstance(holder, dict) or key not in holder:
                continue
            value = holder[key]
            if isinstance(value, list):
                holder[key] = [_resolved(item, folder) for item in value]
            else:
                holder[key] = _resolved(value, folder)


def _resolved(value: Any, folder: Path) -> Any:
    """A relative path as one from the recipe's folder; a hub id, a name or anything else as it is.

    ``package:demo/data/model`` is what comes with the package.
    """
    if not isinstance(value, str) or not value:
        return value
    if value.startswith(_PACKAGE):
        return str(Path(donod_fast.__file__).parent / value.removeprefix(_PACKAGE))
    if value.startswith("~"):
        return str(Path(value).expanduser())
    path = Path(value)
    if path.is_absolute():
        return value
    found = folder / path
    is_path = value.startswith(("./", "../")) or path.name.endswith((*_DATA_SUFFIXES, ".jinja")) or found.exists()
    return str(found.absolute().resolve() if found.exists() else found.absolute()) if is_path else value


def _parsed(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(f"--set {override!r}: write a key and a value, as train.learning_rate=1e-4")
    try:
        return key, yaml.load(text, Loader=_Loader) if text.strip() else ""
    except yaml.YAMLError as error:
        raise InputError(f"--set {override!r}: the value is no valid YAML: {' '.join(str(error).split())}") from error


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    holder: Any = values
    *path, last = key.split(".")
    for at, part in enumerate(path):
        if isinstance(holder, list):
            holder = holder[_position(holder, part, key)]
            continue
        if not isinstance(holder, dict):
            raise InputError(f"--set {key}: {'.'.join(path[:at])} is a value, not a section")
        if holder.get(part) is None:
            holder[part] = {}
        holder = holder[part]
    if isinstance(holder, list):
        holder[_position(holder, last, key)] = value
    elif isinstance(holder, dict):
        holder[last] = value
    else:
        raise InputError(f"--set {key}: {'.'.join(path)} is a value, not a section")


def _position(items: Sequence[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise InputError(f"--set {key}: {part!r} is no item of a list of {len(items)}; items count from 0")
    return int(part)


def _explained(where: str, item: Mapping[str, Any], values: Mapping[str, Any], overridden: set[str]) -> str:
    """One line for one error of pydantic: file, key, what is wrong, what to do."""
    # Names of the branches of a union stand in the place too; they are no keys.
    place = [part for part in item["loc"] if isinstance(part, int) or not re.search(r"[\[\]'(-]", str(part))]
    key = ".".join(map(str, place))
    begin = f"--set {key}" if any(key == name or key.startswith(name + ".") for name in overridden) else where
    begin = begin if begin.endswith(key) and key else f"{begin}: {key}" if key else begin
    if item["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, 1)
        return f"{begin} is no known key; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
    if item["type"] == "missing":
        return f"{begin} is missing; add it"
    message = str(item["msg"]).removeprefix("Value error, ")
    shown = "" if item["type"] == "value_error" else f", got {json.dumps(item.get('input'), default=str)[:80]}"
    return f"{begin}: {message[:1].lower()}{message[1:]}{shown}"


def _known_keys(place: Sequence[str | int]) -> list[str]:
    section: Any = Recipe
    for part in place:
        if isinstance(part, int):
            continue
        section = _section_of(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((_section_of(inner) for inner in get_args(annotation) if inner is not ...), Section)


__all__ = ["apply_overrides", "load_recipe", "recipe_from", "recipe_names"]
