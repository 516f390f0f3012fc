"""Read LLaMA-Factory's ``dataset_info.json``: the columns and the spelling of a data set that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from donod_fast.data.column_map import ColumnMap, Tags
from donod_fast.data.prompt_material import ALPACA_JOIN
from donod_fast.errors import InputError, suggest
from donod_fast.system.checked_json import DamagedError, parsed
from donod_fast.system.files import open_regular
from donod_fast.system.limits import SMALL_FILE_BYTES
from donod_fast.system.wording import shown

_ROLES = {
    "prompt": "prompt",
    "query": "input",
    "response": "response",
    "history": "history",
    "system": "system",
    "messages": "messages",
    "tools": "tools",
    "chosen": "chosen",
    "rejected": "rejected",
}
_MEDIA = ("images", "videos", "audios")
_OTHERS = ("kto_tag",)  # read by the trainer's other stages only

_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT = {"messages": "conversations"}

_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_KNOWN_ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}


_JOIN = "\n"
"""What LLaMA-Factory puts between a prompt and its query."""


def read_dataset_info(path: Path, name: str) -> ColumnMap:
    """The columns of a data set.

    Args:
        path: the ``dataset_info.json``.
        name: the data set's name in it.

    Raises:
        InputError: the file cannot be read, has no such entry, or the entry makes no sense; names the reason.
    """
    entry = _entry(path, name)
    place = f"{path}, {name}"
    formatting = entry.get("formatting", "alpaca")
    if formatting not in ("alpaca", "sharegpt", "openai"):
        known = ("alpaca", "sharegpt", "openai")
        raise InputError(
            f"{place}: formatting {shown(formatting, 100)} is not known; known are {', '.join(known)}"
            f"{suggest(formatting, known) if isinstance(formatting, str) and len(formatting) < 100 else ''}"
        )
    given = _texts(entry, "columns", place, (*_ROLES, *_MEDIA, *_OTHERS))
    columns = given or (dict(_ALPACA) if formatting == "alpaca" else dict(_SHAREGPT))
    if formatting != "alpaca":
        columns.setdefault("messages", _SHAREGPT["messages"])
    roles = {_ROLES[role]: column for role, column in columns.items() if role in _ROLES}
    if not isinstance(entry.get("ranking") or False, bool):
        raise InputError(f"{place}: ranking is {shown(entry['ranking'], 100)}, neither true nor false")
    if entry.get("ranking"):
        roles = {"chosen": "chosen", "rejected": "rejected", **roles}
        roles.pop("response", None)
    else:
        roles.pop("chosen", None)
        roles.pop("rejected", None)
    if formatting == "alpaca":
        roles.pop("messages", None)
        if "response" not in roles and "chosen" not in roles:  # a text to go on with, as in pre-training
            roles = {"text": roles["prompt"]} if "prompt" in roles else roles
        tags = None
    else:
        roles = {
            role: column for role, column in roles.items() if role not in ("prompt", "input", "response", "history")
        }
        tags = _tags(entry, place)
    media = tuple(columns[kind] for kind in _MEDIA if kind in columns)
    try:
        join = _JOIN if "input" in roles else ALPACA_JOIN
        return ColumnMap(**roles, media=media, join=join, tags=tags)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def data_file(path: Path, name: str) -> Path:
    """The file of a data set, which stands beside the ``dataset_info.json``.

    Raises:
        InputError: the file cannot be read, has no such entry, or the entry names no file.
    """
    file = _entry(path, name).get("file_name")
    if not isinstance(file, str) or not file:
        raise InputError(f"{path}, {name}: the entry names no file_name; give the data as DATA")
    return path.parent / file


def read_entries(path: Path) -> dict[str, Any]:
    """All entries of a ``dataset_info.json`` by their names. Raises InputError if it cannot be read."""
    try:
        with open_regular(path) as file:
            text = file.read(SMALL_FILE_BYTES + 1)
        if len(text) > SMALL_FILE_BYTES:
            raise InputError(f"{path} has more than {SMALL_FILE_BYTES >> 20} MiB; is it a dataset_info.json?")
        content = parsed(text)  # refuses a key that is given twice, of which JSON keeps the last
    except (OSError, DamagedError) as error:
        raise InputError(f"the description of data sets {str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no dataset_info.json: it holds no object with an entry for each data set")
    return content


def _entry(path: Path, name: str) -> Mapping[str, Any]:
    content = read_entries(path)
    if name not in content:
        raise InputError(f"{path} has no data set {name!r}{suggest(name, tuple(content))}")
    entry = content[name]
    if not isinstance(entry, dict):
        raise InputError(f"{path}, {name}: the entry is no object")
    return entry


def _texts(entry: Mapping[str, Any], key: str, place: str, known: tuple[str, ...]) -> dict[str, str]:
    """A section of an entry, as texts by name."""
    found = entry.get(key) or {}
    if not isinstance(found, dict):
        raise InputError(f"{place}: {key} is no object")
    for name, value in found.items():
        if name not in known:
            raise InputError(f"{place}: {key} has the unknown name {name!r}{suggest(name, known)}")
        if value is not None and not (isinstance(value, str) and value):
            raise InputError(f"{place}: {key}.{name} is {shown(value, 100)}, not a name")
    return {name: value for name, value in found.items() if value is not None}


def _tags(entry: Mapping[str, Any], place: str) -> Tags:
    tags = {**_TAGS, **_texts(entry, "tags", place, tuple(_TAGS))}
    roles = tuple((tags[tag], role) for tag, role in _KNOWN_ROLES.items())
    for one, other in (("user_tag", "assistant_tag"), ("role_tag", "content_tag")):
        if tags[one] == tags[other]:
            raise InputError(
                f"{place}: {one} and {other} are both {shown(tags[one], 100)}; each needs a name of its own"
            )
    return Tags(tags["role_tag"], tags["content_tag"], roles)


__all__ = ["data_file", "read_dataset_info", "read_entries"]
