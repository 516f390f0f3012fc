"""The number of rows to keep of each group."""

from __future__ import annotations

from collections.abc import Sequence

from donod_fast.selection.keeping import kept_count


def shares(keep: float | int, scored: Sequence[int]) -> list[int]:
    """The number of rows to keep of each group, given the number of its scored rows.

    A fraction applies to each group, rounded as in ``keeping.keep``; a group with scored rows keeps at least one. A
    count is divided in proportion (largest remainder method; ties go to the larger group, then to the earlier one),
    so that the sum is the count.

    Raises:
        InputError: a count or a fraction out of range.
    """
    total = sum(scored)
    if isinstance(keep, float) or total == 0:
        return [kept_count(keep, rows) if rows else 0 for rows in scored]
    count = kept_count(keep, total)
    given = [count * rows // total for rows in scored]
    left = count - sum(given)

    def rank(group: int) -> tuple[int, int, int]:
        return -(count * scored[group] % total), -scored[group], group

    for group in sorted(range(len(scored)), key=rank)[:left]:
        given[group] += 1
    return given


__all__ = ["shares"]
