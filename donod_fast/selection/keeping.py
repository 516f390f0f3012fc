"""How much of a ranking is kept: a fraction, a count, or the rows above a threshold of DON."""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING, cast

from donod_fast.errors import InputError
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from torch import Tensor

    from donod_fast.selection.ranking import Ranking

_log = logging.getLogger(__name__)


def keep(
    ranking: Ranking,
    *,
    keep: float | int | None = None,
    don_threshold: float | None = None,
    don_quantile: float | None = None,
) -> Tensor:
    """The row numbers to keep, (k,) int64, best first.

    Args:
        ranking: a result of :func:`donod_fast.selection.ranking.rank`.
        keep: a fraction (float, 0 < keep ≤ 1) of the *scored* rows, rounded half up and at least one
            (0.3 of 7,473 is 2,242), or a count (int ≥ 1); a count above the number of scored rows keeps
            them all and logs a warning. For every method but ``don-threshold``.
        don_threshold: keep the rows with DON ≥ this. For ``don-threshold`` only.
        don_quantile: keep the rows with DON ≥ its q-quantile over the scored rows (linear between
            order statistics, as numpy's default), 0 ≤ q ≤ 1. For ``don-threshold`` only.

    Raises:
        InputError: there is no scored row; not exactly one of the three arguments is given, or the method does not
            take it; a value is out of range.
    """
    scored = len(ranking.order)
    check_wanted(ranking.method, scored, ranking.total, keep, don_threshold, don_quantile)
    if keep is not None:
        return ranking.order[: kept_count(keep, scored)]
    if don_threshold is None:
        don_threshold = float(ranking.value[quantile_count(cast(float, don_quantile), scored) - 1])
    return ranking.order[ranking.value >= don_threshold]


def check_wanted(
    method: str,
    scored: int,
    total: int,
    keep: float | int | None,
    don_threshold: float | None,
    don_quantile: float | None,
) -> None:
    """Refuse arguments that :func:`keep` refuses.

    Raises:
        InputError: see :func:`keep`.
    """
    if scored == 0:
        raise InputError(f"nothing to select from: none of the {plural(total, 'row')} has scores")
    if method != "don-threshold":
        if keep is None or don_threshold is not None or don_quantile is not None:
            raise InputError(f"method {method} takes keep; don_threshold and don_quantile are for don-threshold")
        return
    if keep is not None or (don_threshold is None) == (don_quantile is None):
        raise InputError("method don-threshold takes don_threshold or don_quantile, not keep; method don takes keep")
    if don_quantile is not None and not 0 <= don_quantile <= 1:
        raise InputError(f"don_quantile must be in [0, 1], got {don_quantile}")
    if don_threshold is not None and not math.isfinite(don_threshold):
        raise InputError(f"don_threshold must be a finite number, got {don_threshold}")


def parse_keep(text: str) -> float | int:
    """Parse how much to keep: ``"0.3"`` and ``"30%"`` are fractions, ``"300"`` is a count.

    ``"1"`` means one row; ``"1.0"`` and ``"100%"`` mean all rows.

    Raises:
        InputError: not a number, zero or less, or a fraction above one.
    """
    stripped = text.strip()
    forms = '"0.3" or "30%" for a fraction, "300" for a count'
    if re.fullmatch(r"[0-9]+", stripped):
        count = int(stripped) if len(stripped) <= 18 else 10**18
        if count == 0:
            raise InputError(f"keep {text!r} keeps nothing; write {forms}")
        return count
    if not re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*%?", stripped):
        raise InputError(f"keep {text!r} is not a number above zero; write {forms}")
    percent = stripped.endswith("%")
    fraction = float(stripped.rstrip("% ")) / (100 if percent else 1)
    if fraction == 0:
        raise InputError(f"keep {text!r} keeps nothing; write {forms}")
    if fraction > 1:
        raise InputError(f"keep {text!r} is a fraction above one; write {forms}")
    return fraction


def checked_share(keep: float | int | str) -> float | int:
    """How much to keep, as :func:`parse_keep` reads a text; refused before there are rows.

    Raises:
        InputError: it is neither a fraction nor a count.
    """
    share = parse_keep(keep) if isinstance(keep, str) else keep
    kept_count(share, share if isinstance(share, int) else 1)
    return share


def kept_count(keep: float | int, scored: int) -> int:
    """Number of scored rows that a fraction or a count keeps, at least one; see :func:`keep`."""
    if isinstance(keep, bool) or not isinstance(keep, (int, float)):
        raise InputError(f"keep must be a fraction (float) or a count (int), got {keep!r}")
    if isinstance(keep, int):
        if keep < 1:
            raise InputError(f"keep as a count must be at least 1, got {keep}")
        if keep > scored:
            _log.warning("keep asks for %d rows, but only %d are scored; all of them are kept", keep, scored)
        return min(keep, scored)
    if not 0 < keep <= 1:
        raise InputError(f"keep as a fraction must be in (0, 1], got {keep}; a count must be an integer")
    # 1e-9: a product that is 14.5 in decimals must not fall to 14 by its binary rounding
    return max(1, min(scored, math.floor(keep * scored + 0.5 + 1e-9)))


def quantile_count(quantile: float, scored: int) -> int:
    """Number of rows at or above the order statistic that is at or above the q-quantile.

    A threshold at that order statistic keeps the same rows as a threshold at the quantile.
    """
    return scored - math.ceil(quantile * (scored - 1) - 1e-9)


__all__ = ["check_wanted", "checked_share", "keep", "kept_count", "parse_keep", "quantile_count"]
