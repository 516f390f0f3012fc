"""The groups of the paper's table, and its averages (arXiv 2504.14810, Table 6).

Logic is LSAT-AR, LSAT-LR and LogiQA; Reading is LSAT-RC and SAT-en; Math is AQuA-RAT and SAT-Math; IFEval is a group of
its own. A group's figure is the mean of its sets. *Non-Target* is the mean of the groups that are not the target of the
training: it reproduces the paper's figures. For *All Avg* neither the mean of groups nor that of sets reproduces the
paper's figures, so both are given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

IFEVAL = "ifeval"

GROUPS: Mapping[str, tuple[str, ...]] = {
    "logic": ("lsat-ar", "lsat-lr", "logiqa-en"),
    "reading": ("lsat-rc", "sat-en"),
    "math": ("aqua-rat", "sat-math"),
    IFEVAL: (IFEVAL,),
}
"""Sets by group."""


def averages(sets: Mapping[str, Any]) -> dict[str, Any]:
    """Groups and averages of figures by set.

    Args:
        sets: a figure of each set, for example its accuracy, or an array of figures. A group counts only if all of its
            sets are there.

    Returns:
        ``groups`` by name; ``non_target`` by target, for each group if at least two are there; ``all_groups`` and
        ``all_sets``, the two means, if all eight sets are there (else None).
    """
    groups = {
        name: _mean([sets[one] for one in members])
        for name, members in GROUPS.items()
        if all(one in sets for one in members)
    }
    whole = len(groups) == len(GROUPS)
    return {
        "groups": groups,
        "non_target": {
            target: _mean([value for name, value in groups.items() if name != target])
            for target in groups
            if len(groups) > 1
        },
        "all_groups": _mean(groups.values()) if whole else None,
        "all_sets": _mean([sets[one] for members in GROUPS.values() for one in members]) if whole else None,
    }


def _mean(figures: Collection[Any]) -> Any:
    return sum(figures) / len(figures)


__all__ = ["GROUPS", "IFEVAL", "averages"]
