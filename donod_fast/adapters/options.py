"""A scorer's settings from the plain names and values of a host's configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError, suggest
from donod_fast.models.settings import ModelSettings
from donod_fast.scoring.settings import MIB, WARM, ColumnSettings, ComputeSettings, UpdateSettings
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
            made[part] = kind(**_plain_values(values))
        except (TypeError, AttributeError) as error:  # a value of a type that the option does not compare with
            raise InputError(f"a wrong type among {values}: {error}") from error
    compute: ComputeSettings = made["compute"]
    columns: ColumnSettings = made["columns"]
    source: ModelSettings = made["model"]
    return ScorerSpec(
        source.model,
        revision=source.revision,
        dtype=source.dtype,
        device=source.device,
        trust_remote_code=source.trust_remote_code,
        precision=source.precision,
        device_map=source.device_map,
        max_memory=source.max_memory,
        offload_folder=source.offload_folder,
        update=made["update"],
        masks=made["masks"].resolved(),
        token_budget=compute.token_budget,
        workspace_bytes=compute.workspace * MIB,
        backend=compute.backend,
        packing=compute.packing,
        compile=compute.compile == "on",
        carry=columns.carried,
        signals=columns.criteria(),
    )


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


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration file may give a list or a mapping where the command line has commas."""
    found = dict(values)
    columns = found.get("columns")
    if isinstance(columns, Mapping):
        found["columns"] = [f"{role}={column}" for role, column in columns.items()]
    for name in ("carry", "signals", "columns"):
        if isinstance(found.get(name), list | tuple):
            found[name] = ",".join(map(str, found[name]))
    if "reference" in found:
        reference = found["reference"]
        found["reference"] = (reference,) if isinstance(reference, str) else tuple(reference)
    return found


__all__ = ["option_names", "scorer_spec"]
