"""Update rules for scoring: W′ = W − lr · (U(G) + weight_decay · W).

U is the direction of one optimizer step on the gradient G of a single sample. Weight decay enters DON and NOD in closed
form (see ``scores.py``), so the rules here do not contain it. For AdamW it is the decoupled decay of
``torch.optim.AdamW``; for SGD the same formula equals the coupled decay of ``torch.optim.SGD``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from donod_fast.errors import InputError, suggest

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class AdamState:
    """State of AdamW before the step: first and second moments and the number of steps already taken.

    Attributes:
        exp_avg: (vocab, dim) first moment m, any floating dtype.
        exp_avg_sq: (vocab, dim) second moment v ≥ 0, any floating dtype.
        step: steps already taken, ≥ 0.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class AdamW:
    """One AdamW step. From fresh state (``state=None``) it is U = G / (|G| + eps) for any betas.

    Raises:
        InputError: for betas outside [0, 1), eps ≤ 0, or a state with a negative step.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    state: AdamState | None = None

    name = "adamw"
    linear = False

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise InputError(f"update: AdamW's betas must be two numbers in [0, 1), got {self.betas}")
        if not 0.0 < self.eps < float("inf"):
            raise InputError(f"update: AdamW's eps must be finite and > 0, got {self.eps} (for eps → 0 use Sign)")
        if self.state is not None and self.state.step < 0:
            raise InputError(f"update: AdamW's state.step must be ≥ 0, got {self.state.step}")


@dataclass(frozen=True, slots=True, eq=False)
class FactoredAdamW:
    """AdamW whose second moment is known from a corpus, factored by row and column: U = G / √v̂, v̂ = r cᵀ / Σr.

    The factors are those of Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, eq. 4): r_v the mean over samples of
    Σ_s (G_vs² + eps²), c_s that of Σ_v (G_vs² + eps²). U is linear in G, so ‖U‖² needs two Gram matrices and ⟨W,U⟩ one
    more logits product, and no gradient is formed.

    It differs from a step of ``torch.optim.AdamW`` with the whole state in four things. v is of rank 1. The momentum m
    is 0, and the factor 1 − beta1 of the gradient is left out, as in the first step. The sample's own G² is not mixed
    into v. eps is inside the root.

    Attributes:
        rows: (vocab,) r > 0, any floating dtype.
        columns: (dim,) c > 0, any floating dtype.

    Raises:
        InputError: the factors are no floating vectors.
    """

    rows: Tensor
    columns: Tensor

    name = "adamw-warm"
    linear = True

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            factor = getattr(self, name)
            if factor.ndim != 1 or not factor.is_floating_point():
                raise InputError(
                    f"update: {name} of FactoredAdamW must be a floating vector, got {factor.dtype} "
                    f"{tuple(factor.shape)}"
                )

    def divisors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(vocab,) and (dim,) factors of 1 / √v̂: U = rows[:, None] · G · columns."""
        rows, columns = self.rows.double(), self.columns.double()
        return (rows.sum() / rows).sqrt().to(dtype), columns.rsqrt().to(dtype)


@dataclass(frozen=True, slots=True)
class SGD:
    """Plain gradient descent without momentum: U = G. Linear in G, so it needs no gradient tile."""

    name = "sgd"
    linear = True


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign descent: U = sign(G), the limit of a fresh AdamW step for eps → 0."""

    name = "sign"
    linear = False


Update = AdamW | FactoredAdamW | SGD | Sign

_BY_NAME: dict[str, type[AdamW] | type[SGD] | type[Sign]] = {"adamw": AdamW, "sgd": SGD, "sign": Sign}


def resolve_update(update: str | Update) -> Update:
    """Return the update object for a name (``"adamw"``, ``"sgd"``, ``"sign"``) or pass an object through.

    Raises:
        InputError: for another name or type.
    """
    if isinstance(update, (AdamW, FactoredAdamW, SGD, Sign)):
        return update
    if isinstance(update, str) and update in _BY_NAME:
        return _BY_NAME[update]()
    raise InputError(_why_no_update(update))


def _why_no_update(update: object) -> str:
    if isinstance(update, str) and update == FactoredAdamW.name:
        return f"update {update!r} needs its state: pass a FactoredAdamW object"
    if isinstance(update, type) and update in (AdamW, FactoredAdamW, SGD, Sign):
        return f"update is the class {update.__name__}; pass an object of it, as update={update.__name__}()"
    known = f"update must be one of {sorted(_BY_NAME)} or an AdamW, SGD or Sign object"
    kind = update if isinstance(update, type) else type(update)
    if kind.__module__.partition(".")[0] == "torch" and kind.__name__ in ("AdamW", "SGD"):
        return (
            f"{known}, got torch's optimizer {kind.__name__}; the step that scores is donod_fast.{kind.__name__}(), "
            "and its learning rate is lr"
        )
    return f"{known}, got {update!r}{suggest(update, _BY_NAME) if isinstance(update, str) else ''}"
