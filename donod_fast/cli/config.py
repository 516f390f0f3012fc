"""``--config``: options of a command from a YAML file, or from the manifest of a scores folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

from donod_fast.errors import InputError, suggest
from donod_fast.scores.manifest import MANIFEST
from donod_fast.scores.recorded_options import recorded_options
from donod_fast.system.limits import YAML_BYTES
from donod_fast.system.options import OptionField, options_of
from donod_fast.system.wording import shown

_SWITCHED = {True: "on", False: "off"}
"""YAML 1.1 reads the words on and off as true and false."""


_MOST = 1 << 63
"""No option is a number as large as this."""

_MANIFEST_BYTES = 1 << 29
"""No manifest is larger: it has one entry for each input."""

_SHOWN = 200
"""Characters of a wrong value in a message."""


def config_option(*kinds: type) -> Any:
    """The option ``--config`` of a command with these settings dataclasses, as an argument of ``Annotated``.

    Options on the command line override those of the file. The option's callback raises InputError if the file cannot
    be read, a key is not an option, or a value has the wrong type; the message names file and key.
    """
    known = {field.name: field for kind in kinds for field in options_of(kind)}

    def read(context: typer.Context, value: str | None) -> str | None:
        if value is not None and not context.resilient_parsing:
            context.default_map = checked(load_options(value), known, value)
        return value

    return typer.Option(
        help="Take options from this YAML file, or from a scores folder (its manifest.json) to repeat its run. "
        "Options on the command line take precedence.",
        metavar="PATH",
        rich_help_panel="Input",
        callback=read,
        is_eager=True,
    )


def load_options(name: str) -> dict[str, Any]:
    """The options of a YAML file, of a manifest, or of a scores folder by its path or URL.

    Raises:
        InputError: the file cannot be read, or is a manifest that records no options.
    """
    from donod_fast.system.storage import is_url, open_storage

    if open_storage(name).exists(MANIFEST):
        folder, file = name, MANIFEST
    elif is_url(name):
        folder, _, file = name.rpartition("/")
    else:
        folder, file = str(Path(name).parent), Path(name).name
    try:
        if not is_url(name) and Path(folder, file).stat().st_size > (
            _MANIFEST_BYTES if file == MANIFEST else YAML_BYTES
        ):
            raise InputError(f"--config {name} is too large for a file of options; is it the right file?")
        content = open_storage(folder).read(file).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {name} cannot be read: {error}") from error
    found = _parsed(content, name)
    return _of_manifest(found, name) if "version" in found and "input" in found else found


def _parsed(content: str, name: str) -> dict[str, Any]:
    from donod_fast.system.yaml_files import parse_yaml

    found = _as_json(content)
    if found is None:
        found = parse_yaml(content, f"--config {name}")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"--config {name} must hold one option per line, for example lr: 1e-5")
    return {str(key): value for key, value in found.items()}


def _as_json(content: str) -> dict[str, Any] | None:
    """A manifest, which may be much longer than a file of options; None if it is not JSON."""
    if not content.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError):  # a mapping in YAML, perhaps
        return None
    return found if isinstance(found, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")  # which YAML's error names
    return found


def _of_manifest(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options that a manifest records; automatic settings are replaced by the values that the run used."""
    found = recorded_options(manifest)
    if found is None:
        raise InputError(
            f"--config {name} records no options: release 0.1.0 wrote it, or `donod-fast merge`; give them by hand"
        )
    return found


def checked(found: Mapping[str, Any], known: Mapping[str, OptionField], name: str) -> dict[str, Any]:
    """The values of a file by option, without those that are null.

    Raises:
        InputError: a key is not an option, an option is given twice, or a value has the wrong type.
    """
    values: dict[str, Any] = {}
    for key, value in found.items():
        option = key.replace("-", "_")
        if option not in known:
            raise InputError(f"--config {name}: unknown option {key!r}{suggest(option, known)}")
        if option in values:
            raise InputError(f"--config {name}: the option {option!r} is given twice, with - and with _")
        if value is not None:
            values[option] = _value(known[option], value, f"--config {name}: {key}")
    return values


def _value(field: OptionField, value: Any, where: str) -> Any:
    """A value in the form of the command line; raises InputError if it has the wrong type."""
    kind = field.type
    kinds = (kind, *get_args(kind))
    if isinstance(value, bool) and _SWITCHED[value] in field.option.choices:
        value = _SWITCHED[value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if get_origin(kind) is tuple:
        fits, wanted = is_list or isinstance(value, str), "a string or a list of strings"
        value = [value] if isinstance(value, str) else value
    elif bool in kinds:
        fits, wanted = isinstance(value, bool), "true or false"
    elif int in kinds:
        fits, wanted = is_number and abs(value) < _MOST and value % 1 == 0, "a whole number"
    elif float in kinds:
        fits, wanted = is_number or _reads_as_number(value), "a number"  # YAML reads 1e-5 as a string
    else:
        fits, wanted = is_list or is_number or isinstance(value, str), "a text"
        if fits:
            value = ",".join(value) if is_list else str(value)
    if not fits:
        raise InputError(f"{where} must be {wanted}, got {shown(value, _SHOWN)}")
    return value


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)


__all__ = ["checked", "config_option", "load_options"]
