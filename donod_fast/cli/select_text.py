"""What ``donod-fast select`` says about a subset: counts, groups, duplicates, and how like the corpus it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from donod_fast.cli import output
from donod_fast.scoring.settings import DEFAULT_NORMALISE
from donod_fast.selection.column_methods import BY_TOPSIS
from donod_fast.selection.settings import CLUSTER_BALANCED, KMEANS_IFD, RankOptions
from donod_fast.selection.settings.variety import EXACT, KINDS, MINHASH
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.selection.out_of_core import GroupCount
    from donod_fast.selection.rankers import Kept
    from donod_fast.selection.similar_sets import SimilarSets

STDOUT = "-"
"""The name of standard output."""
_SHOWN_GROUPS = 20


def summary_text(summary: Mapping[str, Any], options: RankOptions, kept: Kept) -> str:
    """What was kept and what was left out, and a table of the groups if there are any."""
    left_out: Mapping[str, int] = summary["left_out"]
    without = summary["rows"] - summary["scored"] - sum(left_out.values())
    reasons = [f"{plural(rows, 'row')} with {reason} {_are(rows)} left out" for reason, rows in left_out.items()]
    if without:
        reasons.append(
            f"{plural(without, 'row')} {'has' if without == 1 else 'have'} no score and {_are(without)} left out"
        )
    where = "standard output" if summary["out"] == STDOUT else summary["out"]
    lines = [
        f"{summary['kept']:,} of {plural(summary['scored'], 'scored row')} by {_method_text(options)} → {where}"
        + (f" ({'; '.join(reasons)})" if reasons else "")
    ]
    if summary["json_columns"]:
        lines.append(output.json_columns(summary["json_columns"]))
    lines += map(_sets_text, kept.sets)
    if any(sets.kind in KINDS and len(sets) for sets in kept.sets):
        lines.append(_filled_text(kept))
    if options.by is not None:
        lines.append(_by_group(options.by, kept.groups))
    if options.method == CLUSTER_BALANCED:
        lines.append(_by_group("cluster", kept.groups, "usable"))
    if options.method == KMEANS_IFD:
        lines.append(_by_group("cluster", kept.groups, "IFD < 1"))
        if none := sum(not group.kept for group in kept.groups):
            lines.append(
                f"{none:,} of {plural(len(kept.groups), 'cluster')} keep no row: too few of their rows have an IFD "
                "below 1"
            )
    return "\n".join(lines)


def _method_text(options: RankOptions) -> str:
    """The method, and what TOPSIS divided the columns by where it is not the default."""
    other = options.method in BY_TOPSIS and options.normalise != DEFAULT_NORMALISE
    return f"{options.method} (columns by {options.normalise})" if other else options.method


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _sets_text(sets: SimilarSets) -> str:
    """One kind of sets in a line."""
    if sets.kind not in KINDS:
        chosen = f"spread by {sets.kind} over the embeddings of {plural(sets.compared, 'candidate')}"
        return chosen + (f"; {plural(sets.without, 'candidate')} without one come last" if sets.without else "")
    what = {EXACT: "equal texts", MINHASH: "nearly equal texts"}.get(sets.kind, "nearly equal questions")
    least = "" if sets.threshold is None else f", similarity {sets.threshold:g} or more"
    found = f"{plural(len(sets), 'set') if len(sets) else 'no set'} of {what} among the ranked rows"
    members = (
        f": {sets.rows:,} rows, of which {len(sets.dropped):,} are duplicates of a better row" if len(sets) else ""
    )
    lacking = "embedding" if sets.kind not in (EXACT, MINHASH) else "text"
    without = f"; {plural(sets.without, 'row')} without {'an' if lacking[0] == 'e' else 'a'} {lacking}"
    return f"{found} ({sets.kind}{least}){members}" + (without if sets.without else "")


def _filled_text(kept: Kept) -> str:
    """How many duplicates were passed over, and whether the rest was enough."""
    passed = f"{plural(kept.passed_over, 'duplicate')} {_were(kept.passed_over)} passed over"
    return passed + (
        f"; no others are left for {plural(kept.missing, 'row')} that --keep asks for" if kept.missing else ""
    )


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _by_group(by: str, groups: Sequence[GroupCount], scored: str = "scored") -> str:
    """A table of the largest groups; ``scored`` is the heading of the rows that could be kept."""
    largest = sorted(groups, key=lambda group: -group.scored)[:_SHOWN_GROUPS]
    lines = [
        ("(none)" if group.name is None else group.name, f"{group.kept:,}", f"{group.scored:,}", f"{group.rows:,}")
        for group in largest
    ]
    shown = output.table((by, "kept", scored, "rows"), lines)
    rest = len(groups) - len(largest)
    return shown + (f"\n… and {plural(rest, 'smaller group')} (--json shows all)" if rest else "")


__all__ = ["STDOUT", "summary_text"]
