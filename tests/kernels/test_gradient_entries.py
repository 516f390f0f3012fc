"""Entries of the gradient at a few rows of the vocabulary equal those of float64 autograd."""

from __future__ import annotations

import pytest
import torch

from donod_fast.errors import InputError
from donod_fast.kernels.arguments import MIB
from donod_fast.kernels.gradient_entries import gradient_entries

VOCAB, DIM = 23_000, 24
LENGTHS = [5, 0, 70, 1]


def inputs(scale: float = 4.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    tokens = sum(LENGTHS) + 2
    hidden = torch.randn(tokens, DIM, generator=generator)
    weight = scale * torch.randn(VOCAB, DIM, generator=generator) / DIM**0.5
    labels = torch.randint(0, VOCAB, (tokens,), generator=generator)
    labels[5:7] = -100  # the second sample has tokens, none of them scored
    bounds = torch.tensor([0, 5, 7, 77, 78], dtype=torch.int32)
    vocabulary = torch.cat([labels[[0, 20]], torch.tensor([0, VOCAB - 1, 7, 9_999, 7])])
    return hidden, weight, labels, bounds, vocabulary


@pytest.mark.parametrize("workspace", [MIB, 256 * MIB])
@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": "sum"}, {"softcap": 20.0, "logit_scale": 0.5}, {"logit_scale": -1.5}],
    ids=["mean", "sum", "soft-cap", "negative scale"],
)
def test_they_equal_autograd(options: dict[str, object], workspace: int) -> None:
    hidden, weight, labels, bounds, vocabulary = inputs()
    found = gradient_entries(hidden, weight, labels, bounds, vocabulary, workspace_bytes=workspace, **options)  # type: ignore[arg-type]
    assert found.shape == (4, len(vocabulary), DIM)
    cap, scale = options.get("softcap"), float(options.get("logit_scale", 1.0))  # type: ignore[arg-type]
    for sample in range(4):
        rows = slice(int(bounds[sample]), int(bounds[sample + 1]))
        leaf = weight.double().requires_grad_()
        logits = scale * hidden[rows].double() @ leaf.t()
        if cap is not None:
            logits = float(cap) * torch.tanh(logits / float(cap))  # type: ignore[arg-type]
        kept = labels[rows] != -100
        if not kept.any():
            assert found[sample].isnan().all()
            continue
        how = str(options.get("reduction", "mean"))
        torch.nn.functional.cross_entropy(logits[kept], labels[rows][kept], reduction=how).backward()
        assert leaf.grad is not None
        wanted = leaf.grad[vocabulary]
        torch.testing.assert_close(found[sample].double(), wanted, rtol=2e-4, atol=1e-5 * float(wanted.abs().max()))


def test_rows_outside_the_vocabulary_are_refused() -> None:
    hidden, weight, labels, bounds, _ = inputs()
    for wrong in (torch.tensor([VOCAB]), torch.tensor([-1]), torch.tensor([0.0]), torch.tensor([[0]])):
        with pytest.raises(InputError, match="vocabulary"):
            gradient_entries(hidden, weight, labels, bounds, wrong)
    assert gradient_entries(hidden, weight, labels, bounds, torch.tensor([], dtype=torch.int64)).shape == (4, 0, DIM)
