"""What a scoring run is asked to compute, as one checked value that a manifest can record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError

if TYPE_CHECKING:
    import torch

    from donod_fast.kernels import Update

UPDATES = ("adamw", "sgd", "sign")
REDUCTIONS = ("mean", "sum")
STORAGE_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """The one-step update that scores a sample (design of DONOD, arXiv 2504.14810, §3.2).

    Attributes:
        update: ``"adamw"`` from fresh state (the default), ``"sgd"`` or ``"sign"``.
        lr: learning rate of the step.
        weight_decay: λ of W′ = W − lr (U + λW).
        eps: AdamW's eps; ignored by the others.
        reduction: ``"mean"`` or ``"sum"`` of the token losses of a sample.
        storage_dtype: name of the dtype that W′ is rounded to before the norms, or None.

    Raises:
        InputError: names the setting with a wrong value.
    """

    update: str = "adamw"
    lr: float = 2e-5
    weight_decay: float = 0.0
    eps: float = 1e-8
    reduction: str = "mean"
    storage_dtype: str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("update", self.update, UPDATES),
            ("reduction", self.reduction, REDUCTIONS),
            ("storage dtype", self.storage_dtype, (*STORAGE_DTYPES, None)),
        ):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
        if not 0.0 < self.lr < float("inf"):
            raise InputError(f"lr must be finite and > 0, got {self.lr}")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise InputError(f"weight decay must be finite and ≥ 0, got {self.weight_decay}")
        if not 0.0 < self.eps < float("inf"):
            raise InputError(f"eps must be finite and > 0, got {self.eps}")

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able record of the settings."""
        return asdict(self)

    def rule(self) -> Update:
        """The update rule, as ``don_nod`` takes it."""
        from donod_fast.kernels import SGD, AdamW, Sign

        rules: dict[str, Update] = {"adamw": AdamW(eps=self.eps), "sgd": SGD(), "sign": Sign()}
        return rules[self.update]

    def rounding(self) -> torch.dtype | None:
        """The dtype that W′ is rounded to before the norms, as ``don_nod`` takes it."""
        import torch

        return None if self.storage_dtype is None else getattr(torch, self.storage_dtype)


__all__ = ["REDUCTIONS", "STORAGE_DTYPES", "UPDATES", "UpdateSettings"]
