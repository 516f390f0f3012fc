"""Output layers, hidden states and labels for the tests of the head mathematics, and their float64 truth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from donod_fast.kernels import IGNORE_INDEX, AdamState, AdamW, DonNod, reference_don_nod

MIB = 1 << 20
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Of NOD for DON and NOD, of itself for the loss (the contract; float64 is our own).
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-4, torch.float16: 1e-4, torch.float64: 1e-10}


class Case(NamedTuple):
    """The four tensors of a call: ``don_nod(*case)``."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    cu_seqlens: Tensor


def make_case(
    lengths: Sequence[int],
    vocab: int,
    dim: int,
    *,
    margins: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
    weight_dtype: torch.dtype | None = None,
    unscored: int = 1,
    device: str = "cpu",
    seed: int = 0,
) -> Case:
    """Samples of ``lengths`` scored tokens, each with ``unscored`` rows among them at random places.

    Args:
        margins: None for random logits, of order one. Else hidden states that are copies of their label's
            row of W, stretched so that its pre-activation is so many nats, in turn, token by token.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocab, dim, generator=generator) * (0.7 / dim**0.5)
    weight = weight.to(weight_dtype or dtype)
    rows, labels, bounds = [], [], [0]
    for length in lengths:
        targets = torch.randint(vocab, (length + unscored,), generator=generator)
        states = torch.randn(length + unscored, dim, generator=generator)
        if margins is not None:
            wanted = torch.tensor(list(islice(cycle(margins), length + unscored)))
            own = weight[targets].float()
            states = 0.01 * states + own * (wanted / own.square().sum(1)).unsqueeze(1)
        targets[torch.randperm(length + unscored, generator=generator)[:unscored]] = IGNORE_INDEX
        rows.append(states)
        labels.append(targets)
        bounds.append(bounds[-1] + length + unscored)
    hidden = torch.cat(rows).to(dtype)
    moved = (x.to(device) for x in (hidden, weight, torch.cat(labels), torch.tensor(bounds, dtype=torch.int32)))
    return Case(*moved)


def only(case: Case, samples: Sequence[int]) -> Case:
    """The case with these samples alone, in this order."""
    ends = case.cu_seqlens.tolist()
    rows = torch.cat([torch.arange(ends[i], ends[i + 1]) for i in samples])
    lengths = torch.tensor([0, *(ends[i + 1] - ends[i] for i in samples)])
    return Case(case.hidden[rows], case.weight, case.labels[rows], lengths.cumsum(0).int())


def make_bias(vocab: int, *, dtype: torch.dtype = torch.float32, seed: int = 7) -> Tensor:
    """(vocab,) of order one."""
    return torch.randn(vocab, generator=torch.Generator().manual_seed(seed)).to(dtype)


def make_state(case: Case, *, step: int = 3, scale: float = 1e-3, dtype: torch.dtype = torch.float32) -> AdamState:
    """Moments of the size that gradients of ``case`` have."""
    generator = torch.Generator().manual_seed(11)
    first = scale * torch.randn(case.weight.shape, generator=generator)
    # As of real moments, |first| ≤ √second: else a few elements are the whole of NOD.
    second = first.square() + scale**2 * torch.rand(case.weight.shape, generator=generator)
    return AdamState(first.to(dtype), second.to(dtype), step)


def truth(case: Case, **options: Any) -> DonNod:
    """The reference in float64 on the same values, on the CPU."""
    options.pop("workspace_bytes", None)
    options.pop("backend", None)
    if options.get("bias") is not None:
        options["bias"] = options["bias"].double().cpu()
    hidden, weight = case.hidden.double().cpu(), case.weight.double().cpu()
    return reference_don_nod(hidden, weight, case.labels.cpu(), case.cu_seqlens.cpu(), **options)


def bound_of(case: Case) -> float:
    """The contract's bound for the coarser of the two dtypes of a case."""
    return max(BOUNDS[case.hidden.dtype], BOUNDS[case.weight.dtype])


def assert_scores(found: DonNod, expected: DonNod, bound: float) -> None:
    """|DON error| and |NOD error| ≤ bound · NOD, loss and entropy to ``bound`` of themselves, NaN where NaN."""
    assert found.scored_tokens.tolist() == expected.scored_tokens.tolist()
    # The reference sums −p log p, which knows p_y to 1e-16 only; test_confident_tokens goes further by hand.
    for name, scale, slack in (
        ("don", expected.nod, 0.0),
        ("nod", expected.nod, 0.0),
        ("loss", expected.loss, 0.0),
        ("entropy", expected.entropy, 4e-16 * expected.scored_tokens),
        ("update_norm", expected.update_norm, 0.0),
    ):
        value, wanted = getattr(found, name).cpu().double(), getattr(expected, name).double()
        assert torch.equal(value.isnan(), wanted.isnan()), f"{name} is NaN elsewhere: {value} for {wanted}"
        error = (value - wanted).abs().nan_to_num(0.0)
        allowed = bound * scale.abs().nan_to_num(0.0) + slack
        worst = int((error - allowed).argmax())
        assert bool((error <= allowed).all()), (
            f"{name} of sample {worst} ({int(expected.scored_tokens[worst])} tokens) is {float(value[worst])!r}, "
            f"should be {float(wanted[worst])!r}: off by {float(error[worst] / scale[worst]):.2e} of its scale"
        )


def assert_identical(found: DonNod, expected: DonNod) -> None:
    """Every field equal bit by bit, NaN to NaN."""
    for name, value, wanted in zip(DonNod._fields, found, expected, strict=True):
        if value is None or wanted is None:
            assert value is wanted, name
            continue
        assert torch.equal(value.isnan(), wanted.isnan()), name
        assert torch.equal(value.nan_to_num(0.0), wanted.nan_to_num(0.0)), name


def every_update(case: Case) -> dict[str, Any]:
    """Each update by a readable name, AdamW also from a given state."""
    return {
        "adamw": "adamw",
        "adamw-eps": AdamW(betas=(0.5, 0.9), eps=1e-3),
        "adamw-state": AdamW(state=make_state(case)),
        "sgd": "sgd",
        "sign": "sign",
    }


UPDATES = ("adamw", "adamw-eps", "adamw-state", "sgd", "sign")


def gradients(case: Case, *, reduction: str = "mean", **head: Any) -> Tensor:
    """(samples, vocab · dim) float64 gradients by autograd; NaN without a scored token."""
    found = []
    for start, stop in pairwise(case.cu_seqlens.tolist()):
        weight = case.weight.double().requires_grad_(True)
        z = case.hidden[start:stop].double() @ weight.t()
        if "bias" in head:
            z = z + head["bias"].double()
        z = z * head.get("logit_scale", 1.0)
        if "softcap" in head:
            z = head["softcap"] * torch.tanh(z / head["softcap"])
        labels = case.labels[start:stop]
        if bool((labels == IGNORE_INDEX).all()):
            found.append(torch.full((weight.numel(),), torch.nan, dtype=torch.float64))
            continue
        loss = torch.nn.functional.cross_entropy(z, labels, ignore_index=IGNORE_INDEX, reduction=reduction)
        found.append(torch.autograd.grad(loss, weight)[0].flatten())
    return torch.stack(found)
