"""How many rows are kept, from which end, and in which order: settings as options."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError, suggest
from donod_fast.selection.column_methods import ENDS
from donod_fast.selection.keeping import parse_keep
from donod_fast.selection.settings.names import BY_EMBEDDINGS, CHOOSING, KMEANS_IFD, OUTPUT, RANKING, ROW_ORDERS
from donod_fast.selection.turn_names import turn_column
from donod_fast.system.options import option


@dataclass(frozen=True)
class PreferOptions:
    """Which end of a column is preferred.

    Attributes:
        prefer: ``"high"`` or ``"low"``; None for the better end of the column.

    Raises:
        InputError: ``prefer`` is neither.
    """

    prefer: str | None = option(
        None,
        help="For a column: prefer its high or its low values.",
        panel=RANKING,
        shown="its better end",
        completions=ENDS,
    )

    def __post_init__(self) -> None:
        if self.prefer is not None and self.prefer not in ENDS:
            raise InputError(f"--prefer must be {' or '.join(ENDS)}, got {self.prefer!r}{suggest(self.prefer, ENDS)}")

    def method(self, name: str) -> str:
        """The name of a method together with the preferred end.

        Raises:
            InputError: an end is preferred for a method that does not rank by one column.
        """
        if self.prefer is None:
            return name
        if name == KMEANS_IFD:
            raise InputError(f"method {KMEANS_IFD} keeps high IFDs; remove --prefer")
        if name in BY_EMBEDDINGS or turn_column(name) is not None:
            raise InputError(f"the order of method {name} is fixed; remove --prefer")
        return f"{name}@{self.prefer}"


@dataclass(frozen=True)
class KeepOptions(PreferOptions):
    """How many rows a subset has, and their order. See :class:`PreferOptions`.

    Attributes:
        keep: fraction of the ranked rows (float) or count (int); None for ``don-threshold`` and for the default of
            ``kmeans-ifd``.
        don_threshold: for ``don-threshold``: smallest DON to keep.
        don_quantile: for ``don-threshold``: smallest quantile of DON to keep.
        order: one of :data:`ROW_ORDERS`.

    Raises:
        InputError: names the setting with a wrong value.
    """

    keep: float | int | None = option(
        None,
        parse=parse_keep,
        help="How many rows to keep: 0.3 or 30% of the ranked rows, or a count. kmeans-ifd keeps 0.4 by default.",
        panel=CHOOSING,
    )
    don_threshold: float | None = option(None, help="For don-threshold: smallest DON to keep.", panel=CHOOSING)
    don_quantile: float | None = option(
        None, help="For don-threshold: smallest quantile of DON to keep.", panel=CHOOSING
    )
    order: str = option(
        ROW_ORDERS[0],
        help="Write rows in input order (input) or best first (best).",
        panel=OUTPUT,
        completions=ROW_ORDERS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_row_order(self.order)


def check_row_order(order: str) -> None:
    """Refuse an order that is not one of :data:`ROW_ORDERS`.

    Raises:
        InputError: names the orders.
    """
    if order not in ROW_ORDERS:
        raise InputError(f"order must be {' or '.join(ROW_ORDERS)}, got {order!r}{suggest(order, ROW_ORDERS)}")


__all__ = ["KeepOptions", "PreferOptions", "check_row_order"]
