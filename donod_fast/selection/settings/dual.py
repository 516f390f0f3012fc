"""How the gradient interaction matrix is computed: settings as options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError
from donod_fast.selection.keeping import parse_keep
from donod_fast.selection.settings.names import CHOOSING, MIB, ORDERS, RUNNING
from donod_fast.system.options import option


def _names(given: list[str] | None) -> tuple[str, ...]:
    """Names that were given one by one, or several at once with commas."""
    return tuple(name for text in given or () for name in text.split(",") if name)


def _bytes(mebibytes: int) -> int:
    return mebibytes * MIB


@dataclass(frozen=True)
class DualSettings:
    """How the gradient interaction matrix is computed, and what is kept of it.

    Attributes:
        layers: see :func:`donod_fast.selection.dual.layers.choose_layers`.
        order: ``"first"`` or ``"second"`` (exact Gauss–Newton); utility, importance, subset and mask are of that order.
        lr: η. To first order it is a factor, and changes no choice.
        keep: fraction or count of the scored candidates for the subset.
        parameters: share of the entries of the chosen parameters for the mask.
        masks: format, template, which turns are scored, length limit; of candidates and reference alike.
        token_budget: slots of a batch.
        workspace_bytes: memory that the head computation may use.

    Raises:
        InputError: names the setting with a wrong value.
    """

    layers: tuple[str, ...] = option(
        text=[],
        parse=_names,
        help="Linear layers by name or glob, separated by commas; may be repeated.",
        panel=CHOOSING,
        shown="those of the last decoder layer, and the output layer",
    )
    order: str = option("first", help="Order of the expansion: first, or second (exact Gauss-Newton).", panel=CHOOSING)
    lr: float = option(0.01, help="Step size; it only weighs second order against first.", panel=CHOOSING)
    keep: float | int = option(
        text="0.3", parse=parse_keep, help="Size of the subset: 0.3 or 30% of the scored rows, or a count.",
        panel=CHOOSING,
    )  # fmt: skip
    parameters: float = option(0.1, help="Size of the mask: share of the entries of the chosen layers.", panel=CHOOSING)
    masks: MaskSettings = field(default_factory=MaskSettings)
    token_budget: int = option(2048, help="Token slots of a batch, padding included.", panel=RUNNING, minimum=1)
    workspace_bytes: int = option(
        text=256,
        parse=_bytes,
        name="workspace",
        help="Memory in MiB that the head computation may use.",
        panel=RUNNING,
        minimum=1,
    )

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant, before a model is loaded."""
        if self.order not in ORDERS:
            raise InputError(f"order must be first or second, got {self.order!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"lr must be a finite number above zero, got {self.lr!r}")
        if not 0.0 < self.parameters <= 1.0:
            raise InputError(f"the share of parameters must be above 0 and at most 1, got {self.parameters!r}")
        if self.token_budget < 1:
            raise InputError(f"token budget must be at least 1, got {self.token_budget}")


__all__ = ["DualSettings"]
