"""Parse conversation turns in the spellings of public data sets: roles, contents, tool calls, tools.

Both spellings are read here, ``{"role", "content"}`` and ShareGPT's ``{"from", "value"}``; they
differ only in the name of the key, and real files mix them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from donod_fast.data.trained_turns import is_trained
from donod_fast.data.types import Message, SampleError, Status

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "ipython": "tool",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""A role as data sets spell it (in lower case) → the role of a Message."""

TEMPLATE_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "observation", "ipython"})
"""Roles that some chat templates know by these names; under the key ``role`` the template gets them unchanged."""

CALL_ROLES = frozenset({"function_call", "tool_call"})
"""Roles whose content is itself a tool call, as JSON text."""

CONTENT_KEYS = ("content", "value", "text")
_SPELLINGS = frozenset({"role", "from", *CONTENT_KEYS, "function_call"})
SHOWN_CHARACTERS = 40


def _unknown(detail: str) -> SampleError:
    return SampleError(Status.UNKNOWN_FORMAT, detail)


def as_list(value: object) -> list[Any] | None:
    """A list, tuple, array or tensor as a list; None for anything else."""
    if isinstance(value, list):
        return value
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, type) and hasattr(value, "tolist"):
        converted = value.tolist()
        return converted if isinstance(converted, list) else None
    return None


def kind_of(value: object) -> str:
    """Name of a value's JSON type, for messages."""
    names = {str: "a string", bool: "a truth value", int: "a number", float: "a number", list: "a list"}
    if value is None:
        return "null"
    return "an object" if isinstance(value, Mapping) else names.get(type(value), f"a {type(value).__name__}")


def shown(value: object) -> str:
    """A value as one short line, for messages."""
    try:
        text = repr(value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # an integer with too many digits, or nesting too deep
        return kind_of(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def text_column(columns: Mapping[str, Any], name: str) -> str:
    """The text in a column.

    Raises:
        SampleError: it is not a string.
    """
    value = columns[name]
    if not isinstance(value, str):
        raise _unknown(f"{name} is {kind_of(value)}, not a string")
    return value


def parse_turns(value: object, column: str, role_key: str) -> list[Message]:
    """Read a list of turns.

    Args:
        value: the column's value.
        column: its name, for messages.
        role_key: ``"role"`` or ``"from"``: the key that is tried first for a turn's role.

    Raises:
        SampleError: it is not a list of turns, is empty, or a value in it has the wrong type.
    """
    items = as_list(value)
    if items is None:
        raise _unknown(f"{column} is {kind_of(value)}, not a list of messages")
    if not items:
        raise _unknown(f"{column} holds no message")
    return [_parse_turn(item, f"{column}[{number}]", role_key) for number, item in enumerate(items)]


def checked_turns(turns: Sequence[Message]) -> tuple[Message, ...]:
    """Return the turns as a tuple if there is something to score.

    Raises:
        SampleError: no assistant turn, none that is scored, or the last one is empty.
    """
    replies = [turn for turn in turns if turn.role == "assistant"]
    if not replies:
        raise SampleError(Status.ALL_MASKED, "the conversation has no assistant turn to score")
    if not replies[-1].content.strip() and not replies[-1].tool_calls:
        raise SampleError(Status.EMPTY_RESPONSE, "the last assistant turn is empty")
    if not any(turn.scored for turn in replies):
        raise SampleError(Status.ALL_MASKED, "the record's own flags leave out every assistant turn")
    return tuple(turns)


def _parse_turn(item: object, place: str, role_key: str) -> Message:
    if not isinstance(item, Mapping):
        raise _unknown(f"{place} is {kind_of(item)}, not an object")
    role_name, is_standard = _role_name(item, place, role_key)
    role = ROLES[role_name]
    scored = role != "assistant" or is_trained(item, place)
    if role_name in CALL_ROLES:
        text = _content(item, place) or ""
        calls = _calls_in_text(text, place)
        text = "" if calls else text
        return Message(role, text, calls, scored, _own(item, role, text, calls))
    calls = _tool_calls(item, place)
    if calls and role != "assistant":
        raise _unknown(f"{place} has tool_calls but the role {role_name}")
    content = _content(item, place)
    if content is None and not calls:
        raise _unknown(f"{place} ({role_name}) has neither content nor tool_calls")
    own = _own(item, role_name if is_standard else role, _content_value(item), calls)
    return Message(role, content or "", calls, scored, own)


def _own(
    item: Mapping[str, Any], role: str, content: Any, calls: tuple[Mapping[str, Any], ...]
) -> dict[str, Any] | None:
    """The message with all keys of the record in the names that chat templates read; None if there is nothing more.

    A key whose value is null is absent, as in ``apply_chat_template``: Arrow adds such keys where it unites messages.
    """
    own: dict[str, Any] = {"role": role, **({} if content is None else {"content": content})}
    for key, value in item.items():
        if key == "tool_calls":
            if value is not None:
                own[key] = [_without_nulls(call) for call in as_list(value) or ()]
        elif value is not None and key not in _SPELLINGS:
            own[key] = value
    if calls and "tool_calls" not in own:
        own["tool_calls"] = [dict(call) for call in calls]
    plain = Message(ROLES[role], content, calls).for_template() if isinstance(content, str) else None
    return None if own == plain else own


def _without_nulls(call: Any) -> Any:
    return {key: value for key, value in call.items() if value is not None} if isinstance(call, Mapping) else call


def _role_name(item: Mapping[str, Any], place: str, role_key: str) -> tuple[str, bool]:
    """A turn's role in lower case, and whether it is a name that chat templates know."""
    other_key = "from" if role_key == "role" else "role"
    key = role_key if item.get(role_key) is not None else other_key
    value = item.get(key)
    if value is None:
        raise _unknown(f"{place} has no {role_key}")
    if not isinstance(value, str):
        raise _unknown(f"{place} has {kind_of(value)} for its {role_key}, not a string")
    name = value.strip().lower()
    if name not in ROLES:
        raise _unknown(f"{place} has the unknown {role_key} {shown(value)}")
    return name, key == "role" and name in TEMPLATE_ROLES


def _content_value(item: Mapping[str, Any]) -> Any:
    """A turn's content as the record has it: text, a list of parts, or None."""
    value = next((item[key] for key in CONTENT_KEYS if item.get(key) is not None), None)
    return value if isinstance(value, str) else as_list(value)


def _content(item: Mapping[str, Any], place: str) -> str | None:
    """A turn's text; None where it is null or absent."""
    key = next((key for key in CONTENT_KEYS if item.get(key) is not None), None)
    if key is None:
        return None
    value = item[key]
    if isinstance(value, str):
        return value
    parts = as_list(value)
    if parts is None:
        raise _unknown(f"{place}: {key} is {kind_of(value)}, not a string or a list of parts")
    return "".join(_part_text(part, f"{place}: {key}[{number}]") for number, part in enumerate(parts))


def _part_text(part: object, place: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise _unknown(f"{place} is {kind_of(part)}, not a text part")
    kind = part.get("type", "text")
    if kind != "text":
        raise _unknown(f"{place} is a part of type {shown(kind)}; only text can be scored")
    text = part.get("text") if part.get("text") is not None else part.get("value")
    if not isinstance(text, str):
        raise _unknown(f"{place} has {kind_of(text)} for its text, not a string")
    return text


def _tool_calls(item: Mapping[str, Any], place: str) -> tuple[Mapping[str, Any], ...]:
    """OpenAI's ``tool_calls``, or its older single ``function_call``."""
    value = item.get("tool_calls")
    if value is None:
        call = item.get("function_call")
        return () if call is None else (_call(call, f"{place}: function_call"),)
    calls = as_list(value)
    if calls is None:
        raise _unknown(f"{place}: tool_calls is {kind_of(value)}, not a list")
    return tuple(_call(call, f"{place}: tool_calls[{number}]") for number, call in enumerate(calls))


def _call(value: object, place: str) -> Mapping[str, Any]:
    """One call in the OpenAI form with its arguments as an object; an id is kept."""
    if not isinstance(value, Mapping):
        raise _unknown(f"{place} is {kind_of(value)}, not an object")
    function = value.get("function") if value.get("function") is not None else value
    if not isinstance(function, Mapping):
        raise _unknown(f"{place}: function is {kind_of(function)}, not an object")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise _unknown(f"{place} has no function name")
    call: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": _arguments(function.get("arguments"), place)},
    }
    return {"id": value["id"], **call} if isinstance(value.get("id"), str) else call


def _arguments(value: object, place: str) -> dict[str, Any]:
    if isinstance(value, str):
        # Arguments that are not a JSON object cannot be rendered unchanged: wrapping them in an invented
        # key would score text that is not in the record.
        value = _json(value, f"{place}: arguments") if value.strip() else None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _unknown(f"{place}: arguments are {kind_of(value)}, not an object")
    return dict(value)


def _calls_in_text(text: str, place: str) -> tuple[Mapping[str, Any], ...]:
    """Tool calls written as JSON in a ShareGPT ``function_call`` turn; empty for any other text."""
    try:
        value = _json(text, place)
        return tuple(_call(call, place) for call in (value if isinstance(value, list) else [value]))
    except SampleError:
        return ()


def parse_tools(value: object, column: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Read a column of tools: function descriptions as a list or as the JSON text of one, as they are given.

    Raises:
        SampleError: it is neither of these.
    """
    if isinstance(value, str):
        value = _json(value, column) if value.strip() else None
    if value is None:
        return ()
    tools = as_list(value)
    if tools is None:
        raise _unknown(f"{column} is {kind_of(value)}, not a list")
    for number, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise _unknown(f"{column}[{number}] is {kind_of(tool)}, not an object")
    return tuple(tools)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # broken, or deeper or longer than Python reads
        raise _unknown(f"{place}: not valid JSON ({shown(str(error))})") from error
