"""``--config``: options of a command from a YAML file, or from the manifest of a scores folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.errors import InputError, suggest

if TYPE_CHECKING:
    from typer._click.core import Parameter

CONFIG = "config"
MANIFEST = "manifest.json"

_SECTION = "options"
_KINDS = {"integer": "a whole number", "float": "a number", "boolean": "true or false"}


def read_config(context: typer.Context, name: str | None) -> str | None:
    """Let the options of a file stand below those of the command line: a callback of Typer.

    Raises:
        InputError: the file cannot be read, a key is no option, or a value has the wrong type; names file and key.
    """
    if name is not None and not context.resilient_parsing:
        known = {str(one.name): one for one in context.command.params if one.name not in (CONFIG, "help")}
        context.default_map = checked(load_options(name), known, name)
    return name


Config = Annotated[
    str | None,
    typer.Option(
        help="Take options from this YAML file, or from a scores folder (its manifest.json) to repeat its run. "
        "Options on the command line take precedence.",
        rich_help_panel="Input",
        callback=read_config,
        is_eager=True,
    ),
]


def load_options(name: str) -> dict[str, Any]:
    """The options of a YAML file, of a manifest, or of a scores folder by its path or URL.

    Raises:
        InputError: it cannot be read, or it is a manifest that records no options.
    """
    from donod_fast.system.storage import is_url, open_storage

    if open_storage(name).exists(MANIFEST):
        folder, file = name, MANIFEST
    elif is_url(name):
        folder, _, file = name.rpartition("/")
    else:
        folder, file = str(Path(name).parent), Path(name).name
    try:
        content = open_storage(folder).read(file).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {name} cannot be read: {error}") from error
    found = _parsed(content, name)
    return _of_manifest(found, name) if "version" in found and "input" in found else found


def _parsed(content: str, name: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise InputError(f"--config {name} is not valid YAML: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"--config {name} must hold one option per line, for example lr: 1e-5")
    return {str(key): value for key, value in found.items()}


def _of_manifest(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options that a manifest records, with what the run had settled where an option left it open."""
    recorded = manifest.get(_SECTION)
    if not isinstance(recorded, dict):
        raise InputError(
            f"--config {name} records no options: release 0.1.0 wrote it, or `donod-fast merge`; give them by hand"
        )
    settled = {
        "part_rows": manifest.get("part_rows"),
        "token_budget": manifest.get("token_budget"),
        "revision": (manifest.get("model") or {}).get("revision"),
    }
    return {**recorded, **{key: value for key, value in settled.items() if recorded.get(key) is None}}


def checked(found: Mapping[str, Any], known: Mapping[str, Parameter], name: str) -> dict[str, Any]:
    """The values of a file by option; those that are null are left out.

    Raises:
        InputError: a key is no option, or a value has the wrong type.
    """
    values: dict[str, Any] = {}
    for key, value in found.items():
        option = key.replace("-", "_")
        if option not in known:
            raise InputError(
                f"--config {name}: unknown option {key!r}{suggest(option, known)} (see donod-fast score --help)"
            )
        if value is not None:
            values[option] = _value(known[option], value, f"--config {name}: {key}")
    return values


def _value(parameter: Parameter, value: Any, where: str) -> Any:
    """A value in the form that the command line would give it, refused if it has another type."""
    kind = parameter.type.name.removesuffix(" range")
    if parameter.multiple or parameter.nargs == -1:
        many = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in many):
            raise InputError(f"{where} must be a text or a list of texts, got {value!r}")
        return many
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "boolean":
            fits = isinstance(value, bool)
        case "integer":
            fits = is_number and int(value) == value
        case "float":
            fits = is_number or _reads_as_number(value)  # YAML reads 1e-5 as a text
        case _:
            if isinstance(value, list) and all(isinstance(one, str) for one in value):
                return ",".join(value)
            fits = isinstance(value, str) or is_number
            value = str(value)
    if not fits:
        raise InputError(f"{where} must be {_KINDS.get(kind, 'a text')}, got {value!r}")
    return value


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)


__all__ = ["CONFIG", "Config", "checked", "load_options", "read_config"]
