"""Reading recipes: YAML files, the packaged ones by name, and ``--set`` overrides."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_args

from donod_fast.confidential import hidden
from donod_fast.errors import InputError
from donod_fast.system.places import path_of
from donod_fast.training.recipe import Recipe, Section

try:
    from pydantic import BaseModel, ValidationError

    from donod_fast.system.yaml_files import UniqueKeyLoader, parse_yaml, read_yaml
except ImportError as error:
    raise InputError("recipes need PyYAML and pydantic: pip install 'donod-fast[train]'") from error

_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".zst")
_MOST = 1 << 63  # no setting is a number as large as this
_PAPER = "paper-"  # how the names of the recipes of `study paper` begin
_PACKAGE_FOLDER = Path(__file__).parents[1]
_PACKAGE = "package:"  # prefix of paths inside the installed package
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

AnyRecipe = TypeVar("AnyRecipe", bound=Section)


def recipe_names(*, paper: bool = False) -> list[str]:
    """Names of the packaged recipes: those of training and of the threshold study, or those of ``study paper``."""
    names = sorted(file.stem for file in _packaged_folder().glob("*.yaml"))
    return [name for name in names if name.startswith(_PAPER) == paper]


def load_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by the name of a packaged one, or from a YAML file.

    Args:
        name_or_path: the path of a file, or a name of :func:`recipe_names`; an existing file takes precedence.
        overrides: ``section.key=value`` strings, see :func:`apply_overrides`.

    Raises:
        InputError: no such recipe, invalid YAML, an unknown key, or a value of a wrong type; names the file, the key
            and the remedy.
    """
    return load(Recipe, find_recipe(name_or_path), overrides, paths=_PATHS)


def recipe_from(values: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe") -> Recipe:
    """Validate plain values (as YAML gives them) as a recipe; see :func:`validated`."""
    return validated(Recipe, values, overrides, where=where)


def load(model: type[AnyRecipe], file: Path, overrides: Iterable[str] = (), *, paths: Sequence[str]) -> AnyRecipe:
    """Read a YAML file as a recipe of any model.

    Args:
        model: the recipe's pydantic model.
        file: the YAML file.
        overrides: ``section.key=value`` strings, see :func:`apply_overrides`.
        paths: dotted names of the values that hold paths. A relative path is resolved against the file's folder, and
            ``package:demo/data/model`` against the installed package. A list on the way means all of its items.

    Raises:
        InputError: the file cannot be read, invalid YAML, an unknown key, or a value of a wrong type; names the file,
            the key and the remedy.
    """
    values = _read(file)
    for name in paths:
        for holder, key in _holders(values, name.split(".")):
            value = holder[key]
            several = isinstance(value, list)
            holder[key] = [_resolved(item, file.parent) for item in value] if several else _resolved(value, file.parent)
    return validated(model, values, overrides, where=str(file))


def validated(
    model: type[AnyRecipe], values: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe"
) -> AnyRecipe:
    """Apply overrides to plain values (as YAML gives them) and validate them.

    Args:
        model: the recipe's pydantic model.
        values: plain values; they are not changed.
        overrides: ``section.key=value`` strings, see :func:`apply_overrides`.
        where: how a message begins, such as the file's name.

    Raises:
        InputError: an unknown key, or a value of a wrong type.
    """
    plain: dict[str, Any] = _plain(values, where)
    named = set()
    for override in overrides:
        key, value = _parsed(override)
        _put(plain, key, _plain(value, f"--set {key}"))
        named.add(key)
    plain = hidden(plain)
    try:
        # Validated as JSON, where lists are tuples, and strictly, so that "yes" is not a number and 1 is not a flag.
        return model.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        lines = [_explained(model, plain, where, item, named) for item in error.errors()]
        raise InputError("\n".join(lines)) from error


def apply_overrides(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """Return the recipe with some values replaced.

    Args:
        recipe: it is not changed.
        overrides: strings such as ``train.learning_rate=1e-4``. The value is YAML: ``study.seeds=[0, 1]`` is a list
            and ``train.max_steps=null`` is null. An item of a list is named by its number: ``eval.0.limit=20``.

    Raises:
        InputError: an override without ``=``, an unknown key, or a value of a wrong type.
    """
    return recipe_from(recipe.as_dict(), overrides, where="--set")


def _packaged_folder() -> Path:
    try:
        return Path(next(iter(import_module("donod_fast.recipes").__path__)))
    except ImportError:  # a checkout that is not installed
        return _PACKAGE_FOLDER.parent / "recipes"


def find_recipe(name_or_path: str | Path, *, paper: bool = False) -> Path:
    """The file of a recipe: an existing file, or a packaged recipe by its name, see :func:`recipe_names`.

    Raises:
        InputError: there is neither; names the packaged recipes.
    """
    path = path_of(name_or_path)
    if path.is_file():
        return path
    names = recipe_names(paper=paper)
    if str(name_or_path) in names:
        return _packaged_folder() / f"{name_or_path}.yaml"
    raise InputError(
        f"{name_or_path}: no such recipe file, and the packaged recipes are {', '.join(names)}; "
        "give one of these names or the path of a .yaml file"
    )


class _Loader(UniqueKeyLoader):
    """YAML loader that reads 2e-5 as a number and refuses duplicate keys."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def _read(file: Path) -> dict[str, Any]:
    values = read_yaml(file, f"the recipe {file}", _Loader)
    if not isinstance(values, dict):
        raise InputError(f"the recipe {file} has no sections; it begins with name: and train:")
    return values


def _plain(value: Any, where: str, place: str = "") -> Any:
    """A value of YAML in JSON's types; dates become texts.

    Raises:
        InputError: a key that is no text, or a number that JSON lacks; names its place.
    """
    begin = f"{where}: {place}" if place else where
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{begin}: the key {key!r} is a {type(key).__name__}, not a text; put it into quotes")
            _check_whole(key, begin)
        return {key: _plain(one, where, f"{place}.{key}" if place else key) for key, one in value.items()}
    if isinstance(value, bytes | set):
        raise InputError(f"{begin} is a {type(value).__name__} of YAML, which no setting is; write a text or a list")
    if isinstance(value, list | tuple):
        return [_plain(one, where, f"{place}.{at}" if place else str(at)) for at, one in enumerate(value)]
    if isinstance(value, int) and abs(value) >= _MOST:
        raise InputError(f"{begin} is a number with too many digits")
    if isinstance(value, str):
        _check_whole(value, begin)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{begin} is {value}, not a finite number")
        return value
    return str(value)


def _check_whole(text: str, begin: str) -> None:
    if not text.isascii() and any("\ud800" <= one <= "\udfff" for one in text):
        raise InputError(f"{begin}: {text[:80]!r} holds half of a character; write the whole character")


def _holders(values: Any, path: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """The sections that hold the key at the end of a path."""
    if isinstance(values, list):
        for item in values:
            yield from _holders(item, path)
    elif isinstance(values, dict) and path[0] in values:
        if len(path) == 1:
            yield values, path[0]
        else:
            yield from _holders(values[path[0]], path[1:])


def _resolved(value: Any, folder: Path) -> Any:
    """Resolve a relative path against the recipe's folder; leave a hub id, a name or anything else unchanged."""
    if not isinstance(value, str) or not value:
        return value
    if value.startswith(_PACKAGE):
        return str(_PACKAGE_FOLDER / value.removeprefix(_PACKAGE))
    if value.startswith("~"):
        return str(path_of(value))
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
        raise InputError(f"--set {override!r}: write a key and a value, such as train.learning_rate=1e-4")
    return key, parse_yaml(text, f"--set {key}: the value", _Loader) if text.strip() else ""


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
        raise InputError(f"--set {key}: {part!r} is not an item of a list of {len(items)}; items count from 0")
    return int(part)


def _explained(model: type[BaseModel], values: Any, where: str, item: Mapping[str, Any], overridden: set[str]) -> str:
    """One line for one pydantic error: file, key, problem, remedy."""
    place = _keys(values, item["loc"], item["type"])
    key = ".".join(map(str, place))
    begin = f"--set {key}" if any(key == name or key.startswith(name + ".") for name in overridden) else where
    begin = begin if begin.endswith(key) and key else f"{begin}: {key}" if key else begin
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, 1)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        return f"{begin} is not a known key; {remedy}"
    if item["type"] == "missing":
        return f"{begin} is missing; add it"
    message = str(item["msg"]).removeprefix("Value error, ")
    shown = "" if item["type"] == "value_error" else f", got {json.dumps(item.get('input'), default=str)[:80]}"
    return f"{begin}: {message[:1].lower()}{message[1:]}{shown}"


def _keys(values: Any, location: Sequence[str | int], kind: str) -> list[str | int]:
    """The keys of a location; pydantic also puts the names of a union's branches into it, which are not keys."""
    place: list[str | int] = []
    for at, part in enumerate(location):
        is_key = isinstance(values, dict) and part in values
        is_item = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if is_key or is_item:
            values = values[part]
        elif not (kind in ("missing", "extra_forbidden") and at == len(location) - 1):
            continue
        place.append(part)
    return place


def _known_keys(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    section: Any = model
    for part in place:
        if isinstance(part, int):
            continue
        section = _section_of(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((_section_of(inner) for inner in get_args(annotation) if inner is not ...), Section)


__all__ = ["apply_overrides", "find_recipe", "load", "load_recipe", "recipe_from", "recipe_names", "validated"]
