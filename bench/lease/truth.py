"""(c) The shipped tiles on the device against float64 autograd with a real optimizer step, on the device too.

The smallest head with rounded error signals (V d ≥ 2²³) whose hidden dimension is ragged and aligned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from donod_fast.kernels import AdamState, AdamW, DonNod, don_nod, gradient_products, reference_don_nod
from lease.rows import Setting, digits

BOUND = 1e-4  # of NOD, for bfloat16 input (docs/concepts/exactness.md)
_SHORT, _LONG = (1, 150, 0, 30, 200), (700, 3, 400)


@dataclass(frozen=True, slots=True)
class TruthCase:
    """A call that must keep its bound.

    Attributes:
        margins: nats by which labels exceed the other logits, in turn; none: random logits.
        compared: "scores", or "products" of the batch with itself, whose diagonal is ‖G‖².
    """

    name: str
    lengths: tuple[int, ...] = _SHORT
    vocab: int = 27_648
    dim: int = 304
    update: str = "adamw"
    margins: tuple[float, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    compared: str = "scores"


CASES = (
    TruthCase("short"),
    TruthCase("short, confident", margins=(0.0, 9.0, 25.0, 45.0)),
    TruthCase("short, surprising", margins=(-30.0, -60.0, 3.0)),
    TruthCase("long", _LONG),
    TruthCase("sign", update="sign"),
    TruthCase("given state", update="state"),
    TruthCase("rounded step", options={"storage_dtype": torch.bfloat16, "lr": 1e-3}),
    TruthCase("soft-cap", options={"softcap": 20.0}),
    TruthCase("bias, scale", options={"bias": True, "logit_scale": 0.7}),
    TruthCase("streamed", _LONG, options={"workspace_bytes": 16 << 20}),
    TruthCase("pairs", update="sgd"),
    TruthCase("pairs, long, soft-cap", _LONG, update="sgd", options={"softcap": 20.0}),
    TruthCase("products", compared="products", update="sgd"),
    TruthCase("confident, d = 4096", (40, 3), 4096, 4096, margins=(25.0,)),
)


def run(setting: Setting) -> None:
    """Add a row for each case: the largest error of a sample, and whether it keeps the bound."""
    for case in (CASES[0], CASES[-2]) if setting.dry else CASES:
        setting.attempt(case.name, "error", lambda case=case: check(setting, case))


def check(setting: Setting, case: TruthCase) -> None:
    """Score a case and compare."""
    found, expected = score(setting, case), truth(setting, case)
    for name, (value, wanted, scale) in compared(found, expected).items():
        live = scale > 0
        error = float(((value - wanted).abs() / scale)[live].max())
        kept = error <= BOUND and bool(value[live].isfinite().all())
        setting.add(case.name, f"{name} error", value=digits(error), unit="relative",
                    note="kept" if kept else f"BROKEN: the bound is {BOUND}")  # fmt: skip


def compared(found: DonNod | Tensor, expected: DonNod) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """What is compared: found, wanted, and the unit of the error, (samples,) float64 each."""
    if isinstance(found, Tensor):
        wanted = expected.update_norm.square()
        return {"norm": (found.diagonal(), wanted, wanted)}
    return {
        "DON": (found.don, expected.don, expected.nod),
        "NOD": (found.nod, expected.nod, expected.nod),
        "loss": (found.loss, expected.loss, expected.loss),
    }


def score(setting: Setting, case: TruthCase) -> DonNod | Tensor:
    """The kernels' result."""
    hidden, weight, labels, bounds = _tensors(setting, case)
    options = _options(case, weight)
    if case.compared == "products":
        return gradient_products(hidden, labels, bounds, hidden, labels, bounds, weight, backend="triton")
    return don_nod(hidden, weight, labels, bounds, update=_update(case, weight), backend="triton", **options)


def truth(setting: Setting, case: TruthCase) -> DonNod:
    """The reference in float64 on the same values."""
    hidden, weight, labels, bounds = _tensors(setting, case)
    options = _options(case, weight)
    options.pop("workspace_bytes", None)
    if "bias" in options:
        options["bias"] = options["bias"].double()
    return reference_don_nod(hidden.double(), weight.double(), labels, bounds, update=_update(case, weight), **options)


def _tensors(setting: Setting, case: TruthCase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    vocab, dim = (300, 48) if setting.dry else (case.vocab, case.dim)
    lengths = [min(length, 9) for length in case.lengths] if setting.dry else case.lengths
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(vocab, dim, generator=generator) * (0.7 / dim**0.5)).bfloat16()
    bounds = [0, *accumulate(lengths)]
    labels = torch.randint(vocab, (bounds[-1],), generator=generator)
    hidden = torch.randn(bounds[-1], dim, generator=generator)
    if case.margins:
        own = weight[labels].float()
        wanted = torch.tensor(case.margins).repeat(len(labels))[: len(labels)]
        hidden = 0.01 * hidden + own * (wanted / own.square().sum(1)).unsqueeze(1)
    place = setting.device
    return hidden.bfloat16().to(place), weight.to(place), labels.to(place), torch.tensor(bounds, dtype=torch.int32)


def _options(case: TruthCase, weight: Tensor) -> dict[str, Any]:
    options = dict(case.options)
    if options.get("bias"):
        generator = torch.Generator().manual_seed(7)
        options["bias"] = torch.randn(weight.shape[0], generator=generator).to(weight.device)
    return options


def _update(case: TruthCase, weight: Tensor) -> Any:
    if case.update != "state":
        return case.update
    generator = torch.Generator().manual_seed(11)
    first = 1e-3 * torch.randn(weight.shape, generator=generator)
    second = first.square() + 1e-6 * torch.rand(weight.shape, generator=generator)
    return AdamW(state=AdamState(first.to(weight.device), second.to(weight.device), 3))
