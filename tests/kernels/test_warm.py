"""AdamW with a factored second moment: the step, and its estimate, against float64 autograd with the whole matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import FactoredAdamW, don_nod, reference_don_nod
from donod_fast.kernels.arguments import MIB
from donod_fast.kernels.second_moments import second_moments

LENGTHS = [5, 0, 170, 1, 40]
SHAPES = [(300, 24), (20_011, 16)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum", "weight_decay": 0.1},
    {"softcap": 20.0, "logit_scale": 0.5},
    {"logit_scale": -1.5},
    {"bias": True},
]


def inputs(vocab: int, dim: int, confident: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = sum(LENGTHS)
    weight = torch.randn(vocab, dim, generator=generator) / dim**0.5
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    hidden = torch.randn(tokens, dim, generator=generator)
    if confident:
        hidden = 12.0 * weight[labels] * dim**0.5 / weight[labels].norm(dim=1, keepdim=True) + 0.1 * hidden
    labels[1::7] = -100
    bounds = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32)
    return hidden, weight, labels, bounds


def with_bias(options: dict[str, Any], vocab: int) -> dict[str, Any]:
    bias = torch.linspace(-1, 1, vocab)
    return {**options, "bias": bias} if options.get("bias") else options


def state(vocab: int, dim: int) -> FactoredAdamW:
    """Factors over many orders of magnitude, as a corpus gives them: rare words have tiny ones."""
    generator = torch.Generator().manual_seed(1)
    rows = 10 ** (-14 * torch.rand(vocab, generator=generator, dtype=torch.float64))
    columns = 10 ** (-2 * torch.rand(dim, generator=generator, dtype=torch.float64))
    return FactoredAdamW(rows, columns * rows.sum() / columns.sum())


def double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


CASES = [
    *((SHAPES[0], options, workspace, False) for options in OPTIONS for workspace in (MIB, 256 * MIB)),
    *((SHAPES[1], {}, workspace, True) for workspace in (MIB, 256 * MIB)),
]
"""Shape, options, workspace, and whether tokens are confident; a head of 20,011 rows is streamed in one MiB."""


@pytest.mark.parametrize(("shape", "options", "workspace", "confident"), CASES)
def test_don_and_nod_are_those_of_the_whole_state(
    shape: tuple[int, int], options: dict[str, Any], workspace: int, confident: bool
) -> None:
    vocab, dim = shape
    tensors, update = inputs(vocab, dim, confident), state(vocab, dim)
    options = with_bias(options, vocab)
    found = don_nod(*tensors, update=update, workspace_bytes=workspace, backend="torch", **options)
    exact = {name: double(value) for name, value in options.items()}
    wanted = reference_don_nod(*map(double, tensors), update=update, **exact)
    scored = wanted.scored_tokens > 0
    assert found.nod[~scored].isnan().all() and scored.sum() == 4
    for name in ("don", "nod"):
        error = (getattr(found, name) - getattr(wanted, name)).abs()[scored] / wanted.nod[scored]
        assert float(error.max()) <= 1e-5, (name, error)
    torch.testing.assert_close(found.loss, wanted.loss, rtol=1e-5, atol=0, equal_nan=True)


def test_a_rounded_step_and_the_extras_are_those_of_the_reference() -> None:
    vocab, dim = SHAPES[0]
    tensors, update = inputs(vocab, dim), state(vocab, dim)
    exact = tuple(map(double, tensors))
    how: dict[str, Any] = {"storage_dtype": torch.bfloat16, "lr": 1e-2, "update": update}
    found, wanted = don_nod(*exact, **how), reference_don_nod(*exact, **how)
    torch.testing.assert_close(found.nod, wanted.nod, rtol=1e-9, atol=0, equal_nan=True)
    plain = don_nod(*tensors, update="sgd", extras=["gradient_norm", "error_norm"])
    warm = don_nod(*tensors, update=update, extras=["gradient_norm", "error_norm"])
    for name in ("gradient_norm", "error_norm"):
        torch.testing.assert_close(getattr(warm, name), getattr(plain, name), rtol=1e-6, atol=0, equal_nan=True)
    torch.testing.assert_close(warm.nod, don_nod(*tensors, update=update).nod, rtol=0, atol=0, equal_nan=True)


def test_the_step_is_linear_in_the_gradient() -> None:
    vocab, dim = SHAPES[0]
    tensors, update = inputs(vocab, dim), state(vocab, dim)
    flat = FactoredAdamW(torch.full((vocab,), 4.0), torch.full((dim,), 4.0 * vocab / dim))  # v is 4/d everywhere
    found, plain = don_nod(*tensors, update=flat), don_nod(*tensors, update="sgd")
    torch.testing.assert_close(
        found.update_norm, plain.update_norm * (dim / 4.0) ** 0.5, rtol=1e-5, atol=0, equal_nan=True
    )
    larger = FactoredAdamW(update.rows * 9.0, update.columns * 9.0)  # v times 9
    ratio = don_nod(*tensors, update=update).nod / don_nod(*tensors, update=larger).nod
    torch.testing.assert_close(ratio[~ratio.isnan()], torch.full((4,), 3.0, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("shape", "options", "workspace", "confident"), [case for case in CASES if "weight_decay" not in case[1]]
)
def test_second_moments_are_sums_of_squares_of_autograd(
    shape: tuple[int, int], options: dict[str, Any], workspace: int, confident: bool
) -> None:
    vocab, dim = shape
    hidden, weight, labels, bounds = inputs(vocab, dim, confident)
    options = with_bias(options, vocab)
    found = second_moments(hidden, weight, labels, bounds, workspace_bytes=workspace, **options)
    rows, columns = torch.zeros(vocab, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64)
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        leaf = weight.double().requires_grad_()
        kept = labels[start:stop] != -100
        if not kept.any():
            continue
        logits = hidden[start:stop][kept].double() @ leaf.t()
        if "bias" in options:
            logits = logits + options["bias"].double()
        logits = logits * options.get("logit_scale", 1.0)
        if "softcap" in options:
            logits = options["softcap"] * torch.tanh(logits / options["softcap"])
        torch.nn.functional.cross_entropy(logits, labels[start:stop][kept]).backward()
        assert leaf.grad is not None
        rows += leaf.grad.square().sum(1)
        columns += leaf.grad.square().sum(0)
    assert found.samples == 4
    torch.testing.assert_close(found.rows, rows, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.columns, columns, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.rows.sum(), found.columns.sum(), rtol=1e-4, atol=0)


def test_what_does_not_fit_is_refused_with_a_reason() -> None:
    vocab, dim = SHAPES[0]
    tensors, update = inputs(vocab, dim), state(vocab, dim)
    with pytest.raises(InputError, match="needs its state"):
        don_nod(*tensors, update="adamw-warm")
    with pytest.raises(InputError, match="rows must be"):
        don_nod(*tensors, update=FactoredAdamW(update.rows[1:], update.columns))
    with pytest.raises(InputError, match="columns must be"):
        don_nod(*tensors, update=FactoredAdamW(update.rows, update.rows))
    with pytest.raises(InputError, match="floating vector"):
        FactoredAdamW(update.rows[None], update.columns)
    for backend in ("triton", "inductor"):
        for extras in ([], ["gradient_norm"]):
            with pytest.raises(BackendError, match="adamw-warm"):
                don_nod(*tensors, update=update, backend=backend, extras=extras)
