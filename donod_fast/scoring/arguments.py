"""What Python callers write for a setting, as the settings themselves: names, objects of the kernels, plain numbers.

The settings (``UpdateSettings``, ``MaskSettings``, criteria) have one form each. A caller may also write
``update="sgd"``, ``update=AdamW(eps=1e-6)``, ``lr=1e-5``, ``max_length=512`` or ``signals="ifd,el2n"``. What means two
things at once, and what scoring cannot use, is refused with a reason.
"""

from __future__ import annotations

import numbers
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import torch

from donod_fast.criteria.base import Criterion
from donod_fast.criteria.registry import SignalOptions, named_criteria
from donod_fast.data.column_map import ColumnMap
from donod_fast.data.masking import MaskSettings
from donod_fast.errors import InputError, suggest
from donod_fast.kernels import AdamW, FactoredAdamW, Update
from donod_fast.kernels.updates import resolve_update
from donod_fast.scoring.settings import ColumnSettings, UpdateSettings
from donod_fast.system.options import parse_names

if TYPE_CHECKING:
    from donod_fast.models.placement import DeviceMap, MaxMemory

_T = TypeVar("_T")


class UpdateOptions(TypedDict, total=False):
    """Settings of the update, by the names of :class:`UpdateSettings`."""

    lr: float
    weight_decay: float
    eps: float
    reduction: str
    storage_dtype: str | torch.dtype | None
    warm_rows: int
    warm_seed: int
    head_precision: str


class MaskOptions(TypedDict, total=False):
    """Settings of reading and masking, by the names of :class:`MaskSettings`; ``columns`` may be a mapping as well."""

    format: str
    template: str | Path
    train_on: str
    max_length: int | None
    columns: str | Mapping[str, str] | None
    dataset_info: str | Path | None
    dataset: str | None
    preference: str | None
    text_only: bool
    like: str | None


class CriterionOptions(TypedDict, total=False):
    """Settings of criteria that are given by name: ``--reference`` and ``--ifd-prefix`` of the command line."""

    reference: str | Path | Sequence[str | Path]
    ifd_prefix: str | None


class PlainOptions(UpdateOptions, MaskOptions, CriterionOptions, total=False):
    """Settings that a ``Scorer`` takes as plain keywords."""


class ScorerOptions(PlainOptions, total=False):
    """All keywords of ``Scorer``."""

    update: UpdateSettings | Update | str | None
    masks: MaskSettings | None
    token_budget: int | None
    workspace_bytes: int
    backend: str
    packing: str
    compile: bool
    carry: str | Sequence[str]
    signals: str | Criterion | Sequence[str | Criterion]
    live: bool


class LoadingOptions(TypedDict, total=False):
    """Keywords of ``Scorer.from_pretrained`` that say how the model is loaded."""

    revision: str | None
    dtype: str | torch.dtype
    device: str | torch.device | None
    trust_remote_code: bool
    precision: str
    device_map: DeviceMap | None
    max_memory: MaxMemory | None
    offload_folder: str | Path | None


_Options = TypeVar("_Options", UpdateOptions, MaskOptions, CriterionOptions)
_KEYWORDS = (*ScorerOptions.__annotations__, *LoadingOptions.__annotations__)


def divided(options: Mapping[str, Any]) -> tuple[UpdateOptions, MaskOptions, CriterionOptions]:
    """The plain keywords by what they are settings of.

    Raises:
        InputError: a ``Scorer`` has no such keyword; names the nearest one.
    """
    for name in options:
        if name in LoadingOptions.__annotations__:
            raise InputError(f"{name} says how a model is loaded; give it to Scorer.from_pretrained(…, {name}=…)")
        if name not in PlainOptions.__annotations__:
            raise InputError(f"Scorer has no argument {name!r}{suggest(_OFTEN.get(name, name), _KEYWORDS)}")
    return _those(UpdateOptions, options), _those(MaskOptions, options), _those(CriterionOptions, options)


def _those(kind: type[_Options], options: Mapping[str, Any]) -> _Options:
    return kind(**{name: value for name, value in options.items() if name in kind.__annotations__})


_OFTEN = {"learning_rate": "lr", "criteria": "signals", "max_seq_length": "max_length", "optimizer": "update"}
"""Names that people write, which are not spelled like ours."""


def update_settings(update: object, options: UpdateOptions) -> UpdateSettings:
    """The update of ``Scorer(update=…, lr=…, …)``.

    Args:
        update: None for AdamW from fresh state, a name, an object of the kernels, or ``UpdateSettings``.
        options: plain keywords; those that are absent have the defaults of ``UpdateSettings``.

    Raises:
        InputError: a wrong value, one that is given twice, or an update whose state scoring cannot use.
    """
    if isinstance(update, UpdateSettings):
        _refuse_beside(options, "update=UpdateSettings(…)")
        return update
    values: dict[str, Any] = dict(options)
    for name in ("lr", "weight_decay", "eps"):
        if name in values:
            values[name] = number(name, values[name])
    for name in ("warm_rows", "warm_seed"):
        if name in values:
            values[name] = whole(name, values[name])
    if isinstance(values.get("storage_dtype"), torch.dtype):
        values["storage_dtype"] = dtype_name(values["storage_dtype"])
    if isinstance(update, str):
        values["update"] = update
    elif update is not None:
        rule: Update = resolve_update(update)  # type: ignore[arg-type]  # which refuses other types
        _refuse_state(rule)
        values["update"] = rule.name
        if isinstance(rule, AdamW):
            if "eps" in values:
                raise InputError(f"eps is given twice: in update=AdamW(eps={rule.eps}), and as eps={values['eps']}")
            values["eps"] = rule.eps
    if "eps" in values and values.get("update", "adamw") in ("sgd", "sign"):
        raise InputError(f"eps is a setting of AdamW; update {values['update']!r} has none")
    return _in_python(lambda: UpdateSettings(**values))


def _refuse_state(rule: Update) -> None:
    if isinstance(rule, FactoredAdamW):
        raise InputError(
            "update is a FactoredAdamW, whose factors no manifest would record; use update='adamw-warm', and "
            "Scorer.warmed(corpus) or a scores folder estimates them"
        )
    if isinstance(rule, AdamW) and rule.state is not None:
        raise InputError(
            "update is an AdamW with a state: the scores would depend on tensors that no manifest records. Use "
            "update='adamw-warm' for a second moment from the corpus, or donod_fast.don_nod(…, update=AdamW(state=…)) "
            "for hidden states of your own"
        )


def mask_settings(masks: object, options: MaskOptions) -> MaskSettings:
    """The masks of ``Scorer(masks=…, max_length=…, …)``.

    Raises:
        InputError: a wrong value, or one that is given twice.
    """
    if isinstance(masks, MaskSettings):
        _refuse_beside(options, "masks=MaskSettings(…)")
        return masks
    if masks is not None:
        raise InputError(
            f"masks is a MaskSettings, got {masks!r:.80}; or give its settings themselves, as Scorer(…, max_length=512)"
        )
    values: dict[str, Any] = dict(options)
    if values.get("max_length") is not None:
        values["max_length"] = whole("max_length", values["max_length"])
    if "text_only" in values:
        flag("text_only", values["text_only"])
    if isinstance(values.get("template"), Path):
        values["template"] = str(values["template"])
    if isinstance(values.get("dataset_info"), str):
        values["dataset_info"] = Path(values["dataset_info"])
    if isinstance(values.get("columns"), Mapping):
        values["mapping"] = _in_python(lambda: column_map(values.pop("columns")))
    return _in_python(lambda: MaskSettings(**values))


def column_map(roles: Mapping[str, str]) -> ColumnMap:
    """The map of ``columns={"prompt": "question", "response": "answer"}``; names may hold any character.

    Raises:
        InputError: an unknown role, or the roles do not make a record.
    """
    columns = list(roles.values())
    if not all(isinstance(one, str) and one for one in columns):
        raise InputError(f"columns maps roles to names of columns, got {dict(roles)!r}")
    # Names stand for columns while the roles are read: a name may hold what separates pairs.
    found = ColumnMap.parse(",".join(f"{role}=column{at}" for at, role in enumerate(roles)))
    named = {role: columns[int(name.removeprefix("column"))] for role, name in found.as_json().items()}
    return ColumnMap.from_json(named)


def criteria_of(signals: object, options: CriterionOptions) -> tuple[Criterion, ...]:
    """The criteria of ``Scorer(signals=…, reference=…)``, in their order.

    Args:
        signals: names separated by commas, a criterion, or a sequence of names and criteria.
        options: settings of those that are given by name.

    Raises:
        InputError: an unknown name, one that is given twice, or a setting that is missing or not used.
        CorpusError: a reference set cannot be read.
    """
    given = _several(signals)
    names = [name for one in given if isinstance(one, str) for name in parse_names(one)]
    wrong = next((one for one in given if not isinstance(one, str | Criterion)), None)
    if wrong is not None:
        remedy = f"; give an object of it, as {wrong.__name__}()" if isinstance(wrong, type) else ""
        raise InputError(f"signals takes names of criteria or criteria, got {wrong!r:.80}{remedy}")
    if (options.get("reference") or options.get("ifd_prefix")) and not names:
        told = next(iter(options))
        raise InputError(f"{told} is for criteria that are given by name, as signals='ifd'; no name is given")
    named: dict[str, Criterion] = {}
    if names:
        settings = SignalOptions(_references(options.get("reference") or ()), options.get("ifd_prefix"))
        named = {one.name: one for one in _in_python(lambda: named_criteria(names, settings))}
    found: list[Criterion] = []
    for one in given:
        found += (
            [one] if isinstance(one, Criterion) else [named[name] for name in parse_names(str(one)) if name in named]
        )
    for one in found:
        if sum(other.name == one.name for other in found) > 1:
            raise InputError(f"signals names {one.name} twice")
    return tuple(found)


def _several(signals: object) -> tuple[object, ...]:
    if signals is None:
        return ()
    if isinstance(signals, str):
        if not parse_names(signals):
            raise InputError(f"signals is {signals!r}; name criteria, as signals='ifd,el2n', or leave it out")
        return (signals,)
    if isinstance(signals, Criterion | type) or not isinstance(signals, Iterable):
        return (signals,)
    if isinstance(signals, AbstractSet):
        raise InputError("signals is a set, which has no order; give a list")
    return tuple(signals)


def _references(reference: object) -> tuple[str, ...]:
    several = [reference] if isinstance(reference, str | Path) else reference
    if not isinstance(several, Sequence) or not all(isinstance(one, str | Path) for one in several):
        raise InputError(f"reference takes files, globs or hub ids, got {reference!r:.80}")
    return tuple(str(one) for one in several)


def carried(carry: object) -> tuple[str, ...]:
    """The columns of ``Scorer(carry=…)``: names separated by commas, or a sequence of names.

    Raises:
        InputError: they are not distinct names.
    """
    if isinstance(carry, str):
        return _in_python(lambda: ColumnSettings(carry=carry).carried)
    names = tuple(carry) if isinstance(carry, Sequence) else (carry,)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise InputError(f"carry takes distinct names of columns, as carry=['source', 'lang'], got {carry!r}")
    return tuple(str(name) for name in names)


def dtype_name(dtype: object) -> str:
    """``"bfloat16"`` of ``torch.bfloat16``; a name stays as it is."""
    return str(dtype).removeprefix("torch.")


def number(name: str, value: object) -> float:
    """A real number as a float, which a manifest can record. Raises InputError: it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        remedy = f"; write {name}={value}" if isinstance(value, str) else ""
        raise InputError(f"{name} must be a number, got {value!r:.80}{remedy}")
    return float(value)


def whole(name: str, value: object) -> int:
    """A whole number as an int. Raises InputError: it is none."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # which refuses other types
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r:.80}") from None


def flag(name: str, value: object) -> bool:
    """True or false. Raises InputError for anything else, as for the text ``"off"``, which counts as true."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is True or False, got {value!r:.80}")
    return value


def _refuse_beside(options: Mapping[str, object], settings: str) -> None:
    for name in options:
        raise InputError(f"{name} is given beside {settings}; put it inside, as {settings.replace('…', f'{name}=…')}")


def _in_python(make: Callable[[], _T]) -> _T:
    """Make settings; an error names Python's arguments instead of the options of the command line."""
    try:
        return make()
    except InputError as error:
        raise InputError(_OPTION.sub(_argument, str(error))) from None


_OPTION = re.compile(r"--([a-z][a-z-]*)(?: ([A-Z]+)\b)?")


def _argument(option: re.Match[str]) -> str:
    name = option[1].replace("-", "_")
    return name if option[2] is None else f"{name}={option[2]}"


__all__ = [
    "CriterionOptions",
    "LoadingOptions",
    "MaskOptions",
    "PlainOptions",
    "ScorerOptions",
    "UpdateOptions",
    "carried",
    "column_map",
    "criteria_of",
    "divided",
    "dtype_name",
    "flag",
    "mask_settings",
    "number",
    "update_settings",
    "whole",
]
