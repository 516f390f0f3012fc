"""The folder of an evaluation by lm-eval: a :class:`ResultFolder` with ``items.jsonl``, a line for each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from donod_fast.evaluation.result_folder import ResultFolder
from donod_fast.system.checked_json import DamagedError, checked_line

ITEMS = "items.jsonl"

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "set": (str,),
    "item": (int,),
    "tokens": (int,),
    "cut": (bool,),
}
_OUTCOMES: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "loglikelihoods": {"acc": (int,), "acc_norm": (int,), "gold": (str,), "choice": (str,), "loglikelihoods": (list,)},
    "answer": {"acc": (int,), "gold": (str,), "choice": (str, type(None)), "answer": (str,)},
    "response": {"key": (int,), "kinds": (list,), "strict": (list,), "loose": (list,), "response": (str,)},
}
"""The fields of an outcome, by the one that only this kind of outcome has."""


class HarnessFolder(ResultFolder):
    """A folder with a complete or partial evaluation."""

    appended: ClassVar[tuple[str, ...]] = (ITEMS,)
    remedies: ClassVar[Mapping[str, str]] = {ITEMS: "remove this line and evaluate again, which asks this item again"}

    def items(self) -> list[dict[str, Any]]:
        """The lines of the items that were answered, each item once. Raises StoreError."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for line in self.lines(ITEMS, item_of):
            found.setdefault((line["set"], line["item"]), line)
        return list(found.values())

    def finish(self, items: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> None:
        """Write the items in their order, and the result last."""
        self.write_finished({ITEMS: b"".join(map(checked_line, items))}, result)


def item_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a line.

    Raises:
        DamagedError: a field is missing, unknown or wrong; names it.
    """
    kind = next((name for name in _OUTCOMES if name in line), None)
    if kind is None:
        raise DamagedError(f"it has none of {', '.join(_OUTCOMES)}")
    fields = {**_FIELDS, **_OUTCOMES[kind]}
    for name in line.keys() - fields.keys():
        raise DamagedError(f"{name}: no item has such a field")
    for name, kinds in fields.items():
        if name not in line:
            raise DamagedError(f"{name}: it is missing")
        if type(line[name]) not in kinds:
            raise DamagedError(f"{name}: it is a {type(line[name]).__name__}, not a {kinds[0].__name__}")
    for name in ("acc", "acc_norm"):
        if line.get(name, 0) not in (0, 1):
            raise DamagedError(f"{name}: it is {line[name]}, not 0 or 1")
    for name in ("strict", "loose"):
        if name in line and (len(line[name]) != len(line["kinds"]) or not all(one in (0, 1) for one in line[name])):
            raise DamagedError(f"{name}: it is no list of 0 and 1, one for each of kinds")
    if not all(type(one) in (int, float) for one in line.get("loglikelihoods", ())):
        raise DamagedError("loglikelihoods: it is no list of numbers")
    if not all(isinstance(one, str) for one in line.get("kinds", ())):
        raise DamagedError("kinds: it is no list of names")
    return dict(line)


__all__ = ["ITEMS", "HarnessFolder", "item_of"]
