"""Arguments of methods that are the options of settings dataclasses, so that no list of names is written twice."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from donod_fast.errors import InputError, suggest
from donod_fast.system.options import OptionField, options_of

_F = TypeVar("_F", bound=Callable[..., Any])

_NONE = "none"
_WORDS: Mapping[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    Path: "the path of a file or folder",
    type(None): "None",
}


def settings_of(given: Mapping[str, Any], *kinds: type) -> tuple[Any, ...]:
    """Make settings of arguments.

    A text is read as on the command line (``keep="30%"``, ``memory="2GiB"``, ``lr="1e-4"``); a list is taken for a
    tuple, one value for a tuple of one, a scalar of NumPy for a number, and None for the default where an option has
    no value None. A value of another type is refused here: further on it would end in another library's error, or
    pass unseen in an option that the method does not use.

    Args:
        given: the arguments by name.
        kinds: dataclasses of settings, each option in one of them.

    Returns:
        one instance of each kind.

    Raises:
        InputError: an unknown argument, or a wrong value; names it.
    """
    fields = {kind: {field.name: field for field in options_of(kind)} for kind in kinds}
    known = [name for those in fields.values() for name in those]
    for name in given:
        if name not in known:
            raise InputError(f"there is no argument {name!r}{suggest(name, known)}; there are {', '.join(known)}")
    return tuple(_made(kind, those, given) for kind, those in fields.items())


def _made(kind: type, fields: Mapping[str, OptionField], given: Mapping[str, Any]) -> Any:
    """A dataclass of settings from those of the arguments that are its options."""
    hints = get_type_hints(kind)
    values = {}
    for name in fields:
        if name not in given:
            continue
        field, hint = fields[name], hints[name]
        stands_for_default = _is_tuple(hint) or field.option.parse is not None or _NONE in field.option.choices
        if given[name] is None and stands_for_default and not _fits(None, hint):
            continue
        values[name] = _value(field, hint, given[name])
    return kind(**values)


def takes(*kinds: type) -> Callable[[_F], _F]:
    """Document the keyword arguments of a method that passes them to :func:`settings_of`: signature and docstring."""

    def decorate(method: _F) -> _F:
        own = inspect.signature(method)
        named = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        there = {one.name for one in named}
        lines, further = [], []
        for kind in kinds:
            defaults = kind()
            for field in options_of(kind):
                lines.append(f"    {field.name}: {field.option.help}")
                if field.name not in there:
                    default = getattr(defaults, field.name)
                    further.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default))
        method.__signature__ = own.replace(parameters=[*named, *further])  # type: ignore[attr-defined]
        if method.__doc__ is not None:
            method.__doc__ = inspect.cleandoc(method.__doc__) + "\n\nOptions:\n" + "\n".join(lines)
        return method

    return decorate


def _value(field: OptionField, hint: Any, value: Any) -> Any:
    """An argument as the dataclass takes it. Raises InputError: it has another type, or is too small."""
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, str) and field.option.parse is not None:
        return field.option.parse(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in value)
    elif _is_tuple(hint) and value is not None:
        value = (os.fspath(value) if isinstance(value, os.PathLike) else value,)
    value = _converted(hint, value)
    if not field.option.choices and not _fits(value, hint):  # choices are listed by the dataclass
        raise InputError(f"{field.name} must be {_expected(field, hint)}, got {value!r}")
    least = field.option.minimum
    if least is not None and isinstance(value, int | float) and value < least:
        raise InputError(f"{field.name} must be at least {least:g}, got {value!r}")
    return value


def _converted(hint: Any, value: Any) -> Any:
    """A text as a number or a path, and a whole number without its point, where the option takes only these."""
    kinds = set(get_args(hint) or (hint,))
    if isinstance(value, str) and str not in kinds:
        if Path in kinds:
            return Path(value)
        try:
            return int(value) if int in kinds else float(value) if float in kinds else value
        except ValueError:
            return value
    if isinstance(value, float) and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    return value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a field; a pair of numbers is checked by its dataclass."""
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        return Ellipsis not in inner or (isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value))
    if inner:
        return any(_fits(value, one) for one in inner)
    if hint is Any:
        return True
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _is_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple and Ellipsis in get_args(hint)


def _expected(field: OptionField, hint: Any) -> str:
    """What an argument may be, in words."""
    if _is_tuple(hint):
        return "a text or a list of texts"
    kinds = get_args(hint) or (hint,)
    if {int, float} <= set(kinds):
        return "a fraction (0.3) or a count (2000)"
    words = [_WORDS[kind] for kind in kinds if kind in _WORDS]
    examples = f", such as {', '.join(field.option.completions[:3])}" if field.option.completions else ""
    return " or ".join(dict.fromkeys(words)) + examples


__all__ = ["settings_of", "takes"]
