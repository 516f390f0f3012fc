"""Arguments of methods that are the options of settings dataclasses, so that no list of names is written twice."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from donod_fast.errors import InputError, suggest
from donod_fast.system.options import OptionField, options_of

_F = TypeVar("_F", bound=Callable[..., Any])


def settings_of(given: Mapping[str, Any], *kinds: type) -> tuple[Any, ...]:
    """Make settings of arguments.

    A text is read as on the command line (``keep="30%"``, ``memory="2GiB"``); a list is taken for a tuple, one value
    for a tuple of one, and a scalar of NumPy for a number.

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
    return tuple(
        kind(**{name: _value(those[name], given[name]) for name in those if name in given})
        for kind, those in fields.items()
    )


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


def _value(field: OptionField, value: Any) -> Any:
    """An argument as the dataclass takes it."""
    if type(value).__module__ == "numpy" and not getattr(value, "shape", ()):
        value = value.item()
    if isinstance(value, str) and field.option.parse is not None:
        return field.option.parse(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in value)
    if get_origin(field.type) is tuple and value is not None:
        return (os.fspath(value) if isinstance(value, os.PathLike) else value,)
    if isinstance(value, str) and Path in (field.type, *get_args(field.type)):
        return Path(value)
    least = field.option.minimum
    if least is not None and isinstance(value, int | float) and value < least:
        raise InputError(f"{field.name} must be at least {least:g}, got {value!r}")
    return value


__all__ = ["settings_of", "takes"]
