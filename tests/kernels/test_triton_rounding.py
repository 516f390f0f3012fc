"""The rounding of a large head's signals and packed hidden states keeps the bounds, by an emulation against float64.

The interpreter takes too long for a head whose signals are bfloat16 (from 2²³ elements on). So E is made here, in
float64 with the documented errors of the device's approximations; packing is the kernel's own.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from triton_cases import interpreted

from donod_fast.kernels.triton_backend import pack
from donod_fast.kernels.triton_backend.layout import Group, make_layout

pytestmark = interpreted

VOCAB, DIM = 27648, 304
BOUND = 1e-4  # of NOD, for bfloat16 inputs
ULP = 2.0**-23


def off_by(x: Tensor, ulps: float, generator: torch.Generator) -> Tensor:
    """Relative errors up to so many units in the last place of float32."""
    error = 2.0 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1.0
    return x * (1.0 + ulps * ULP * error)


def tokens_of(count: int, margins: tuple[float, ...] | None) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, W and labels, with values of bfloat16; label logits of ``margins`` in turn."""
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(VOCAB, DIM, generator=generator) * (0.7 / DIM**0.5)).bfloat16()
    labels = torch.randint(VOCAB, (count,), generator=generator)
    hidden = torch.randn(count, DIM, generator=generator)
    if margins is not None:
        own = weight[labels].float()
        wanted = torch.tensor(margins)[torch.arange(count) % len(margins)]
        hidden = 0.05 * hidden + own * (wanted / own.square().sum(1)).unsqueeze(1)
    return hidden.bfloat16(), weight, labels


def packed_states(hidden: Tensor, share: Tensor) -> Tensor:
    """Hidden states times their share as the kernel packs them, in float64."""
    count = len(hidden)
    layout = make_layout(torch.zeros(count, dtype=torch.long), torch.tensor([0, count]), 32)
    slots = layout.slot_row.shape[0]
    packed = torch.empty(slots, DIM, dtype=torch.bfloat16)
    pack.launch_pack(
        hidden, torch.nn.functional.pad(share, (0, slots - count)), layout, Group(0, 1, count, slots), packed
    )
    return packed[:count].double()


@pytest.mark.parametrize("eps", ["far below", "median"])
@pytest.mark.parametrize(
    ("count", "margins", "rest"),
    [
        # A share just above a power of two is lost in bfloat16 if it is rounded to nearest.
        (1, None, 1.0 / (1.0 + 0.9 * 2.0**-9)),
        (1, None, 1.0 + 0.9 * 2.0**-8),
        (1, (-30.0,), None),
        (1, (25.0,), None),
        (20, None, None),
        (20, (25.0, 45.0, 30.0, 29.0, 100.0), None),
        (20, (0.0, 25.0, -30.0, 3.0), None),
    ],
    ids=["lost", "label-lost", "surprising", "confident", "random", "all-confident", "mixed"],
)
def test_rounded_signals_and_states_keep_the_bound_of_adamw(
    count: int, margins: tuple[float, ...] | None, rest: float | None, eps: str
) -> None:
    hidden, weight, labels = tokens_of(count, margins)
    generator, index = torch.Generator().manual_seed(1), labels.unsqueeze(1)
    z = hidden.double() @ weight.double().T
    label_z, others = z.gather(1, index).squeeze(1), z.scatter(1, index, -math.inf)
    log_rest = others.logsumexp(1)
    log_miss = -torch.nn.functional.softplus(label_z - log_rest, threshold=100.0)
    relative = (log_miss - log_miss.max()).exp()
    exact = (others - log_rest.unsqueeze(1)).exp().scatter(1, index, -1.0) * relative.unsqueeze(1)

    far = (log_rest - label_z).abs() > 30.0
    reference = torch.where(far, others.max(1).values, label_z) if rest is None else log_rest - math.log(rest)
    e = off_by((others - reference.unsqueeze(1)).exp(), 2.0, generator)  # ex2.approx.ftz
    total = e.sum(1)
    signals = e.scatter(1, index, -total.unsqueeze(1)).bfloat16().double()
    states = packed_states(hidden, (relative / total).float())

    sums = torch.zeros(4, dtype=torch.float64)
    small = None
    for first in range(0, VOCAB, 4096):
        part = slice(first, first + 4096)
        g, found = exact[:, part].T @ hidden.double(), signals[:, part].T @ states
        if small is None:
            small = float(g.abs().median()) if eps == "median" else 1e-8 * float(g.abs().max())
        w = weight[part].double()
        u = g / (g.abs() + small)
        v = off_by(found / (found.abs() + small), 1.5, generator)  # rcp.approx.ftz and a product
        sums += torch.stack([(u * u).sum(), (u * w).sum(), (v * v).sum(), (v * w).sum()])
    squares, dots, found_squares, found_dots = sums
    don = (found_dots - dots).abs() / (weight.double().norm() * squares.sqrt())
    nod = ((found_squares / squares).sqrt() - 1.0).abs()
    assert float(don) <= BOUND, f"DON is off by {float(don):.1e} of NOD"
    assert float(nod) <= BOUND, f"NOD is off by {float(nod):.1e}"
