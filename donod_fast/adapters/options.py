"""A scorer's settings from the plain names and values of a host's configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError, suggest
from donod_fast.models.settings import ModelSettings
from donod_fast.scoring.settings import WARM, ColumnSettings, ComputeSettings, UpdateSettings
from donod_fast.scoring.spec import ScorerSpec
from donod_fast.system.options import options_of

_PARTS = {
    "model": ModelSettings,
    "masks": MaskSettings,
    "update": UpdateSettings,
    "columns": ColumnSettings,
    "compute": ComputeSettings,
}

_NUMBERS: dict[str, type[int] | type[float]] = {
    "lr": float,
    "weight_decay": float,
    "eps": float,
    "token_budget": int,
    "workspace": int,
    "max_length": int,
}
"""YAML 1.1 reads ``1e-5`` as a text, and a text or a flag would go wrong much later."""


def option_names() -> tuple[str, ...]:
    """The options that a host's configuration may give: those of ``donod-fast score`` that decide the scores."""
    return tuple(one.name for kind in _PARTS.values() for one in options_of(kind))


def scorer_spec(model: str, options: Mapping[str, Any] | None = None) -> ScorerSpec:
    """How to load the scorer of a host.

    Args:
        model: folder or hub id of a causal language model.
        options: further options of ``donod-fast score`` by their names, for example ``{"lr": 1e-5, "columns":
            "prompt=question,response=answer"}``. An option that is None has its default.

    Raises:
        InputError: an unknown option, or a wrong value.
        CorpusError: a reference set cannot be read.
    """
    given = {"model": model, **{name: value for name, value in (options or {}).items() if value is not None}}
    if not isinstance(model, str) or not model:
        raise InputError(f"model must be a folder or a hub id, got {model!r}")
    known = option_names()
    for name in given:
        if name not in known:
            raise InputError(f"unknown option {name!r} of donod_fast{suggest(name, known)}")
    if not isinstance(given.get("trust_remote_code", False), bool):
        raise InputError(f"trust_remote_code must be true or false, got {given['trust_remote_code']!r}")
    given |= {name: _number(name, given[name], kind) for name, kind in _NUMBERS.items() if name in given}
    if given.get("update") == WARM:
        raise InputError(f"update {WARM} needs a sample of the whole corpus, which a host does not give; use adamw")
    made: dict[str, Any] = {}
    for part, kind in _PARTS.items():
        names = {one.name for one in options_of(kind)}
        values = {name: value for name, value in given.items() if name in names}
        try:
            made[part] = kind(**{name: _typed(name, value) for name, value in values.items()})
        except (TypeError, AttributeError) as error:  # a value of a type that the option does not compare with
            raise InputError(f"a wrong type among {values}: {error}") from error
    return ScorerSpec.of(made["model"], made["masks"], made["update"], made["columns"], made["compute"])


def _number(name: str, value: Any, kind: type[int] | type[float]) -> int | float:
    if not isinstance(value, bool):
        try:
            made = kind(value)
        except (TypeError, ValueError):
            pass
        else:
            if isinstance(value, str) or made == value:
                return made
    raise InputError(f"{name} must be a number, got {value!r}")


def _typed(name: str, value: Any) -> Any:
    """A value as the command line has it: commas where a configuration file may give a list or a mapping."""
    made = _plain(value)
    if name == "columns" and isinstance(made, dict):
        made = [f"{role}={column}" for role, column in made.items()]
    if name in ("carry", "signals", "columns") and isinstance(made, list):
        return ",".join(map(str, made))
    if name == "reference":
        return (made,) if isinstance(made, str) else tuple(made)
    return made


def _plain(value: Any) -> Any:
    """Lists and dicts of Python: the readers of some hosts have their own."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple):
        return [_plain(one) for one in value]
    return list(value) if isinstance(value, tuple) else value


__all__ = ["option_names", "scorer_spec"]
